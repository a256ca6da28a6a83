// SPDX-License-Identifier: MIT
//! What is different between two files, and what each difference does to the launch digest.
//!
//! Always true: plans are compared, not headers, so masks, offsets, format versions and the way in which
//! data is stored matter only where they are said to; a file does not differ from itself. The list is
//! bounded, and what is left out is counted. Not here: printing (`diff`).

mod contexts;
mod effect;
mod facts;
mod order;
mod pages;

use crate::overview::schema::Overview;
pub use effect::Effect;
use launch_digest::{Digest, Profile};
use launch_plan::{Isolation, LaunchPlan, StepKind};
use serde::Serialize;
use vm_loaders::igvm::File;

/// Version of the `diff --json` schema.
pub const SCHEMA: u32 = 1;
/// Differences that are listed.
pub const MAX_DIFFERENCES: usize = 1000;

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Whether both files start the same guests in the same way.
    pub equal: bool,
    /// Every difference, at most [`MAX_DIFFERENCES`].
    pub differences: Vec<Difference>,
    /// Differences that are not listed.
    pub more: u64,
    /// File offset of the first differing byte; `None` when the files are the same bytes.
    pub first_byte: Option<u64>,
    /// Launch digests of the platforms that both files have.
    pub digests: Vec<Digests>,
}

/// KVM's launch digests of a platform.
#[derive(Debug, Clone, Serialize)]
pub struct Digests {
    /// The platform.
    pub platform: &'static str,
    /// Digest of the first file, hex.
    pub first: String,
    /// Digest of the second file, hex.
    pub second: String,
}

/// One difference.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// The platform; `None` for the file as a whole.
    pub platform: Option<&'static str>,
    /// Where: a range of pages, a register, a header field.
    pub place: String,
    /// What differs there.
    pub what: String,
    /// What it does to the launch digest.
    pub effect: Effect,
    /// SHA-256 of the pages on both sides, for pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hashes: Option<ContentHashes>,
    /// Sixteen bytes of both sides from the first difference on, for pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<(String, String)>,
}

impl Default for Difference {
    fn default() -> Self {
        Self {
            platform: None,
            place: String::new(),
            what: String::new(),
            effect: Effect::outside(None),
            hashes: None,
            bytes: None,
        }
    }
}

/// SHA-256 of pages, zero padded, in hex.
#[derive(Debug, Clone, Serialize)]
pub struct ContentHashes {
    /// In the first file.
    pub first: Option<String>,
    /// In the second file.
    pub second: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(platform) = self.platform {
            write!(f, "{platform}: ")?;
        }
        write!(f, "{}: {}; {}", self.place, self.what, self.effect)
    }
}

/// Differences so far.
struct Comparer<'l> {
    platform: Option<&'static str>,
    list: &'l mut Vec<Difference>,
    more: u64,
}

impl Comparer<'_> {
    fn push(&mut self, difference: Difference) {
        if self.list.len() < MAX_DIFFERENCES {
            self.list.push(Difference {
                platform: self.platform,
                ..difference
            });
        } else {
            self.more += 1;
        }
    }
}

/// Compares two files.
pub fn compare(a: &File<'_>, b: &File<'_>) -> Comparison {
    let mut differences = Vec::new();
    let mut comparer = Comparer {
        platform: None,
        list: &mut differences,
        more: 0,
    };
    let first_byte = first_byte(a.bytes(), b.bytes());
    let mut digests = Vec::new();
    if first_byte.is_some() {
        let (view_a, view_b) = (Overview::of("", a, None), Overview::of("", b, None));
        whole_file(&mut comparer, &view_a, &view_b);
        for platform in a.platforms() {
            comparer.platform = Some(platform.isolation.name());
            if b.platforms()
                .iter()
                .any(|other| other.isolation == platform.isolation)
            {
                both(&mut comparer, (a, &view_a), (b, &view_b), platform.isolation);
                digests.extend(digests_of(a, b, platform.isolation));
            } else {
                only(&mut comparer, "first");
            }
        }
        for platform in b.platforms() {
            if !a
                .platforms()
                .iter()
                .any(|other| other.isolation == platform.isolation)
            {
                comparer.platform = Some(platform.isolation.name());
                only(&mut comparer, "second");
            }
        }
    }
    let more = comparer.more;
    Comparison {
        schema: SCHEMA,
        equal: differences.is_empty(),
        differences,
        more,
        first_byte,
        digests,
    }
}

