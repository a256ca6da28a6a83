// SPDX-License-Identifier: MIT
//! Says that it started and crashes with a triple fault.
//!
//! Always true: an empty IDT and an invalid instruction; nothing else faults.
#![no_std]
#![no_main]

use guest_rt::entry::Entry;
use guest_rt::power::End;
use guest_rt::report::start;

guest_rt::entry!(main);

fn main(_: &Entry) -> End {
    start("triple_fault");
    End::Crash
}
