// SPDX-License-Identifier: MIT
//! The device that Microsoft's UEFI calls its BIOS device (msvm-machine section 4): an index and a data
//! register behind which the host keeps variables, gives random numbers, reads the firmware's logs, and
//! watches that the guest starts.
//!
//! Always true: a command is done when the OUT that asks for it is over, its results in guest memory; every
//! address and size that the guest gives is checked, and what a command may read, write and log is bounded;
//! a command that cannot be answered changes nothing and is one log line. The RAM of the guest is reached
//! through `guest_memory` only. Beside it stands the watchdog that ACPI describes to the guest
//! ([`GuestWatchdog`]). Not here: what variables mean (`uefi_nvram`), NVDIMMs.
#![forbid(unsafe_code)]

mod console;
mod device;
mod event_log;
mod firmware_log;
mod guest_watchdog;
mod host_log;
mod nvram;
mod watchdog;

#[cfg(test)]
mod tests;

pub use console::{ComPort, console_variables};
pub use device::{LogLevel, PORTS, RandomSource, UefiConfig, UefiDevice, UefiWorld, index};
pub use guest_watchdog::{GUEST_WATCHDOG_PORTS, GuestWatchdog};
