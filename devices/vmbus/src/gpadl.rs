// SPDX-License-Identifier: MIT
//! Lists of guest pages ("guest physical address descriptor lists").
//!
//! Always true: a finished list has as many pages as its length says, all of them RAM; lists of all
//! channels together are bounded. Not here: what lies in the pages.

use guest_memory::{DmaMemory, MemoryError};
use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: u64 = 4096;
/// Pages of one list: the largest that a guest's network driver makes, several times over.
const MOST_PAGES: usize = 0x1_0000;
/// Lists at a time.
const MOST_LISTS: usize = 256;

/// A range of guest memory that need not be contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    offset: u64,
    len: u64,
    pages: Arc<[u64]>,
}

/// Why a list is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GpadlError {
    /// It is not what this host takes.
    #[error("a list of pages with {ranges} ranges; exactly one is supported")]
    Ranges {
        /// Ranges that it has.
        ranges: u16,
    },
    /// Its length and its pages disagree, or it is too long.
    #[error("a list of {len:#x} bytes at offset {offset:#x} with {pages} pages")]
    Length {
        /// Offset in the first page.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Pages that came.
        pages: usize,
    },
    /// A page is not RAM.
    #[error("page {0:#x} is not ram")]
    NotRam(u64),
    /// The number is taken, or not begun.
    #[error("list {0:#x} exists already or was never begun")]
    Number(u32),
    /// There are too many.
    #[error("more than {MOST_LISTS} lists")]
    TooMany,
}

impl Pages {
    /// A range with the words of a GPADL: length and offset in one word, then a page number each.
    fn new(words: &[u64], memory: &DmaMemory) -> Result<Self, GpadlError> {
        let (head, pages) = words.split_first().ok_or(GpadlError::Length {
            offset: 0,
            len: 0,
            pages: 0,
        })?;
        let (len, offset) = (head & 0xFFFF_FFFF, head >> 32);
        Self::of(offset, len, pages, memory)
    }