/// Offset of the first byte in which two byte strings differ, or the end of the shorter one.
fn first_byte(a: &[u8], b: &[u8]) -> Option<u64> {
    /// Compared at once; much faster than byte by byte.
    const BLOCK: usize = 1 << 16;
    let common = a.len().min(b.len());
    let mut at = 0;
    while at < common {
        let end = (at + BLOCK).min(common);
        if a[at..end] != b[at..end] {
            return (at..end)
                .find(|&index| a[index] != b[index])
                .map(|index| index as u64);
        }
        at = end;
    }
    (a.len() != b.len()).then_some(common as u64)
}

fn whole_file(comparer: &mut Comparer<'_>, a: &Overview, b: &Overview) {
    let rows = [
        (
            "format version",
            a.file.format_version.to_string(),
            b.file.format_version.to_string(),
        ),
        (
            "architecture",
            a.file.architecture.to_owned(),
            b.file.architecture.to_owned(),
        ),
        (
            "version string",
            format!("{:?}", a.file.version_string),
            format!("{:?}", b.file.version_string),
        ),
    ];
    for (place, first, second) in rows {
        if first != second {
            comparer.push(Difference {
                place: place.to_owned(),
                what: format!("{first} becomes {second}"),
                ..Difference::default()
            });
        }
    }
}

fn only(comparer: &mut Comparer<'_>, which: &str) {
    comparer.push(Difference {
        place: "platform".to_owned(),
        what: format!("is in the {which} file only"),
        ..Difference::default()
    });
}

fn both(
    comparer: &mut Comparer<'_>,
    (a, view_a): (&File<'_>, &Overview),
    (b, view_b): (&File<'_>, &Overview),
    isolation: Isolation,
) {
    let (plan_a, plan_b) = match (a.plan(isolation), b.plan(isolation)) {
        (Ok(first), Ok(second)) => (first, second),
        (first, second) => {
            for (which, plan) in [("first", first), ("second", second)] {
                if let Err(refused) = plan {
                    comparer.push(Difference {
                        place: "plan".to_owned(),
                        what: format!("the {which} file has none: {refused}"),
                        ..Difference::default()
                    });
                }
            }
            return;
        }
    };
    let view = |overview: &Overview| {
        overview
            .platforms
            .iter()
            .position(|view| view.platform == isolation.name())
    };
    let (Some(index_a), Some(index_b)) = (view(view_a), view(view_b)) else {
        return;
    };
    facts::compare(
        comparer,
        (&plan_a, &view_a.platforms[index_a]),
        (&plan_b, &view_b.platforms[index_b]),
    );
    contexts::compare(comparer, &plan_a, &plan_b);
    pages::compare(comparer, &plan_a, &plan_b);
    order::compare(comparer, &plan_a, &plan_b);
}

/// More pages than any file holds; a parameter area or error range may claim them all the same.
const MAX_MEASURED: u64 = 1 << 24;

/// Pages that measuring a plan would go through.
fn pages_to_measure(plan: &LaunchPlan<'_>) -> u64 {
    let lengths = plan.steps().iter().map(|step| match &step.kind {
        StepKind::Import(import) => import.len,
        StepKind::ErrorRange { len, .. } => *len,
        _ => 0,
    });
    lengths.fold(0, |total: u64, len| total.saturating_add(len)) / 4096
}

fn digests_of(a: &File<'_>, b: &File<'_>, isolation: Isolation) -> Option<Digests> {
    let digest = |plan: LaunchPlan<'_>| {
        (pages_to_measure(&plan) <= MAX_MEASURED)
            .then(|| effect::digest(&plan, Profile::Kvm))
            .flatten()
    };
    let first = digest(a.plan(isolation).ok()?)?;
    let second = digest(b.plan(isolation).ok()?)?;
    Some(Digests {
        platform: isolation.name(),
        first: Digest(first).to_string(),
        second: Digest(second).to_string(),
    })
}
