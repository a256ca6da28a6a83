// SPDX-License-Identifier: MIT
//! CPU time of whole boots on the software CPU beside QEMU's TCG: Debian's OVMF to its shell's banner and
//! Debian's cloud kernel to the line that says it has no root file system.
//!
//! Always true: both programs get the same firmware, kernel, command line and 512 MiB, one processor and
//! no devices beyond the machine's own; they run in turns on the same machine, and the best of all runs
//! counts; CPU time is user and system time of the whole process when the line arrives, threads that
//! have ended included. A boot whose files or whose peer cannot be had is skipped with the reason.

use crate::command::{Cmd, installed};
use crate::workspace::{self, Profile};
use crate::{debian, tools};
use anyhow::{Context, Result, bail};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Packages with what is compared, and the files that show that they are installed.
const PACKAGES: &[(&str, &str)] = &[("qemu-system-x86", "/usr/bin/qemu-system-x86_64"), ("ovmf", OVMF)];
pub(super) const QEMU: &str = "qemu-system-x86_64";
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";
/// No boot takes this long, whatever runs it.
const PATIENCE: Duration = Duration::from_secs(600);
/// Clock ticks per second in /proc (Linux always shows 100 to user space).
const TICKS: f64 = 100.0;

/// One guest that both programs boot.
struct Boot {
    name: &'static str,
    /// The console line that ends the measurement.
    until: &'static str,
    ours: Vec<String>,
    qemu: Vec<String>,
    /// The largest ratio that counts as done; 1.0 is the aim.
    least: f64,
}

/// Boots everything `count` times with each program and prints the ratios.
pub(super) fn run(count: usize) -> Result<()> {
    tools::install_packages(PACKAGES, "boots that need them are skipped");
    Cmd::cargo(["build", "--locked", "--release", "--package", "openvmm_entry"]).run()?;
    let openvmm = workspace::binary("openvmm", Profile::Release);
    let qemu = installed(QEMU);
    if !qemu {
        println!("bench: skipped: QEMU's boots: {QEMU} is not installed");
    }
    let boots = boots();
    println!("\nCPU time of boots in seconds, 512 MiB, 1 VP, best of {count}");
    println!(
        "{:<44} {:>9} {:>9} {:>7}   aim 1.0, done at",
        "", "openvmm", "QEMU TCG", "ratio"
    );
    for boot in boots {
        let boot = match boot {
            Ok(boot) => boot,
            Err(reason) => {
                println!("bench: skipped: {reason:#}");
                continue;
            }
        };
        let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..count {
            // In turns, so that a busy moment of the machine hits both.
            ours = ours.min(cpu_seconds(&openvmm, &boot.ours, boot.until)?);
            if qemu {
                theirs = theirs.min(cpu_seconds(Path::new(QEMU), &boot.qemu, boot.until)?);
            }
        }
        let peer = |value: f64| {
            if qemu {
                format!("{value:.2}")
            } else {
                "-".to_owned()
            }
        };
        println!(
            "{:<44} {ours:>9.2} {:>9} {:>7}   {:.1}",
            boot.name,
            peer(theirs),
            peer(ours / theirs),
            boot.least
        );
    }
    Ok(())
}

fn boots() -> [Result<Boot>; 2] {
    [ovmf(), linux()]
}

pub(super) fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|&arg| arg.to_owned()).collect()
}

/// A q35 with nothing on it but a serial port.
pub(super) const QEMU_MACHINE: &[&str] = &[
    "-machine",
    "q35",
    "-accel",
    "tcg",
    "-m",
    "512",
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display",
    "none",
    "-serial",
    "stdio",
];
pub(super) const OUR_MACHINE: &[&str] = &["--hypervisor", "soft", "-m", "512M"];

fn ovmf() -> Result<Boot> {
    if !Path::new(OVMF).exists() {
        bail!("OVMF's boot: there is no {OVMF}");
    }
    Ok(Boot {
        name: "Debian's OVMF.fd to the shell's banner",
        until: "UEFI Interactive Shell",
        ours: owned(&[OUR_MACHINE, &["--ovmf", OVMF]].concat()),
        qemu: owned(&[QEMU_MACHINE, &["-bios", OVMF]].concat()),
        least: 2.0,
    })
}

