// SPDX-License-Identifier: MIT
//! A file of 3.9 GiB: what `igvmtool` needs for it, against the `igvm` crate 0.5.0, in one run.
//!
//! `cargo bench -p igvmtool` prints CPU time and the largest amount of anonymous memory (the file's mapping is
//! not anonymous) of each command, each in a process of its own, and of the crate reading and measuring it.
//!
//! Always true: the launch digest is the crate's, or the run fails. Both figures are read every few
//! milliseconds while the process runs, so that they are a little low. The file's data is a hole; hashing takes
//! as long as for other data. Not here: a verdict.

use igvm::measurement::generate_snp_measurement;
use std::io::{Error, Read, Result};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[path = "../tests/files/largest.rs"]
mod largest;

/// Memory that the crate needs for the file: it reads all of it and then copies every page.
const CRATE_NEEDS: u64 = 10 << 30;
/// Clock ticks of /proc per second, on every Linux.
const TICKS: f64 = 100.0;

/// A field of a file in the style of /proc/meminfo, in bytes.
fn kibibytes(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

/// User and system time of a process so far, in seconds.
fn cpu_time(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields 14 and 15, counted from 1; the second ends with a parenthesis and may contain anything.
    let mut fields = text.rsplit(')').next()?.split_whitespace().skip(11);
    let mut time = || fields.next()?.parse::<f64>().ok();
    Some((time()? + time()?) / TICKS)
}

/// Runs a command to its end, prints what it needed, and gives the first word that it printed.
fn figures(what: &str, command: &mut Command) -> Result<String> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().ok_or(Error::other("no standard output"))?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let (mut cpu, mut most) = (0.0, 0);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        cpu = cpu_time(child.id()).unwrap_or(cpu);
        let status = format!("/proc/{}/status", child.id());
        most = most.max(kibibytes(&status, "RssAnon:").unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = reader.join().map_err(|_| Error::other("the reader panicked"))??;
    if !status.success() {
        return Err(Error::other(format!("{what} ended with {status}")));
    }
    println!(
        "  {what:<36} {cpu:>7.2} s CPU {:>8.1} MiB",
        most as f64 / f64::from(1 << 20)
    );
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

/// The crate, as the child process that is watched: reads, and measures if asked to.
fn child(how: &str, path: &Path) -> Result<()> {
    let bytes = std::fs::read(path)?;
    let file = igvm::IgvmFile::new_from_binary(&bytes, None).map_err(Error::other)?;
    drop(bytes);
    if how == "measure" {
        let digest = generate_snp_measurement(file.initializations(), file.directives(), 1);
        let digest = digest.map_err(|error| Error::other(format!("{error:?}")))?;
        println!("{}", launch_digest::Digest(digest.to_vec()));
    }
    Ok(())
}

fn main() -> Result<()> {
    // Cargo passes --bench; a way and a path make this process the child above.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [how, path] = &arguments[..] {
        return child(how, Path::new(path));
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("largest.igvm");
    largest::largest_file(&path)?;
    println!(
        "{} pages, {} bytes",
        largest::PAGES,
        std::fs::metadata(&path)?.len()
    );
    let igvmtool = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_igvmtool"));
        command.args(args).arg(&path);
        command
    };
    figures("igvmtool inspect", &mut igvmtool(&["inspect"]))?;
    figures("igvmtool check", &mut igvmtool(&["check"]))?;
    let measure = ["measure", "--profile", "file-order"];
    let ours = figures("igvmtool measure, all profiles", &mut igvmtool(&measure))?;
    let free = kibibytes("/proc/meminfo", "MemAvailable:").unwrap_or(0);
    if free < CRATE_NEEDS {
        println!("  the igvm crate needs {CRATE_NEEDS:#x} bytes of memory, and {free:#x} are free: left out");
        return Ok(());
    }
    let this = std::env::current_exe()?;
    figures("igvm crate: read", Command::new(&this).arg("read").arg(&path))?;
    let theirs = figures(
        "igvm crate: read and measure",
        Command::new(&this).arg("measure").arg(&path),
    )?;
    if ours != theirs {
        return Err(Error::other(format!("the digests differ: {ours} and {theirs}")));
    }
    println!("  both say {ours}");
    Ok(())
}
