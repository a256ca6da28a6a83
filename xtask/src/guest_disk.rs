// SPDX-License-Identifier: MIT
//! `cargo xtask guest-disk`: a disk that UEFI firmware boots.
//!
//! Always true: a GUID partition table with one EFI system partition, whose \EFI\BOOT\BOOTX64.EFI is all that
//! there is; the same program gives the same disk. Not here: how the disk is made (`guest_images`).

use crate::{debian, workspace};
use anyhow::{Context, Result};
use guest_images::debian as images;
use guest_images::esp_disk;
use std::path::PathBuf;

/// Options of `guest-disk`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The disk image; default: out/guest-disk.img.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the firmware starts: `hello`, an application of ours that says so and powers off; `linux`, Debian's
    /// kernel with a shell; or the path of an EFI program.
    #[arg(default_value = "hello")]
    program: String,
}

/// What the kernel's initial RAM file system does.
const SHELL: &str = "echo \"Linux $(uname -r), started by firmware\"\nsetsid sh -c 'exec sh </dev/ttyS0 >/dev/ttyS0 2>&1'\n\
                     poweroff -f\n";

/// Makes the disk and prints the line that boots it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let program = match args.program.as_str() {
        "hello" => payloads::efi_hello(),
        "linux" => linux()?,
        path => std::fs::read(path).with_context(|| path.to_owned())?,
    };
    let disk = match &args.output {
        Some(path) => path.clone(),
        None => workspace::root().join("out").join("guest-disk.img"),
    };
    if let Some(folder) = disk.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let image = esp_disk(&[("EFI/BOOT/BOOTX64.EFI", &program)])?;
    std::fs::write(&disk, image).with_context(|| disk.display().to_string())?;
    let shown = workspace::shown(&disk);
    println!("{shown}: \\EFI\\BOOT\\BOOTX64.EFI of {} bytes", program.len());
    println!("openvmm --ovmf /usr/share/ovmf/OVMF.fd -m 512M --disk {shown}");
    println!("openvmm --igvm type=uefi,path=uefi-x64.bin -m 2GB --disk {shown}");
    Ok(())
}

fn linux() -> Result<Vec<u8>> {
    debian::fetch_kernel();
    let kernel = images::kernel(&[debian::kernel_folder(), PathBuf::from("/boot")])?;
    let initramfs = images::initramfs(&kernel, &[], SHELL)?;
    images::uki(&kernel, &initramfs, "console=ttyS0 quiet")
}
