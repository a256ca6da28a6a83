// SPDX-License-Identifier: MIT
//! The battery: registers, and the general purpose event of a change (msvm-machine section 11).

use guest_rt::report::{check, equal, line};
use guest_rt::{cpu, memory, port, trap};

const PAGE: u64 = 0xFED3_F000;
const GPE0_STATUS: u16 = 0x40C;
const GPE0_ENABLE: u16 = 0x40E;
const CHANGED: u16 = 1 << 9;
const IO_APIC: u64 = 0xFEC0_0000;
/// The SCI's line.
const SCI: u32 = 9;
const VECTOR: u8 = 0x60;

fn word(register: u64) -> u64 {
    memory::read_u32(PAGE + register).into()
}

fn io_apic(register: u32, value: u32) {
    memory::write_u32(IO_APIC, register);
    memory::write_u32(IO_APIC + 0x10, value);
}

/// A full battery, then what the host says next.
pub(crate) fn check_all() {
    equal("battery-present", word(0), 0x1F);
    equal("battery-idle", word(4), 0);
    equal("battery-full", word(0xC), 5000);
    equal("mains", word(0x10), 1);
    equal("battery-nothing-new", word(0x14), 0);
    io_apic(0x11 + 2 * SCI, 0);
    // By edge: a level that stays up until the event is cleared would leave no time to clear it.
    io_apic(0x10 + 2 * SCI, VECTOR.into());
    port::write_u16(GPE0_ENABLE, CHANGED);
    line(format_args!("info: battery: waiting for a change"));
    while trap::count(VECTOR) == 0 {
        cpu::enable_interrupts();
        cpu::wait_for_interrupt();
        cpu::disable_interrupts();
    }
    let status = port::read_u16(GPE0_STATUS);
    check(
        "battery-event",
        status & CHANGED != 0,
        format_args!("{status:#x}"),
    );
    equal("battery-changed", word(0x14), 2);
    memory::write_u32(PAGE + 0x18, 2);
    equal("battery-change-cleared", word(0x14), 0);
    port::write_u16(GPE0_STATUS, CHANGED);
    equal(
        "battery-event-cleared",
        (port::read_u16(GPE0_STATUS) & CHANGED).into(),
        0,
    );
    line(format_args!(
        "info: battery: state {} rate {:#x} holds {} mains {}",
        word(4),
        word(8),
        word(0xC),
        word(0x10)
    ));
    port::write_u16(GPE0_ENABLE, 0);
}
