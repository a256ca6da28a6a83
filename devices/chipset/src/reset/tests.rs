// SPDX-License-Identifier: MIT
//! Reset and exit ports.

use super::*;
use crate::lock;
use crate::testing::{Bench, inb, outb};

#[test]
fn only_the_right_value_resets() {
    let bench = Bench::new();
    let mut port = ResetValuePort::new(0xFE, bench.record.clone());
    outb(&mut port, 0, 0xD1);
    assert!(lock(&bench.record.power).is_empty());
    outb(&mut port, 0, 0xFE);
    assert_eq!(*lock(&bench.record.power), [PowerRequest::Reset]);
    assert_eq!(inb(&mut port, 0), 0xFF);
}

#[test]
fn reset_control_needs_a_rising_bit_two() {
    let bench = Bench::new();
    let mut port = ResetControl::new(bench.record.clone());
    outb(&mut port, 0, 2);
    assert_eq!(inb(&mut port, 0), 2);
    assert!(lock(&bench.record.power).is_empty());
    outb(&mut port, 0, 6);
    outb(&mut port, 0, 6);
    assert_eq!(*lock(&bench.record.power), [PowerRequest::Reset]);
    port.reset();
    outb(&mut port, 0, 0xE);
    assert_eq!(lock(&bench.record.power).len(), 2);
}

#[test]
fn a20_stays_on_and_fast_reset_resets() {
    let bench = Bench::new();
    let mut port = SystemControlA::new(bench.record.clone());
    outb(&mut port, 0, 0);
    assert_eq!(inb(&mut port, 0), 2);
    outb(&mut port, 0, 3);
    assert_eq!(*lock(&bench.record.power), [PowerRequest::Reset]);
}

#[test]
fn test_exit_takes_only_a_32_bit_write() {
    let bench = Bench::new();
    let mut port = TestExit::new(bench.record.clone());
    outb(&mut port, 0, 1);
    port.port_write(0, &[1, 0]);
    assert!(lock(&bench.record.power).is_empty());
    port.port_write(0, &0x1AAu32.to_le_bytes());
    assert_eq!(*lock(&bench.record.power), [PowerRequest::TestExit(0x2A)]);
}