    /// A range of `len` bytes from `offset` in the first of `pages`, all RAM.
    pub fn of(offset: u64, len: u64, pages: &[u64], memory: &DmaMemory) -> Result<Self, GpadlError> {
        let need = (offset + len).div_ceil(PAGE);
        if offset >= PAGE || len == 0 || need != pages.len() as u64 || pages.len() > MOST_PAGES {
            let pages = pages.len();
            return Err(GpadlError::Length { offset, len, pages });
        }
        let is_ram = |page: &u64| page.checked_mul(PAGE).is_some_and(|gpa| memory.is_ram(gpa, PAGE));
        match pages.iter().find(|page| !is_ram(page)) {
            Some(page) => Err(GpadlError::NotRam(*page)),
            None => Ok(Self {
                offset,
                len,
                pages: pages.into(),
            }),
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes; never true.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whole pages of the range; `None` unless it is page aligned and they exist.
    pub fn whole_pages(&self, first: usize, count: usize) -> Option<&[u64]> {
        let aligned = self.offset == 0 && self.len.is_multiple_of(PAGE);
        self.pages
            .get(first..first.checked_add(count)?)
            .filter(|_| aligned)
    }

    /// Number of pages.
    pub fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// The contiguous pieces of `len` bytes from `at`; empty when they are not all in the range.
    pub fn pieces(&self, at: u64, len: u64) -> Vec<(u64, u32)> {
        let mut pieces: Vec<(u64, u32)> = Vec::new();
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return pieces;
        }
        let (mut at, mut left) = (self.offset + at, len);
        while left > 0 {
            let within = at % PAGE;
            let here = left.min(PAGE - within);
            let gpa = self.pages[(at / PAGE) as usize] * PAGE + within;
            match pieces.last_mut() {
                Some((first, so_far)) if *first + u64::from(*so_far) == gpa && *so_far < 1 << 30 => {
                    *so_far += here as u32;
                }
                _ => pieces.push((gpa, here as u32)),
            }
            at += here;
            left -= here;
        }
        pieces
    }

    /// Copies from the range.
    pub fn read(&self, memory: &DmaMemory, at: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        let mut rest = data;
        for (gpa, len) in self.inside(at, rest.len() as u64)? {
            let (now, later) = rest.split_at_mut(len as usize);
            memory.read(gpa, now)?;
            rest = later;
        }
        Ok(())
    }

    /// Copies into the range.
    pub fn write(&self, memory: &DmaMemory, at: u64, data: &[u8]) -> Result<(), MemoryError> {
        let mut rest = data;
        for (gpa, len) in self.inside(at, rest.len() as u64)? {
            let (now, later) = rest.split_at(len as usize);
            memory.write(gpa, now)?;
            rest = later;
        }
        Ok(())
    }

    fn inside(&self, at: u64, len: u64) -> Result<Vec<(u64, u32)>, MemoryError> {
        let pieces = self.pieces(at, len);
        if pieces.is_empty() && len != 0 {
            return Err(MemoryError::OutOfRange { gpa: at, len });
        }
        Ok(pieces)
    }
}

#[derive(Debug)]
struct Growing {
    channel: u32,
    words: usize,
    so_far: Vec<u64>,
}

/// All lists of a connection.
#[derive(Debug, Default)]
pub(crate) struct Gpadls {
    growing: BTreeMap<u32, Growing>,
    /// With the channel that each is for.
    finished: BTreeMap<u32, (u32, Pages)>,
}

/// A list that came to its end.
pub(crate) type Finished = (u32, Result<(), GpadlError>);

impl Gpadls {
    /// Begins a list. `Some` when it is complete or refused: its channel, and how it ended.
    pub(crate) fn begin(
        &mut self,
        (channel, gpadl): (u32, u32),
        (ranges, words): (u16, usize),
        first: Vec<u64>,
        memory: &DmaMemory,
    ) -> Option<Finished> {
        let fail = |error| Some((channel, Err(error)));
        if ranges != 1 {
            return fail(GpadlError::Ranges { ranges });
        }
        if self.growing.contains_key(&gpadl) || self.finished.contains_key(&gpadl) {
            return fail(GpadlError::Number(gpadl));
        }
        if self.growing.len() + self.finished.len() >= MOST_LISTS {
            return fail(GpadlError::TooMany);
        }
        let growing = Growing {
            channel,
            words,
            so_far: first,
        };
        self.growing.insert(gpadl, growing);
        self.finish(gpadl, memory)
    }

    /// Goes on with a list.
    pub(crate) fn go_on(&mut self, gpadl: u32, more: &[u64], memory: &DmaMemory) -> Option<Finished> {
        let growing = self.growing.get_mut(&gpadl)?;
        let room = growing.words.saturating_sub(growing.so_far.len());
        growing.so_far.extend(more.iter().take(room));
        self.finish(gpadl, memory)
    }

    fn finish(&mut self, gpadl: u32, memory: &DmaMemory) -> Option<Finished> {
        let growing = self.growing.get(&gpadl)?;
        if growing.so_far.len() < growing.words {
            return None;
        }
        let growing = self.growing.remove(&gpadl)?;
        let outcome = Pages::new(&growing.so_far, memory).map(|pages| {
            self.finished.insert(gpadl, (growing.channel, pages));
        });
        Some((growing.channel, outcome))
    }

    /// A finished list of `channel`.
    pub(crate) fn get(&self, channel: u32, gpadl: u32) -> Option<&Pages> {
        let (owner, pages) = self.finished.get(&gpadl)?;
        (*owner == channel).then_some(pages)
    }

    /// Gives a list of `channel` back; one of another channel stays.
    pub(crate) fn remove(&mut self, channel: u32, gpadl: u32) {
        if self
            .growing
            .get(&gpadl)
            .is_some_and(|list| list.channel == channel)
        {
            self.growing.remove(&gpadl);
        }
        if self.get(channel, gpadl).is_some() {
            self.finished.remove(&gpadl);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.growing.clear();
        self.finished.clear();
    }
}
