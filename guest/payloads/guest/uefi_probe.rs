// SPDX-License-Identifier: MIT
//! A firmware in the MSVM.fd shape that checks what the VMM promised it and says so on COM1.
//!
//! Always true: entered as `uefi-launch.md` 5.2 says; reads nothing but what Microsoft's firmware may
//! read; every promise is one `probe:` line, every value that only the host can judge an `info:` line.
//! What happens after the report is `guest_protocol::control::Behaviour`. Not here: being a firmware.
#![no_std]
#![no_main]

mod boot_mark;
mod processors;
mod uefi_blob_report;
mod uefi_state;

use guest_rt::entry::Entry;
use guest_rt::monitor;
use guest_rt::power::End;
use guest_rt::protocol::control::Behaviour;
use guest_rt::report::{info, start};
use guest_rt::uefi_blob::Blob;

guest_rt::entry!(main);

/// Free low memory for application processors: the page of the trampoline, and stacks.
const TRAMPOLINE_PAGE: u8 = 0x08;
const AP_STACKS: u64 = 0x1_0000;

fn main(entry: &Entry) -> End {
    start("uefi_probe");
    let second_boot = boot_mark::take();
    uefi_state::check_entry(entry);
    uefi_state::check_image();
    uefi_state::show_mtrrs();
    let Some(blob) = uefi_blob_report::report(entry) else {
        return End::PowerOff;
    };
    processors::start_all(
        uefi_blob_report::apic_ids(&blob).as_ref(),
        TRAMPOLINE_PAGE,
        AP_STACKS,
    );
    let behaviour = behaviour(&blob);
    info("behaviour", format_args!("{behaviour:?}"));
    match behaviour {
        Behaviour::ResetOnce if !second_boot => boot_mark::reset_once(),
        Behaviour::PowerOff | Behaviour::ResetOnce => End::PowerOff,
        Behaviour::Crash => End::Crash,
        Behaviour::Monitor => monitor::run(),
    }
}

fn behaviour(blob: &Blob<'_>) -> Behaviour {
    blob.asset_tag()
        .and_then(Behaviour::from_tag)
        .unwrap_or_else(|| Behaviour::from_uefi_flags(blob.flags()))
}
