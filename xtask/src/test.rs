// SPDX-License-Identifier: MIT
//! `cargo xtask test`: everything that tests need, then all tests.
//!
//! Always true: the output ends with the test runner's own summary and one line that counts the tests
//! that skipped themselves. A test that cannot run here prints `skipped: NAME: reason` and passes; this
//! flow reads those lines back from the runner's record, so that a skip is never silent.

use crate::command::{Cmd, installed};
use crate::workspace::{self, Profile};
use crate::{build_igvm, debian, tools};
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
    #[command(flatten)]
    processor: Processor,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// What guests of end-to-end tests run on.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Processor {
    /// Only on this hypervisor, `kvm` or `soft`; tests of the others skip themselves.
    #[arg(long, value_parser = ["kvm", "soft"])]
    pub(crate) hypervisor: Option<String>,
    /// As on a machine without /dev/kvm (needs root).
    #[arg(long)]
    pub(crate) without_kvm: bool,
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
    run_tests(&more, &args.processor)
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
pub(crate) fn run_tests(scope: &[String], processor: &Processor) -> Result<()> {
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
        )
        .env("OPENVMM_KERNEL", &debian::kernel_folder().display().to_string());
    if runner == "libtest" {
        cmd = cmd.args(["--tests", "--", "--show-output"]);
    }
    if let Some(only) = &processor.hypervisor {
        cmd = cmd.env("OPENVMM_TEST_HYPERVISOR", only);
    }
    if processor.without_kvm {
        cmd = cmd.without_kvm();
    }
    // nextest keeps it here whatever the target directory is.
    let record = workspace::root().join("target/nextest/default/junit.xml");
    remove_old(&record)?;
    let (passed, held, printed) = stream(cmd)?;
    let recorded = std::fs::read_to_string(&record).unwrap_or_default();
    let mut held = held;
    held.extend(libtest_summary(&printed));
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

/// The sum of the summaries that libtest prints per binary; nothing for a runner with one of its own.
fn libtest_summary(printed: &str) -> Option<String> {
    let mut sums = [0_u64; 3];
    let mut binaries = 0;
    for line in printed.lines().filter(|line| line.starts_with("test result: ")) {
        binaries += 1;
        for (sum, word) in sums.iter_mut().zip(["passed", "failed", "ignored"]) {
            let before = line
                .split(&format!(" {word}"))
                .next()
                .and_then(|text| text.rsplit(' ').next());
            *sum += before.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    let [passed, failed, ignored] = sums;
    (binaries > 0).then(|| {
        format!("Summary: {passed} passed, {failed} failed, {ignored} ignored in {binaries} binaries")
    })
}

/// One line per test that skipped itself: its name and its reason.
fn skip_lines(text: &str) -> BTreeSet<String> {
    let mut test = "";
    let mut found = BTreeSet::new();
    for line in text.lines() {
        // The record's and libtest's own way to say whose output follows.
        if let Some((_, rest)) = line.split_once("<testcase name=\"") {
            test = rest.split('"').next().unwrap_or_default();
        } else if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            test = name;
        }
        let begins = |at: &usize| line[..*at].is_empty() || line[..*at].ends_with('>');
        let Some(at) = line.find("skipped: ").filter(begins) else {
            continue;
        };
        let reason = line[at + "skipped: ".len()..]
            .split("</")
            .next()
            .unwrap_or_default()
            .trim_end();
        // What a test calls itself is not needed beside its full name.
        let reason = match reason.split_once(": ") {
            Some((name, rest)) if !name.contains([' ', '/']) => rest,
            _ => reason,
        };
        found.insert(format!("skipped: {test}: {reason}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{libtest_summary, skip_lines};

    #[test]
    fn summaries_of_libtest_are_added_up() {
        let printed = "test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured\nx\n\
                       test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured\n";
        let sum = "Summary: 10 passed, 2 failed, 1 ignored in 2 binaries";
        assert_eq!(libtest_summary(printed).as_deref(), Some(sum));
        assert_eq!(libtest_summary("nothing"), None);
    }

    #[test]
    fn skips_are_found_in_the_record() {
        let xml = "<testcase name=\"a::boots\" time=\"1\">\n<system-out>x\nskipped: boots: no /dev/kvm</system-out>\n\
                   <testcase name=\"b::boots\">\n<system-err>skipped: no kvm</system-err>\n\
                   1 passed; 0 skipped: nothing\n---- c::boots stdout ----\nskipped: /dev/kvm: not there\n";
        let lines: Vec<_> = skip_lines(xml).into_iter().collect();
        let expected = [
            "skipped: a::boots: no /dev/kvm",
            "skipped: b::boots: no kvm",
            "skipped: c::boots: /dev/kvm: not there",
        ];
        assert_eq!(lines, expected);
    }
}
