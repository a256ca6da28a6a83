// SPDX-License-Identifier: MIT
//! The real-time clock; the bench's clock starts at 2026-01-01T00:00:00Z.

use super::*;
use crate::lock;
use crate::testing::{Bench, inb, outb};
use std::sync::Mutex;

fn rtc(bench: &Bench) -> Arc<Mutex<Rtc>> {
    rtc_with(bench, CmosMemory::default())
}

fn rtc_with(bench: &Bench, memory: CmosMemory) -> Arc<Mutex<Rtc>> {
    bench
        .world()
        .timed(|timer| Rtc::new(memory, bench.clock.clone(), timer, bench.line(8)))
}

fn get(rtc: &Mutex<Rtc>, index: u8) -> u8 {
    outb(&mut *lock(rtc), 0, index);
    inb(&mut *lock(rtc), 1)
}

fn set(rtc: &Mutex<Rtc>, index: u8, value: u8) {
    outb(&mut *lock(rtc), 0, index);
    outb(&mut *lock(rtc), 1, value);
}

fn time(rtc: &Mutex<Rtc>) -> [u8; 7] {
    [CENTURY, 9, 8, 7, 4, 2, 0].map(|i| get(rtc, i))
}

#[test]
fn reset_values_and_time_are_there() {
    let bench = Bench::new();
    let rtc = rtc(&bench);
    assert_eq!([A, B, C, D].map(|i| get(&rtc, i)), [0x26, 0x02, 0, 0x80]);
    assert_eq!(time(&rtc), [0x20, 0x26, 1, 1, 0, 0, 0]);
    bench.advance(3_723_000_000_000);
    assert_eq!(time(&rtc), [0x20, 0x26, 1, 1, 1, 2, 3]);
    // The index reads back and its top bit is not part of it.
    assert_eq!((get(&rtc, 0x80 | D), inb(&mut *lock(&rtc), 0)), (0x80, 0x80 | D));
}

#[test]
fn update_in_progress_is_short_and_before_the_second() {
    let bench = Bench::new();
    let rtc = rtc(&bench);
    assert_eq!(get(&rtc, A) & A_UPDATING, 0);
    bench.advance(997_700_000);
    assert_eq!(get(&rtc, A) & A_UPDATING, 0);
    bench.advance(100_000);
    assert_eq!(get(&rtc, A) & A_UPDATING, A_UPDATING);
    assert_eq!(get(&rtc, 0), 0);
    bench.advance(2_200_000);
    assert_eq!((get(&rtc, A) & A_UPDATING, get(&rtc, 0)), (0, 1));
    set(&rtc, B, 0x82);
    bench.advance(999_000_000);
    assert_eq!(get(&rtc, A) & A_UPDATING, 0, "no updates while SET");
}

#[test]
fn the_guest_can_set_the_time() {
    let bench = Bench::new();
    let rtc = rtc(&bench);
    set(&rtc, B, 0x86);
    bench.advance(5_000_000_000);
    assert_eq!(get(&rtc, 0), 0, "frozen");
    for (index, value) in [
        (CENTURY, 19),
        (9, 99),
        (8, 12),
        (7, 31),
        (4, 23),
        (2, 59),
        (0, 58),
    ] {
        set(&rtc, index, value);
    }
    set(&rtc, B, 0x06);
    assert_eq!(time(&rtc), [19, 99, 12, 31, 23, 59, 58]);
    bench.advance(2_000_000_000);
    assert_eq!(time(&rtc), [20, 0, 1, 1, 0, 0, 0]);
    set(&rtc, 2, 30);
    assert_eq!(time(&rtc), [20, 0, 1, 1, 0, 30, 0]);
    lock(&rtc).reset();
    set(&rtc, B, 6);
    assert_eq!(time(&rtc), [20, 0, 1, 1, 0, 30, 0], "the clock survives a reset");
}

