// SPDX-License-Identifier: MIT
//! Where the programs under test are.

use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The `openvmm` binary.
pub fn openvmm() -> PathBuf {
    ours("OPENVMM_BIN", "openvmm")
}

/// The `igvmtool` binary.
pub fn igvmtool() -> PathBuf {
    ours("IGVMTOOL_BIN", "igvmtool")
}

/// The repository.
pub fn repository() -> PathBuf {
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// A program that `cargo xtask test` installs, or that is in `PATH`; the error is why there is none.
pub fn foreign(name: &str) -> Result<PathBuf, String> {
    let installed = std::env::var_os("OPENVMM_TOOLS").map(|dir| PathBuf::from(dir).join(name));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<_> = std::env::split_paths(&in_path)
        .map(|dir| dir.join(name))
        .collect();
    let found = installed.into_iter().chain(in_path).find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not installed; cargo xtask test installs it"))
}

/// Runs `igvmtool` to its end.
///
/// # Panics
/// If it cannot be started.
pub fn run_igvmtool<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    run(&igvmtool(), args)
}

/// Runs a program to its end with the repository as working directory.
///
/// # Panics
/// If it cannot be started.
pub fn run<S: AsRef<std::ffi::OsStr>>(
    program: &std::path::Path,
    args: impl IntoIterator<Item = S>,
) -> Output {
    let output = Command::new(program)
        .args(args)
        .current_dir(repository())
        .output();
    output.unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()))
}

/// `cargo xtask test` says where ours are; a plain `cargo test` finds them beside its own binaries.
fn ours(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().unwrap_or_default();
    let folder = test.parent().and_then(|deps| deps.parent()).unwrap_or(&test);
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not built; run `cargo xtask test`, or `cargo build -p openvmm_entry -p igvmtool` first",
        path.display()
    );
    path
}

/// The program that a guest's TPM is made of, for as long as a test runs.
#[derive(Debug)]
pub struct Swtpm {
    program: Child,
    folder: TempDir,
}

impl Swtpm {
    /// Starts it, or says why there is none.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start() -> Result<Self, String> {
        let program = foreign("swtpm")?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = format!("dir={}", folder.path().display());
        let control = format!("type=unixio,path={}", folder.path().join("control").display());
        let program = Command::new(program)
            .args(["socket", "--tpm2", "--tpmstate", &state, "--ctrl", &control])
            .spawn()
            .expect("swtpm starts");
        let swtpm = Self { program, folder };
        let end = Instant::now() + Duration::from_secs(30);
        while !swtpm.socket().exists() {
            assert!(Instant::now() < end, "swtpm makes no socket");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(swtpm)
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control")
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.program.kill().expect("swtpm is ours to end");
        self.program.wait().expect("swtpm ends");
    }
}
