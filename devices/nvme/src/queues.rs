// SPDX-License-Identifier: MIT
//! Submission and completion queues (section 4.1).
//!
//! Always true: indexes are below the queue's size. A completion queue that the guest does not empty stops the
//! submission queues that lead to it, and nothing is lost.

use crate::command::{Command, ENTRY, Outcome};
use guest_memory::{DmaMemory, MemoryError};
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a completion queue entry.
const COMPLETION: u64 = 16;
/// I/O queue pairs, and with the admin queues.
pub(crate) const IO_QUEUES: u16 = 16;
pub(crate) const QUEUES: usize = IO_QUEUES as usize + 1;
/// Entries of the largest queue.
pub(crate) const MOST_ENTRIES: u32 = 1024;

/// What the guest last wrote to the doorbells; written without the controller's lock. Sequentially consistent, so
/// that either the guest sees that its taking of completions matters, or the controller sees what it took.
#[derive(Default)]
pub(crate) struct Doorbells {
    tails: [AtomicU32; QUEUES],
    heads: [AtomicU32; QUEUES],
}

impl Doorbells {
    /// The doorbell register `n`: tails and heads in turn (section 3.1.24).
    pub(crate) fn ring(&self, n: usize, value: u32) {
        let side = if n.is_multiple_of(2) {
            &self.tails
        } else {
            &self.heads
        };
        if let Some(bell) = side.get(n / 2) {
            bell.store(value & 0xFFFF, Ordering::SeqCst);
        }
    }

    pub(crate) fn tail(&self, queue: u16) -> u32 {
        self.tails
            .get(usize::from(queue))
            .map_or(0, |t| t.load(Ordering::SeqCst))
    }

    pub(crate) fn head(&self, queue: u16) -> u32 {
        self.heads
            .get(usize::from(queue))
            .map_or(0, |h| h.load(Ordering::SeqCst))
    }

    pub(crate) fn clear_tail(&self, queue: u16) {
        self.ring(usize::from(queue) * 2, 0);
    }

    pub(crate) fn clear_head(&self, queue: u16) {
        self.ring(usize::from(queue) * 2 + 1, 0);
    }
}

/// A submission queue.
pub(crate) struct Submission {
    pub(crate) base: u64,
    pub(crate) size: u32,
    pub(crate) head: u32,
    /// Its completion queue.
    pub(crate) completion: u16,
}

impl Submission {
    /// Whether the guest's tail says that there is a command. A tail outside the queue says nothing.
    pub(crate) fn waits(&self, tail: u32) -> bool {
        tail < self.size && self.head != tail
    }

    /// The next command, if there is one.
    pub(crate) fn next(&mut self, ram: &DmaMemory, tail: u32) -> Result<Option<Command>, MemoryError> {
        if !self.waits(tail) {
            return Ok(None);
        }
        let mut bytes = [0; ENTRY];
        ram.read(
            self.base.wrapping_add(u64::from(self.head) * ENTRY as u64),
            &mut bytes,
        )?;
        self.head = (self.head + 1) % self.size;
        Ok(Some(Command::new(bytes)))
    }
}

/// A completion queue.
pub(crate) struct Completion {
    pub(crate) base: u64,
    pub(crate) size: u32,
    pub(crate) tail: u32,
    pub(crate) phase: bool,
    /// Interrupt vector, if it interrupts.
    pub(crate) vector: Option<u16>,
    /// Entries since the last interrupt.
    pub(crate) fresh: bool,
}

impl Completion {
    /// Whether one more entry would meet the guest's head.
    pub(crate) fn is_full(&self, head: u32) -> bool {
        (self.tail + 1) % self.size == head % self.size
    }

    /// Whether the guest has not taken all entries.
    pub(crate) fn is_waiting(&self, head: u32) -> bool {
        self.tail != head % self.size
    }

    /// Puts the end of a command into the queue. The phase is written last.
    pub(crate) fn push(
        &mut self,
        ram: &DmaMemory,
        command: &Command,
        outcome: Outcome,
        (queue, head): (u16, u32),
    ) -> Result<(), MemoryError> {
        let at = self.base.wrapping_add(u64::from(self.tail) * COMPLETION);
        let (result, status) = match outcome {
            Ok(result) => (result, 0),
            Err(status) => (0, status.field()),
        };
        let mut front = [0; 12];
        front[..4].copy_from_slice(&result.to_le_bytes());
        front[8..].copy_from_slice(&(u32::from(queue) << 16 | head & 0xFFFF).to_le_bytes());
        ram.write(at, &front)?;
        let last = u32::from(status | u16::from(self.phase)) << 16 | u32::from(command.id());
        ram.write(at.wrapping_add(12), &last.to_le_bytes())?;
        self.tail += 1;
        if self.tail == self.size {
            self.tail = 0;
            self.phase = !self.phase;
        }
        self.fresh = true;
        Ok(())
    }
}
