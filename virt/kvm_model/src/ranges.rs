// SPDX-License-Identifier: MIT
//! A set of numbers as ranges: page numbers that share an attribute.
//!
//! Always true: ranges do not touch or overlap. Not here: addresses; everything is page numbers.

use std::collections::BTreeMap;
use std::ops::Range;

/// The set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Start to end (exclusive).
    parts: BTreeMap<u64, u64>,
}

impl Ranges {
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.parts
            .range(..=number)
            .next_back()
            .is_some_and(|(_, end)| number < *end)
    }

    pub(crate) fn insert(&mut self, mut range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let touching: Vec<u64> = self
            .parts
            .range(..=range.end)
            .filter(|(_, end)| **end >= range.start)
            .map(|(start, _)| *start)
            .collect();
        for start in touching {
            let end = self.parts.remove(&start).unwrap_or(start);
            range = range.start.min(start)..range.end.max(end);
        }
        self.parts.insert(range.start, range.end);
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        for part in self.parts_in(range.clone()) {
            let Some((&start, &end)) = self.parts.range(..=part.start).next_back() else {
                continue;
            };
            self.parts.remove(&start);
            if start < part.start {
                self.parts.insert(start, part.start);
            }
            if part.end < end {
                self.parts.insert(part.end, end);
            }
        }
    }

    /// The parts of the set that lie in `range`.
    pub(crate) fn parts_in(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.parts
            .range(..range.end)
            .filter(|(_, end)| **end > range.start)
            .map(|(&start, &end)| start.max(range.start)..end.min(range.end))
            .filter(|part| !part.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts and ends.
    fn all(set: &Ranges) -> Vec<(u64, u64)> {
        let parts = set.parts_in(0..u64::MAX);
        parts.into_iter().map(|part| (part.start, part.end)).collect()
    }

    #[test]
    fn touching_ranges_join_and_holes_split() {
        let mut set = Ranges::default();
        set.insert(10..20);
        set.insert(30..40);
        set.insert(20..30);
        assert_eq!(all(&set), [(10, 40)]);
        set.remove(15..35);
        assert_eq!(all(&set), [(10, 15), (35, 40)]);
        let inside = [14, 15, 34, 35, 40].map(|number| set.contains(number));
        assert_eq!(inside, [true, false, false, true, false]);
        set.insert(0..100);
        set.remove(0..1);
        set.remove(99..200);
        assert_eq!(all(&set), [(1, 99)]);
        assert_eq!(set.parts_in(0..5).first(), Some(&(1..5)));
        set.insert(7..7);
        set.remove(1..99);
        assert_eq!(set, Ranges::default());
    }

    #[test]
    fn random_edits_equal_a_set_of_numbers() {
        let mut set = Ranges::default();
        let mut model = std::collections::BTreeSet::new();
        let mut seed = 1u64;
        for _ in 0..2000 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let (start, len) = (seed >> 33 & 63, seed >> 40 & 15);
            if seed >> 50 & 1 == 0 {
                set.insert(start..start + len);
                model.extend(start..start + len);
            } else {
                set.remove(start..start + len);
                model.retain(|n| !(start..start + len).contains(n));
            }
            let listed: Vec<u64> = set.parts_in(0..u64::MAX).into_iter().flatten().collect();
            assert_eq!(listed, model.iter().copied().collect::<Vec<_>>());
        }
    }
}