#[test]
fn twelve_hour_mode_has_an_afternoon_bit() {
    let bench = Bench::new();
    let rtc = rtc(&bench);
    set(&rtc, B, 0);
    assert_eq!(get(&rtc, 4), 0x12);
    bench.advance(13 * 3600 * 1_000_000_000);
    assert_eq!(get(&rtc, 4), 0x81);
}

#[test]
fn the_periodic_interrupt_comes_at_its_rate() {
    let bench = Bench::new();
    let rtc = rtc(&bench);
    set(&rtc, B, PERIODIC | 2);
    let mut ticks = 0;
    let end = 1_000_000_000;
    while let Some(deadline) = bench.timers.next_deadline().filter(|&d| d <= end) {
        bench.advance(deadline - bench.clock.now());
        assert_eq!(get(&rtc, C) & (C_REQUEST | PERIODIC), C_REQUEST | PERIODIC);
        ticks += 1;
    }
    assert!((1023..=1024).contains(&ticks), "{ticks} ticks at 1024 Hz");
}

#[test]
fn no_second_interrupt_before_register_c_is_read() {
    let bench = Bench::new();
    let rtc = rtc(&bench);
    set(&rtc, B, UPDATED | 2);
    bench.advance(10_000_000_000);
    assert_eq!(bench.record.take_edges(8), 1);
    assert_eq!(get(&rtc, C) & 0xF0, C_REQUEST | PERIODIC | UPDATED);
    bench.advance(1_000_000_000);
    assert!(bench.record.level(8));
    assert_eq!(get(&rtc, C) & UPDATED, UPDATED);
    assert!(!bench.record.level(8));
}

#[test]
fn the_alarm_fires_at_its_second() {
    let bench = Bench::new();
    let rtc = rtc(&bench);
    for (index, value) in [(1, 0x05), (3, 0x01), (5, 0xC0)] {
        set(&rtc, index, value);
    }
    set(&rtc, B, ALARM | 2);
    bench.advance(64_900_000_000);
    assert!(bench.record.take_lines().is_empty());
    bench.advance(200_000_000);
    assert_eq!(bench.record.take_edges(8), 1);
    assert_eq!(get(&rtc, C) & (C_REQUEST | ALARM), C_REQUEST | ALARM);
    bench.advance(3_600_000_000_000);
    assert_eq!(bench.record.take_edges(8), 1, "hour is a wildcard");
}

#[test]
fn flags_can_be_polled_without_interrupts() {
    let bench = Bench::new();
    let rtc = rtc(&bench);
    bench.advance(1_500_000_000);
    assert_eq!(get(&rtc, C), PERIODIC | UPDATED);
    assert_eq!(get(&rtc, C), 0);
    assert!(bench.record.take_lines().is_empty());
}

#[test]
fn memory_sizes_are_where_firmware_looks() {
    let bench = Bench::new();
    let rtc = rtc_with(
        &bench,
        CmosMemory {
            below_4g: 0x8000_0000,
            above_4g: 0x1_8000_0000,
        },
    );
    assert_eq!([0x15, 0x16].map(|i| get(&rtc, i)), [0x80, 0x02]);
    assert_eq!([0x34, 0x35].map(|i| get(&rtc, i)), [0x00, 0x7F]);
    assert_eq!([0x5B, 0x5C, 0x5D].map(|i| get(&rtc, i)), [0x00, 0x80, 0x01]);
    let small = rtc_with(
        &bench,
        CmosMemory {
            below_4g: 8 << 20,
            above_4g: 0,
        },
    );
    assert_eq!([0x17, 0x18, 0x34].map(|i| get(&small, i)), [0x00, 0x1C, 0]);
}

#[test]
fn ram_survives_a_reset_and_interrupts_do_not() {
    let bench = Bench::new();
    let rtc = rtc(&bench);
    set(&rtc, 0x0F, 0xFE);
    set(&rtc, B, UPDATED | 2);
    bench.advance(1_000_000_000);
    lock(&rtc).reset();
    assert!(!bench.record.level(8));
    assert_eq!(
        (get(&rtc, 0x0F), get(&rtc, B), bench.timers.next_deadline()),
        (0xFE, 2, None)
    );
}
