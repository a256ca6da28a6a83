// SPDX-License-Identifier: MIT
//! A set of address ranges that refuses overlap.
//!
//! Always true: stored ranges are disjoint, touching ranges are merged (a contiguous image costs one
//! entry however many pages it has), and the last byte of the address space can be a member. Not here:
//! what a range means; callers keep that.

use std::collections::BTreeMap;

/// Disjoint address ranges, merged where they touch.
#[derive(Debug, Clone, Default)]
pub struct RangeSet {
    /// First byte to last byte (inclusive).
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Adds `first..=last`; false (and no change) when any byte of it is in the set already.
    pub fn insert(&mut self, first: u64, last: u64) -> bool {
        if first > last || self.intersects(first, last) {
            return false;
        }
        let mut last = last;
        if let Some(next) = last.checked_add(1)
            && let Some(next_last) = self.ranges.remove(&next)
        {
            last = next_last;
        }
        if let Some((_, previous_last)) = self.ranges.range_mut(..first).next_back()
            && previous_last.checked_add(1) == Some(first)
        {
            *previous_last = last;
            return true;
        }
        self.ranges.insert(first, last);
        true
    }

    /// Whether any byte of `first..=last` is in the set.
    pub fn intersects(&self, first: u64, last: u64) -> bool {
        // Ranges are disjoint, so the one that starts last before the end is the only candidate.
        self.ranges
            .range(..=last)
            .next_back()
            .is_some_and(|(_, &range_last)| range_last >= first)
    }

    /// Whether every byte of `first..=last` is in the set.
    pub fn contains(&self, first: u64, last: u64) -> bool {
        self.ranges
            .range(..=first)
            .next_back()
            .is_some_and(|(_, &range_last)| range_last >= last)
    }

    /// The ranges in address order, as (first byte, last byte).
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().map(|(&first, &last)| (first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::RangeSet;

    #[test]
    fn touching_ranges_become_one() {
        let mut set = RangeSet::default();
        assert!(set.insert(0x1000, 0x1FFF));
        assert!(set.insert(0x3000, 0x3FFF));
        assert!(set.insert(0x2000, 0x2FFF));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(0x1000, 0x3FFF)]);
        assert!(set.contains(0x1800, 0x3FFF));
        assert!(!set.contains(0x1800, 0x4000));
    }

    #[test]
    fn every_kind_of_overlap_is_refused_and_changes_nothing() {
        let mut set = RangeSet::default();
        assert!(set.insert(0x2000, 0x3FFF));
        for (first, last) in [
            (0, u64::MAX),
            (0x2000, 0x2000),
            (0x3FFF, 0x5000),
            (0, 0x2000),
            (5, 4),
        ] {
            assert!(!set.insert(first, last), "{first:#x}..={last:#x}");
        }
        assert_eq!(set.iter().count(), 1);
    }

    #[test]
    fn the_last_byte_of_the_address_space_is_a_member_like_any_other() {
        let mut set = RangeSet::default();
        assert!(set.insert(u64::MAX - 0xFFF, u64::MAX));
        assert!(!set.insert(u64::MAX, u64::MAX));
        assert!(set.insert(u64::MAX - 0x1FFF, u64::MAX - 0x1000));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(u64::MAX - 0x1FFF, u64::MAX)]);
    }
}
