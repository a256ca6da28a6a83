// SPDX-License-Identifier: MIT
//! The worker: builds one VM from its configuration, launches it and runs it to its end.
//!
//! The outline is `run_vm` in `vm`: open the files, decide what they are, resolve the layout, plan,
//! allocate, make partition and devices, collect the host's values, bind, apply, dispatch. A reset zeroes
//! RAM, resets devices and VPs, and does the last four again.
//!
//! ```text
//! entry thread (a client) --- typed verbs ---> vm thread: dispatch (one tokio task)
//!                                                |  run, reset, state        ^ stopped, power, died
//!                                                v                           |
//!                                             vp threads (one per runner)   timer thread
//! ```
//!
//! Always true: no hypervisor is named here; VP threads never wait for the worker inside the guest; a
//! library user may drive a VM with [`rpc::VmClient`] alone.
//! Not here: the command line, terminals and sockets (`openvmm_entry`), device models, file formats.
#![forbid(unsafe_code)]

mod dispatch;
mod display;
mod ending;
pub mod entropy;
mod firmware_watch;
pub mod fit;
mod fw_cfg;
mod host_values;
mod hyperv_machine;
mod launch;
pub mod layout;
mod load;
mod machine;
mod pci_devices;
mod power;
mod registers;
mod report;
pub mod rpc;
mod serial;
#[cfg(test)]
mod testing;
mod timer_thread;
mod tpm_device;
mod trace;
mod uefi_devices;
mod variables;
mod vm;
mod vmbus_devices;
mod vp_thread;

pub use ending::{Ended, HaltReason};
pub use serial::{InputSink, SerialEnd, SerialEnds};
pub use trace::TraceOptions;
pub use vm::{IsolatedOptions, VmOptions, Worker, dry_run, launch_isolated, spawn};
