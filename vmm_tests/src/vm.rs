// SPDX-License-Identifier: MIT
//! `openvmm` as a test sees it.

use crate::backend::Backend;
use crate::process::{Ended, Process};
use crate::programs;
use crate::report::Report;
use std::ffi::OsString;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Enough for a guest on software-nested KVM while other tests use both cores.
const LIMIT: Duration = Duration::from_secs(150);

/// A command line in the making.
#[derive(Debug, Clone)]
pub struct VmBuilder {
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: PathBuf,
    limit: Duration,
}

impl VmBuilder {
    /// More arguments.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// `--igvm FILE`.
    #[must_use]
    pub fn igvm(self, file: &Path) -> Self {
        self.args(["--igvm".into(), file.as_os_str().to_owned()])
    }

    /// `--igvm type=KIND,path=FILE`.
    #[must_use]
    pub fn typed_igvm(self, kind: &str, file: &Path) -> Self {
        let mut spec = OsString::from(format!("type={kind},path="));
        spec.push(file);
        self.args(["--igvm".into(), spec])
    }

    /// `--igvm type=uefi,path=FILE`.
    #[must_use]
    pub fn uefi_igvm(self, file: &Path) -> Self {
        self.typed_igvm("uefi", file)
    }

    /// An environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Another working directory than the repository.
    #[must_use]
    pub fn folder(mut self, folder: PathBuf) -> Self {
        self.folder = folder;
        self
    }

    /// Another time limit for each wait.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The command, for tests that connect its streams themselves.
    pub fn command(&self) -> Command {
        let mut command = Command::new(programs::openvmm());
        command.args(&self.args).current_dir(&self.folder);
        for name in [
            "OPENVMM_UEFI_FIRMWARE",
            "X86_64_OPENVMM_UEFI_FIRMWARE",
            "OPENVMM_LOG",
        ] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Starts it.
    pub fn start(&self) -> Vm {
        Vm(Process::start(self.command(), self.limit))
    }

    /// Starts it, closes its input and waits for its end.
    #[track_caller]
    pub fn run(&self) -> Ended {
        let mut vm = self.start();
        vm.close_input();
        vm.wait_for_exit()
    }
}

/// A running `openvmm`.
#[derive(Debug)]
pub struct Vm(Process);

impl Vm {
    /// An `openvmm` on `backend`.
    pub fn builder(backend: Backend) -> VmBuilder {
        Self::without_backend().args(["--hypervisor", backend.name()])
    }

    /// An `openvmm` that chooses its hypervisor, or needs none.
    pub fn without_backend() -> VmBuilder {
        VmBuilder {
            args: Vec::new(),
            environment: Vec::new(),
            folder: programs::repository(),
            limit: LIMIT,
        }
    }

    /// Waits for a payload's whole report.
    ///
    /// # Panics
    /// If it does not come, or is not a report.
    #[track_caller]
    pub fn report(&mut self) -> Report {
        let mut text = self.wait_for("done: ");
        text.push_str(&self.wait_for("\n"));
        Report::parse(&text).unwrap_or_else(|what| panic!("{what}\n{}", self.transcript()))
    }
}

impl Deref for Vm {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Vm {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}
