// SPDX-License-Identifier: MIT
//! Rings: packets in guest memory, one ring each way (Linux include/linux/hyperv.h, "hv_ring_buffer").
//!
//! A ring is a control page and data pages. Always true: every index and length that a guest wrote is
//! checked before it is used; a broken ring stays broken and says so once. A packet is written before the
//! index that shows it, and read before the index that gives its room back. Not here: what packets mean.

use crate::gpadl::Pages;
use guest_memory::{DmaMemory, MemoryError};

const PAGE: u64 = 4096;
/// Offsets in the control page.
const WRITE_INDEX: u64 = 0;
const READ_INDEX: u64 = 4;
const INTERRUPT_MASK: u64 = 8;
const PENDING_SEND_SIZE: u64 = 12;
const FEATURES: u64 = 64;
/// Feature bit: the sender says how much room it waits for.
const FEATURE_PENDING_SEND_SIZE: u32 = 1;
/// Bytes of a packet's descriptor, and of the trailer behind a packet.
const DESCRIPTOR: u32 = 16;
const TRAILER: u32 = 8;
/// Longest packet that is taken.
const MOST: u32 = 1 << 20;

/// Packet types.
#[allow(missing_docs, reason = "the names of the interface")]
pub mod packet {
    pub const INBAND: u16 = 6;
    pub const TRANSFER_PAGES: u16 = 7;
    pub const GPA_DIRECT: u16 = 9;
    pub const COMPLETION: u16 = 11;
    /// Flag: the sender wants a completion.
    pub const FLAG_COMPLETION_REQUESTED: u16 = 1;
}

/// A ring that a guest has made unusable.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// An index points outside.
    #[error("index {index:#x} is outside a ring of {size:#x} bytes or not a multiple of 8")]
    Index {
        /// The index.
        index: u32,
        /// Bytes of the ring.
        size: u32,
    },
    /// A descriptor does not fit what was written.
    #[error(
        "a packet at {at:#x} says {len:#x} bytes with data at {offset:#x}, and {there:#x} bytes are there"
    )]
    Descriptor {
        /// Where it is.
        at: u32,
        /// Its length.
        len: u32,
        /// Where its data begin.
        offset: u32,
        /// Bytes between the indexes.
        there: u32,
    },
    /// A packet's contents make no sense.
    #[error("{0}")]
    Contents(String),
    /// The ring's memory is gone.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A packet that the guest sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// One of [`packet`].
    pub kind: u16,
    /// Whether the guest wants a completion.
    pub completion_requested: bool,
    /// The guest's number.
    pub transaction: u64,
    /// Guest memory that it names (GPA direct).
    pub buffers: Vec<Pages>,
    /// The data.
    pub data: Vec<u8>,
}

/// The word at a place of a packet's data, if it is there.
pub(crate) fn word(data: &[u8], at: usize) -> Option<u32> {
    let word = data.get(at..at.checked_add(4)?)?;
    word.first_chunk().map(|word| u32::from_le_bytes(*word))
}

/// One direction.
#[derive(Debug)]
struct Ring {
    pages: Pages,
    size: u32,
}

impl Ring {
    fn new(pages: Pages) -> Self {
        let size = (pages.len() - PAGE) as u32;
        Self { pages, size }
    }

