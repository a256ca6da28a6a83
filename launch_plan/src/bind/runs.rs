// SPDX-License-Identifier: MIT
//! A bound plan's imports with neighbours joined: fewer and larger copies.
//!
//! Always true: the joined imports put the same bytes at the same addresses in the same order, and no
//! bytes are copied to join them. Not here: measuring, which goes page by page ([`super::BoundPlan::imports`]).

use super::{BoundImport, BoundPlan};

impl BoundPlan<'_> {
    /// The imports, joined where neighbours continue each other in address and kind and are both zero, or
    /// both lie side by side in the plan's source. The origin is the first one's; large pages stay alone.
    pub fn runs(&self) -> impl Iterator<Item = BoundImport<'_>> {
        let source = self.plan().source;
        let mut imports = self.imports();
        let mut pending = imports.next();
        std::iter::from_fn(move || {
            let mut run = pending.take()?;
            for next in imports.by_ref() {
                match join(&run, &next, source) {
                    Some(joined) => run = joined,
                    None => {
                        pending = Some(next);
                        break;
                    }
                }
            }
            Some(run)
        })
    }
}

/// Both imports as one.
fn join<'p>(
    run: &BoundImport<'p>,
    next: &BoundImport<'p>,
    source: Option<&'p [u8]>,
) -> Option<BoundImport<'p>> {
    let continues = run.gpa.checked_add(run.len) == Some(next.gpa) && run.kind == next.kind;
    if !continues || run.large || next.large {
        return None;
    }
    let len = run.len.checked_add(next.len)?;
    let data = match (run.data, next.data) {
        (None, None) => None,
        // Whatever is missing of the first import is zero and ends the run.
        (Some(first), Some(second)) if first.len() as u64 == run.len => {
            let source = source?;
            let start = offset_in(source, first)?;
            let middle = start.checked_add(first.len())?;
            if offset_in(source, second)? != middle {
                return None;
            }
            Some(source.get(start..middle.checked_add(second.len())?)?)
        }
        _ => return None,
    };
    Some(BoundImport { len, data, ..*run })
}

/// Where `part` lies in `whole`, if it is a part of it.
fn offset_in(whole: &[u8], part: &[u8]) -> Option<usize> {
    let offset = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (offset.checked_add(part.len())? <= whole.len()).then_some(offset)
}
