// SPDX-License-Identifier: MIT
//! From the start of a program to the guest's first byte: time, CPU time and memory, against bare KVM and
//! QEMU's microvm; and to the first line of a firmware on the Hyper-V machine.
//!
//! Always true: 128 MiB of RAM (the firmware: 2 GiB) and one processor everywhere; the clock starts before
//! the program does and stops when the byte or the line's end arrives here; CPU time and memory are read from /proc at that moment, while the
//! program still lives, and then it is killed by its handle. Bare KVM ends with the byte and says its own
//! figures instead (`virt_kvm`'s example `floor`), private memory left out.

use crate::command::{Cmd, installed};
use crate::workspace::{self, Profile};
use anyhow::{Context, Result};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// One start.
#[derive(Debug, Clone, Copy)]
struct Sample {
    first_byte_ms: f64,
    cpu_ms: f64,
    peak_rss_mb: f64,
    /// Not known of a program that has ended.
    private_dirty_mb: Option<f64>,
}

/// A program that starts a guest which writes to standard output.
struct Contender {
    name: &'static str,
    program: String,
    args: Vec<String>,
    /// What is waited for.
    until: Until,
    /// It ends with the byte and prints its figures as JSON on standard error.
    says_figures: bool,
}

/// The output that ends a sample.
#[derive(Debug, Clone, Copy)]
enum Until {
    Byte,
    Line,
}

/// Starts every program `count` times in turns and prints the medians.
pub(super) fn run(count: usize) -> Result<()> {
    let contenders = contenders()?;
    let mut samples = vec![Vec::new(); contenders.len()];
    for _ in 0..count {
        // In turns, so that a busy moment of the machine hits all of them.
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            samples.push(sample(contender)?);
        }
    }
    println!(
        "\nstart to the guest's first byte (hv_probe: line), 128 MiB (hv_probe: 2 GiB), 1 VP, medians of {count}"
    );
    println!(
        "{:<34} {:>9} {:>8} {:>9} {:>14}",
        "", "ms", "CPU ms", "RSS MB", "private dirty"
    );
    for (contender, samples) in contenders.iter().zip(&samples) {
        let median = |of: fn(&Sample) -> f64| median(samples.iter().map(of).collect());
        let dirty: Option<Vec<f64>> = samples.iter().map(|s| s.private_dirty_mb).collect();
        let dirty = dirty.map(self::median);
        println!(
            "{:<34} {:>9.1} {:>8.1} {:>9.1} {:>14}",
            contender.name,
            median(|s| s.first_byte_ms),
            median(|s| s.cpu_ms),
            median(|s| s.peak_rss_mb),
            dirty.map_or_else(|| "-".to_owned(), |dirty| format!("{dirty:.1}")),
        );
    }
    Ok(())
}

/// Files that guests are started from.
struct Guests {
    elf: String,
    igvm: String,
    /// Microsoft's firmware interface, `hv_probe` in it.
    uefi: String,
}

/// Makes the files, and the programs that are ours.
fn guests() -> Result<Guests> {
    let out = workspace::root().join("out/bench");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let packages = ["--package", "igvmtool", "--package", "openvmm_entry"];
    Cmd::cargo(["build", "--locked", "--release"])
        .args(packages)
        .run()?;
    let at = |name: &str| out.join(name);
    std::fs::write(at("first_byte.bin"), payloads::FIRST_BYTE)?;
    std::fs::write(at("first_byte.elf"), payloads::FIRST_BYTE_ELF)?;
    std::fs::write(at("hv_probe.fd"), payloads::uefi_probe::hv_firmware())?;
    build_igvm(
        &["--platform", "native", "--manifest", "manifests/first-byte.json"],
        ("first_byte", &at("first_byte.bin")),
        &at("first_byte.igvm"),
    )?;
    build_igvm(
        &["--guest", "none", "--manifest", "manifests/uefi-x64.json"],
        ("uefi", &at("hv_probe.fd")),
        &at("hv_probe.igvm"),
    )?;
    let path = |name: &str| at(name).display().to_string();
    Ok(Guests {
        elf: path("first_byte.elf"),
        igvm: path("first_byte.igvm"),
        uefi: format!("type=uefi,path={}", path("hv_probe.igvm")),
    })
}

