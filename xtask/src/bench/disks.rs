// SPDX-License-Identifier: MIT
//! virtio-blk: 4 KiB reads one at a time and a sequential read, by the bare payload `virtio_probe` on both
//! backends, and by Debian's cloud kernel on the software CPU beside QEMU's TCG.
//!
//! Always true: all read the same file, which is in the host's page cache; the payload times itself with the APIC
//! timer, Linux with its uptime; both programs run in turns on the same machine.

use super::boots::{OUR_MACHINE, QEMU, QEMU_MACHINE, newest_kernel, owned};
use crate::command::{Cmd, installed};
use crate::workspace::{self, Profile};
use anyhow::{Context, Result, bail};
use guest_images::debian::{self, VIRTIO_PCI};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of the disk.
const DISK: u64 = 256 << 20;
/// Timed reads of the payload.
const READS: u32 = 5000;
/// Where the implicit root complex of the plain machine has its configuration space.
const ECAM: &str = "ecam=0xfaa00000";
/// What Linux does: single direct reads of 4 KiB far apart, then the whole disk in large direct reads.
const SCRIPT: &str = "now() { cut -d' ' -f1 /proc/uptime | tr -d .; }\n\
    a=$(now); n=0; while [ $n -lt 40 ]; do dd if=/dev/vda of=/dev/null bs=4k count=50 skip=$((n * 1600)) iflag=direct 2>/dev/null; \
    n=$((n + 1)); done; b=$(now)\n\
    n=0; while [ $n -lt 40 ]; do dd if=/dev/vda of=/dev/null bs=4k count=0 2>/dev/null; n=$((n + 1)); done; c=$(now)\n\
    dd if=/dev/vda of=/dev/null bs=1M iflag=direct 2>/dev/null; d=$(now)\n\
    echo figures $((b - a)) $((c - b)) $((d - c))\npoweroff -f\n";
/// Reads of the script's first part.
const LINUX_READS: f64 = 2000.0;

/// Prints all figures.
pub(super) fn run(count: usize) -> Result<()> {
    Cmd::cargo([
        "build",
        "--locked",
        "--release",
        "--package",
        "openvmm_entry",
        "--package",
        "igvmtool",
    ])
    .run()?;
    let openvmm = workspace::binary("openvmm", Profile::Release);
    let folder = workspace::target_dir().join("bench-disks");
    std::fs::create_dir_all(&folder)?;
    let disk = folder.join("disk.img");
    let image = probe(&folder)?;
    std::fs::write(&disk, vec![0x5A; DISK as usize])?;
    println!(
        "\nvirtio-blk, best of {count}{:>22} {:>12}",
        "4 KiB read us", "MB/s"
    );
    for backend in ["soft", "kvm"] {
        match payload(&openvmm, backend, (&image, &disk), count) {
            Ok((us, mb)) => println!("{:<34} {us:>12.1} {mb:>12.0}", format!("bare payload, {backend}")),
            Err(reason) => println!("bench: skipped: the payload on {backend}: {reason:#}"),
        }
    }
    if let Err(reason) = linux(&openvmm, &disk, &folder, count) {
        println!("bench: skipped: Linux with a disk: {reason:#}");
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// `virtio_probe` as an IGVM file, by the manifest of flat payloads that take a command line.
fn probe(folder: &Path) -> Result<PathBuf> {
    let (payload, image) = (folder.join("virtio_probe.bin"), folder.join("probe.igvm"));
    std::fs::write(&payload, payloads::VIRTIO_PROBE)?;
    let igvmtool = workspace::binary("igvmtool", Profile::Release)
        .display()
        .to_string();
    let resource = format!("test_suite={}", payload.display());
    let output = image.display().to_string();
    let manifest = [
        "build",
        "--manifest",
        "manifests/test-suite.json",
        "--platform",
        "native",
    ];
    let args = [&manifest[..], &["--resource", &resource, "--output", &output]].concat();
    Cmd::new(&igvmtool, args).run()?;
    Ok(image)
}

/// Microseconds of a read and MB/s, the best of some runs.
fn payload(openvmm: &Path, backend: &str, (image, disk): (&Path, &Path), count: usize) -> Result<(f64, f64)> {
    let (mut us, mut mb) = (f64::INFINITY, 0.0);
    for _ in 0..count {
        let output = Command::new(openvmm)
            .args(["--hypervisor", backend, "-m", "256M", "--com1", "stderr"])
            .arg("--igvm")
            .arg(format!("type=test,path=[{}]", image.display()))
            .args(["-c", ECAM, "-c", &format!("bench={READS}")])
            .args(["--disk", &disk.display().to_string()])
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let info = |wanted: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("info: ")?.strip_prefix(wanted));
            line.and_then(|line| line.strip_prefix(": ")?.trim_end().parse::<f64>().ok())
        };
        let (Some(ns), Some(rate)) = (info("random-read-4k-ns"), info("sequential-read-mb-per-s")) else {
            bail!("no figures: {}", text.lines().last().unwrap_or("nothing printed"));
        };
        (us, mb) = (us.min(ns / 1000.0), f64::max(mb, rate));
    }
    Ok((us, mb))
}

