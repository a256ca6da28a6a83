// SPDX-License-Identifier: MIT
//! Cases about what other machines have too, but the test suite does not reach: interrupts of the serial
//! port and of the real-time clock through the I/O APIC, the PIT's second timer, PM1 control, A20.

use crate::cases_interrupts::{IOAPIC_MASKED, arrives, set_pin};
use crate::{Case, Outcome, expect};
use guest_rt::protocol::ports::{COM1, PM1A_CONTROL};
use guest_rt::time::Deadline;
use guest_rt::{cmos, lapic, port, trap};

pub(crate) const CASES: &[Case] = &[
    ("pit-timer-2-through-port-61", pit_2),
    ("uart-loops-back", uart_loop),
    ("uart-interrupt-through-ioapic", uart_interrupt),
    ("rtc-interrupt-through-ioapic", rtc_interrupt),
    ("pm1-control-keeps-sci-en", pm1_control),
    ("port-92-has-a20-on", a20),
    ("port-cf9-reads-back", reset_control),
];

const PATIENCE_MS: u64 = 500;
const VECTOR: u8 = 0x62;

/// Whether the edge of `pin` that `cause` makes arrives.
fn edge_arrives(pin: u32, cause: impl FnOnce()) -> bool {
    lapic::enable();
    let before = trap::count(VECTOR);
    set_pin(pin, VECTOR.into());
    cause();
    let came = arrives(VECTOR, before, 1);
    set_pin(pin, IOAPIC_MASKED);
    came
}

/// The gate in bit 0 starts it, bit 5 shows its end.
fn pit_2() -> Outcome {
    const OUT: u8 = 0x20;
    let before = port::read_u8(0x61);
    port::write_u8(0x61, before & !3);
    port::write_u8(0x43, 0xB0);
    port::write_u8(0x42, 0xA9);
    port::write_u8(0x42, 0x04);
    let early = port::read_u8(0x61);
    port::write_u8(0x61, before & !3 | 1);
    let ended = Deadline::in_ms(PATIENCE_MS).wait(|| port::read_u8(0x61) & OUT != 0);
    port::write_u8(0x61, before);
    expect(early & OUT == 0, "port 0x61 before", early)?;
    expect(ended, "port 0x61", port::read_u8(0x61))
}

fn uart_loop() -> Outcome {
    let before = port::read_u8(COM1 + 4);
    port::write_u8(COM1 + 4, before | 0x10);
    port::write_u8(COM1, b'L');
    let came = Deadline::in_ms(PATIENCE_MS).wait(|| port::read_u8(COM1 + 5) & 1 != 0);
    let byte = port::read_u8(COM1);
    port::write_u8(COM1 + 4, before);
    expect(came && byte == b'L', "byte", byte)
}

/// An empty transmitter interrupts as soon as it is asked to; OUT2 connects the line.
fn uart_interrupt() -> Outcome {
    const PIN: u32 = 4;
    let modem = port::read_u8(COM1 + 4);
    let came = edge_arrives(PIN, || {
        port::write_u8(COM1 + 4, modem | 8);
        port::write_u8(COM1 + 1, 2);
    });
    let identified = port::read_u8(COM1 + 2) & 0xF;
    port::write_u8(COM1 + 1, 0);
    port::write_u8(COM1 + 4, modem);
    expect(came, "count", trap::count(VECTOR))?;
    // Transmitter empty, or nothing any more.
    expect(
        matches!(identified, 1 | 2),
        "interrupt identification",
        identified,
    )
}

/// The periodic interrupt, about a thousand times per second.
fn rtc_interrupt() -> Outcome {
    const PIN: u32 = 8;
    let (a, b) = (cmos::read(0x0A), cmos::read(0x0B));
    cmos::read(0x0C);
    let came = edge_arrives(PIN, || {
        cmos::write(0x0A, a & 0xF0 | 6);
        cmos::write(0x0B, b | 0x40);
    });
    let cause = cmos::read(0x0C);
    cmos::write(0x0B, b);
    cmos::write(0x0A, a);
    cmos::read(0x0C);
    expect(came, "count", trap::count(VECTOR))?;
    expect(cause & 0xC0 == 0xC0, "register C", cause)
}

fn pm1_control() -> Outcome {
    let before = port::read_u16(PM1A_CONTROL);
    expect(before & 1 == 0, "control after reset", before)?;
    port::write_u16(PM1A_CONTROL, before | 1);
    let after = port::read_u16(PM1A_CONTROL);
    expect(after & 1 == 1, "control with sci_en", after)?;
    port::write_u16(PM1A_CONTROL, before);
    Ok(())
}

fn a20() -> Outcome {
    let value = port::read_u8(0x92);
    expect(value & 2 != 0, "port 0x92", value)
}

fn reset_control() -> Outcome {
    port::write_u8(crate::q35::RESET_CONTROL, 2);
    let value = port::read_u8(crate::q35::RESET_CONTROL);
    port::write_u8(crate::q35::RESET_CONTROL, 0);
    expect(value == 2, "port 0xcf9", value)
}
