// SPDX-License-Identifier: MIT
//! Debian's OVMF in an IGVM file, and Debian's kernel on a disk that this firmware boots.
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
