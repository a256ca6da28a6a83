// SPDX-License-Identifier: MIT
//! Cases about interrupts: through the local APIC, the I/O APIC and the 8259s.

use crate::{Case, Outcome, expect};
use guest_rt::time::Deadline;
use guest_rt::{cpu, lapic, memory, port, trap};

pub(crate) const CASES: &[Case] = &[
    ("interrupt-self-ipi", self_ipi),
    ("interrupt-masked-waits", masked),
    ("interrupt-priority", priority),
    ("interrupt-lapic-timer", lapic_timer),
    ("interrupt-lapic-timer-periodic", lapic_periodic),
    ("interrupt-wakes-hlt", wakes),
    ("interrupt-pit-through-ioapic", pit_ioapic),
    ("interrupt-pit-through-8259", pit_8259),
];

/// Patience for one interrupt, in milliseconds.
const PATIENCE_MS: u64 = 500;
/// A fraction of a millisecond at the APIC timer's 1 GHz.
const SOON: u32 = 200_000;
const VECTOR_A: u8 = 0x41;
const VECTOR_B: u8 = 0x52;
const VECTOR_TIMER: u8 = 0x60;
const VECTOR_IOAPIC: u8 = 0x61;
/// First vector of the 8259s.
const VECTOR_8259: u8 = 0x30;

/// Whether a vector comes so many times after `before`, with interrupts on.
pub(crate) fn arrives(vector: u8, before: u32, times: u32) -> bool {
    cpu::enable_interrupts();
    let came = Deadline::in_ms(PATIENCE_MS).wait(|| trap::count(vector).wrapping_sub(before) >= times);
    cpu::disable_interrupts();
    came
}

fn self_ipi() -> Outcome {
    lapic::enable();
    let before = trap::count(VECTOR_A);
    lapic::send_fixed(lapic::id(), VECTOR_A);
    expect(arrives(VECTOR_A, before, 1), "count", trap::count(VECTOR_A))
}

/// With interrupts off it stays pending, and comes as soon as they are on.
fn masked() -> Outcome {
    let before = trap::count(VECTOR_A);
    lapic::send_fixed(lapic::id(), VECTOR_A);
    Deadline::in_ms(1).wait(|| false);
    let early = trap::count(VECTOR_A) - before;
    let came = arrives(VECTOR_A, before, 1);
    expect(early == 0, "count with interrupts off", early)?;
    expect(came, "count", trap::count(VECTOR_A))
}

/// Two pending vectors both arrive, once each.
fn priority() -> Outcome {
    let before = [VECTOR_A, VECTOR_B].map(trap::count);
    lapic::send_fixed(lapic::id(), VECTOR_A);
    lapic::send_fixed(lapic::id(), VECTOR_B);
    lapic::send_fixed(lapic::id(), VECTOR_A);
    let came = arrives(VECTOR_B, before[1], 1) && arrives(VECTOR_A, before[0], 1);
    expect(came, "count", trap::count(VECTOR_A))?;
    let twice = trap::count(VECTOR_A) - before[0];
    expect(
        twice == 1,
        "count of a vector requested twice while pending",
        twice,
    )
}

fn lapic_timer() -> Outcome {
    let before = trap::count(VECTOR_TIMER);
    lapic::start_timer(VECTOR_TIMER, SOON);
    let came = arrives(VECTOR_TIMER, before, 1);
    let left = lapic::timer_count();
    lapic::stop_timer();
    expect(came, "count", trap::count(VECTOR_TIMER))?;
    expect(left == 0, "timer count after one shot", left)
}

fn lapic_periodic() -> Outcome {
    let before = trap::count(VECTOR_TIMER);
    lapic::start_periodic_timer(VECTOR_TIMER, SOON);
    let came = arrives(VECTOR_TIMER, before, 3);
    lapic::stop_timer();
    expect(came, "count", trap::count(VECTOR_TIMER))
}

fn wakes() -> Outcome {
    let before = trap::count(VECTOR_TIMER);
    lapic::start_timer(VECTOR_TIMER, 2 * SOON);
    cpu::wait_for_interrupt();
    lapic::stop_timer();
    expect(
        trap::count(VECTOR_TIMER) == before + 1,
        "count",
        trap::count(VECTOR_TIMER),
    )
}

/// PIT channel 0, mode 0 (one interrupt), about a millisecond.
fn start_pit() {
    port::write_u8(0x43, 0x30);
    port::write_u8(0x40, 0xA9);
    port::write_u8(0x40, 0x04);
}

const IOAPIC_SELECT: u64 = 0xFEC0_0000;
const IOAPIC_WINDOW: u64 = 0xFEC0_0010;
/// The pin that the MADT's override gives ISA interrupt 0.
const PIT_PIN: u32 = 2;
/// A pin that sends nothing.
pub(crate) const IOAPIC_MASKED: u32 = 1 << 16;

/// Sends what arrives at `pin` of the I/O APIC to this processor; `low` is the lower half of the pin's entry.
pub(crate) fn set_pin(pin: u32, low: u32) {
    for (register, value) in [(0x11, u32::from(lapic::id()) << 24), (0x10, low)] {
        memory::write_u32(IOAPIC_SELECT, register + 2 * pin);
        memory::write_u32(IOAPIC_WINDOW, value);
    }
}

fn pit_ioapic() -> Outcome {
    let before = trap::count(VECTOR_IOAPIC);
    set_pin(PIT_PIN, VECTOR_IOAPIC.into());
    start_pit();
    let came = arrives(VECTOR_IOAPIC, before, 1);
    set_pin(PIT_PIN, IOAPIC_MASKED);
    expect(came, "count", trap::count(VECTOR_IOAPIC))
}

/// 8259 commands and masks: ICW1-4 as a PC's firmware gives them.
fn pit_8259() -> Outcome {
    const LVT_LINT0: u64 = 0xFEE0_0350;
    const EXT_INT: u32 = 0x700;
    for (at, value) in [
        (0x20, 0x11),
        (0xA0, 0x11),
        (0x21, VECTOR_8259),
        (0xA1, VECTOR_8259 + 8),
        (0x21, 4),
        (0xA1, 2),
        (0x21, 1),
        (0xA1, 1),
        (0xA1, 0xFF),
        (0x21, 0xFE),
    ] {
        port::write_u8(at, value);
    }
    memory::write_u32(LVT_LINT0, EXT_INT);
    let before = trap::count(VECTOR_8259);
    start_pit();
    let came = arrives(VECTOR_8259, before, 1);
    port::write_u8(0x20, 0x20);
    port::write_u8(0x21, 0xFF);
    memory::write_u32(LVT_LINT0, EXT_INT | 1 << 16);
    expect(came, "count", trap::count(VECTOR_8259))
}
