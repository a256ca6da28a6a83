// SPDX-License-Identifier: MIT
//! Pages of two plans, address by address.
//!
//! Always true: pages are compared in units of 4 KiB whatever their size in the file (a parameter area by its
//! first page; `facts` compares its length), neighbours that
//! differ alike are one difference, and nothing is kept per page but 8 bytes of order. Not here: the order
//! of pages (`order`), values in parameter areas (`facts`).

use super::effect::{Piece, effect};
use super::{Comparer, ContentHashes, Difference};
use crate::overview::memory::bytes_of;
use launch_plan::{Contents, Import, LaunchPlan, PageKind, PlatformFacts, StepKind};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

const PAGE: u64 = 4096;

/// 4 KiB of a plan.
#[derive(Clone, Copy)]
struct Unit<'p, 'a> {
    gpa: u64,
    import: &'p Import<'a>,
}

fn is_area(import: &Import<'_>) -> bool {
    matches!(import.contents, Contents::Parameters(_))
}

impl<'p, 'a> Unit<'p, 'a> {
    fn bytes(&self) -> &'p [u8] {
        let data = bytes_of(&self.import.contents);
        let start = usize::try_from(self.gpa - self.import.gpa)
            .unwrap_or(usize::MAX)
            .min(data.len());
        &data[start..start.saturating_add(PAGE as usize).min(data.len())]
    }

    fn is_area(&self) -> bool {
        is_area(self.import)
    }

    fn is_zero(&self) -> bool {
        matches!(self.import.contents, Contents::Zero)
    }

    fn piece(&self) -> Piece<'p> {
        let contents = if self.is_zero() {
            Contents::Zero
        } else {
            Contents::Bytes(Cow::Borrowed(self.bytes()))
        };
        Piece::Import(Import {
            gpa: self.gpa,
            len: PAGE,
            large: false,
            kind: self.import.kind,
            contents,
        })
    }
}

/// How two units differ; units that differ alike are joined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Removed(PageKind),
    Added(PageKind),
    Both {
        kinds: Option<(PageKind, PageKind)>,
        /// One is a parameter area and the other is not.
        area: Option<bool>,
        bytes: bool,
        /// The second has no data in the file where the first stores zeros, or the other way round.
        stored: Option<bool>,
        large: Option<bool>,
    },
}

impl Change {
    fn of(a: &Unit<'_, '_>, b: &Unit<'_, '_>) -> Option<Self> {
        let kinds = (a.import.kind, b.import.kind);
        let bytes = !a.is_area() && !b.is_area() && !same_bytes(a.bytes(), b.bytes());
        let change = Self::Both {
            kinds: (kinds.0 != kinds.1).then_some(kinds),
            area: (a.is_area() != b.is_area()).then_some(b.is_area()),
            bytes,
            stored: (!bytes && a.is_zero() != b.is_zero() && a.is_area() == b.is_area())
                .then_some(b.is_zero()),
            large: (a.import.large != b.import.large).then_some(b.import.large),
        };
        let same = Self::Both {
            kinds: None,
            area: None,
            bytes: false,
            stored: None,
            large: None,
        };
        (change != same).then_some(change)
    }
}

/// Whether two pages are equal when padded with zeros.
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    let common = a.len().min(b.len());
    let rest = if a.len() > common {
        &a[common..]
    } else {
        &b[common..]
    };
    a[..common] == b[..common] && rest.iter().all(|&byte| byte == 0)
}

/// Imports in address order.
fn sorted<'p, 'a>(plan: &'p LaunchPlan<'a>) -> Vec<&'p Import<'a>> {
    let mut imports: Vec<_> = plan
        .steps()
        .iter()
        .filter_map(|step| match &step.kind {
            StepKind::Import(import) => Some(import),
            _ => None,
        })
        .collect();
    imports.sort_unstable_by_key(|import| import.gpa);
    imports
}

