// SPDX-License-Identifier: MIT
//! One queue as a device sees it: chains in, chains out (section 2.7).
//!
//! Always true: a chain has its device-readable pieces before its device-writable ones; what the ring says is
//! checked by `virtio-queue`; an invalid ring is a [`QueueError`], after which the device is not called again
//! until it was reset.

use crate::pieces::Pieces;
use guest_memory::DmaMemory;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};

/// What a driver did to a queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The rings are not in RAM, were not set, or their indexes make no sense.
    #[error("the ring is invalid: {0}")]
    Ring(#[from] Error),
    /// A chain has a piece for the device to read behind one to write (section 2.7.4.2).
    #[error("chain {0} has a device-readable piece behind a device-writable one")]
    Order(u16),
}

/// A chain of buffers that the driver handed over; it goes back with [`VirtQueue::push`].
#[derive(Debug)]
pub struct Chain {
    head: u16,
    /// What the device reads.
    pub readable: Pieces,
    /// What the device writes.
    pub writable: Pieces,
}

/// A queue, its ring in guest memory and its interrupt.
pub struct VirtQueue {
    pub(crate) queue: Queue,
    pub(crate) ram: DmaMemory,
    /// MSI-X message, 0xFFFF for none.
    pub(crate) vector: u16,
    /// The driver is ready and has enabled it.
    pub(crate) active: bool,
    /// Chains went back since the transport last looked.
    pub(crate) returned: bool,
}

/// No message (section 4.1.5.1.2).
pub(crate) const NO_VECTOR: u16 = 0xFFFF;

impl VirtQueue {
    /// A queue of at most `size` chains, a power of two.
    pub(crate) fn new(size: u16, ram: DmaMemory) -> Result<Self, Error> {
        Ok(Self {
            queue: Queue::new(size)?,
            ram,
            vector: NO_VECTOR,
            active: false,
            returned: false,
        })
    }

    pub(crate) fn reset(&mut self) {
        self.queue.reset();
        self.vector = NO_VECTOR;
        self.active = false;
        self.returned = false;
    }

    /// Guest memory.
    pub fn ram(&self) -> &DmaMemory {
        &self.ram
    }

    /// Largest number of chains that can be outstanding.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The next chain.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        if !self.active {
            return Ok(None);
        }
        let ram = self.ram.ram();
        let Some(chain) = self.queue.iter(ram)?.next() else {
            return Ok(None);
        };
        let mut taken = Chain {
            head: chain.head_index(),
            readable: Pieces::default(),
            writable: Pieces::default(),
        };
        for piece in chain {
            taken.add(piece)?;
        }
        Ok(Some(taken))
    }

    /// Puts back the chain that was popped last.
    pub fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Whether a chain waits.
    pub fn is_waiting(&self) -> bool {
        let waiting = || {
            let index = self
                .queue
                .avail_idx(self.ram.ram(), std::sync::atomic::Ordering::Acquire);
            index.is_ok_and(|index| index.0 != self.queue.next_avail())
        };
        self.active && waiting()
    }

    /// Gives a chain back; the device wrote `written` bytes from the beginning of its writable pieces.
    pub fn push(&mut self, chain: Chain, written: u32) -> Result<(), QueueError> {
        self.queue.add_used(self.ram.ram(), chain.head, written)?;
        self.returned = true;
        Ok(())
    }

    /// Asks the driver not to notify while the queue is being served.
    pub(crate) fn quiet(&mut self) -> Result<(), QueueError> {
        if self.active {
            self.queue.disable_notification(self.ram.ram())?;
        }
        Ok(())
    }

    /// Asks the driver to notify again; `true` when chains came meanwhile.
    pub(crate) fn listen(&mut self) -> Result<bool, QueueError> {
        Ok(self.active && self.queue.enable_notification(self.ram.ram())?)
    }

    /// Whether the driver wants an interrupt for what was returned.
    pub(crate) fn take_interrupt(&mut self) -> Result<bool, QueueError> {
        let returned = std::mem::take(&mut self.returned);
        Ok(returned && self.queue.needs_notification(self.ram.ram())?)
    }
}

impl Chain {
    fn add(&mut self, piece: Descriptor) -> Result<(), QueueError> {
        let (gpa, len) = (piece.addr().0, piece.len());
        if piece.is_write_only() {
            self.writable.push(gpa, len);
        } else if self.writable.as_slice().is_empty() {
            self.readable.push(gpa, len);
        } else {
            return Err(QueueError::Order(self.head));
        }
        Ok(())
    }
}
