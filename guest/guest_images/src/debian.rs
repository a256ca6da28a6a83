// SPDX-License-Identifier: MIT
//! Debian's cloud kernel with BusyBox: where their files are, and guests made of them.
//!
//! Always true: modules belong to the kernel that they are loaded into. Not here: fetching, which
//! `cargo xtask test` does before.

use crate::{Archive, unified_kernel};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// BusyBox of package busybox-static.
const BUSYBOX: &str = "/bin/busybox";
/// systemd's EFI stub, below the folder where packages are unpacked.
const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// virtio over PCI, in the order in which its modules load; what needs it comes behind.
pub const VIRTIO_PCI: [&str; 5] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
];

/// The newest kernel of package linux-image-cloud-amd64 in the first of `folders` that has one.
pub fn kernel(folders: &[PathBuf]) -> Result<PathBuf> {
    let newest = |folder: &PathBuf| cloud_kernels(folder).into_iter().max();
    folders
        .iter()
        .find_map(newest)
        .context("no kernel of linux-image-cloud-amd64; cargo xtask test fetches one")
}

fn cloud_kernels(folder: &Path) -> Vec<PathBuf> {
    // A folder that is not there holds no kernels.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        name.starts_with("vmlinuz-") && name.ends_with("-cloud-amd64")
    });
    names.collect()
}

/// An initial RAM file system for `kernel`: loads `modules` in this order, then runs the shell script
/// `script`, which finds BusyBox's commands in its path, the kernel's file systems mounted and its own
/// bytes in /init.
pub fn initramfs(kernel: &Path, modules: &[&str], script: &str) -> Result<Vec<u8>> {
    let busybox = std::fs::read(BUSYBOX)
        .with_context(|| format!("{BUSYBOX} is not installed; cargo xtask test installs busybox-static"))?;
    let load: String = modules
        .iter()
        .map(|name| format!("insmod /lib/{name}.ko\n"))
        .collect();
    let script = format!(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nmount -t proc proc /proc\n\
         mount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\n{load}{script}"
    );
    let mut archive = ["bin", "dev", "lib", "mnt", "proc", "sys"]
        .into_iter()
        .fold(Archive::default(), Archive::folder)
        .device("dev/console", 5, 1)
        .program("bin/busybox", &busybox)
        .program("init", script.as_bytes());
    for name in modules {
        let path = module(kernel, name)?;
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        archive = archive.program(&format!("lib/{name}.ko"), &bytes);
    }
    Ok(archive.finish())
}

/// The module `name` of a kernel: in the folder of modules beside the kernel's.
fn module(kernel: &Path, name: &str) -> Result<PathBuf> {
    let missing = || {
        format!(
            "no module {name} beside {}; cargo xtask test fetches it",
            kernel.display()
        )
    };
    let version = kernel
        .file_name()
        .and_then(|n| n.to_str())
        .and_then(|n| n.strip_prefix("vmlinuz-"));
    let root = kernel.parent().and_then(Path::parent).with_context(missing)?;
    let file = format!("{name}.ko");
    let mut folders = vec![root.join("lib/modules").join(version.with_context(missing)?)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name().to_str() == Some(&file) {
                return Ok(path);
            } else if path.is_dir() {
                folders.push(path);
            }
        }
    }
    Err(anyhow::Error::msg(missing()))
}

/// A unified kernel image of `kernel`, with the stub of package systemd-boot-efi that is unpacked beside
/// the kernel or installed.
pub fn uki(kernel: &Path, initramfs: &[u8], cmdline: &str) -> Result<Vec<u8>> {
    let beside = kernel.parent().and_then(Path::parent);
    let stub = beside
        .into_iter()
        .chain([Path::new("/")])
        .find_map(|root| std::fs::read(root.join(STUB)).ok())
        .context("no EFI stub of systemd-boot-efi; cargo xtask test fetches it")?;
    let linux = std::fs::read(kernel).with_context(|| kernel.display().to_string())?;
    let sections: [(&str, &[u8]); 3] = [
        (".cmdline", cmdline.as_bytes()),
        (".initrd", initramfs),
        (".linux", &linux),
    ];
    unified_kernel(&stub, &sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_kernel_of_the_first_folder_is_taken_with_its_own_modules() {
        let root = tempfile::tempdir().unwrap();
        let boot = root.path().join("boot");
        let modules = root
            .path()
            .join("lib/modules/6.1.0-48-cloud-amd64/kernel/drivers");
        std::fs::create_dir_all(&modules).unwrap();
        std::fs::create_dir_all(&boot).unwrap();
        for name in [
            "vmlinuz-6.1.0-47-cloud-amd64",
            "vmlinuz-6.1.0-48-cloud-amd64",
            "vmlinuz-6.9-rt",
        ] {
            std::fs::write(boot.join(name), name).unwrap();
        }
        std::fs::write(modules.join("virtio.ko"), "virtio").unwrap();
        let found = kernel(&[root.path().join("none"), boot.clone()]).unwrap();
        assert_eq!(found, boot.join("vmlinuz-6.1.0-48-cloud-amd64"));
        assert_eq!(module(&found, "virtio").unwrap(), modules.join("virtio.ko"));
        let error = module(&boot.join("vmlinuz-6.1.0-47-cloud-amd64"), "virtio").unwrap_err();
        assert!(
            error.to_string().starts_with("no module virtio beside"),
            "{error}"
        );
    }
}