fn units<'s, 'p, 'a>(imports: &'s [&'p Import<'a>]) -> impl Iterator<Item = Unit<'p, 'a>> + 's {
    imports.iter().flat_map(|&import| {
        // A parameter area is one unit: its length is no measure of the file's.
        let count = if is_area(import) { 1 } else { import.len / PAGE };
        (0..count).map(move |page| Unit {
            gpa: import.gpa + page * PAGE,
            import,
        })
    })
}

/// Units that differ alike, side by side.
struct Stretch<'p, 'a> {
    change: Change,
    gpa: u64,
    pages: u64,
    first: Option<Unit<'p, 'a>>,
    second: Option<Unit<'p, 'a>>,
    hash_a: Sha256,
    hash_b: Sha256,
    differing: u64,
    /// Address and both values of the first differing byte.
    byte: Option<(u64, u8, u8)>,
    /// The bytes there, for people.
    sample: Option<(String, String)>,
}

impl<'p, 'a> Stretch<'p, 'a> {
    fn new(change: Change, first: Option<Unit<'p, 'a>>, second: Option<Unit<'p, 'a>>) -> Self {
        let gpa = first.or(second).map_or(0, |unit| unit.gpa);
        let mut stretch = Self {
            change,
            gpa,
            pages: 0,
            first,
            second,
            hash_a: Sha256::new(),
            hash_b: Sha256::new(),
            differing: 0,
            byte: None,
            sample: None,
        };
        stretch.add(first, second);
        stretch
    }

    fn add(&mut self, first: Option<Unit<'p, 'a>>, second: Option<Unit<'p, 'a>>) {
        self.pages += 1;
        for (hash, unit) in [(&mut self.hash_a, &first), (&mut self.hash_b, &second)] {
            if let Some(unit) = unit {
                let bytes = unit.bytes();
                hash.update(bytes);
                hash.update(&[0; PAGE as usize][bytes.len()..]);
            }
        }
        let (Some(a), Some(b)) = (first, second) else {
            return;
        };
        if !matches!(self.change, Change::Both { bytes: true, .. }) {
            return;
        }
        let (a_bytes, b_bytes) = (a.bytes(), b.bytes());
        let at = |bytes: &[u8], index: usize| bytes.get(index).copied().unwrap_or(0);
        for index in 0..a_bytes.len().max(b_bytes.len()) {
            let (x, y) = (at(a_bytes, index), at(b_bytes, index));
            if x != y {
                self.differing += 1;
                if self.byte.is_none() {
                    let gpa = a.gpa + index as u64;
                    self.byte = Some((gpa, x, y));
                    self.sample = Some(sample(gpa, (a_bytes, b_bytes), index));
                }
            }
        }
    }
}

/// Compares the pages of two plans.
pub(super) fn compare(comparer: &mut Comparer<'_>, a: &LaunchPlan<'_>, b: &LaunchPlan<'_>) {
    let (imports_a, imports_b) = (sorted(a), sorted(b));
    let (mut left, mut right) = (units(&imports_a).peekable(), units(&imports_b).peekable());
    let mut open: Option<Stretch<'_, '_>> = None;
    loop {
        let (first, second) = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(x), Some(y)) if x.gpa == y.gpa => (left.next(), right.next()),
            (Some(x), Some(y)) if x.gpa > y.gpa => (None, right.next()),
            (None, Some(_)) => (None, right.next()),
            (Some(_), _) => (left.next(), None),
        };
        let change = match (&first, &second) {
            (Some(x), Some(y)) => Change::of(x, y),
            (Some(x), None) => Some(Change::Removed(x.import.kind)),
            (None, Some(y)) => Some(Change::Added(y.import.kind)),
            (None, None) => None,
        };
        let gpa = first.or(second).map_or(0, |unit| unit.gpa);
        match (&mut open, change) {
            (Some(stretch), Some(change))
                if stretch.change == change && stretch.gpa + stretch.pages * PAGE == gpa =>
            {
                stretch.add(first, second);
            }
            (_, change) => {
                if let Some(stretch) = open.take() {
                    report(comparer, &a.facts, stretch);
                }
                open = change.map(|change| Stretch::new(change, first, second));
            }
        }
    }
    if let Some(stretch) = open {
        report(comparer, &a.facts, stretch);
    }
}

