// SPDX-License-Identifier: MIT
//! The interval timer against a clock that the test moves.

use super::*;
use crate::lock;
use crate::testing::{Bench, inb, outb};

fn pit(bench: &Bench) -> Arc<Mutex<Pit>> {
    bench
        .world()
        .timed(|timer| Pit::new(bench.clock.clone(), timer, bench.line(0)))
}

fn out(pit: &Mutex<Pit>, port: u16, value: u8) {
    outb(&mut *lock(pit), port, value);
}

fn read(pit: &Mutex<Pit>, port: u16) -> u8 {
    inb(&mut *lock(pit), port)
}

fn load(pit: &Mutex<Pit>, channel: u16, control: u8, count: u16) {
    out(pit, 3, control);
    let [low, high] = count.to_le_bytes();
    out(pit, channel, low);
    out(pit, channel, high);
}

fn count(pit: &Mutex<Pit>, channel: u16) -> u16 {
    out(pit, 3, (channel as u8) << 6);
    u16::from_le_bytes([read(pit, channel), read(pit, channel)])
}

#[test]
fn rate_mode_interrupts_at_its_frequency_without_drift() {
    for control in [0x34, 0x36] {
        let bench = Bench::new();
        let pit = pit(&bench);
        load(&pit, 0, control, 11_932);
        bench.advance(10_000_000_000);
        let expected = HZ_TIMES_TEN / 11_932;
        assert_eq!(bench.record.take_edges(0) as u64, expected);
    }
}

const HZ_TIMES_TEN: u64 = 11_931_820;

#[test]
fn a_count_of_zero_is_65536() {
    let bench = Bench::new();
    let pit = pit(&bench);
    load(&pit, 0, 0x34, 0);
    bench.advance(1_000_000_000);
    assert_eq!(bench.record.take_edges(0), 18);
}

#[test]
fn ticks_missed_by_a_busy_host_are_one_tick_and_the_phase_stays() {
    let bench = Bench::new();
    let pit = pit(&bench);
    load(&pit, 0, 0x34, 11_932);
    bench.skip(1_005_000_000);
    assert_eq!(bench.record.take_edges(0), 1);
    let next = bench.timers.next_deadline().unwrap();
    assert_eq!(next, ns_at(11_932 * 101));
}

#[test]
fn terminal_count_raises_its_output_once_and_stays() {
    let bench = Bench::new();
    let pit = pit(&bench);
    load(&pit, 0, 0x30, 1193);
    assert!(!bench.record.level(0));
    bench.advance(999_000);
    assert!(!bench.record.level(0));
    bench.advance(2_000);
    assert!(bench.record.level(0));
    bench.advance(1_000_000_000);
    assert_eq!(bench.record.take_lines(), [(0, true)]);
    load(&pit, 0, 0x30, 1193);
    bench.advance(2_000_000);
    assert_eq!(bench.record.take_lines(), [(0, true)]);
}

#[test]
fn a_strobe_interrupts_once_per_load() {
    let bench = Bench::new();
    let pit = pit(&bench);
    for _ in 0..3 {
        load(&pit, 0, 0x38, 1193);
        bench.advance(5_000_000);
        assert_eq!(bench.record.take_edges(0), 1);
    }
}

#[test]
fn the_count_goes_down_and_a_latch_holds_it() {
    let bench = Bench::new();
    let pit = pit(&bench);
    load(&pit, 0, 0x34, 10_000);
    bench.advance(1_000_000);
    assert_eq!(count(&pit, 0), 10_000 - 1193);
    out(&pit, 3, 0x00);
    bench.advance(1_000_000);
    assert_eq!(u16::from_le_bytes([read(&pit, 0), read(&pit, 0)]), 10_000 - 1193);
    assert_eq!(count(&pit, 0), 10_000 - 2386);
}

#[test]
fn square_wave_counts_twice_per_period() {
    let bench = Bench::new();
    let pit = pit(&bench);
    load(&pit, 0, 0x36, 10_000);
    bench.advance(1_000_000);
    assert_eq!(count(&pit, 0), 10_000 - 2 * 1193);
    bench.advance(4_000_000);
    // 5965 ticks are 965 into the second half.
    assert_eq!(count(&pit, 0), 10_000 - 2 * 965);
}

#[test]
fn decimal_counts_have_decimal_digits() {
    let bench = Bench::new();
    let pit = pit(&bench);
    load(&pit, 0, 0x35, 0x9000);
    bench.advance(1_000_000);
    assert_eq!(count(&pit, 0), 0x7807);
}

#[test]
fn read_back_latches_status_and_count() {
    let bench = Bench::new();
    let pit = pit(&bench);
    out(&pit, 3, 0x34);
    out(&pit, 3, 0xE2);
    assert_eq!(read(&pit, 0), 0xF4, "output high, null count, mode 2, both bytes");
    out(&pit, 0, 0);
    out(&pit, 0, 0x10);
    out(&pit, 3, 0xC2);
    bench.advance(1_000_000);
    assert_eq!(read(&pit, 0), 0xB4);
    assert_eq!([read(&pit, 0), read(&pit, 0)], [0, 0x10]);
}

#[test]
fn channel_2_calibrates_through_port_61() {
    let bench = Bench::new();
    let pit = pit(&bench);
    let mut speaker = SpeakerPort::new(pit.clone());
    // As Linux does: gate on, mode 0, wait for the output.
    outb(&mut speaker, 0, 1);
    load(&pit, 2, 0xB0, 59_659);
    assert_eq!(inb(&mut speaker, 0) & 0x23, 1);
    bench.advance(49_900_000);
    assert_eq!(inb(&mut speaker, 0) & 0x20, 0);
    bench.advance(200_000);
    assert_eq!(inb(&mut speaker, 0) & 0x20, 0x20);
    assert!(bench.record.take_lines().is_empty());
}

#[test]
fn a_low_gate_stops_the_count() {
    let bench = Bench::new();
    let pit = pit(&bench);
    let mut speaker = SpeakerPort::new(pit.clone());
    load(&pit, 2, 0xB0, 10_000);
    bench.advance(1_000_000);
    assert_eq!(count(&pit, 2), 10_000, "the gate was never opened");
    outb(&mut speaker, 0, 1);
    bench.advance(1_000_000);
    outb(&mut speaker, 0, 0);
    bench.advance(1_000_000);
    let held = count(&pit, 2);
    assert!((10_000 - held).abs_diff(1193) <= 1);
    outb(&mut speaker, 0, 1);
    bench.advance(1_000_000);
    assert!((held - count(&pit, 2)).abs_diff(1193) <= 1);
}

#[test]
fn the_refresh_bit_toggles() {
    let bench = Bench::new();
    let mut speaker = SpeakerPort::new(pit(&bench));
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.push(inb(&mut speaker, 0) & 0x10);
        bench.advance(REFRESH_NS);
    }
    assert_eq!(seen, [0, 0x10, 0, 0x10, 0, 0x10, 0, 0x10]);
}

#[test]
fn a_count_of_one_does_not_spin_the_host() {
    let bench = Bench::new();
    let pit = pit(&bench);
    load(&pit, 0, 0x34, 1);
    bench.skip(1_000);
    assert!(bench.timers.next_deadline().unwrap() >= bench.clock.now() + MIN_INTERVAL_NS);
}
