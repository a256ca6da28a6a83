// SPDX-License-Identifier: MIT
//! The program as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that goes away.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and gives its path as text.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        text(&path).to_owned()
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn igvmtool(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_igvmtool"))
        .args(args)
        .output()
        .unwrap()
}

/// Exit code and standard output.
pub(crate) fn run(args: &[&str]) -> (i32, String) {
    let output = igvmtool(args);
    let shown = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), shown)
}

/// A command that must succeed; its standard output.
pub(crate) fn ok(args: &[&str]) -> String {
    let output = igvmtool(args);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{args:?}: {out}{err}");
    out.into_owned()
}

/// A program that the tests compare us with; `None` after saying that `test` is skipped.
pub(crate) fn peer(name: &str, test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("OPENVMM_TOOLS").map(PathBuf::from);
    let found = folder
        .map(|folder| folder.join(name))
        .filter(|path| path.exists());
    if found.is_none() {
        println!("skipped: {test}: {name} is not installed (cargo xtask test installs it)");
    }
    found
}