fn linux(openvmm: &Path, disk: &Path, folder: &Path, count: usize) -> Result<()> {
    let kernel = newest_kernel().context("Debian's cloud kernel is not here")?;
    let modules = [&VIRTIO_PCI[..], &["virtio_blk"]].concat();
    let initramfs = folder.join("initramfs");
    std::fs::write(&initramfs, debian::initramfs(&kernel, &modules, SCRIPT)?)?;
    let [kernel, initramfs, disk] =
        [kernel.as_path(), &initramfs, disk].map(|path| path.display().to_string());
    let command_line = "console=ttyS0 quiet panic=-1";
    let ours = owned(
        &[
            OUR_MACHINE,
            &[
                "-k",
                &kernel,
                "-r",
                &initramfs,
                "-c",
                command_line,
                "--disk",
                &disk,
            ],
        ]
        .concat(),
    );
    let drive = format!("file={disk},format=raw,if=none,id=d");
    let theirs = owned(
        &[
            QEMU_MACHINE,
            &["-kernel", &kernel, "-initrd", &initramfs, "-append", command_line],
            &[
                "-drive",
                &drive,
                "-device",
                "virtio-blk-pci,drive=d,disable-legacy=on",
            ],
        ]
        .concat(),
    );
    let programs = [
        ("Linux, openvmm soft", openvmm, ours),
        ("Linux, QEMU TCG", Path::new(QEMU), theirs),
    ];
    let mut best = [(f64::INFINITY, 0.0); 2];
    for _ in 0..count {
        for (best, (name, program, args)) in best.iter_mut().zip(&programs) {
            if *name == programs[1].0 && !installed(QEMU) {
                continue;
            }
            let (us, mb) = figures(program, args).with_context(|| (*name).to_owned())?;
            *best = (best.0.min(us), f64::max(best.1, mb));
        }
    }
    for ((us, mb), (name, ..)) in best
        .into_iter()
        .zip(&programs)
        .filter(|((us, _), _)| us.is_finite())
    {
        println!("{name:<34} {us:>12.1} {mb:>12.0}");
    }
    Ok(())
}

/// Microseconds of a read, the shell's own work taken off, and MB/s.
fn figures(program: &Path, args: &[String]) -> Result<(f64, f64)> {
    let output = Command::new(program).args(args).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.trim().strip_prefix("figures "));
    let numbers = line.map(|line| {
        line.split(' ')
            .map(str::parse::<f64>)
            .collect::<Result<Vec<_>, _>>()
    });
    let Some(Ok(numbers)) = numbers else {
        bail!("it printed no figures")
    };
    let [reads, empty, whole] = numbers[..] else {
        bail!("it printed {} figures", numbers.len())
    };
    // Hundredths of seconds.
    let us = (reads - empty).max(0.0) * 10_000.0 / LINUX_READS;
    Ok((us, DISK as f64 / 1e6 / (whole / 100.0).max(0.01)))
}
