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

use std::sync::{Mutex, MutexGuard};

/// Locks `mutex`; a panic in another thread while it was held does not take this one down as well.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod testing;
