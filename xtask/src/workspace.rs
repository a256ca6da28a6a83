// SPDX-License-Identifier: MIT
//! Where things are: the workspace, its target directory, the binaries, the output folder.

use std::path::{Path, PathBuf};

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, else `target` in the workspace.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A binary of ours, built in `profile`.
pub(crate) fn binary(name: &str, profile: Profile) -> PathBuf {
    target_dir().join(profile.folder()).join(name)
}

/// `path` as a user in the workspace's folder would type it.
pub(crate) fn shown(path: &Path) -> String {
    match path.strip_prefix(root()) {
        Ok(relative) => format!("./{}", relative.display()),
        Err(_) => path.display().to_string(),
    }
}

/// Which build of our binaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Debug,
    /// Quick to run.
    Release,
}

impl Profile {
    /// `Release` if asked for.
    pub(crate) const fn release_if(release: bool) -> Self {
        if release { Self::Release } else { Self::Debug }
    }

    /// Cargo's folder for it, also the folder under `out/build-igvm`.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }

    /// Cargo's arguments for it.
    pub(crate) const fn args(self) -> &'static [&'static str] {
        match self {
            Self::Debug => &[],
            Self::Release => &["--release"],
        }
    }
}
