// SPDX-License-Identifier: MIT
//! A driver for any virtio device over PCI: features, up to three queues, one chain at a time in each.
//!
//! Always true: the queues and nothing else are in the first [`QUEUES_LEN`] bytes of the free memory; all
//! queues send the same interrupt. Not here: what a device's requests look like.

#![allow(dead_code, reason = "several payloads share this driver, and none uses all of it")]

use crate::virtio_pci::Function;
use guest_rt::protocol::flat::FREE_GPA;
use guest_rt::time::Deadline;
use guest_rt::{cpu, lapic, memory, trap};

/// Bytes of free memory that the queues take.
pub(crate) const QUEUES_LEN: u64 = 0x1_0000;
const MOST_QUEUES: u16 = 3;
const QUEUE_STEP: u64 = 0x4000;
/// Where in a queue's memory its rings are; the descriptor table comes first.
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const SIZE: u16 = 16;
const VECTOR: u8 = 0x54;
/// Patience for one chain, in milliseconds.
const PATIENCE_MS: u64 = 5000;

/// Descriptor flags.
const NEXT: u16 = 1;
const WRITABLE: u16 = 2;
/// VIRTIO_F_VERSION_1, in the upper half of the features.
const VERSION_1: u32 = 1;

/// A buffer of a chain.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) gpa: u64,
    pub(crate) len: u32,
    /// The device writes it.
    pub(crate) writable: bool,
}

#[derive(Clone, Copy, Default)]
struct Queue {
    base: u64,
    notify: u64,
    available: u16,
    used: u16,
}

/// A device, started.
pub(crate) struct Driver {
    /// Where the device's own configuration is.
    pub(crate) config: u64,
    queues: [Queue; MOST_QUEUES as usize],
}

impl Driver {
    /// Does what section 3.1.1 of the specification says, with these of the lower 32 features and no others.
    pub(crate) fn start(function: &Function, bar: u64, features: u32, queues: u16) -> Option<Self> {
        const COMMON: u8 = 1;
        const NOTIFY: u8 = 2;
        const DEVICE: u8 = 4;
        let common = bar + function.structure(COMMON)?.0;
        let (notify, step) = function.structure(NOTIFY)?;
        let config = bar + function.structure(DEVICE).map_or(0, |(offset, _)| offset);
        lapic::enable();
        function.open_message(bar, 1, VECTOR)?;
        let status = |value: u8| {
            memory::write_u8(common + 0x14, value);
            memory::read_u8(common + 0x14) == value
        };
        status(0);
        status(1);
        status(3);
        for (half, features) in [(0, features), (1, VERSION_1)] {
            memory::write_u32(common, half);
            if memory::read_u32(common + 4) & features != features {
                return None;
            }
            memory::write_u32(common + 8, half);
            memory::write_u32(common + 0xC, features);
        }
        if !status(0xB) {
            return None;
        }
        let mut made = [Queue::default(); MOST_QUEUES as usize];
        for (index, queue) in (0..queues.min(MOST_QUEUES)).zip(&mut made) {
            queue.base = FREE_GPA + u64::from(index) * QUEUE_STEP;
            let offset = set_up_queue(common, index, queue.base);
            queue.notify = bar + notify + u64::from(offset) * u64::from(step);
        }
        status(0xF).then_some(Self { config, queues: made })
    }

    /// Interrupts so far.
    pub(crate) fn interrupts() -> u32 {
        trap::count(VECTOR)
    }

    /// Puts a chain into a queue and tells the device.
    pub(crate) fn submit(&mut self, queue: usize, pieces: &[Piece]) {
        let at = &mut self.queues[queue];
        for (n, piece) in (0u16..).zip(pieces) {
            let is_last = usize::from(n) + 1 == pieces.len();
            let flags = if piece.writable { WRITABLE } else { 0 } | if is_last { 0 } else { NEXT };
            let descriptor = at.base + u64::from(n) * 16;
            memory::write_u64(descriptor, piece.gpa);
            memory::write_u32(descriptor + 8, piece.len);
            memory::write_u16(descriptor + 12, flags);
            memory::write_u16(descriptor + 14, n + 1);
        }
        let slot = u64::from(at.available % SIZE);
        memory::write_u16(at.base + AVAILABLE + 4 + slot * 2, 0);
        at.available = at.available.wrapping_add(1);
        memory::write_u16(at.base + AVAILABLE + 2, at.available);
        memory::write_u16(at.notify, queue as u16);
    }

    /// The bytes that the device has written to the chain that it gives back, if it has.
    pub(crate) fn finished(&mut self, queue: usize) -> Option<u32> {
        let at = &mut self.queues[queue];
        if memory::read_u16(at.base + USED + 2) == at.used {
            return None;
        }
        let slot = u64::from(at.used % SIZE);
        at.used = at.used.wrapping_add(1);
        Some(memory::read_u32(at.base + USED + 4 + slot * 8 + 4))
    }

    /// Waits for the interrupt after `before` of them, and for a chain of the queue.
    pub(crate) fn wait(&mut self, queue: usize, before: u32) -> Option<u32> {
        cpu::enable_interrupts();
        let mut written = None;
        let came = Deadline::in_ms(PATIENCE_MS).wait(|| {
            written = written.or_else(|| self.finished(queue));
            written.is_some() && Self::interrupts() != before
        });
        cpu::disable_interrupts();
        written.filter(|_| came)
    }

    /// Sends a chain and waits for its interrupt; gives the bytes written.
    pub(crate) fn transact(&mut self, queue: usize, pieces: &[Piece]) -> Option<u32> {
        let before = Self::interrupts();
        self.submit(queue, pieces);
        self.wait(queue, before)
    }

    /// Sends a chain and waits for it at the ring, interrupts off.
    pub(crate) fn poll(&mut self, queue: usize, pieces: &[Piece]) {
        let flags = self.queues[queue].base + AVAILABLE;
        memory::write_u16(flags, 1);
        self.submit(queue, pieces);
        while self.finished(queue).is_none() {
            cpu::relax();
        }
        memory::write_u16(flags, 0);
    }
}

/// Empties a queue's memory and enables it; gives its notification offset.
fn set_up_queue(common: u64, index: u16, base: u64) -> u16 {
    memory::write_u16(common + 0x16, index);
    memory::write_u16(common + 0x18, SIZE);
    memory::write_u16(common + 0x1A, 1);
    (0..QUEUE_STEP / 8).for_each(|n| memory::write_u64(base + n * 8, 0));
    for (at, gpa) in [(0x20, base), (0x28, base + AVAILABLE), (0x30, base + USED)] {
        memory::write_u32(common + at, gpa as u32);
        memory::write_u32(common + at + 4, 0);
    }
    memory::write_u16(common + 0x1C, 1);
    memory::read_u16(common + 0x1E)
}
