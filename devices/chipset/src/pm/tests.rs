// SPDX-License-Identifier: MIT
//! The ACPI block at register level.

use super::*;
use crate::lock;
use crate::testing::{Bench, outb};
use std::sync::Mutex;

fn block(bench: &Bench, layout: PmLayout) -> Arc<Mutex<PowerManagement>> {
    bench.world().timed(|timer| {
        PowerManagement::new(
            layout,
            bench.clock.clone(),
            timer,
            bench.line(9),
            bench.record.clone(),
        )
    })
}

fn inw(pm: &Mutex<PowerManagement>, offset: u16) -> u16 {
    let mut data = [0; 2];
    lock(pm).port_read(offset, &mut data);
    u16::from_le_bytes(data)
}

fn inl(pm: &Mutex<PowerManagement>, offset: u16) -> u32 {
    let mut data = [0; 4];
    lock(pm).port_read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn outw(pm: &Mutex<PowerManagement>, offset: u16, value: u16) {
    lock(pm).port_write(offset, &value.to_le_bytes());
}

#[test]
fn the_timer_runs_at_its_rate_and_wraps_at_24_bits() {
    let bench = Bench::new();
    let pm = block(&bench, PmLayout::ICH9);
    bench.advance(1_000_000_000);
    assert_eq!(inl(&pm, 8), 3_579_545);
    // 2^24 ticks are 4.686... s.
    bench.advance(3_686_999_999);
    assert_eq!(
        inl(&pm, 8),
        (PM_TIMER_HZ as u128 * 4_686_999_999 / 1_000_000_000) as u32 & 0xFF_FFFF
    );
    assert!(inl(&pm, 8) < 4000);
    let hyperv = block(&bench, PmLayout::HYPERV);
    assert!(inl(&hyperv, 8) > 0xFF_FFFF);
}

#[test]
fn the_timer_carry_raises_the_sci_when_enabled() {
    let bench = Bench::new();
    let pm = block(&bench, PmLayout::ICH9);
    outw(&pm, 4, SCI_EN);
    outw(&pm, 2, 1);
    bench.advance(2_343_000_000);
    assert!(!bench.record.level(9));
    bench.advance(1_000_000);
    assert!(bench.record.level(9));
    assert_eq!(inw(&pm, 0) & 1, 1);
    outw(&pm, 0, 1);
    assert!(!bench.record.level(9));
    bench.advance(2_344_000_000);
    assert!(bench.record.level(9), "the next half period carries again");
}

#[test]
fn soft_off_works_by_word_and_by_the_sleep_control_byte() {
    let bench = Bench::new();
    let pm = block(&bench, PmLayout::HYPERV);
    outw(&pm, 4, 1 << 13);
    outb(&mut *lock(&pm), 5, 1 << 5);
    assert_eq!(
        *lock(&bench.record.power),
        [PowerRequest::Shutdown, PowerRequest::Shutdown]
    );
    assert_eq!(inw(&pm, 4) & (1 << 13), 0, "SLP_EN reads zero");
}

#[test]
fn another_sleep_type_wakes_at_once() {
    let bench = Bench::new();
    let pm = block(&bench, PmLayout::HYPERV);
    outw(&pm, 4, 1 << 13 | 3 << 10);
    assert!(lock(&bench.record.power).is_empty());
    assert_eq!(inw(&pm, 0), 1 << 15);
}

#[test]
fn sleep_types_that_do_not_exist_do_not_fill_the_log() {
    let bench = Bench::new();
    let pm = block(&bench, PmLayout::HYPERV);
    let meter = soak_case::LogMeter::default();
    tracing::subscriber::with_default(meter.clone(), || {
        for lives in 1..3 {
            (0..100).for_each(|_| outw(&pm, 4, SLP_EN | 3 << 10));
            assert_eq!(meter.lines(), lives * 10);
            lock(&pm).reset();
        }
    });
}

#[test]
fn the_power_button_raises_the_sci_only_in_acpi_mode() {
    let bench = Bench::new();
    let pm = block(&bench, PmLayout::ICH9);
    outw(&pm, 2, 1 << 8);
    lock(&pm).press_power_button();
    assert!(!bench.record.level(9));
    outw(&pm, 4, SCI_EN);
    assert!(bench.record.level(9));
    outw(&pm, 0, 1 << 8);
    assert!(!bench.record.level(9));
}

#[test]
fn general_purpose_events_are_write_one_to_clear() {
    let bench = Bench::new();
    let pm = block(&bench, PmLayout::HYPERV);
    outw(&pm, 0xE, 0x0101);
    lock(&pm).raise_gpe(8);
    lock(&pm).raise_gpe(63);
    assert!(bench.record.level(9));
    assert_eq!(inw(&pm, 0xC), 0x100);
    outw(&pm, 0xC, 0x100);
    assert_eq!((inw(&pm, 0xC), bench.record.level(9)), (0, false));
}

#[test]
fn reset_restores_the_mode_of_the_machine() {
    let bench = Bench::new();
    for (layout, control) in [(PmLayout::HYPERV, 1), (PmLayout::ICH9, 0)] {
        let pm = block(&bench, layout);
        outw(&pm, 4, 0x1C02);
        outw(&pm, 2, 0x521);
        lock(&pm).reset();
        assert_eq!((inw(&pm, 4), inw(&pm, 2)), (control, 0));
    }
}
