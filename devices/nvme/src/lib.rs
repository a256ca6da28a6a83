// SPDX-License-Identifier: MIT
//! An NVMe controller with disks as its namespaces (NVM Express Base Specification 1.4; section numbers in
//! this crate are its).
//!
//! Always true: queues and data are reached through [`guest_memory::DmaMemory`] only; what a guest writes never
//! panics and never makes the controller take more memory than its largest transfer; a command that cannot be
//! carried out ends with the status that the specification names.
//! Not here: namespace management, firmware update, security, more than one controller on a disk.
#![forbid(unsafe_code)]

mod admin;
mod command;
mod controller;
mod function;
mod identify;
mod io;
mod prp;
mod queues;

pub use function::{NvmeBar, NvmePci, Wiring};

use chipset_device::lock;

#[cfg(test)]
mod testing;
