// SPDX-License-Identifier: MIT
//! Debian's OVMF in an IGVM file, and Debian's kernel on a disk that this firmware boots, alone or with a
//! whole system.
//!
//! Always true: packages are fetched by Debian's own tools, and one that cannot be had is an error that
//! names it. Not here: which files those are (`guest_images::debian`).

use super::Guest;
use crate::command::Cmd;
use crate::workspace::{self, Profile};
use crate::{debian, tools};
use anyhow::{Context, Result, ensure};
use guest_images::debian as images;
use guest_images::esp_disk;
use std::path::{Path, PathBuf};

const OVMF: &str = "/usr/share/ovmf/OVMF.fd";
const PACKAGES: &[(&str, &str)] = &[("ovmf", OVMF), ("busybox-static", "/bin/busybox")];
/// What the initial RAM file system does: a login on the serial port, again and again.
const LOGIN: &str = "mkdir -p /etc /root /mnt\n\
     echo 'root::0:0:root:/root:/bin/sh' > /etc/passwd\necho 'root:x:0:' > /etc/group\n\
     hostname openvmm\nexport HOME=/root\n\
     echo\necho \"Linux $(uname -r), $(nproc) processors, from the disk /dev/vda\"\n\
     echo 'log in as root, without a password; poweroff -f and reboot -f do what they say'\n\
     while true; do setsid getty 0 ttyS0 vt100; done\n";

/// OVMF, wrapped, up to its shell.
pub(super) fn ovmf() -> Result<Guest> {
    let file = wrapped()?;
    Ok(guest(&file, &[]))
}

/// Debian's cloud kernel from an EFI system partition, up to a login.
pub(super) fn linux() -> Result<Guest> {
    debian::fetch_kernel();
    let kernel = images::kernel(&[debian::kernel_folder(), PathBuf::from("/boot")])?;
    let file = wrapped()?;
    let modules = [&images::VIRTIO_PCI[..], &["virtio_blk"]].concat();
    let initramfs = images::initramfs(&kernel, &modules, LOGIN)?;
    let kernel = images::uki(&kernel, &initramfs, "console=ttyS0 quiet")?;
    let disk = folder()?.join("linux.img");
    let image = esp_disk(&[("EFI/BOOT/BOOTX64.EFI", &kernel)])?;
    std::fs::write(&disk, image).with_context(|| disk.display().to_string())?;
    Ok(guest(&file, &["--disk", &workspace::shown(&disk)]))
}

/// The suite whose kernel and OVMF the other guests use.
const SUITE: &str = "bookworm";
/// Packages beyond the smallest system.
const SYSTEM: &str = "--include=systemd,systemd-sysv,udev,login,util-linux,passwd";
/// Goes on from the initial RAM file system to the system on the second disk.
const SWITCH: &str = "mount -t ext4 /dev/vdb /mnt\n\
     for i in proc sys dev; do mount --move /$i /mnt/$i; done\nexec switch_root /mnt /sbin/init\n";

/// The only setting of the system.
const PATIENCE: &str = "[Manager]\nDefaultDeviceTimeoutSec=15min\n";

/// A system that debootstrap makes, systemd and all, up to its own login.
pub(super) fn distribution() -> Result<Guest> {
    debian::fetch_kernel();
    let kernel = images::kernel(&[debian::kernel_folder(), PathBuf::from("/boot")])?;
    let file = wrapped()?;
    let system = system_disk()?;
    let modules = [&images::VIRTIO_PCI[..], &["virtio_blk"]].concat();
    let initramfs = images::initramfs(&kernel, &modules, SWITCH)?;
    let kernel = images::uki(&kernel, &initramfs, "console=ttyS0")?;
    let disk = folder()?.join("debian-esp.img");
    let image = esp_disk(&[("EFI/BOOT/BOOTX64.EFI", &kernel)])?;
    std::fs::write(&disk, image).with_context(|| disk.display().to_string())?;
    let (disk, system) = (workspace::shown(&disk), workspace::shown(&system));
    Ok(guest(&file, &["--disk", &disk, "--disk", &system]))
}

/// The system's disk; made once, and changed by the guest from then on.
fn system_disk() -> Result<PathBuf> {
    let disk = folder()?.join("debian.img");
    if disk.is_file() {
        return Ok(disk);
    }
    let programs = [
        ("debootstrap", "/usr/sbin/debootstrap"),
        ("e2fsprogs", "/usr/sbin/mkfs.ext4"),
    ];
    tools::install_packages(&programs, "the system is made with them");
    let root = folder()?.join("debian-root");
    let path = root.display().to_string();
    Cmd::new("debootstrap", ["--variant=minbase", SYSTEM, SUITE, &path])
        .args([debian::archive()?])
        .run()?;
    // Root logs in without a password.
    let shadow = root.join("etc/shadow");
    Cmd::new(
        "sed",
        ["-i", "s/^root:[^:]*:/root::/", &shadow.display().to_string()],
    )
    .run()?;
    // The login waits for the serial port to appear, which takes its time in a guest of a busy host.
    let settings = root.join("etc/systemd/system.conf.d");
    std::fs::create_dir_all(&settings).with_context(|| settings.display().to_string())?;
    std::fs::write(settings.join("patience.conf"), PATIENCE)?;
    let new = disk.with_extension("new");
    Cmd::new(
        "mkfs.ext4",
        ["-q", "-F", "-d", &path, &new.display().to_string(), "1G"],
    )
    .run()?;
    std::fs::rename(&new, &disk).with_context(|| disk.display().to_string())?;
    std::fs::remove_dir_all(&root).with_context(|| path)?;
    Ok(disk)
}

fn folder() -> Result<PathBuf> {
    let folder = workspace::root().join("out/run");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Builds our programs and wraps OVMF in an IGVM file.
fn wrapped() -> Result<PathBuf> {
    tools::install_packages(PACKAGES, "the guest is made of them");
    for (package, file) in PACKAGES {
        ensure!(
            Path::new(file).exists(),
            "{file} is not there; install Debian's package {package}"
        );
    }
    let programs = [
        "build",
        "--locked",
        "--package",
        "igvmtool",
        "--package",
        "openvmm_entry",
    ];
    Cmd::cargo(programs).run()?;
    let file = folder()?.join("ovmf.igvm");
    let igvmtool = workspace::binary("igvmtool", Profile::Debug);
    Cmd::new(&workspace::shown(&igvmtool), ["wrap", OVMF])
        .args(["--platform", "native", "--output", &workspace::shown(&file)])
        .run()?;
    Ok(file)
}

fn guest(file: &Path, more: &[&str]) -> Guest {
    let spec = format!("type=ovmf,path={}", workspace::shown(file));
    let args = [&["--igvm", &spec, "-m", "2GB", "-p", "1"], more].concat();
    Guest {
        openvmm: workspace::binary("openvmm", Profile::Debug),
        args: args.into_iter().map(str::to_owned).collect(),
    }
}
