// SPDX-License-Identifier: MIT
//! The serial port as drivers see it.

use super::*;
use crate::lock;
use crate::testing::{Bench, inb, outb};

const IER: u16 = 1;
const IIR: u16 = 2;
const LCR: u16 = 3;
const MCR: u16 = 4;
const LSR: u16 = 5;
const MSR: u16 = 6;

fn uart(bench: &Bench) -> Uart {
    Uart::new(bench.line(4), bench.record.clone())
}

#[test]
fn scratch_and_divisor_keep_what_is_written() {
    let bench = Bench::new();
    let mut u = uart(&bench);
    for value in [0xAA, 0x55] {
        outb(&mut u, 7, value);
        assert_eq!(inb(&mut u, 7), value);
    }
    outb(&mut u, LCR, 0x83);
    outb(&mut u, 0, 0x12);
    outb(&mut u, 1, 0x34);
    assert_eq!((inb(&mut u, 0), inb(&mut u, 1)), (0x12, 0x34));
    outb(&mut u, LCR, 3);
    assert_eq!(inb(&mut u, IER), 0);
    assert!(lock(&bench.record.output).is_empty());
}

#[test]
fn the_transmitter_is_always_ready_and_the_cable_connected() {
    let bench = Bench::new();
    let mut u = uart(&bench);
    assert_eq!((inb(&mut u, LSR), inb(&mut u, MSR)), (0x60, 0xB0));
    b"hi".iter().for_each(|&b| outb(&mut u, 0, b));
    assert_eq!(*lock(&bench.record.output), b"hi");
}

#[test]
fn fifo_control_shows_in_the_identification() {
    let bench = Bench::new();
    let mut u = uart(&bench);
    assert_eq!(inb(&mut u, IIR), 1);
    outb(&mut u, IIR, 7);
    assert_eq!(inb(&mut u, IIR), 0xC1);
}

#[test]
fn loopback_returns_data_and_modem_outputs() {
    let bench = Bench::new();
    let mut u = uart(&bench);
    // As Linux probes: loop, OUT2 and RTS give DCD and CTS.
    outb(&mut u, MCR, 0x1A);
    assert_eq!(inb(&mut u, MSR) & 0xF0, 0x90);
    outb(&mut u, 0, 0x5A);
    assert_eq!(inb(&mut u, LSR), 0x61);
    assert_eq!(inb(&mut u, 0), 0x5A);
    outb(&mut u, 0, 1);
    outb(&mut u, 0, 2);
    assert_eq!(inb(&mut u, LSR), 0x63, "one byte without FIFO, then overrun");
    assert!(lock(&bench.record.output).is_empty());
}

#[test]
fn received_bytes_interrupt_until_the_last_is_read() {
    let bench = Bench::new();
    let mut u = uart(&bench);
    outb(&mut u, IIR, 1);
    outb(&mut u, MCR, 8);
    outb(&mut u, IER, 1);
    lock(&bench.record.input).extend(b"ab");
    u.input_ready();
    assert!(bench.record.level(4));
    assert_eq!(inb(&mut u, IIR), 0xC4);
    assert_eq!((inb(&mut u, LSR) & 1, inb(&mut u, 0)), (1, b'a'));
    assert!(bench.record.level(4));
    assert_eq!(inb(&mut u, 0), b'b');
    assert!(!bench.record.level(4));
    assert_eq!(inb(&mut u, LSR) & 1, 0);
}

#[test]
fn more_input_than_the_fifo_holds_is_not_lost() {
    let bench = Bench::new();
    let mut u = uart(&bench);
    outb(&mut u, IIR, 1);
    outb(&mut u, MCR, 8);
    outb(&mut u, IER, 1);
    let sent: Vec<u8> = (0..100).collect();
    lock(&bench.record.input).extend(&sent);
    u.input_ready();
    let mut got = Vec::new();
    while inb(&mut u, LSR) & 1 != 0 {
        got.push(inb(&mut u, 0));
    }
    assert_eq!(got, sent);
    assert!(bench.record.take_edges(4) >= 6, "a new edge per refill");
}

#[test]
fn an_empty_transmitter_interrupts_when_enabled_and_after_each_byte() {
    let bench = Bench::new();
    let mut u = uart(&bench);
    outb(&mut u, MCR, 8);
    outb(&mut u, IER, 2);
    assert_eq!(bench.record.take_edges(4), 1);
    assert_eq!(inb(&mut u, IIR), 2);
    assert_eq!(inb(&mut u, IIR), 1, "reading the identification clears it");
    outb(&mut u, 0, b'x');
    assert_eq!(bench.record.take_edges(4), 1);
    outb(&mut u, 0, b'y');
    assert_eq!(
        bench.record.take_edges(4),
        1,
        "an edge even when the first was not acknowledged"
    );
}

#[test]
fn two_pending_interrupts_are_reported_by_priority() {
    let bench = Bench::new();
    let mut u = uart(&bench);
    outb(&mut u, MCR, 8);
    outb(&mut u, IER, 3);
    lock(&bench.record.input).extend(b"q");
    u.input_ready();
    assert_eq!(inb(&mut u, IIR), 4);
    assert_eq!(inb(&mut u, 0), b'q');
    assert_eq!(inb(&mut u, IIR), 2);
    assert!(!bench.record.level(4));
}

#[test]
fn out2_gates_the_line() {
    let bench = Bench::new();
    let mut u = uart(&bench);
    outb(&mut u, IER, 2);
    assert!(!bench.record.level(4));
    outb(&mut u, MCR, 8);
    assert!(bench.record.level(4));
    u.reset();
    assert!(!bench.record.level(4));
    assert_eq!(inb(&mut u, IER), 0);
}