fn linux() -> Result<Boot> {
    debian::fetch_kernel();
    let kernel = newest_kernel().context("Linux's boot: Debian's cloud kernel is not here")?;
    let kernel = kernel.display().to_string();
    let command_line = "console=ttyS0 panic=-1";
    Ok(Boot {
        name: "Debian's cloud kernel to its missing root",
        until: "Unable to mount root fs",
        ours: owned(&[OUR_MACHINE, &["-k", &kernel, "-c", command_line]].concat()),
        qemu: owned(&[QEMU_MACHINE, &["-kernel", &kernel, "-append", command_line]].concat()),
        least: 4.0,
    })
}

pub(super) fn newest_kernel() -> Option<PathBuf> {
    let entries = std::fs::read_dir(debian::kernel_folder()).ok()?;
    let kernels = entries.flatten().map(|entry| entry.path());
    kernels
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
        .max()
}

/// CPU time that `program` has used when its standard output shows `until`; it is killed then.
fn cpu_seconds(program: &Path, args: &[String], until: &str) -> Result<f64> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let seen = wait_for(&mut child, until).and_then(|()| cpu_of(child.id()));
    // It may have ended by itself; then there is nothing to kill.
    let _ = child.kill();
    child.wait()?;
    seen.with_context(|| format!("{} {}", program.display(), args.join(" ")))
}

fn wait_for(child: &mut Child, until: &str) -> Result<()> {
    let mut out = child.stdout.take().context("no standard output")?;
    let (sender, receiver) = mpsc::channel();
    let wanted = until.to_owned();
    std::thread::spawn(move || {
        let found = appears(&mut out, wanted.as_bytes());
        // The receiver is gone when it has lost its patience.
        let _ = sender.send(found);
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => bail!("ended before it printed {until:?}"),
        Ok(Err(error)) => Err(error).context("cannot read what it prints"),
        Err(_) => bail!("did not print {until:?} in {} s", PATIENCE.as_secs()),
    }
}

/// Reads until `wanted` has come; false if the stream ends before.
fn appears(from: &mut impl Read, wanted: &[u8]) -> std::io::Result<bool> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(false);
        }
        kept.extend_from_slice(&buffer[..n]);
        if kept.windows(wanted.len()).any(|window| window == wanted) {
            return Ok(true);
        }
        let old = kept.len().saturating_sub(wanted.len());
        kept.drain(..old);
    }
}

/// User and system time of a process.
fn cpu_of(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ticks(&text)
        .map(|ticks| ticks / TICKS)
        .with_context(|| format!("unexpected stat line {text:?}"))
}

/// The sum of the fields utime and stime (proc(5)), which come 11 fields behind the name.
fn ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 20 0 0 0 130 25 9 9 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(155.0));
        assert_eq!(ticks("7 (x) S 1"), None);
    }

    #[test]
    fn line_is_found_across_reads_and_its_absence_is_noticed() {
        let mut parts = "abc UEFI Inter".as_bytes().chain("active Shell".as_bytes());
        assert!(appears(&mut parts, b"UEFI Interactive Shell").unwrap());
        assert!(!appears(&mut "abc".as_bytes(), b"abcd").unwrap());
    }

    #[test]
    fn program_that_ends_early_is_named() {
        let error = cpu_seconds(Path::new("/bin/echo"), &owned(&["hello"]), "goodbye").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "/bin/echo hello: ended before it printed \"goodbye\""
        );
    }

    #[test]
    fn cpu_time_of_a_busy_program_is_seen() {
        let script = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo done; exec sleep 100";
        let seconds = cpu_seconds(Path::new("/bin/sh"), &owned(&["-c", script]), "done").unwrap();
        assert!(seconds > 0.0 && seconds < 60.0, "{seconds}");
    }
}
