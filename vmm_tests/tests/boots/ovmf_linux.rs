// SPDX-License-Identifier: MIT
//! Debian's Linux behind Debian's OVMF: handed over through fw_cfg, and from an EFI system partition that
//! the firmware's boot manager finds on a virtio disk.

use crate::guests::{self, Linux};
use guest_images::debian::{self, VIRTIO_PCI};
use guest_images::esp_disk;
use std::path::Path;
use vmm_tests::files::TestFile;
use vmm_tests::{Backend, Vm, VmBuilder, skip};

const MIB: usize = 1 << 20;

/// Prints what the tests look at.
const REPORT: &str = "echo nproc=$(nproc)\ndmesg | grep -o 'BIOS-e820:.*usable'\n\
                      echo dmi=$(cat /sys/class/dmi/id/product_name)\n\
                      echo fw=$(ls -d /sys/firmware/efi /sys/firmware/acpi)\n\
                      grep -c 'IO-APIC.*acpi' /proc/interrupts\npoweroff -f\n";

fn machine(ovmf: &Path, memory: &str) -> VmBuilder {
    Vm::builder(Backend::Soft)
        .args(["-m", memory])
        .args(["--ovmf".as_ref(), ovmf.as_os_str()])
}

/// The kernel through fw_cfg.
fn direct(ovmf: &Path, linux: &Linux, memory: &str) -> VmBuilder {
    machine(ovmf, memory)
        .args(["-c", "console=ttyS0 quiet panic=-1"])
        .args(["-k".as_ref(), linux.kernel.as_os_str()])
        .args(["-r".as_ref(), linux.initramfs.path().as_os_str()])
}

/// End addresses of usable RAM that the kernel was told of.
fn usable_ends(console: &str) -> Vec<u64> {
    let lines = console.lines().filter(|line| line.contains("BIOS-e820:"));
    let ends = lines.filter_map(|line| line.split("-0x").nth(1)?.split(']').next());
    ends.filter_map(|end| u64::from_str_radix(end, 16).ok()).collect()
}

#[test]
fn four_processors_and_5_gib_arrive_in_linux_with_acpi_and_smbios() {
    const NAME: &str = "four_processors_and_5_gib_arrive_in_linux_with_acpi_and_smbios";
    let (ovmf, linux) = match guests::ovmf().and_then(|ovmf| Ok((ovmf, Linux::with(REPORT)?))) {
        Ok(found) => found,
        Err(reason) => return skip(NAME, &reason),
    };
    let ended = direct(ovmf, &linux, "5G").args(["-p", "4"]).run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    for expected in [
        "nproc=4",
        "dmi=OVMF machine",
        "fw=/sys/firmware/acpi /sys/firmware/efi",
    ] {
        assert!(ended.stdout.contains(expected), "{expected}\n{}", ended.stdout);
    }
    let ends = usable_ends(&ended.stdout);
    assert_eq!(ends.last(), Some(&0x1_BFFF_FFFF), "{}", ended.stdout);
    // What OVMF itself keeps lies at the end of the RAM below 2 GiB.
    let low = ends.iter().rfind(|end| **end < 1 << 32);
    assert!(
        low.is_some_and(|end| (0x7F00_0000..0x8000_0000).contains(end)),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stderr.contains("the guest has powered off"),
        "{}",
        ended.stderr
    );
}

/// Counts boots on the second disk; the first one copies the third disk to a file, the second one compares.
const FOUR_BOOTS: &str = "mount -t ext4 /dev/vdb /mnt 2>/dev/null || \
     { mke2fs -F /dev/vdb >/dev/null 2>&1; mount -t ext4 /dev/vdb /mnt; }\n\
     n=$(cat /mnt/count 2>/dev/null || echo 0)\necho this is boot $n\n\
     case $n in\n0) dd if=/dev/vdc of=/mnt/data bs=1M conv=fsync 2>/dev/null; sync ;;\n\
     1) cmp /mnt/data /dev/vdc && echo data is the same ;;\nesac\n\
     echo $((n+1)) > /mnt/count\numount /mnt\n[ $n = 3 ] && poweroff -f\nreboot -f\n";

#[test]
fn boot_manager_starts_linux_from_a_disk_which_writes_checks_and_reboots_three_times() {
    const NAME: &str = "boot_manager_starts_linux_from_a_disk_which_writes_checks_and_reboots_three_times";
    let disk = || -> Result<_, String> {
        let ovmf = guests::ovmf()?;
        let kernel = guests::kernel()?;
        let modules = [&VIRTIO_PCI[..], &["virtio_blk"]].concat();
        let image = debian::initramfs(&kernel, &modules, FOUR_BOOTS)
            .and_then(|initramfs| debian::uki(&kernel, &initramfs, "console=ttyS0 quiet panic=-1"))
            .and_then(|uki| esp_disk(&[("EFI/BOOT/BOOTX64.EFI", &uki)]))
            .map_err(|error| format!("{error:#}"))?;
        Ok((ovmf, TestFile::new("esp", &image)))
    };
    let (ovmf, esp) = match disk() {
        Ok(found) => found,
        Err(reason) => return skip(NAME, &reason),
    };
    let pattern: Vec<u8> = (0..64 * MIB as u64 / 8)
        .flat_map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
        .collect();
    let (data, source) = (
        TestFile::new("data", &vec![0; 96 * MIB]),
        TestFile::new("source", &pattern),
    );
    let source = format!("file:[{}],ro", source.path().display());
    let ended = machine(ovmf, "512M")
        .args(["--disk".as_ref(), esp.path().as_os_str()])
        .args(["--disk".as_ref(), data.path().as_os_str()])
        .args(["--disk", &source])
        .run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    for boot in 0..4 {
        let line = format!("this is boot {boot}");
        assert_eq!(ended.stdout.matches(&line).count(), 1, "{line}\n{}", ended.stdout);
    }
    assert!(ended.stdout.contains("data is the same"), "{}", ended.stdout);
    assert_eq!(
        ended.stderr.matches("the guest has reset the machine").count(),
        3,
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("the guest has powered off"),
        "{}",
        ended.stderr
    );
}
