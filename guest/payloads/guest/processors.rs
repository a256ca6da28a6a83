// SPDX-License-Identifier: MIT
//! Starts every other processor that a MADT names; shared by the payloads that do.
//!
//! Always true: each started processor prints a line of its own and counts itself once.

use core::sync::atomic::{AtomicU32, Ordering};
use guest_rt::acpi::Madt;
use guest_rt::ap::Starter;
use guest_rt::report::{check, info};
use guest_rt::{cpu, lapic};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Starts the processors of `madt` other than this one; without a MADT there is nothing to start.
pub(crate) fn start_all(madt: Option<&Madt>, page: u8, stacks: u64) {
    let Some(madt) = madt else { return };
    let own = lapic::id();
    info(
        "lapic",
        format_args!(
            "id {own} version {:#x} cpuid-id {}",
            lapic::version(),
            cpu::apic_id()
        ),
    );
    let present = madt.ids().contains(&u32::from(own));
    check("own-apic-id-in-madt", present, format_args!("{own}"));
    lapic::enable();
    let starter = Starter::new(page, stacks, run);
    let mut asked = 0;
    for &id in madt.ids() {
        match u8::try_from(id) {
            Ok(id) if id == own => {}
            Ok(id) => {
                asked += 1;
                let started = starter.start(id);
                check("ap-started", started, format_args!("apic {id}"));
            }
            // An xAPIC's commands have no room for it.
            Err(_) => info("ap-not-started", format_args!("apic {id} needs x2APIC")),
        }
    }
    let counted = COUNTER.load(Ordering::Acquire);
    check("ap-count", counted == asked, format_args!("{counted} of {asked}"));
}

fn run(ticket: u32) {
    COUNTER.fetch_add(1, Ordering::AcqRel);
    info(
        "ap",
        format_args!(
            "apic {} ticket {ticket} cr0 {:#x} cr4 {:#x}",
            lapic::id(),
            cpu::cr0(),
            cpu::cr4()
        ),
    );
}
