// SPDX-License-Identifier: MIT
//! The runtime under every guest payload: entry, memory map, traps, serial report, application
//! processors, tables and devices that a payload reads.
//!
//! Always true: no allocation, no floating point, no SSE; memory is identity mapped below 4 GiB; the boot
//! processor runs with interrupts off unless a payload turns them on. Compiled by the build script of
//! `payloads` with plain `rustc`, not by cargo (see ARCHITECTURE.md). Not here: what is checked (the
//! payloads), names and numbers shared with the host (`guest_protocol`).
//!
//! A payload's functions take guest physical addresses as plain numbers. That is sound here and nowhere
//! else: a payload owns the whole machine, every address below 4 GiB is mapped, and a wrong one ends in a
//! reported trap.
#![no_std]

#[macro_use]
mod assembly;

pub mod acpi;
pub mod acpi_walk;
pub mod ap;
pub mod cmos;
pub mod cpu;
pub mod entry;
pub mod fault;
pub mod fdt;
pub mod hypercall;
pub mod lab;
pub mod lapic;
pub mod legacy;
pub mod memory;
mod memory_functions;
pub mod monitor;
pub mod paging;
pub mod port;
pub mod power;
pub mod report;
pub mod serial;
pub mod text;
pub mod time;
pub mod trap;
pub mod uefi_blob;

pub use guest_protocol as protocol;

use core::panic::PanicInfo;

/// Names the function that a payload starts with: `fn(&entry::Entry) -> power::End`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// Called by the runtime once the machine is set up.
        #[unsafe(no_mangle)]
        extern "Rust" fn guest_payload_main(entry: &$crate::entry::Entry) -> $crate::power::End {
            $main(entry)
        }
    };
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    serial::release();
    report::line(format_args!("panic: {}", info.message()));
    if let Some(at) = info.location() {
        report::line(format_args!("panic: at {}:{}", at.file(), at.line()));
    }
    power::test_exit(protocol::report::EXIT_TRAP)
}
