// SPDX-License-Identifier: MIT
//! A firmware in the MSVM.fd shape that uses the Hyper-V generation 2 machine in the order in which
//! Microsoft's firmware does, and checks each answer.
//!
//! Always true: every promise is one `probe:` line; what is switched on is switched off again as at the end
//! of boot services, before it powers off. Not here: the entry state and the blob (`uefi_probe`).
#![no_std]
#![no_main]

mod hv_bios;
mod hv_hypercalls;
mod hv_interface;
mod hv_time;

use guest_rt::entry::Entry;
use guest_rt::lapic;
use guest_rt::power::End;
use guest_rt::report::start;

guest_rt::entry!(main);

fn main(_entry: &Entry) -> End {
    start("hv_probe");
    hv_bios::check_early();
    hv_interface::check_leaves();
    hv_time::check_reference_counter();
    lapic::enable();
    hv_interface::identify();
    hv_hypercalls::check_all();
    hv_interface::enable_pages();
    hv_time::check_direct_timer();
    hv_time::check_message_timer();
    hv_time::check_one_shot();
    hv_time::check_reference_page();
    hv_interface::check_other_registers();
    hv_bios::check_variables();
    hv_bios::check_platform();
    hv_bios::check_end();
    hv_interface::tear_down();
    End::PowerOff
}
