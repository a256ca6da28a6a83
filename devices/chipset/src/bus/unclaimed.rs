// SPDX-License-Identifier: MIT
//! The log of accesses that nothing claims: tracing target `unclaimed`, level debug.
//!
//! Always true: a guest cannot flood the log; after [`FIRST`] lines only every power of two is reported.

use std::sync::atomic::{AtomicU64, Ordering};

/// Accesses that are logged one by one.
const FIRST: u64 = 256;

/// Counter and log of one address space.
pub(super) struct Unclaimed {
    space: &'static str,
    count: AtomicU64,
}

impl Unclaimed {
    pub(super) const fn new(space: &'static str) -> Self {
        Self {
            space,
            count: AtomicU64::new(0),
        }
    }

    /// Counts and says whether this one is to be logged.
    fn note(&self) -> Option<u64> {
        let n = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        (n <= FIRST || n.is_power_of_two()).then_some(n)
    }

    pub(super) fn read(&self, address: u64, len: usize) {
        if let Some(n) = self.note() {
            tracing::debug!(target: "unclaimed", n, "{} read of {len} at {address:#x}", self.space);
        }
    }

    pub(super) fn write(&self, address: u64, data: &[u8]) {
        if let Some(n) = self.note() {
            tracing::debug!(target: "unclaimed", n, "{} write of {data:02x?} at {address:#x}", self.space);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn reset(&self) {
        self.count.store(0, Ordering::Relaxed);
    }
}