fn contenders() -> Result<Vec<Contender>> {
    let guests = guests()?;
    let kvm = Path::new("/dev/kvm").exists();
    let mut list = Vec::new();
    if kvm {
        let example = ["--release", "--package", "virt_kvm", "--example", "floor"];
        Cmd::cargo(["build", "--locked"]).args(example).run()?;
        let floor = workspace::binary("examples/floor", Profile::Release);
        list.push(Contender {
            says_figures: true,
            ..contender("bare KVM", &floor, &[])
        });
    } else {
        println!("bench: there is no /dev/kvm; only the software CPU is measured");
    }
    let usable = |hypervisor: &str| kvm || hypervisor != "kvm";
    list.extend(
        ours(&guests)
            .into_iter()
            .filter(|(on, _)| usable(on))
            .map(|c| c.1),
    );
    if installed("qemu-system-x86_64") {
        list.extend(
            qemus(&guests)
                .into_iter()
                .filter(|(on, _)| usable(on))
                .map(|c| c.1),
        );
    } else {
        println!("bench: qemu-system-x86_64 is not installed; QEMU is not measured");
    }
    Ok(list)
}

/// This program, each with the hypervisor that it takes.
fn ours(guests: &Guests) -> Vec<(&'static str, Contender)> {
    let openvmm = workspace::binary("openvmm", Profile::Release);
    let byte = |name, hypervisor, boot: [&str; 2]| {
        let more = ["-m", "128MB", "--hypervisor", hypervisor];
        (
            hypervisor,
            contender(name, &openvmm, &[&boot[..], &more].concat()),
        )
    };
    let line = |name, hypervisor| {
        let args = [
            "--igvm",
            &guests.uefi,
            "-m",
            "2GB",
            "-p",
            "1",
            "--hypervisor",
            hypervisor,
        ];
        let contender = Contender {
            until: Until::Line,
            ..contender(name, &openvmm, &args)
        };
        (hypervisor, contender)
    };
    vec![
        byte("openvmm, IGVM, KVM", "kvm", ["--igvm", &guests.igvm]),
        byte("openvmm, PVH ELF, KVM", "kvm", ["--kernel", &guests.elf]),
        byte("openvmm, IGVM, software CPU", "soft", ["--igvm", &guests.igvm]),
        line("openvmm, hv_probe's line, KVM", "kvm"),
        line("openvmm, hv_probe's line, soft CPU", "soft"),
    ]
}

/// QEMU's microvm, each with its accelerator.
fn qemus(guests: &Guests) -> Vec<(&'static str, Contender)> {
    let microvm = |name, accelerator: &'static str| {
        let machine = ["-M", "microvm", "-accel", accelerator, "-m", "128"];
        let bare = ["-nodefaults", "-no-user-config", "-display", "none"];
        let guest = ["-serial", "stdio", "-kernel", &guests.elf];
        let args = [&machine[..], &bare, &guest].concat();
        (
            accelerator,
            contender(name, Path::new("qemu-system-x86_64"), &args),
        )
    };
    vec![
        microvm("QEMU microvm, KVM", "kvm"),
        microvm("QEMU microvm, TCG", "tcg"),
    ]
}

/// Builds an IGVM file of a manifest from one resource, a name and a file.
fn build_igvm(options: &[&str], (name, resource): (&str, &Path), output: &Path) -> Result<()> {
    let igvmtool = workspace::shown(&workspace::binary("igvmtool", Profile::Release));
    Cmd::new(&igvmtool, ["build"])
        .args(options.iter().copied())
        .args(["--output", &workspace::shown(output)])
        .args(["--resource", &format!("{name}={}", workspace::shown(resource))])
        .run()
}

