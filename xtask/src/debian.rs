// SPDX-License-Identifier: MIT
//! Debian's cloud kernel, systemd's EFI stub and a Hyper-V daemon, unpacked but not installed, for tests that boot them.
//!
//! Always true: a kernel that is there already is kept; one that cannot be had is said so, and the tests
//! that need it skip with that reason.

mod newer;

pub(crate) use newer::{archive, fetch_newer_ovmf};

use crate::command::{Cmd, installed};
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// The package that depends on the newest kernel package.
const META: &str = "linux-image-cloud-amd64";

/// A file of another package, and its folder there: the EFI stub of unified kernel images, and the program that
/// answers Hyper-V's key-value pairs.
const MORE: [(&str, &str, &str); 2] = [
    (
        "systemd-boot-efi",
        "usr/lib/systemd/boot/efi",
        "linuxx64.efi.stub",
    ),
    ("hyperv-daemons", "usr/sbin", "hv_kvp_daemon"),
];

/// The folder that holds `vmlinuz-*`.
pub(crate) fn kernel_folder() -> PathBuf {
    folder().join("boot")
}

/// Everything that is fetched from Debian goes below here.
fn folder() -> PathBuf {
    workspace::target_dir().join("debian")
}

/// Fetches the kernel unless one is there.
pub(crate) fn fetch_kernel() {
    if has_kernel() && missing().next().is_none() {
        return;
    }
    if !installed("apt-get") || !installed("dpkg-deb") {
        println!("tools: no apt-get here; tests that boot Debian's kernel skip");
        return;
    }
    if let Err(error) = fetch() {
        println!("tools: {error:#}; tests that boot Debian's kernel skip");
    }
}

/// What is not there yet: packages and folders.
fn missing() -> impl Iterator<Item = (&'static str, &'static str)> {
    let absent = MORE.into_iter();
    absent
        .filter(|(_, path, name)| !folder().join(path).join(name).is_file())
        .map(|(package, path, _)| (package, path))
}

fn has_kernel() -> bool {
    // A folder that is not there holds no kernel.
    let mut entries = std::fs::read_dir(kernel_folder()).into_iter().flatten().flatten();
    let kernel = entries.any(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"));
    kernel && folder().join("lib/modules").is_dir()
}

fn fetch() -> Result<()> {
    let depends = Cmd::new("apt-cache", ["depends", META]).output()?;
    let package = package_of(&depends).with_context(|| format!("apt-cache knows no kernel of {META}"))?;
    let folder = folder();
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let path = folder.display().to_string();
    if !has_kernel() {
        unpack(&path, package, &["./boot", "./lib/modules"])?;
    }
    if !has_kernel() {
        bail!("package {package} holds no /boot/vmlinuz");
    }
    for (package, part) in missing() {
        unpack(&path, package, &[&format!("./{part}")])?;
    }
    Ok(())
}

/// Unpacks folders of a package below `path`.
fn unpack(path: &str, package: &str, folders: &[&str]) -> Result<()> {
    // apt-get download writes to its working directory.
    let script = r#"cd "$1" && package="$2" && shift 2 && apt-get download --quiet "$package" &&
                    dpkg-deb --fsys-tarfile "$package"_*.deb | tar -x "$@""#;
    Cmd::new("sh", ["-c", script, "sh", path, package])
        .args(folders)
        .run()
}

/// The kernel's package among what the other depends on.
fn package_of(depends: &str) -> Option<&str> {
    let mut names = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.find(|name| name.starts_with("linux-image-"))
}

#[cfg(test)]
mod tests {
    use super::package_of;

    #[test]
    fn kernel_package_is_found_among_dependencies() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-48-cloud-amd64\n  Suggests: x\n";
        assert_eq!(package_of(text), Some("linux-image-6.1.0-48-cloud-amd64"));
        assert_eq!(package_of("linux-image-cloud-amd64\n"), None);
    }
}
