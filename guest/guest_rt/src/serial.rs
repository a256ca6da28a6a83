// SPDX-License-Identifier: MIT
//! COM1, polled.
//!
//! Always true: bytes leave in order; one processor writes at a time (a lock that traps and panics break);
//! with FIFOs, 16 bytes go out per status poll (16550 data sheet). Not here: lines and their meaning
//! (`report`).

use crate::{cpu, port, time::Deadline};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use guest_protocol::ports::COM1;

const DATA: u16 = COM1;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const FIFO_CONTROL: u16 = COM1 + 2;
const LINE_CONTROL: u16 = COM1 + 3;
const MODEM_CONTROL: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;
const DATA_READY: u8 = 1 << 0;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Bytes that fit an empty transmitter with FIFOs.
const FIFO_BYTES: u8 = 16;
/// How long a byte may take to leave, in milliseconds, before it is dropped: a report to a port that
/// nobody drains must not hang the guest.
const PATIENCE_MS: u64 = 2000;

static LOCK: AtomicBool = AtomicBool::new(false);
/// Bytes that may be written before the status is polled again.
static ROOM: AtomicU8 = AtomicU8::new(0);
/// Bytes per poll: [`FIFO_BYTES`] or 1.
static BURST: AtomicU8 = AtomicU8::new(1);

/// Sets the port up: 115200 8N1, FIFOs on, interrupts off.
pub fn init() {
    port::write_u8(INTERRUPT_ENABLE, 0);
    port::write_u8(LINE_CONTROL, 0x80);
    port::write_u8(DATA, 1);
    port::write_u8(INTERRUPT_ENABLE, 0);
    port::write_u8(LINE_CONTROL, 0x03);
    // FIFOs on, not cleared: what was typed before the guest got here is kept.
    port::write_u8(FIFO_CONTROL, 0x01);
    port::write_u8(MODEM_CONTROL, 0x03);
    let has_fifo = port::read_u8(FIFO_CONTROL) & 0xC0 == 0xC0;
    BURST.store(if has_fifo { FIFO_BYTES } else { 1 }, Ordering::Relaxed);
    ROOM.store(0, Ordering::Relaxed);
}

/// A byte that has arrived.
pub fn read() -> Option<u8> {
    (port::read_u8(LINE_STATUS) & DATA_READY != 0).then(|| port::read_u8(DATA))
}

/// Writes under the lock.
pub fn with(write: impl FnOnce(&mut Writer)) {
    while LOCK.swap(true, Ordering::Acquire) {
        cpu::relax();
    }
    write(&mut Writer(()));
    release();
}

/// Gives the lock back, also somebody else's: for traps and panics only.
pub fn release() {
    LOCK.store(false, Ordering::Release);
}

/// The right to write.
#[derive(Debug)]
pub struct Writer(());

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(put);
        Ok(())
    }
}

fn put(byte: u8) {
    let mut room = ROOM.load(Ordering::Relaxed);
    if room == 0 {
        let limit = Deadline::in_ms(PATIENCE_MS);
        if !limit.wait(|| port::read_u8(LINE_STATUS) & TRANSMITTER_EMPTY != 0) {
            return;
        }
        room = BURST.load(Ordering::Relaxed);
    }
    port::write_u8(DATA, byte);
    ROOM.store(room - 1, Ordering::Relaxed);
}
