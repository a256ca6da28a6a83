// SPDX-License-Identifier: MIT
//! Reference counter, reference TSC page, synthetic timers.

use crate::hv_interface::{MESSAGE_PAGE, TSC_PAGE, msr};
use guest_rt::cpu::{self, cpuid, rdmsr, wrmsr};
use guest_rt::report::{check, equal, info};
use guest_rt::{memory, trap};

/// A millisecond of the reference counter.
const MS: u64 = 10_000;
/// The firmware's configuration: periodic, lazy, enables itself, direct, vector 0x40.
const FIRMWARE_TIMER: u64 = 0x140E;
const TIMER_VECTOR: u8 = 0x40;
const MESSAGE_VECTOR: u8 = 0x50;
const MESSAGE_SINT: u32 = 1;
const SINT_MASKED: u64 = 1 << 16;
/// Periodic, enables itself, to source 1.
const MESSAGE_TIMER: u64 = 1 << 16 | 1 << 3 | 1 << 1;
/// Enabled, to source 1.
const ONE_SHOT: u64 = 1 << 16 | 1;
const TIMER_EXPIRED: u32 = 0x8000_0010;

fn now() -> u64 {
    rdmsr(msr::TIME_REF_COUNT)
}

/// Runs with interrupts on until `time` has come.
fn run_until(time: u64) {
    cpu::enable_interrupts();
    while now() < time {
        cpu::relax();
    }
    cpu::disable_interrupts();
}

/// Takes the interrupts that wait already; a hypervisor may need a moment to see that it may give them.
fn take_pending() {
    run_until(now() + MS);
}

/// Runs with interrupts on until `condition` holds, a second at most.
fn run_while(condition: impl Fn() -> bool) {
    let end = now() + 1000 * MS;
    cpu::enable_interrupts();
    while condition() && now() < end {
        cpu::relax();
    }
    cpu::disable_interrupts();
}

/// It never goes back, and moves.
pub(crate) fn check_reference_counter() {
    let first = now();
    let mut last = first;
    let mut monotonic = true;
    for _ in 0..1000 {
        let next = now();
        monotonic &= next >= last;
        last = next;
    }
    check("reference-counter-monotonic", monotonic, format_args!(""));
    while now() < first + MS {
        cpu::relax();
    }
    check("reference-counter-moves", true, format_args!(""));
}

/// Ten milliseconds, by vector: what the firmware lives on.
pub(crate) fn check_direct_timer() {
    equal("timer-starts-off", rdmsr(msr::STIMER0_CONFIG), 0);
    let before = trap::count(TIMER_VECTOR);
    wrmsr(msr::STIMER0_CONFIG, FIRMWARE_TIMER);
    let start = now();
    wrmsr(msr::STIMER0_COUNT, 10 * MS);
    equal(
        "timer-enables-itself",
        rdmsr(msr::STIMER0_CONFIG),
        FIRMWARE_TIMER | 1,
    );
    run_while(|| trap::count(TIMER_VECTOR) == before);
    let first = now();
    check(
        "timer-not-early",
        first >= start + 10 * MS,
        format_args!("{}", first - start),
    );
    run_until(start + 55 * MS);
    let (ticks, passed) = (trap::count(TIMER_VECTOR) - before, (now() - start) / (10 * MS));
    // Lazy ticks may be dropped by a busy host, but never come early.
    let right = ticks >= 1 && u64::from(ticks) <= passed;
    check("timer-ticks", right, format_args!("{ticks} in {passed} periods"));
    wrmsr(msr::STIMER0_COUNT, 0);
    equal("timer-stops", rdmsr(msr::STIMER0_CONFIG) & 1, 0);
    take_pending();
    let stopped = trap::count(TIMER_VECTOR);
    run_until(now() + 15 * MS);
    take_pending();
    equal(
        "timer-stays-stopped",
        (trap::count(TIMER_VECTOR) - stopped).into(),
        0,
    );
}