fn contender(name: &'static str, program: &Path, args: &[&str]) -> Contender {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    Contender {
        name,
        program: program.display().to_string(),
        args,
        until: Until::Byte,
        says_figures: false,
    }
}

fn sample(contender: &Contender) -> Result<Sample> {
    let mut command = Command::new(&contender.program);
    let stderr = if contender.says_figures {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    command
        .args(&contender.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr);
    let start = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", contender.name))?;
    let mut out = child.stdout.take().context("no standard output")?;
    let arrived = wait_for(&mut out, contender.until);
    let first_byte_ms = start.elapsed().as_secs_f64() * 1e3;
    let seen = match child.stderr.take() {
        Some(mut figures) => {
            let mut text = String::new();
            figures.read_to_string(&mut text)?;
            said(&text, first_byte_ms)
        }
        None => look(child.id(), first_byte_ms),
    };
    // It may have ended by itself; then there is nothing to kill.
    let _ = child.kill();
    child.wait()?;
    arrived.with_context(|| {
        format!(
            "{}: the guest's {:?} did not come",
            contender.name, contender.until
        )
    })?;
    seen.with_context(|| format!("{} ended too early to be looked at", contender.name))
}

/// Reads as far as `until`.
fn wait_for(out: &mut impl Read, until: Until) -> std::io::Result<()> {
    let mut byte = [0];
    loop {
        out.read_exact(&mut byte)?;
        if matches!(until, Until::Byte) || byte == *b"\n" {
            return Ok(());
        }
    }
}

/// What a program says of itself.
fn said(text: &str, first_byte_ms: f64) -> Result<Sample> {
    let figures: serde_json::Value =
        serde_json::from_str(text).with_context(|| format!("no figures in {text:?}"))?;
    let figure = |name: &str| {
        figures[name]
            .as_f64()
            .with_context(|| format!("no {name} in {text:?}"))
    };
    Ok(Sample {
        first_byte_ms,
        cpu_ms: figure("cpu_us")? / 1e3,
        peak_rss_mb: figure("peak_rss_kib")? / 1024.0,
        private_dirty_mb: None,
    })
}

/// What /proc says about a process now.
fn look(pid: u32, first_byte_ms: f64) -> Result<Sample> {
    let mut cpu_ns = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let on_cpu = text
            .split_whitespace()
            .next()
            .and_then(|word| word.parse::<f64>().ok());
        cpu_ns += on_cpu.unwrap_or(0.0);
    }
    let kib = |file: &str, field: &str| -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let value = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        value.with_context(|| format!("{file} has no {field}"))
    };
    Ok(Sample {
        first_byte_ms,
        cpu_ms: cpu_ns / 1e6,
        peak_rss_mb: kib("status", "VmHWM:")? / 1024.0,
        private_dirty_mb: Some(kib("smaps_rollup", "Private_Dirty:")? / 1024.0),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_can_be_looked_at() {
        let seen = look(std::process::id(), 1.0).unwrap();
        assert!(seen.cpu_ms > 0.0 && seen.peak_rss_mb > 0.5 && seen.private_dirty_mb > Some(0.0));
    }

    #[test]
    fn own_figures_are_read() {
        let seen = said(
            r#"{"byte":65,"since_main_us":900,"cpu_us":1500,"peak_rss_kib":2048}"#,
            2.5,
        )
        .unwrap();
        assert_eq!(
            (seen.first_byte_ms, seen.cpu_ms, seen.peak_rss_mb),
            (2.5, 1.5, 2.0)
        );
        assert!(said("{}", 1.0).is_err() && said("", 1.0).is_err());
    }

    #[test]
    fn line_is_waited_for_to_its_end() {
        let mut text = &b"ab\ncd"[..];
        wait_for(&mut text, Until::Byte).unwrap();
        assert_eq!(text, b"b\ncd");
        wait_for(&mut text, Until::Line).unwrap();
        assert_eq!(text, b"cd");
        assert!(wait_for(&mut text, Until::Line).is_err());
    }

    #[test]
    fn median_is_the_middle_value() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
    }
}
