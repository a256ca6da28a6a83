// SPDX-License-Identifier: MIT
//! The guests that are booted here, and where they are found.
//!
//! Always true: nothing is fetched by a test; `cargo xtask test` does that before.

use guest_images::{Archive, debian};
use std::path::{Path, PathBuf};
use vmm_tests::files::TestFile;
use vmm_tests::programs;

/// Debian's package ovmf.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// Debian's OVMF image.
pub(crate) fn ovmf() -> Result<&'static Path, String> {
    installed(OVMF, "ovmf")
}

/// Debian's OVMF in two parts: code without variables, and an empty variable store.
pub(crate) fn ovmf_in_parts() -> Result<[&'static Path; 2], String> {
    Ok([installed(OVMF_CODE, "ovmf")?, installed(OVMF_VARS, "ovmf")?])
}

/// A kernel of the package linux-image-cloud-amd64: in the cache of `cargo xtask test`, or installed.
pub(crate) fn kernel() -> Result<PathBuf, String> {
    let cache = std::env::var_os("OPENVMM_KERNEL").map(PathBuf::from);
    let beside = programs::repository().join("target/debian/boot");
    let folders = [cache, Some(beside), Some(PathBuf::from("/boot"))];
    let folders: Vec<PathBuf> = folders.into_iter().flatten().collect();
    debian::kernel(&folders).map_err(|error| error.to_string())
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
        let initramfs = debian::initramfs(&kernel, modules, script).map_err(|error| format!("{error:#}"))?;
        Ok(Self {
            kernel,
            initramfs: TestFile::new("initramfs", &initramfs),
        })
    }

    /// The same, with a program of this host that runs on its C library: it is /bin/NAME in the guest.
    pub(crate) fn with_program(
        modules: &[&str],
        (name, program): (&str, &Path),
        script: &str,
    ) -> Result<Self, String> {
        let kernel = kernel()?;
        let mut initramfs =
            debian::initramfs(&kernel, modules, script).map_err(|error| format!("{error:#}"))?;
        let libraries = [
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib/x86_64-linux-gnu/libgcc_s.so.1",
        ];
        let mut more = ["lib64", "lib/x86_64-linux-gnu"]
            .into_iter()
            .fold(Archive::default(), Archive::folder);
        let files = libraries.map(|path| (path.trim_start_matches('/').to_owned(), Path::new(path)));
        for (to, from) in files.into_iter().chain([(format!("bin/{name}"), program)]) {
            let bytes = std::fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
            more = more.program(&to, &bytes);
        }
        // The kernel unpacks archives that follow each other.
        initramfs.extend(more.finish());
        Ok(Self {
            kernel,
            initramfs: TestFile::new("initramfs", &initramfs),
        })
    }
}

fn installed(file: &'static str, package: &str) -> Result<&'static Path, String> {
    let path = Path::new(file);
    path.is_file()
        .then_some(path)
        .ok_or_else(|| format!("{file} is not installed; cargo xtask test installs {package}"))
}
