// SPDX-License-Identifier: MIT
//! Page generations as `vm-memory`'s write tracking: whatever writes RAM through a checked handle marks
//! the range, and each page in it gets a new generation.
//!
//! Always true: memory for the counters is committed only where pages are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::mmap::NewBitmap;

const PAGE: usize = 4096;

/// One generation per page of a region; clones share them.
#[derive(Clone)]
pub struct PageGenerations(Arc<[AtomicU32]>);

impl PageGenerations {
    /// The generation of page `index` of the region.
    pub(crate) fn page(&self, index: usize) -> Option<&AtomicU32> {
        self.0.get(index)
    }
}

impl Default for PageGenerations {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl NewBitmap for PageGenerations {
    fn with_len(len: usize) -> Self {
        let zeroed = Arc::<[AtomicU32]>::new_zeroed_slice(len.div_ceil(PAGE));
        // SAFETY: all zero bytes are a valid `AtomicU32` of value 0.
        Self(unsafe { zeroed.assume_init() })
    }
}

impl<'a> WithBitmapSlice<'a> for PageGenerations {
    type S = GenerationSlice<'a>;
}

impl Bitmap for PageGenerations {
    fn mark_dirty(&self, offset: usize, len: usize) {
        mark(&self.0, offset, len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        dirty(&self.0, offset)
    }

    fn slice_at(&self, offset: usize) -> GenerationSlice<'_> {
        GenerationSlice {
            pages: &self.0,
            first: offset,
        }
    }
}

/// The generations of a region as seen from a byte offset in it.
#[derive(Clone, Copy)]
pub struct GenerationSlice<'a> {
    pages: &'a [AtomicU32],
    first: usize,
}

impl std::fmt::Debug for GenerationSlice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "generations from {:#x}", self.first)
    }
}

impl WithBitmapSlice<'_> for GenerationSlice<'_> {
    type S = Self;
}

impl BitmapSlice for GenerationSlice<'_> {}

impl Bitmap for GenerationSlice<'_> {
    fn mark_dirty(&self, offset: usize, len: usize) {
        mark(self.pages, self.first.saturating_add(offset), len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        dirty(self.pages, self.first.saturating_add(offset))
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self {
            pages: self.pages,
            first: self.first.saturating_add(offset),
        }
    }
}

fn mark(pages: &[AtomicU32], offset: usize, len: usize) {
    let Some(last) = len.checked_sub(1).and_then(|n| offset.checked_add(n)) else {
        return;
    };
    let touched = pages.get(offset / PAGE..=last / PAGE);
    for page in touched.into_iter().flatten() {
        page.fetch_add(1, Ordering::Release);
    }
}

fn dirty(pages: &[AtomicU32], offset: usize) -> bool {
    pages
        .get(offset / PAGE)
        .is_some_and(|page| page.load(Ordering::Relaxed) != 0)
}
