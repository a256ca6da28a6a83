// SPDX-License-Identifier: MIT
//! The order of what two plans share: pages, contexts and error ranges in launch order.
//!
//! Always true: 16 bytes of memory per shared page. Required memory is no part of the order: it is only
//! verified. Not here: steps that one plan lacks (`pages`, `contexts`, `facts`).

use super::effect::{Piece, effect};
use super::{Comparer, Difference};
use launch_plan::{Contents, Import, LaunchPlan, StepKind};
use std::borrow::Cow;

const PAGE: u64 = 4096;

/// What a step is, small and comparable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Page(u64),
    ErrorRange(u64),
    Context(u32),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Page(gpa) => write!(f, "page {gpa:#x}"),
            Self::ErrorRange(gpa) => write!(f, "error range {gpa:#x}"),
            Self::Context(vp) => write!(f, "the context of vp {vp}"),
        }
    }
}

fn keys<'p>(plan: &'p LaunchPlan<'_>) -> impl Iterator<Item = Key> + 'p {
    plan.steps().iter().flat_map(|step| {
        let (pages, single) = match &step.kind {
            StepKind::Import(import) => (Some(import), None),
            StepKind::ErrorRange { gpa, .. } => (None, Some(Key::ErrorRange(*gpa))),
            StepKind::VpContext(context) => (None, Some(Key::Context(context.vp))),
            StepKind::ExpectMemory(_) => (None, None),
        };
        let pages = pages.into_iter().flat_map(|import| {
            let area = matches!(import.contents, Contents::Parameters(_));
            let count = if area { 1 } else { import.len / PAGE };
            (0..count).map(move |page| Key::Page(import.gpa + page * PAGE))
        });
        pages.chain(single)
    })
}

/// Compares the order of two plans.
pub(super) fn compare(comparer: &mut Comparer<'_>, a: &LaunchPlan<'_>, b: &LaunchPlan<'_>) {
    if keys(a).eq(keys(b)) {
        return;
    }
    let (set_a, set_b) = (set(a), set(b));
    let shared = |plan, other: &[Key]| -> Vec<Key> {
        keys(plan)
            .filter(|key| other.binary_search(key).is_ok())
            .collect()
    };
    let (order_a, order_b) = (shared(a, &set_b), shared(b, &set_a));
    let moved: Vec<usize> = (0..order_a.len().min(order_b.len()))
        .filter(|&index| order_a[index] != order_b[index])
        .take(MAX_MOVED)
        .collect();
    let Some(&first) = moved.first() else { return };
    let (x, y) = (order_a[first], order_b[first]);
    let what = match moved[..] {
        [_, second] if order_a[second] == y && order_b[second] == x => format!("{x} and {y} change places"),
        _ if moved.len() == MAX_MOVED => format!("{y} comes before {x} in the second file, and so on"),
        _ => format!(
            "{y} comes before {x} in the second file; {} steps have other places",
            moved.len()
        ),
    };
    let pair = |first, second| {
        [piece(a, first), piece(a, second)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let effect = effect(&a.facts, &pair(x, y), &pair(y, x));
    comparer.push(Difference {
        place: "order".to_owned(),
        what,
        effect,
        ..Difference::default()
    });
}

/// Places that are looked at to say how much moved.
const MAX_MOVED: usize = 1 << 16;

fn set(plan: &LaunchPlan<'_>) -> Vec<Key> {
    let mut set: Vec<Key> = keys(plan).collect();
    set.sort_unstable();
    set
}

/// The step of a key, one page of it.
fn piece<'p>(plan: &'p LaunchPlan<'_>, key: Key) -> Option<Piece<'p>> {
    plan.steps().iter().find_map(|step| match (&step.kind, key) {
        (StepKind::Import(import), Key::Page(gpa)) if gpa.wrapping_sub(import.gpa) < import.len => {
            Some(Piece::Import(page(import, gpa)))
        }
        (StepKind::ErrorRange { gpa, .. }, Key::ErrorRange(wanted)) if *gpa == wanted => {
            Some(Piece::ErrorRange(wanted))
        }
        (StepKind::VpContext(context), Key::Context(vp)) if context.vp == vp => {
            Some(Piece::Context((**context).clone()))
        }
        _ => None,
    })
}

fn page<'p>(import: &'p Import<'_>, gpa: u64) -> Import<'p> {
    let data = crate::overview::memory::bytes_of(&import.contents);
    let start = usize::try_from(gpa - import.gpa)
        .unwrap_or(usize::MAX)
        .min(data.len());
    let bytes = &data[start..start.saturating_add(PAGE as usize).min(data.len())];
    let contents = match import.contents {
        Contents::Zero => Contents::Zero,
        _ => Contents::Bytes(Cow::Borrowed(bytes)),
    };
    Import {
        gpa,
        len: PAGE,
        large: false,
        kind: import.kind,
        contents,
    }
}
