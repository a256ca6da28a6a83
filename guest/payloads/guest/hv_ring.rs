// SPDX-License-Identifier: MIT
//! A channel's two rings, from the guest's side: packets with a completion asked for, one at a time, and those
//! that have none.
//!
//! Always true: an index moves only when the packet behind it is whole; what the host sends into a ring that was
//! empty has to come with an event. Not here: what packets mean.

use crate::hv_message::{Message, wait_within};
use crate::hv_vmbus::{signal, take_event};
use core::sync::atomic::{Ordering, fence};
use guest_rt::memory;
use guest_rt::report::{check, equal};

const PAGE: u64 = 4096;
const WRITE_INDEX: u64 = 0;
const READ_INDEX: u64 = 4;
pub(crate) const INBAND: u64 = 6;
const GPA_DIRECT: u64 = 9;
const COMPLETION: u64 = 11;
/// Longest packet of the host.
pub(crate) const MOST: usize = 128;
/// Patience for an answer, in seconds.
const PATIENCE: u64 = 5;

/// Both rings.
pub(crate) struct Rings {
    out: u64,
    back: u64,
    size: u64,
    channel: u32,
    connection: u32,
    transaction: u64,
    /// The host had sent more when the last packet was taken.
    more: bool,
}

/// A packet of the host: type, transaction, data, and how many bytes of them there are.
pub(crate) struct Packet {
    pub(crate) kind: u64,
    transaction: u64,
    pub(crate) data: [u8; MOST],
    pub(crate) len: usize,
}

impl Rings {
    /// Rings of `pages` pages each, one behind the other from `gpa` on.
    pub(crate) fn new((gpa, pages): (u64, u64), channel: u32, connection: u32) -> Self {
        Self {
            out: gpa,
            back: gpa + pages * PAGE,
            size: (pages - 1) * PAGE,
            channel,
            connection,
            transaction: 0x1000,
            more: false,
        }
    }

    /// Sends `data`, with guest memory beside it or not, and gives the completion's data.
    pub(crate) fn ask(&mut self, data: &[u8], buffer: Option<(u64, u32)>) -> Option<([u8; MOST], usize)> {
        self.send(data, buffer, true);
        let answer = self.receive(PATIENCE);
        check("ring-event", answer.is_some(), format_args!(""));
        let answer = answer?;
        let right = answer.kind == COMPLETION && answer.transaction == self.transaction;
        check(
            "ring-completion",
            right,
            format_args!("type {} of {} bytes", answer.kind, answer.len),
        );
        right.then_some((answer.data, answer.len))
    }

    /// Sends a message that the host need not complete, as the firmware's drivers do.
    pub(crate) fn tell(&mut self, message: &Message) {
        self.send(message.bytes(), None, false);
    }

    /// The answer to a message, which comes as one.
    pub(crate) fn answer(&mut self, name: &str) -> Option<Packet> {
        let packet = self.receive(PATIENCE);
        let right = packet.as_ref().is_some_and(|packet| packet.kind == INBAND);
        check(name, right, format_args!(""));
        packet.filter(|_| right)
    }

    fn send(&mut self, data: &[u8], buffer: Option<(u64, u32)>, completion: bool) {
        self.transaction += 1;
        let (kind, head) = match buffer {
            None => (INBAND, 16),
            // One range of pages in a row.
            Some((gpa, len)) => (GPA_DIRECT, 32 + 8 * pages_of(gpa, len)),
        };
        let len = head + (data.len() as u64).next_multiple_of(8);
        let from = u64::from(memory::read_u32(self.out + WRITE_INDEX));
        let mut at = from;
        let flags = u64::from(completion) << 48;
        self.put(&mut at, kind | head / 8 << 16 | len / 8 << 32 | flags);
        self.put(&mut at, self.transaction);
        if let Some((gpa, len)) = buffer {
            self.put(&mut at, 1 << 32);
            self.put(&mut at, u64::from(len) | (gpa % PAGE) << 32);
            for page in 0..pages_of(gpa, len) {
                self.put(&mut at, (gpa >> 12) + page);
            }
        }
        for part in data.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.put(&mut at, u64::from_le_bytes(word));
        }
        self.put(&mut at, from << 32);
        memory::write_u32(self.out + WRITE_INDEX, at as u32);
        equal("ring-signal", signal(self.connection), 0);
    }

    /// The next packet, if it comes within so many seconds.
    pub(crate) fn receive(&mut self, patience: u64) -> Option<Packet> {
        let from = u64::from(memory::read_u32(self.back + READ_INDEX));
        let index = || u64::from(memory::read_u32(self.back + WRITE_INDEX));
        let told = self.more || wait_within(patience, || take_event(self.channel) && index() != from);
        if !told {
            return None;
        }
        let first = self.get(from);
        let [kind, head, len] = [first, first >> 16, first >> 32].map(|word| word & 0xFFFF);
        let (head, len) = (head * 8, len * 8);
        let there = (index() + self.size - from) % self.size;
        let sound = head >= 16 && head <= len && there >= len + 8;
        let mut packet = Packet {
            kind,
            transaction: self.get(from + 8),
            data: [0; MOST],
            len: len.saturating_sub(head).min(MOST as u64) as usize,
        };
        for (word, data) in (0..).zip(packet.data[..packet.len].chunks_exact_mut(8)) {
            data.copy_from_slice(&self.get(from + head + word * 8).to_le_bytes());
        }
        let next = (from + len + 8) % self.size;
        memory::write_u32(self.back + READ_INDEX, next as u32);
        // The host looks whether the ring was empty after it has written, and this way round here.
        fence(Ordering::SeqCst);
        self.more = index() != next;
        if !sound {
            check("ring-packet", false, format_args!("type {kind} of {len} bytes"));
        }
        sound.then_some(packet)
    }

    fn put(&self, at: &mut u64, value: u64) {
        memory::write_u64(self.out + PAGE + *at, value);
        *at = (*at + 8) % self.size;
    }

    fn get(&self, at: u64) -> u64 {
        memory::read_u64(self.back + PAGE + at % self.size)
    }
}

fn pages_of(gpa: u64, len: u32) -> u64 {
    (gpa % PAGE + u64::from(len)).div_ceil(PAGE)
}