    fn control(&self, memory: &DmaMemory, at: u64) -> Result<u32, RingError> {
        let mut word = [0; 4];
        self.pages.read(memory, at, &mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn set_control(&self, memory: &DmaMemory, at: u64, value: u32) -> Result<(), RingError> {
        Ok(self.pages.write(memory, at, &value.to_le_bytes())?)
    }

    fn index(&self, memory: &DmaMemory, at: u64) -> Result<u32, RingError> {
        let index = self.control(memory, at)?;
        if index >= self.size || !index.is_multiple_of(8) {
            let size = self.size;
            return Err(RingError::Index { index, size });
        }
        Ok(index)
    }

    /// Bytes from `read` to `write`.
    fn used(&self, read: u32, write: u32) -> u32 {
        if write >= read {
            write - read
        } else {
            self.size - read + write
        }
    }

    fn advance(&self, index: u32, by: u32) -> u32 {
        (index + by) % self.size
    }

    fn read(&self, memory: &DmaMemory, at: u32, data: &mut [u8]) -> Result<(), RingError> {
        let until_end = ((self.size - at) as usize).min(data.len());
        let (first, second) = data.split_at_mut(until_end);
        self.pages.read(memory, PAGE + u64::from(at), first)?;
        Ok(self.pages.read(memory, PAGE, second)?)
    }

    fn write(&self, memory: &DmaMemory, at: u32, data: &[u8]) -> Result<(), RingError> {
        let until_end = ((self.size - at) as usize).min(data.len());
        let (first, second) = data.split_at(until_end);
        self.pages.write(memory, PAGE + u64::from(at), first)?;
        Ok(self.pages.write(memory, PAGE, second)?)
    }
}

/// What the sender has to do after it gave room back or sent something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The guest has to be told.
    Needed,
    /// The guest will see it by itself.
    NotNeeded,
}

/// Both rings of an open channel.
#[derive(Debug)]
pub struct Rings {
    memory: DmaMemory,
    from_guest: Ring,
    to_guest: Ring,
}

impl Rings {
    /// The rings in `pages`: to the host first, to the guest from page `downstream` on. `None` when one of
    /// them has no data page.
    pub fn new(memory: DmaMemory, pages: &Pages, downstream: u32) -> Option<Self> {
        let split = usize::try_from(downstream).ok()?;
        let rest = pages.page_count().checked_sub(split)?;
        if split < 2 || rest < 2 {
            return None;
        }
        let part = |first, count: usize| {
            let numbers = pages.whole_pages(first, count)?;
            Pages::of(0, count as u64 * PAGE, numbers, &memory)
                .ok()
                .map(Ring::new)
        };
        let (from_guest, to_guest) = (part(0, split)?, part(split, rest)?);
        Some(Self {
            from_guest,
            to_guest,
            memory,
        })
    }

    /// Guest memory.
    pub fn memory(&self) -> &DmaMemory {
        &self.memory
    }

    /// The next packet, if there is one, and whether its room was waited for.
    pub fn receive(&self) -> Result<Option<(Packet, Signal)>, RingError> {
        let (ring, memory) = (&self.from_guest, &self.memory);
        let read = ring.index(memory, READ_INDEX)?;
        let write = ring.index(memory, WRITE_INDEX)?;
        let there = ring.used(read, write);
        if there == 0 {
            return Ok(None);
        }
        let mut descriptor = [0; DESCRIPTOR as usize];
        if there >= DESCRIPTOR {
            ring.read(memory, read, &mut descriptor)?;
        }
        let half = |at: usize| u32::from(u16::from_le_bytes([descriptor[at], descriptor[at + 1]]));
        let (offset, len) = (half(2) * 8, half(4) * 8);
        if offset < DESCRIPTOR || len < offset || len + TRAILER > there || len > MOST {
            let at = read;
            return Err(RingError::Descriptor {
                at,
                len,
                offset,
                there,
            });
        }
        let mut rest = vec![0; (len - DESCRIPTOR) as usize];
        ring.read(memory, ring.advance(read, DESCRIPTOR), &mut rest)?;
        let data = rest.split_off((offset - DESCRIPTOR) as usize);
        let kind = half(0) as u16;
        let mut transaction = [0; 8];
        transaction.copy_from_slice(&descriptor[8..]);
        let packet = Packet {
            kind,
            completion_requested: half(6) as u16 & packet::FLAG_COMPLETION_REQUESTED != 0,
            transaction: u64::from_le_bytes(transaction),
            buffers: if kind == packet::GPA_DIRECT {
                gpa_direct(&rest, memory)?
            } else {
                Vec::new()
            },
            data,
        };
        let next = ring.advance(read, len + TRAILER);
        ring.set_control(memory, READ_INDEX, next)?;
        Ok(Some((packet, self.room_made(there, len + TRAILER)?)))
    }