fn slot() -> u64 {
    MESSAGE_PAGE + 256 * u64::from(MESSAGE_SINT)
}

/// Takes the message out of the slot; its type.
fn take_message() -> u32 {
    let kind = memory::read_u32(slot());
    memory::write_u32(slot(), 0);
    wrmsr(msr::EOM, 0);
    kind
}

/// By message, with one left in the slot so that the next has to wait.
pub(crate) fn check_message_timer() {
    wrmsr(msr::SINT0 + MESSAGE_SINT, u64::from(MESSAGE_VECTOR));
    let before = trap::count(MESSAGE_VECTOR);
    wrmsr(msr::STIMER0_CONFIG, MESSAGE_TIMER);
    wrmsr(msr::STIMER0_COUNT, 2 * MS);
    run_until(now() + 10 * MS);
    run_while(|| memory::read_u32(slot() + 4) & 0x100 == 0);
    equal(
        "message-interrupts-once-while-full",
        (trap::count(MESSAGE_VECTOR) - before).into(),
        1,
    );
    equal(
        "message-type",
        memory::read_u32(slot()).into(),
        TIMER_EXPIRED.into(),
    );
    let header = memory::read_u32(slot() + 4);
    equal("message-size-and-pending-flag", header.into(), 0x118);
    let (expired, delivered) = (memory::read_u64(slot() + 24), memory::read_u64(slot() + 32));
    check(
        "message-times",
        expired <= delivered && delivered <= now(),
        format_args!("{expired} {delivered}"),
    );
    take_message();
    run_while(|| trap::count(MESSAGE_VECTOR) - before < 2);
    let taken = trap::count(MESSAGE_VECTOR) - before;
    check(
        "message-follows-end-of-message",
        taken >= 2,
        format_args!("{taken}"),
    );
    wrmsr(msr::STIMER0_COUNT, 0);
    take_message();
    memory::write_u32(slot(), 0);
    take_pending();
}

/// Once, at an absolute time.
pub(crate) fn check_one_shot() {
    let before = trap::count(MESSAGE_VECTOR);
    let due = now() + 3 * MS;
    wrmsr(msr::STIMER0_COUNT, due);
    wrmsr(msr::STIMER0_CONFIG, ONE_SHOT);
    run_while(|| trap::count(MESSAGE_VECTOR) == before);
    run_until(due + 5 * MS);
    equal("one-shot-once", (trap::count(MESSAGE_VECTOR) - before).into(), 1);
    equal("one-shot-disables-itself", rdmsr(msr::STIMER0_CONFIG) & 1, 0);
    equal("one-shot-time", memory::read_u64(slot() + 24), due);
    take_message();
    wrmsr(msr::SINT0 + MESSAGE_SINT, SINT_MASKED);
}

/// The page and the register tell the same time, where there is a page.
pub(crate) fn check_reference_page() {
    if cpuid(0x4000_0003, 0)[0] >> 9 & 1 == 0 {
        info("reference-tsc-page", format_args!("not offered"));
        return;
    }
    wrmsr(msr::REFERENCE_TSC, TSC_PAGE | 1);
    let sequence = memory::read_u32(TSC_PAGE);
    check("reference-page-valid", sequence != 0, format_args!("{sequence}"));
    let (scale, offset) = (memory::read_u64(TSC_PAGE + 8), memory::read_u64(TSC_PAGE + 16));
    let page = || {
        let time = u128::from(cpu::tsc()) * u128::from(scale) >> 64;
        (time as u64).wrapping_add(offset)
    };
    let mut ordered = true;
    for _ in 0..1000 {
        let times = [now(), page(), now(), page()];
        ordered &= times.is_sorted();
    }
    check("reference-page-agrees", ordered, format_args!("scale {scale:#x}"));
    wrmsr(msr::REFERENCE_TSC, 0);
}
