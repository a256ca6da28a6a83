// SPDX-License-Identifier: MIT
//! Two views of a plan's steps: page by page (to measure, encode and compare) and run by run (to print).
//!
//! Always true: both views keep launch order and neither copies page bytes. Not here: deciding
//! anything; these are projections.

use crate::plan::{Contents, Import, LaunchPlan, Origin, PageKind, ParameterArea, Step, StepKind};
use std::borrow::Cow;
use x86defs::paging::PAGE_SIZE;

/// What one page of a plan holds.
#[derive(Debug, Clone, Copy)]
pub enum PageContents<'p, 'a> {
    /// Zeros.
    Zero,
    /// At most a page of bytes, zero-filled to the end of the page; never empty.
    Bytes(&'p [u8]),
    /// A page of a parameter area, and which one (0 is the first).
    Parameters(&'p ParameterArea<'a>, u64),
}

impl PartialEq for PageContents<'_, '_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Zero, Self::Zero) => true,
            // A short page equals the same page padded with zeros.
            (Self::Bytes(a), Self::Bytes(b)) => {
                let common = a.len().min(b.len());
                let rest = if a.len() > common {
                    &a[common..]
                } else {
                    &b[common..]
                };
                a[..common] == b[..common] && rest.iter().all(|&byte| byte == 0)
            }
            (Self::Parameters(a, page_a), Self::Parameters(b, page_b)) => {
                page_a == page_b && (*page_a > 0 || same_area(a, b))
            }
            _ => false,
        }
    }
}

/// Areas are equal whatever their index: it only names them within a file.
fn same_area(a: &ParameterArea<'_>, b: &ParameterArea<'_>) -> bool {
    fn trimmed(bytes: &[u8]) -> &[u8] {
        &bytes[..bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1)]
    }
    a.slots == b.slots && trimmed(&a.initial) == trimmed(&b.initial)
}

/// One page of a plan: 4 KiB, or 2 MiB when `large`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanPage<'p, 'a> {
    /// First byte address.
    pub gpa: u64,
    /// Size in bytes, 0x1000 or 0x200000.
    pub size: u64,
    /// How it becomes the guest's.
    pub kind: PageKind,
    /// What it holds.
    pub contents: PageContents<'p, 'a>,
}

impl<'a> Import<'a> {
    /// The import page by page.
    pub fn pages(&self) -> impl Iterator<Item = PlanPage<'_, 'a>> {
        let size = if self.large { self.len } else { PAGE_SIZE };
        (0..self.len / size.max(1)).map(move |page| PlanPage {
            gpa: self.gpa + page * size,
            size,
            kind: self.kind,
            contents: self.page_contents(page, size),
        })
    }

    fn page_contents(&self, page: u64, size: u64) -> PageContents<'_, 'a> {
        match &self.contents {
            Contents::Zero => PageContents::Zero,
            Contents::Parameters(area) => PageContents::Parameters(area, page),
            Contents::Bytes(bytes) => {
                let start = usize::try_from(page * size)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                let end = start.saturating_add(size as usize).min(bytes.len());
                if start == end {
                    PageContents::Zero
                } else {
                    PageContents::Bytes(&bytes[start..end])
                }
            }
        }
    }
}

/// Consecutive imports that a listing shows as one line.
#[derive(Debug, Clone)]
pub struct ImportRun<'p, 'a> {
    /// The steps it covers.
    pub steps: &'p [Step<'a>],
    /// First byte address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
    /// How the pages become the guest's.
    pub kind: PageKind,
    /// 2 MiB pages.
    pub large: bool,
    /// "zero", "data" or "parameters".
    pub contents: &'static str,
}

/// A line of a listing.
#[derive(Debug, Clone)]
pub enum PlanRun<'p, 'a> {
    /// One or more imports.
    Import(ImportRun<'p, 'a>),
    /// Any other step, alone.
    Other(&'p Step<'a>),
}

impl PlanRun<'_, '_> {
    /// The first and the last origin of the run.
    pub fn origins(&self) -> (Origin, Origin) {
        match self {
            Self::Other(step) => (step.origin, step.origin),
            Self::Import(run) => {
                let first = run.steps.first().map_or(Origin::Host("nothing"), |s| s.origin);
                (first, run.steps.last().map_or(first, |s| s.origin))
            }
        }
    }
}

impl<'a> LaunchPlan<'a> {
    /// All imported pages in launch order, with the origin of their step.
    pub fn pages(&self) -> impl Iterator<Item = (PlanPage<'_, 'a>, Origin)> {
        self.steps.iter().flat_map(|step| {
            let import = match &step.kind {
                StepKind::Import(import) => Some(import),
                _ => None,
            };
            import
                .into_iter()
                .flat_map(Import::pages)
                .map(move |page| (page, step.origin))
        })
    }

    /// The steps with neighbouring imports of one kind joined. Parameter areas stay alone.
    pub fn runs(&self) -> impl Iterator<Item = PlanRun<'_, 'a>> {
        let mut rest = &self.steps[..];
        std::iter::from_fn(move || {
            let (run, after) = next_run(rest)?;
            rest = after;
            Some(run)
        })
    }
}

fn next_run<'p, 'a>(steps: &'p [Step<'a>]) -> Option<(PlanRun<'p, 'a>, &'p [Step<'a>])> {
    let (first, after) = steps.split_first()?;
    let StepKind::Import(import) = &first.kind else {
        return Some((PlanRun::Other(first), after));
    };
    let contents = contents_name(&import.contents);
    let mut end = import.gpa.wrapping_add(import.len);
    let mut len = import.len;
    let mut count = 1;
    for step in after {
        let StepKind::Import(next) = &step.kind else { break };
        let joins = next.gpa == end
            && next.kind == import.kind
            && next.large == import.large
            && contents_name(&next.contents) == contents
            && !matches!(next.contents, Contents::Parameters(_));
        if !joins {
            break;
        }
        end = end.wrapping_add(next.len);
        len += next.len;
        count += 1;
    }
    let (covered, after) = steps.split_at(count);
    let run = ImportRun {
        steps: covered,
        gpa: import.gpa,
        len,
        kind: import.kind,
        large: import.large,
        contents,
    };
    Some((PlanRun::Import(run), after))
}

fn contents_name(contents: &Contents<'_>) -> &'static str {
    match contents {
        Contents::Zero => "zero",
        Contents::Bytes(_) => "data",
        Contents::Parameters(_) => "parameters",
    }
}

/// A step, or one page of one: what plans are compared by.
#[derive(PartialEq)]
enum Unit<'p, 'a> {
    Page(PlanPage<'p, 'a>),
    Other(&'p StepKind<'a>),
}

impl PartialEq for LaunchPlan<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.facts == other.facts
            && self.endorsements == other.endorsements
            && self.relocatable == other.relocatable
            && self.page_tables == other.page_tables
            && units(&self.steps).eq(units(&other.steps))
    }
}

fn units<'p, 'a>(steps: &'p [Step<'a>]) -> impl Iterator<Item = Unit<'p, 'a>> {
    steps
        .iter()
        .flat_map(|step| -> Box<dyn Iterator<Item = Unit<'p, 'a>> + 'p> {
            match &step.kind {
                StepKind::Import(import) => Box::new(import.pages().map(Unit::Page)),
                other => Box::new(std::iter::once(Unit::Other(other))),
            }
        })
}

impl<'a> Contents<'a> {
    /// Borrowed bytes.
    pub const fn borrowed(bytes: &'a [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }
}
