// SPDX-License-Identifier: MIT
//! The guests that are booted here, and where they are found.
//!
//! Always true: nothing is fetched by a test; `cargo xtask test` does that before.

use crate::initramfs::Archive;
use std::path::{Path, PathBuf};
use vmm_tests::files::TestFile;
use vmm_tests::programs;

/// Debian's package ovmf.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";
/// Debian's package busybox-static.
const BUSYBOX: &str = "/bin/busybox";

/// Debian's OVMF image.
pub(crate) fn ovmf() -> Result<&'static Path, String> {
    installed(OVMF, "ovmf")
}

/// A kernel of the package linux-image-cloud-amd64: in the cache of `cargo xtask test`, or installed.
pub(crate) fn kernel() -> Result<PathBuf, String> {
    let cache = std::env::var_os("OPENVMM_KERNEL").map(PathBuf::from);
    let beside = programs::repository().join("target/debian/boot");
    let folders = [cache, Some(beside), Some(PathBuf::from("/boot"))];
    let mut kernels: Vec<PathBuf> = folders.into_iter().flatten().flat_map(cloud_kernels).collect();
    kernels.sort();
    kernels
        .pop()
        .ok_or_else(|| "no kernel of linux-image-cloud-amd64; cargo xtask test fetches one".to_owned())
}

fn cloud_kernels(folder: PathBuf) -> Vec<PathBuf> {
    // A folder that is not there holds no kernels.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        name.starts_with("vmlinuz-") && name.ends_with("-cloud-amd64")
    });
    names.collect()
}

/// A kernel and an initial RAM file system whose first program is the shell script `script`.
pub(crate) struct Linux {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: TestFile,
}

impl Linux {
    /// The guest, or why it is not here. The script finds BusyBox's commands in its path, /proc mounted and
    /// its own bytes in /init.
    pub(crate) fn with(script: &str) -> Result<Self, String> {
        Self::with_modules(&[], script)
    }

    /// The same, with these kernel modules loaded in this order before the script runs.
    pub(crate) fn with_modules(modules: &[&str], script: &str) -> Result<Self, String> {
        let kernel = kernel()?;
        let busybox = installed(BUSYBOX, "busybox-static")?;
        let busybox = std::fs::read(busybox).map_err(|error| format!("{BUSYBOX}: {error}"))?;
        let load: String = modules
            .iter()
            .map(|name| format!("insmod /lib/{name}.ko\n"))
            .collect();
        let script = format!(
            "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nmount -t proc proc /proc\n\
             mount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\n{load}{script}"
        );
        let mut archive = ["bin", "dev", "lib", "proc", "sys"]
            .into_iter()
            .fold(Archive::default(), Archive::folder)
            .device("dev/console", 5, 1)
            .program("bin/busybox", &busybox)
            .program("init", script.as_bytes());
        for name in modules {
            let path = module(&kernel, name)?;
            let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            archive = archive.program(&format!("lib/{name}.ko"), &bytes);
        }
        Ok(Self {
            kernel,
            initramfs: TestFile::new("initramfs", &archive.finish()),
        })
    }
}

/// The module `name` of a kernel: in the folder of modules beside the kernel's.
fn module(kernel: &Path, name: &str) -> Result<PathBuf, String> {
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
    let root = kernel.parent().and_then(Path::parent).ok_or_else(missing)?;
    let file = format!("{name}.ko");
    let mut folders = vec![root.join("lib/modules").join(version.ok_or_else(missing)?)];
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
    Err(missing())
}

/// Modules of Debian's cloud kernel in the order in which they load.
pub(crate) mod modules {
    /// virtio over PCI; what needs it comes behind.
    pub(crate) const VIRTIO_PCI: [&str; 5] = [
        "virtio_ring",
        "virtio",
        "virtio_pci_legacy_dev",
        "virtio_pci_modern_dev",
        "virtio_pci",
    ];
}

fn installed(file: &'static str, package: &str) -> Result<&'static Path, String> {
    let path = Path::new(file);
    path.is_file()
        .then_some(path)
        .ok_or_else(|| format!("{file} is not installed; cargo xtask test installs {package}"))
}
