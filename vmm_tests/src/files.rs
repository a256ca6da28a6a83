// SPDX-License-Identifier: MIT
//! IGVM files and firmware images of the payloads, built by `igvmtool` as a user would.
//!
//! Always true: each file lives in a folder of its own that is gone with it.

use crate::programs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A file that a test built.
#[derive(Debug)]
pub struct TestFile {
    path: PathBuf,
    folder: TempDir,
}

impl TestFile {
    /// A file with `bytes`.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a temporary file");
        Self { path, folder }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of another file in the same folder.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The UEFI probe's firmware image, as `--uefi-firmware` takes it.
pub fn uefi_probe_firmware() -> TestFile {
    TestFile::new("probe.fd", &payloads::uefi_probe::firmware())
}

/// The UEFI probe as an IGVM file, from `manifests/uefi-x64.json`.
pub fn uefi_probe() -> TestFile {
    build(
        "uefi-x64.json",
        &[("uefi", &payloads::uefi_probe::firmware())],
        &["--guest", "none"],
    )
}

/// `hv_probe`'s firmware image, for `--uefi-firmware`.
pub fn hv_probe_firmware() -> TestFile {
    TestFile::new("hv_probe.fd", &payloads::uefi_probe::hv_firmware())
}

/// `hv_probe` as an IGVM file, from `manifests/uefi-x64.json`.
pub fn hv_probe() -> TestFile {
    build(
        "uefi-x64.json",
        &[("uefi", &payloads::uefi_probe::hv_firmware())],
        &["--guest", "none"],
    )
}

/// `hv_devices` as an IGVM file, from `manifests/uefi-x64.json`.
pub fn hv_devices() -> TestFile {
    build(
        "uefi-x64.json",
        &[("uefi", &payloads::uefi_probe::devices_firmware())],
        &["--guest", "none"],
    )
}

/// Builds a manifest of the repository with resources by name.
///
/// # Panics
/// With igvmtool's message if it refuses.
#[track_caller]
pub fn build(manifest: &str, resources: &[(&str, &[u8])], options: &[&str]) -> TestFile {
    let file = TestFile::new("image.igvm", &[]);
    let manifest = programs::repository().join("manifests").join(manifest);
    let mut args: Vec<String> = [
        "build",
        "--manifest",
        text(&manifest),
        "--output",
        text(file.path()),
    ]
    .map(str::to_owned)
    .to_vec();
    for (name, bytes) in resources {
        let path = file.beside(name);
        std::fs::write(&path, bytes).expect("a temporary file");
        args.extend(["--resource".to_owned(), format!("{name}={}", text(&path))]);
    }
    args.extend(options.iter().map(|&option| option.to_owned()));
    let built = programs::run_igvmtool(&args);
    let message = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "igvmtool {args:?}: {message}");
    file
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}
