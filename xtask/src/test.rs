// SPDX-License-Identifier: MIT
//! `cargo xtask test`: everything that tests need, then all tests.
//!
//! Always true: the output ends with the test runner's own summary and one line that counts the tests
//! that skipped themselves. A test that cannot run here prints `skipped: NAME: reason` and passes; this
//! flow reads those lines back from the runner's record, so that a skip is never silent.

use crate::command::{Cmd, installed};
use crate::workspace::{self, Profile};
use crate::{build_igvm, tools};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Options of `test`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Installs nothing.
    #[arg(long)]
    no_install: bool,
    /// Only this package.
    #[arg(short, long)]
    package: Option<String>,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// Installs, builds, runs.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.no_install {
        tools::install();
    }
    build_programs()?;
    let scope = match &args.package {
        Some(package) => vec!["--package".to_owned(), package.clone()],
        None => vec!["--workspace".to_owned()],
    };
    let mut more = scope.clone();
    more.extend(args.filter.clone());
    if args.filter.is_none() && args.package.is_none() {
        doc_tests()?;
    }
    run_tests(&more)
}

/// The programs that end-to-end tests start.
pub(crate) fn build_programs() -> Result<()> {
    build_igvm::run(&build_igvm::Args::uefi_probe()).map(drop)
}

/// Examples in the documentation; the runner below does not know them.
pub(crate) fn doc_tests() -> Result<()> {
    Cmd::cargo(["test", "--locked", "--quiet", "--workspace", "--doc"]).run()
}

/// Runs tests with `scope` as the runner's arguments.
pub(crate) fn run_tests(scope: &[String]) -> Result<()> {
    let bin = workspace::binary("openvmm", Profile::Debug);
    let (runner, args): (_, &[&str]) = if installed("cargo-nextest") {
        ("nextest", &["nextest", "run", "--locked", "--no-tests=warn"])
    } else {
        ("libtest", &["test", "--locked", "--no-fail-fast"])
    };
    let mut cmd = Cmd::cargo(args)
        .args(scope)
        .env("OPENVMM_BIN", &bin.display().to_string())
        .env(
            "IGVMTOOL_BIN",
            &workspace::binary("igvmtool", Profile::Debug)
                .display()
                .to_string(),
        )
        .env(
            "OPENVMM_TOOLS",
            &tools::cargo_root().join("bin").display().to_string(),
        );
    if runner == "libtest" {
        cmd = cmd.args(["--lib", "--bins", "--tests", "--", "--show-output"]);
    }
    let record = workspace::target_dir().join("nextest/default/junit.xml");
    remove_old(&record)?;
    let (passed, held, printed) = stream(cmd)?;
    let recorded = std::fs::read_to_string(&record).unwrap_or_default();
    let skips = skip_lines(&[recorded, printed].concat());
    for skip in &skips {
        println!("{skip}");
    }
    for line in held {
        println!("{line}");
    }
    println!("{} tests skipped themselves", skips.len());
    if !passed {
        bail!("tests failed");
    }
    Ok(())
}

fn remove_old(record: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(record) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", record.display()))
        }
        _ => Ok(()),
    }
}

/// Passes the runner's output on, but holds back its summary: (passed, summary lines, everything else).
fn stream(cmd: Cmd) -> Result<(bool, Vec<String>, String)> {
    eprintln!("$ {}", cmd.text());
    let text = cmd.text().to_owned();
    let mut child = cmd
        .into_inner()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {text}"))?;
    let out = BufReader::new(child.stdout.take().context("no standard output")?);
    let err = BufReader::new(child.stderr.take().context("no standard error")?);
    let other = std::thread::spawn(move || {
        let mut all = String::new();
        for line in out.lines().map_while(Result::ok) {
            println!("{line}");
            all.push_str(&line);
            all.push('\n');
        }
        all
    });
    let mut held: Vec<String> = Vec::new();
    for line in err.lines().map_while(Result::ok) {
        if held.is_empty() && !line.trim_start().starts_with("Summary [") {
            println!("{line}");
        } else {
            held.push(line);
        }
    }
    let printed = other.join().unwrap_or_default();
    let status = child.wait().with_context(|| format!("cannot wait for {text}"))?;
    Ok((status.success(), held, printed))
}

/// The lines that tests print when they cannot run here, each once.
fn skip_lines(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| Some(line[line.find("skipped: ")?..].to_owned()))
        .filter(|line| line.matches(": ").count() >= 2)
        .map(|line| line.split("</").next().unwrap_or_default().trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::skip_lines;

    #[test]
    fn skips_are_found_in_the_record() {
        let xml = "<system-out>\nskipped: boots_on_kvm: no /dev/kvm</system-out>\n\
                   1 passed; 0 skipped: nothing\nskipped: boots_on_kvm: no /dev/kvm\n";
        let lines: Vec<_> = skip_lines(xml).into_iter().collect();
        assert_eq!(lines, ["skipped: boots_on_kvm: no /dev/kvm"]);
    }
}
