// SPDX-License-Identifier: MIT
//! The worker.
#![forbid(unsafe_code)]

mod dispatch;
mod ending;
pub mod entropy;
pub mod fit;
mod host_values;
mod launch;
pub mod layout;
mod load;
mod machine;
mod power;
mod registers;
mod report;
pub mod rpc;
mod serial;
#[cfg(test)]
mod testing;
mod timer_thread;
mod vm;
mod vp_thread;

pub use ending::{Ended, HaltReason};
pub use serial::{InputSink, SerialEnd};
pub use vm::{VmOptions, Worker, dry_run, spawn};