fn pieces<'p>(unit: Option<Unit<'p, '_>>) -> Vec<Piece<'p>> {
    unit.iter().map(Unit::piece).collect()
}

fn report(comparer: &mut Comparer<'_>, facts: &PlatformFacts, stretch: Stretch<'_, '_>) {
    let effect = effect(facts, &pieces(stretch.first), &pieces(stretch.second));
    let end = stretch.gpa.wrapping_add(stretch.pages * PAGE);
    let place = if stretch.pages == 1 {
        format!("page {:#x}", stretch.gpa)
    } else {
        format!("{} pages {:#x}..{end:#x}", stretch.pages, stretch.gpa)
    };
    let hash = |hash: Sha256, unit: &Option<Unit<'_, '_>>| {
        unit.map(|_| {
            hash.finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        })
    };
    let hashes = ContentHashes {
        first: hash(stretch.hash_a, &stretch.first),
        second: hash(stretch.hash_b, &stretch.second),
    };
    comparer.push(Difference {
        what: what(stretch.change, stretch.differing, stretch.byte, &hashes),
        place,
        effect,
        hashes: Some(hashes),
        bytes: stretch.sample,
        ..Difference::default()
    });
}

fn what(change: Change, differing: u64, byte: Option<(u64, u8, u8)>, hashes: &ContentHashes) -> String {
    let short = |hash: &Option<String>| hash.as_deref().unwrap_or("").get(..12).unwrap_or("").to_owned();
    match change {
        Change::Removed(kind) => format!(
            "{kind} in the first file only (sha-256 {}...)",
            short(&hashes.first)
        ),
        Change::Added(kind) => format!(
            "{kind} in the second file only (sha-256 {}...)",
            short(&hashes.second)
        ),
        Change::Both {
            kinds,
            area,
            bytes,
            stored,
            large,
        } => {
            let mut parts = Vec::new();
            if let Some((first, second)) = kinds {
                parts.push(format!("{first} becomes {second}"));
            }
            if let Some(second) = area {
                parts.push(
                    if second {
                        "becomes a parameter area"
                    } else {
                        "is no parameter area any more"
                    }
                    .to_owned(),
                );
            }
            if let (true, Some((gpa, x, y))) = (bytes, byte) {
                let count = if differing == 1 {
                    "1 byte differs:".to_owned()
                } else {
                    format!("{differing} bytes differ, first")
                };
                parts.push(format!("{count} {x:#04x} becomes {y:#04x} at gpa {gpa:#x}"));
            }
            if let Some(second) = stored {
                parts.push(
                    if second {
                        "zeros stored in the file become a page without data"
                    } else {
                        "a page without data becomes zeros stored in the file"
                    }
                    .to_owned(),
                );
            }
            if let Some(second) = large {
                parts.push(
                    if second {
                        "4 KiB pages become a 2 MiB page"
                    } else {
                        "a 2 MiB page becomes 4 KiB pages"
                    }
                    .to_owned(),
                );
            }
            parts.join(", ")
        }
    }
}

/// Sixteen bytes of both sides from address `gpa` on, at most to the end of the page.
fn sample(gpa: u64, sides: (&[u8], &[u8]), offset: usize) -> (String, String) {
    let text = |bytes: &[u8]| {
        let shown: Vec<String> = (offset..(offset + 16).min(PAGE as usize))
            .map(|at| format!("{:02x}", bytes.get(at).copied().unwrap_or(0)))
            .collect();
        format!("{gpa:#x}: {}", shown.join(" "))
    };
    (text(sides.0), text(sides.1))
}
