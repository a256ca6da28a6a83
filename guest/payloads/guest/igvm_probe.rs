// SPDX-License-Identifier: MIT
//! Checks what an IGVM launch promises: pages, parameters, registers, processors.
//!
//! Always true: position independent; entered by a native context (64-bit or 32-bit) or by a VBS register
//! list, which it tells apart by RAX; everything lies where `guest_protocol::igvm_probe` says, relative to
//! where the image is. Not here: the UEFI blob (`uefi_probe`).
#![no_std]
#![no_main]

mod boot_mark;
mod igvm_devices;
mod igvm_entry;
mod igvm_pages;
mod igvm_parameters;
mod processors;

use guest_rt::acpi::Madt;
use guest_rt::entry::Entry;
use guest_rt::power::End;
use guest_rt::protocol::control::argument;
use guest_rt::protocol::igvm_probe as contract;
use guest_rt::report::{info, start};
use guest_rt::{memory, monitor};

guest_rt::entry!(main);

const TRAMPOLINE_PAGE: u8 = 0x08;

fn main(entry: &Entry) -> End {
    start("igvm_probe");
    let second_boot = boot_mark::take();
    let base = entry.image;
    info("base", format_args!("{base:#x}"));
    igvm_entry::check_registers(entry);
    igvm_pages::check_pages(base, second_boot);
    let parameters = igvm_parameters::check_parameters(base);
    igvm_devices::check_device_tree(base, &parameters);
    let madt = area(base, contract::MADT);
    let madt = Madt::read(madt);
    processors::start_all(
        madt.as_ref().ok(),
        TRAMPOLINE_PAGE,
        base + contract::STACKS.offset,
    );
    match argument(parameters.command_line, "probe") {
        Some("monitor") => monitor::run(),
        Some("reset") if !second_boot => boot_mark::reset_once(),
        Some("crash") => End::Crash,
        Some("test-exit") => End::TestExit,
        _ => End::PowerOff,
    }
}

/// The bytes of a parameter area.
pub(crate) fn area(base: u64, area: contract::Area) -> &'static [u8] {
    memory::bytes(base + area.offset, area.len as usize)
}
