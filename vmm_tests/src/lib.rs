// SPDX-License-Identifier: MIT
//! Boots the real `openvmm` binary and looks at what comes out: the harness of the end-to-end tests.
//!
//! ```no_run
//! use vmm_tests::{Backend, Vm, files};
//!
//! let file = files::uefi_probe();
//! let mut vm = Vm::builder(Backend::Kvm).uefi_igvm(file.path()).args(["-m", "2GB", "-p", "1"]).start();
//! vm.wait_for("done: ");
//! assert_eq!(vm.wait_for_exit().code, 0);
//! ```
//!
//! Always true: every wait has a time limit; a failed wait panics with the whole transcript; the process
//! is killed by its handle whatever happens; a test that cannot run here says so with [`skip`] and
//! passes. Not here: the tests (`tests/vmm`), what a guest checks (`payloads`).
#![forbid(unsafe_code)]

mod backend;
pub mod files;
mod process;
pub mod programs;
mod report;
mod viewer;
mod vm;

pub use backend::{Backend, skip};
pub use process::{Ended, Process};
pub use report::Report;
pub use viewer::Viewer;
pub use vm::{Vm, VmBuilder};
