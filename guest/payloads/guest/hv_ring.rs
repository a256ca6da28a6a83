// SPDX-License-Identifier: MIT
//! A channel's two rings, from the guest's side: packets with a completion asked for, one at a time.
//!
//! Always true: an index moves only when the packet behind it is whole. Not here: what packets mean.

use crate::hv_vmbus::{signal, take_event, wait};
use guest_rt::memory;
use guest_rt::report::{check, equal};

const PAGE: u64 = 4096;
const WRITE_INDEX: u64 = 0;
const READ_INDEX: u64 = 4;
const INBAND: u16 = 6;
const GPA_DIRECT: u16 = 9;
const COMPLETION: u16 = 11;
/// Longest completion.
pub(crate) const MOST: usize = 128;

/// Both rings.
pub(crate) struct Rings {
    out: u64,
    back: u64,
    size: u64,
    channel: u32,
    connection: u32,
    transaction: u64,
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
        }
    }

    /// Sends `data`, with guest memory beside it or not, and gives the completion's data.
    pub(crate) fn ask(&mut self, data: &[u8], buffer: Option<(u64, u32)>) -> Option<([u8; MOST], usize)> {
        self.transaction += 1;
        let (kind, head) = match buffer {
            None => (INBAND, 16),
            // One range of pages in a row.
            Some((gpa, len)) => (GPA_DIRECT, 32 + 8 * pages_of(gpa, len)),
        };
        let len = head + data.len() as u64;
        let from = u64::from(memory::read_u32(self.out + WRITE_INDEX));
        let mut at = from;
        self.put(
            &mut at,
            u64::from(kind) | head / 8 << 16 | len / 8 << 32 | 1 << 48,
        );
        self.put(&mut at, self.transaction);
        if let Some((gpa, len)) = buffer {
            self.put(&mut at, 1 << 32);
            self.put(&mut at, u64::from(len) | (gpa % PAGE) << 32);
            for page in 0..pages_of(gpa, len) {
                self.put(&mut at, (gpa >> 12) + page);
            }
        }
        for word in data.chunks_exact(8) {
            self.put(&mut at, u64::from_le_bytes(word.try_into().unwrap_or_default()));
        }
        self.put(&mut at, from << 32);
        memory::write_u32(self.out + WRITE_INDEX, at as u32);
        equal("ring-signal", signal(self.connection), 0);
        self.completion()
    }

    fn put(&self, at: &mut u64, value: u64) {
        memory::write_u64(self.out + PAGE + *at, value);
        *at = (*at + 8) % self.size;
    }

    fn get(&self, at: u64) -> u64 {
        memory::read_u64(self.back + PAGE + at % self.size)
    }

    fn completion(&self) -> Option<([u8; MOST], usize)> {
        let from = u64::from(memory::read_u32(self.back + READ_INDEX));
        let index = || u64::from(memory::read_u32(self.back + WRITE_INDEX));
        let told = wait(|| take_event(self.channel) && index() != from);
        check("ring-event", told, format_args!(""));
        if !told {
            return None;
        }
        let first = self.get(from);
        let [kind, head, len] = [first, first >> 16, first >> 32].map(|word| word & 0xFFFF);
        let (head, len) = (head * 8, len * 8);
        let there = (index() + self.size - from) % self.size;
        let sound = kind == COMPLETION.into()
            && self.get(from + 8) == self.transaction
            && head >= 16
            && head <= len
            && there >= len + 8;
        check(
            "ring-completion",
            sound,
            format_args!("type {kind} of {len} bytes"),
        );
        let mut data = [0; MOST];
        let words = (len.saturating_sub(head) / 8).min(MOST as u64 / 8);
        for word in 0..words {
            let at = word as usize * 8;
            data[at..at + 8].copy_from_slice(&self.get(from + head + word * 8).to_le_bytes());
        }
        memory::write_u32(self.back + READ_INDEX, ((from + len + 8) % self.size) as u32);
        sound.then_some((data, words as usize * 8))
    }
}

fn pages_of(gpa: u64, len: u32) -> u64 {
    (gpa % PAGE + u64::from(len)).div_ceil(PAGE)
}