    /// Whether the guest waits for the room that reading `taken` of `used` bytes has made.
    fn room_made(&self, used: u32, taken: u32) -> Result<Signal, RingError> {
        let (ring, memory) = (&self.from_guest, &self.memory);
        if ring.control(memory, FEATURES)? & FEATURE_PENDING_SEND_SIZE == 0 {
            return Ok(Signal::NotNeeded);
        }
        let wanted = ring.control(memory, PENDING_SEND_SIZE)?;
        let (before, after) = (ring.size - used, ring.size - used + taken);
        Ok(if wanted != 0 && before <= wanted && after > wanted {
            Signal::Needed
        } else {
            Signal::NotNeeded
        })
    }

    /// Sends a packet of `head` (words of its type) and `data`. `None` when there is no room.
    pub fn send(
        &self,
        (kind, flags): (u16, u16),
        transaction: u64,
        head: &[u8],
        data: &[u8],
    ) -> Result<Option<Signal>, RingError> {
        let (ring, memory) = (&self.to_guest, &self.memory);
        let offset = DESCRIPTOR as usize + head.len();
        let len = (offset + data.len()).next_multiple_of(8) as u32;
        let read = ring.index(memory, READ_INDEX)?;
        let write = ring.index(memory, WRITE_INDEX)?;
        // One that is filled to the end would look empty.
        if len + TRAILER >= ring.size - ring.used(read, write) {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity((len + TRAILER) as usize);
        for half in [kind, (offset / 8) as u16, (len / 8) as u16, flags] {
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        bytes.extend_from_slice(&transaction.to_le_bytes());
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(data);
        bytes.resize(len as usize, 0);
        bytes.extend_from_slice(&(u64::from(write) << 32).to_le_bytes());
        ring.write(memory, write, &bytes)?;
        ring.set_control(memory, WRITE_INDEX, ring.advance(write, len + TRAILER))?;
        // The guest looks at the ring again before it sleeps: only one that has seen it empty needs a signal.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let masked = ring.control(memory, INTERRUPT_MASK)? != 0;
        let was_empty = ring.index(memory, READ_INDEX)? == write;
        Ok(Some(if was_empty && !masked {
            Signal::Needed
        } else {
            Signal::NotNeeded
        }))
    }

    /// Sends data.
    pub fn send_data(&self, transaction: u64, data: &[u8]) -> Result<Option<Signal>, RingError> {
        self.send((packet::INBAND, 0), transaction, &[], data)
    }

    /// Completes the guest's packet `transaction`.
    pub fn complete(&self, transaction: u64, data: &[u8]) -> Result<Option<Signal>, RingError> {
        self.send((packet::COMPLETION, 0), transaction, &[], data)
    }
}

/// Ranges of one packet.
const MOST_RANGES: u64 = 64;

/// Words of a GPA direct packet: padding and count, then for each range length and offset, and page numbers.
fn gpa_direct(head: &[u8], memory: &DmaMemory) -> Result<Vec<Pages>, RingError> {
    let bad = |text: &str| RingError::Contents(format!("a direct packet {text}"));
    let words: Vec<u64> = head
        .as_chunks::<8>()
        .0
        .iter()
        .map(|w| u64::from_le_bytes(*w))
        .collect();
    let (count, mut rest) = words.split_first().ok_or_else(|| bad("without ranges"))?;
    let count = count >> 32;
    if count == 0 || count > MOST_RANGES {
        return Err(bad(&format!("with {count} ranges")));
    }
    let mut buffers = Vec::new();
    for _ in 0..count {
        let (range, after) = rest.split_first().ok_or_else(|| bad("that ends in its ranges"))?;
        let (len, offset) = (range & 0xFFFF_FFFF, range >> 32);
        let pages = (offset + len).div_ceil(PAGE) as usize;
        let pages = after.split_at_checked(pages);
        let (pages, after) = pages.ok_or_else(|| bad("that ends in its pages"))?;
        let pages = Pages::of(offset, len, pages, memory);
        buffers.push(pages.map_err(|error| bad(&format!("that names {error}")))?);
        rest = after;
    }
    Ok(buffers)
}
