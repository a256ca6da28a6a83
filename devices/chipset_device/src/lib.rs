// SPDX-License-Identifier: MIT
//! What a device is, what it may ask of its world, and what a virtual processor asks of its devices.
//!
//! Always true: a device is a register machine. It gets its world (lines, clock, timers, power
//! requests) in its constructor, knows offsets and never addresses, runs synchronously on the VP's
//! thread, never blocks, and keeps its volatile state in one struct that [`Device::reset`] restores.
//! Unclaimed ports and MMIO read all ones.
//! Not here: address decoding (the chipset's bus), hypervisors, guest memory.
#![forbid(unsafe_code)]

mod bus;
mod clock;
mod line;
mod log;
mod power;
mod timer;

pub use bus::{
    Device, MmioDevice, MsrHandler, Placement, PortDevice, VpBus, VpEvents, VpInterrupts, VpPorts, VpWake,
};
pub use clock::Clock;
pub use line::{InterruptLine, LineTarget, MsiTarget};
pub use log::LogBudget;
pub use power::{PowerRequest, PowerSink};
pub use timer::{Timed, TimerClient, TimerHandle, TimerQueue};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Index of a virtual processor; 0 is the bootstrap processor.
pub type VpIndex = u32;

/// Fills `data` with what an unclaimed address reads: all ones.
pub fn unclaimed(data: &mut [u8]) {
    data.fill(0xFF);
}

/// Locks `mutex`; a panic in another thread while it was held does not take this one down as well.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
