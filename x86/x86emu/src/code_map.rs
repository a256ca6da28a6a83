// SPDX-License-Identifier: MIT
//! Which 64-byte chunks of which pages hold translated code, shared by the processors of a partition.
//!
//! Always true: a set bit means that some processor may have a block over the chunk; clearing a page's
//! bits goes with a new generation of the page, so that every block on it is checked again before it
//! runs. Not here: the blocks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

const GROUP: usize = 512;

/// Shared by all processors that execute from the same memory.
#[derive(Clone)]
pub struct CodeMap(Arc<Inner>);

struct Inner {
    groups: Box<[OnceLock<Box<[AtomicU64; GROUP]>>]>,
    /// Counts pages that became code; a processor that sees it move re-arms its store checks.
    epoch: AtomicU64,
}

impl std::fmt::Debug for CodeMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CodeMap({} groups)", self.0.groups.len())
    }
}

impl CodeMap {
    /// For executable memory below `gpa_end` (clipped to 4 TiB). Costs 16 bytes per 2 MiB.
    pub fn new(gpa_end: u64) -> Self {
        let groups = gpa_end.min(4 << 40).div_ceil(4096 * GROUP as u64);
        let groups = (0..groups).map(|_| OnceLock::new()).collect();
        Self(Arc::new(Inner {
            groups,
            epoch: AtomicU64::new(0),
        }))
    }
    fn cell(&self, gpn: u64) -> Option<&AtomicU64> {
        let group = self
            .0
            .groups
            .get(usize::try_from(gpn / GROUP as u64).ok()?)?
            .get()?;
        Some(&group[gpn as usize % GROUP])
    }
    /// Whether blocks from this page can be kept.
    pub(crate) fn covers(&self, gpn: u64) -> bool {
        gpn / (GROUP as u64) < self.0.groups.len() as u64
    }
    /// Chunks of the page that hold code.
    #[inline]
    pub(crate) fn bits(&self, gpn: u64) -> u64 {
        self.cell(gpn).map_or(0, |c| c.load(Ordering::Relaxed))
    }
    /// Marks chunks; true if the page had none before.
    pub(crate) fn mark(&self, gpn: u64, mask: u64) -> bool {
        let Some(group) = self.0.groups.get((gpn / GROUP as u64) as usize) else {
            return false;
        };
        let group = group.get_or_init(|| Box::new([const { AtomicU64::new(0) }; GROUP]));
        let first = group[gpn as usize % GROUP].fetch_or(mask, Ordering::AcqRel) == 0;
        if first {
            self.0.epoch.fetch_add(1, Ordering::AcqRel);
        }
        first
    }
    pub(crate) fn clear(&self, gpn: u64) {
        if let Some(c) = self.cell(gpn) {
            c.store(0, Ordering::Release);
        }
    }
    pub(crate) fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }
}

/// The chunks that `len` bytes (at least 1, within the page) from `offset` touch.
#[inline]
pub(crate) fn chunk_mask(offset: u64, len: u64) -> u64 {
    let first = offset >> 6 & 63;
    let last = (offset + len - 1).min(4095) >> 6;
    (u64::MAX >> (63 - (last - first))) << first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_cover_first_and_last_chunk() {
        assert_eq!(chunk_mask(0, 1), 1);
        assert_eq!(chunk_mask(63, 2), 3);
        assert_eq!(chunk_mask(4088, 8), 1 << 63);
        assert_eq!(chunk_mask(0, 4096), u64::MAX);
    }

    #[test]
    fn only_the_first_mark_of_a_page_is_new() {
        let m = CodeMap::new(1 << 32);
        assert!(m.mark(5, 1));
        assert!(!m.mark(5, 2));
        assert_eq!(m.bits(5), 3);
        m.clear(5);
        assert!(m.mark(5, 4));
        assert_eq!(m.epoch(), 2);
    }
}
