// SPDX-License-Identifier: MIT
//! Named cases for `type=test`: ports, memory, timers, interrupts, exceptions, processors.
//!
//! Always true: the exit code on the test-exit port is 0 when all pass and 1 otherwise. Not here: what the
//! host prepared (`igvm_probe`, `boot_probe`), the OVMF machine (`machine_suite`).
#![no_std]
#![no_main]

mod cases;
mod cases_exceptions;
mod cases_interrupts;
mod cases_memory;
mod cases_ports;
mod cases_time;
mod processors;

use cases::{Case, Outcome, expect};
use guest_rt::acpi::Madt;
use guest_rt::entry::Entry;
use guest_rt::memory;
use guest_rt::power::End;
use guest_rt::report::{case, info, start};
use guest_rt::text::Ascii;

guest_rt::entry!(main);

const GROUPS: [&[Case]; 5] = [
    cases_ports::CASES,
    cases_memory::CASES,
    cases_time::CASES,
    cases_interrupts::CASES,
    cases_exceptions::CASES,
];

const TRAMPOLINE_PAGE: u8 = 0x08;
const AP_STACKS: u64 = 0x1_0000;

fn main(entry: &Entry) -> End {
    start("test_suite");
    let command_line = match entry.saved.gpr[6] {
        0 => &[],
        gpa => memory::c_string(gpa, 4096),
    };
    info("command-line", format_args!("{}", Ascii(command_line)));
    let command_line = core::str::from_utf8(command_line).unwrap_or("");
    cases::run(&GROUPS, command_line);
    start_processors(entry.saved.gpr[8]);
    End::TestExit
}

fn start_processors(madt: u64) {
    if madt == 0 {
        return;
    }
    let madt = Madt::read(memory::bytes(madt, 0x2000));
    if let Err(flaw) = &madt {
        case("madt", false, format_args!("{flaw}"));
    }
    processors::start_all(madt.as_ref().ok(), TRAMPOLINE_PAGE, AP_STACKS);
}
