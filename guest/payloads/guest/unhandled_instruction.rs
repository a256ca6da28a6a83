// SPDX-License-Identifier: MIT
//! Says that it started and executes an instruction that no emulator of ring 0 knows.
//!
//! Always true: no IDT is loaded, so a processor that raises #UD ends in a triple fault.
#![no_std]
#![no_main]

use guest_rt::entry::Entry;
use guest_rt::power::End;
use guest_rt::report::start;
use guest_rt::{cpu, fault};

guest_rt::entry!(main);

fn main(_: &Entry) -> End {
    start("unhandled_instruction");
    let none = cpu::TableRegister::default();
    cpu::load_idt(&none);
    fault::unhandled_instruction();
    End::TestExit
}
