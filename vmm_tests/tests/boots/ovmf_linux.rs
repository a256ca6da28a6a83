// SPDX-License-Identifier: MIT
//! Debian's Linux behind Debian's OVMF: handed over through fw_cfg, and from an EFI system partition that
//! the firmware's boot manager finds on a virtio disk.

use crate::disks::sha256;
use crate::guests::{self, Linux};
use guest_images::debian::{self, VIRTIO_PCI};
use guest_images::esp_disk;
use std::path::Path;
use std::time::Duration;
use vmm_tests::files::TestFile;
use vmm_tests::{Backend, Vm, VmBuilder, skip};

const MIB: usize = 1 << 20;

/// Prints what the tests look at.
const REPORT: &str = "echo nproc=$(nproc)\ngrep MemTotal: /proc/meminfo\ndmesg | grep -o 'BIOS-e820:.*usable'\n\
                      echo dmi=$(cat /sys/class/dmi/id/product_name)\n\
                      echo fw=$(ls -d /sys/firmware/efi /sys/firmware/acpi)\n\
                      grep -c 'IO-APIC.*acpi' /proc/interrupts\npoweroff -f\n";

/// For firmware and kernel together, several times in some tests, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(600);

fn machine(ovmf: &Path, memory: &str) -> VmBuilder {
    Vm::builder(Backend::Soft)
        .limit(PATIENCE)
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

/// Four processors and this much memory arrive in Linux, and ACPI and SMBIOS tables.
fn arrives(name: &str, memory: &str, low_end: u64, high_end: Option<u64>) {
    let (ovmf, linux) = match guests::ovmf().and_then(|ovmf| Ok((ovmf, Linux::with(REPORT)?))) {
        Ok(found) => found,
        Err(reason) => return skip(name, &reason),
    };
    let ended = direct(ovmf, &linux, memory).args(["-p", "4"]).run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    for expected in [
        "nproc=4",
        "dmi=OVMF machine",
        "fw=/sys/firmware/acpi /sys/firmware/efi",
    ] {
        assert!(ended.stdout.contains(expected), "{expected}\n{}", ended.stdout);
    }
    let ends = usable_ends(&ended.stdout);
    let above = ends.iter().copied().find(|end| *end >= 1 << 32);
    assert_eq!(above, high_end.map(|end| end - 1), "{}", ended.stdout);
    // What OVMF itself keeps lies at the end of the RAM below 2 GiB.
    let low = ends.iter().copied().rfind(|end| *end < 1 << 32);
    assert!(
        low.is_some_and(|end| (low_end - (16 << 20)..low_end).contains(&end)),
        "{}",
        ended.stdout
    );
    // What the kernel and the firmware keep of it is less than a tenth.
    let total = low_end + high_end.map_or(0, |end| end - (1 << 32));
    let kib = ended
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    assert!(
        kib.is_some_and(|kib| (total / 10 * 9..total).contains(&(kib << 10))),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stderr.contains("the guest has powered off"),
        "{}",
        ended.stderr
    );
}

#[test]
fn four_processors_and_512_mib_arrive_in_linux() {
    let name = "four_processors_and_512_mib_arrive_in_linux";
    arrives(name, "512M", 512 << 20, None);
}

#[test]
fn four_processors_and_2_gib_arrive_in_linux() {
    arrives("four_processors_and_2_gib_arrive_in_linux", "2G", 2 << 30, None);
}

#[test]
fn four_processors_and_5_gib_arrive_in_linux() {
    let name = "four_processors_and_5_gib_arrive_in_linux";
    arrives(name, "5G", 2 << 30, Some((4 << 30) + (3 << 30)));
}

/// An EFI system partition with the kernel, which runs `script`, and the disk's driver.
fn bootable(script: &str) -> Result<Vec<u8>, String> {
    let kernel = guests::kernel()?;
    let modules = [&VIRTIO_PCI[..], &["virtio_blk"]].concat();
    debian::initramfs(&kernel, &modules, script)
        .and_then(|initramfs| debian::uki(&kernel, &initramfs, "console=ttyS0 quiet panic=-1"))
        .and_then(|uki| esp_disk(&[("EFI/BOOT/BOOTX64.EFI", &uki)]))
        .map_err(|error| format!("{error:#}"))
}

#[test]
fn linux_boots_from_a_qcow2_image_of_qemu_img_and_reads_every_byte_of_it() {
    const NAME: &str = "linux_boots_from_a_qcow2_image_of_qemu_img_and_reads_every_byte_of_it";
    let both = guests::ovmf().and_then(|ovmf| Ok((ovmf, bootable("sha256sum /dev/vda\npoweroff -f\n")?)));
    let (ovmf, image) = match both {
        Ok(found) => found,
        Err(reason) => return skip(NAME, &reason),
    };
    let raw = TestFile::new("raw", &image);
    let qcow2 = raw.beside("disk.qcow2");
    let mut convert = std::process::Command::new("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", "qcow2"]);
    match convert.arg(raw.path()).arg(&qcow2).output() {
        Ok(made) => assert!(made.status.success(), "{made:?}"),
        Err(error) => return skip(NAME, &format!("qemu-img: {error}; apt-get install qemu-utils")),
    }
    let magic = std::fs::read(&qcow2).unwrap();
    assert_eq!(&magic[..4], b"QFI\xFB");
    let ended = machine(ovmf, "512M")
        .args(["--disk".as_ref(), qcow2.as_os_str()])
        .run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    let hash = format!("{}  /dev/vda", sha256(&image));
    assert!(ended.stdout.contains(&hash), "{hash}\n{}", ended.stdout);
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
        let image = bootable(FOUR_BOOTS)?;
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
