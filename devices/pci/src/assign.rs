// SPDX-License-Identifier: MIT
//! BARs placed by the VMM, for guests whose firmware does not (uefi-launch 3.4 flag 31) or who have none.
//!
//! Always true: after [`BarAssigner::assign`] every memory BAR of the segment has an address of its own inside
//! the windows; decoding is left off. A reset does it again, behind the functions' own.

use crate::{Bdf, PciFunction, PciRoot, lock};
use chipset_device::Device;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// A BAR that has no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "PCI function {bdf}: BAR {bar} of {size:#x} bytes does not fit the root complex's windows; give it larger ones with \
     --pcie-root-complex NAME,low_mmio=SIZE,high_mmio=SIZE"
)]
pub struct NoRoom {
    /// The function.
    pub bdf: Bdf,
    /// The BAR.
    pub bar: u8,
    /// Its size in bytes.
    pub size: u64,
}

/// Where one BAR goes.
struct Placement {
    function: Arc<Mutex<dyn PciFunction>>,
    offset: u16,
    len: usize,
    gpa: u64,
}

/// Places the BARs of one segment's functions.
pub struct BarAssigner {
    root: Arc<PciRoot>,
    low: Range<u64>,
    high: Range<u64>,
}

impl BarAssigner {
    /// An assigner for windows below and above 4 GiB; either may be empty.
    pub fn new(root: Arc<PciRoot>, low: Range<u64>, high: Range<u64>) -> Self {
        Self { root, low, high }
    }

    /// Writes an address to every memory BAR, 64-bit ones to the high window first.
    pub fn assign(&self) -> Result<(), NoRoom> {
        for place in self.plan()? {
            let bytes = place.gpa.to_le_bytes();
            let mut function = lock(&place.function);
            function.config().write(place.offset, &bytes[..place.len]);
        }
        Ok(())
    }

    /// Whether there is room for every memory BAR; what else places them finds it too.
    pub fn check(&self) -> Result<(), NoRoom> {
        self.plan().map(|_| ())
    }

    fn plan(&self) -> Result<Vec<Placement>, NoRoom> {
        let (mut low, mut high) = (self.low.clone(), self.high.clone());
        let mut plan = Vec::new();
        for (bdf, function) in self.root.functions() {
            let mut locked = lock(&function);
            for bar in locked.config().bars() {
                let Some(wide) = bar.memory_width() else { continue };
                let above = if wide { take(&mut high, bar.size) } else { None };
                let place = above.or_else(|| take(&mut low, bar.size)).ok_or(NoRoom {
                    bdf,
                    bar: bar.index,
                    size: bar.size,
                })?;
                plan.push(Placement {
                    function: function.clone(),
                    offset: bar.offset(),
                    len: if wide { 8 } else { 4 },
                    gpa: place,
                });
            }
        }
        Ok(plan)
    }
}

/// The next aligned place of `size` bytes, a power of two.
fn take(window: &mut Range<u64>, size: u64) -> Option<u64> {
    let place = window.start.checked_next_multiple_of(size)?;
    let end = place.checked_add(size)?;
    (end <= window.end).then(|| {
        window.start = end;
        place
    })
}

impl Device for BarAssigner {
    fn reset(&mut self) {
        if let Err(error) = self.assign() {
            // They fitted when the machine was made.
            tracing::error!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Place;
    use crate::{Bar, BarKind, ConfigSpace, Identity};

    struct Card(ConfigSpace);
    impl Device for Card {
        fn reset(&mut self) {
            self.0.reset();
        }
    }
    impl PciFunction for Card {
        fn config(&mut self) -> &mut ConfigSpace {
            &mut self.0
        }
    }

    fn card(bars: &[(u8, BarKind, u64)]) -> (Arc<Mutex<Card>>, Vec<Place>) {
        let mut config = ConfigSpace::new(Identity::default());
        let places = bars.iter().map(|&(index, kind, size)| {
            config.add_bar(Bar { index, kind, size });
            let place = Place::default();
            config.connect_bar(index, Box::new(place.clone()));
            place
        });
        let places = places.collect();
        (Arc::new(Mutex::new(Card(config))), places)
    }

    const WIDE: BarKind = BarKind::Memory64 { prefetchable: false };

    #[test]
    fn bars_get_aligned_places_and_decode_once_the_guest_says_so() {
        let root = PciRoot::new();
        let (first, a) = card(&[
            (0, BarKind::Memory32, 0x1000),
            (2, WIDE, 0x4000),
            (4, BarKind::Io, 16),
        ]);
        let (second, b) = card(&[(0, WIDE, 0x10_0000), (2, BarKind::Memory32, 0x8000)]);
        root.add(Bdf::new(0, 0, 0), first.clone()).unwrap();
        root.add(Bdf::new(0, 1, 0), second.clone()).unwrap();
        let mut assigner = BarAssigner::new(root, 0xC000_0000..0xC010_0000, 0x1_0000_0000..0x1_0010_0000);
        assigner.assign().unwrap_err();
        assigner.check().unwrap_err();
        assigner.high.end += 0x10_0000;
        assigner.check().unwrap();
        lock(&first).0.write(4, &[2, 0]);
        assert_eq!(
            a[0].now(),
            None,
            "nothing is placed by a check that succeeds or an assignment that fails"
        );
        lock(&first).reset();
        for _ in 0..2 {
            assigner.reset();
            assert!(a.iter().chain(&b).all(|p| p.now().is_none()));
            for card in [&first, &second] {
                lock(card).0.write(4, &[2, 0]);
            }
            let now = [a[0].now(), a[1].now(), a[2].now(), b[0].now(), b[1].now()];
            let expected = [
                Some((0xC000_0000, 0x1000)),
                Some((0x1_0000_0000, 0x4000)),
                None,
                Some((0x1_0010_0000, 0x10_0000)),
                Some((0xC000_8000, 0x8000)),
            ];
            assert_eq!(now, expected);
            lock(&first).reset();
            lock(&second).reset();
        }
    }

    #[test]
    fn wide_bars_go_low_when_there_is_no_high_window_and_too_large_ones_are_named() {
        let root = PciRoot::new();
        let (only, places) = card(&[(0, WIDE, 0x1000)]);
        root.add(Bdf::new(0, 3, 0), only.clone()).unwrap();
        BarAssigner::new(root.clone(), 0x8000_0000..0x8000_1000, 0..0)
            .assign()
            .unwrap();
        lock(&only).0.write(4, &[2, 0]);
        assert_eq!(places[0].now(), Some((0x8000_0000, 0x1000)));
        let error = BarAssigner::new(root, 0x8000_0000..0x8000_0FFF, 0..0)
            .assign()
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("PCI function 00:03.0: BAR 0 of 0x1000 bytes"),
            "{error}"
        );
    }
}
