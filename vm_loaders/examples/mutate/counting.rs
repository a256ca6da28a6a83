// SPDX-License-Identifier: MIT
//! An allocator around the system's that counts, to hold soaks to their memory limits.
//!
//! Always true: it changes nothing but two counters. Not here: the limits.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

/// Bytes that are allocated now.
pub(crate) fn live() -> u64 {
    LIVE.load(Ordering::Relaxed)
}

/// The most bytes that were allocated since [`start_peak`].
pub(crate) fn peak() -> u64 {
    PEAK.load(Ordering::Relaxed)
}

/// Begins a new peak at what is allocated now.
pub(crate) fn start_peak() {
    PEAK.store(live(), Ordering::Relaxed);
}

/// The system's allocator, counting.
struct Counting;

// SAFETY: every call goes to the system's allocator with its arguments unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size() as u64, Ordering::Relaxed) + layout.size() as u64;
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
