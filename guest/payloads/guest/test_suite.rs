// SPDX-License-Identifier: MIT
//! Named cases for `type=test`: ports, memory, timers, interrupts, exceptions, processors.
//!
//! Always true: every case prints one `case` line; the exit code on the test-exit port is 0 when all pass
//! and 1 otherwise; `fail=NAME` on the command line makes the case of that name fail, so that what a
//! harness does with a failure can be tested; a name that does not exist fails the case `arguments`.
//! Not here: what the host prepared (`igvm_probe`, `boot_probe`).
#![no_std]
#![no_main]

mod cases_exceptions;
mod cases_interrupts;
mod cases_memory;
mod cases_ports;
mod cases_time;
mod processors;

use guest_rt::acpi::Madt;
use guest_rt::entry::Entry;
use guest_rt::memory;
use guest_rt::power::End;
use guest_rt::protocol::control::argument;
use guest_rt::protocol::flat::FAIL_ARGUMENT;
use guest_rt::report::{case, info, start};
use guest_rt::text::Ascii;

guest_rt::entry!(main);

/// What a case found instead of what it should have.
pub(crate) struct Wrong {
    /// What was looked at.
    pub(crate) what: &'static str,
    /// What it was.
    pub(crate) value: u64,
}

pub(crate) type Outcome = Result<(), Wrong>;

/// Fails a case unless `condition` holds.
pub(crate) fn expect(condition: bool, what: &'static str, value: impl Into<u64>) -> Outcome {
    if condition {
        Ok(())
    } else {
        Err(Wrong {
            what,
            value: value.into(),
        })
    }
}

type Case = (&'static str, fn() -> Outcome);

const GROUPS: [&[Case]; 5] = [
    cases_ports::CASES,
    cases_memory::CASES,
    cases_time::CASES,
    cases_interrupts::CASES,
    cases_exceptions::CASES,
];

/// Name of the case that is about the command line itself.
const ARGUMENTS: &str = "arguments";
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
    let fail = argument(command_line, FAIL_ARGUMENT).unwrap_or("");

    let known = |name: &str| name == ARGUMENTS || cases().any(|(known, _)| *known == name);
    if fail.is_empty() || (known(fail) && fail != ARGUMENTS) {
        case(ARGUMENTS, true, format_args!(""));
    } else {
        case(
            ARGUMENTS,
            false,
            format_args!("fail={} asks for this", Ascii(fail.as_bytes())),
        );
    }
    for (name, run) in cases() {
        match run() {
            _ if *name == fail => case(name, false, format_args!("the command line asks for this")),
            Ok(()) => case(name, true, format_args!("")),
            Err(wrong) => case(name, false, format_args!("{} is {:#x}", wrong.what, wrong.value)),
        }
    }
    start_processors(entry.saved.gpr[8]);
    End::TestExit
}

fn cases() -> impl Iterator<Item = &'static Case> {
    GROUPS.iter().copied().flatten()
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
