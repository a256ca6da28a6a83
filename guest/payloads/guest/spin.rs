// SPDX-License-Identifier: MIT
//! Says that it started and spins: something to pause, reset and stop from outside.
//!
//! Always true: interrupts stay off, so that nothing but the VMM ends it.
#![no_std]
#![no_main]

use guest_rt::cpu;
use guest_rt::entry::Entry;
use guest_rt::power::End;
use guest_rt::report::start;

guest_rt::entry!(main);

fn main(_: &Entry) -> End {
    start("spin");
    loop {
        cpu::relax();
    }
}
