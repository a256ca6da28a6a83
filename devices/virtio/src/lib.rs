// SPDX-License-Identifier: MIT
//! Virtio devices behind the modern PCI transport (VIRTIO 1.2; section numbers in this crate are its).
//!
//! Always true: rings and buffers are reached through [`guest_memory::DmaMemory`] only, so nothing outside
//! guest RAM is touched; what a guest writes never panics and never makes a device take more memory than
//! its rings describe; a driver's mistake stops the device until it is reset and is logged once. The rings
//! are walked by the crate `virtio-queue`.
//! Not here: the bus that BARs are on (`chipset`), what is behind a disk (`block`).
#![forbid(unsafe_code)]

mod blk;
mod console;
mod core;
mod device;
mod interrupts;
mod net;
mod pci;
mod pieces;
mod queue;
mod rng;
mod vsock;

pub use blk::Blk;
pub use console::{Console, ConsoleIo};
pub use device::VirtioDevice;
pub use io_thread::{Progress, Watch};
pub use net::Net;
pub use pci::{VirtioBar, VirtioPci, Waker, Wiring};
pub use pieces::Pieces;
pub use queue::{Chain, QueueError, VirtQueue};
pub use rng::{RandomSource, Rng};
pub use vsock::Vsock;

use chipset_device::lock;

#[cfg(test)]
mod testing;
