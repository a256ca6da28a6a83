// SPDX-License-Identifier: MIT
//! A plan's imports by address, to look at bytes of the guest before it exists.
//!
//! Always true: 24 bytes of memory per import and no copy of contents. Not here: what the bytes are
//! (`regions`).

use launch_plan::{Contents, Import, LaunchPlan, StepKind};

/// Imports of a plan in address order.
pub(crate) struct Memory<'p, 'a> {
    plan: &'p LaunchPlan<'a>,
    /// (first byte, length, step).
    imports: Vec<(u64, u64, u32)>,
}

impl<'p, 'a> Memory<'p, 'a> {
    /// Indexes a plan.
    pub(crate) fn of(plan: &'p LaunchPlan<'a>) -> Self {
        let mut imports: Vec<(u64, u64, u32)> = plan
            .steps()
            .iter()
            .enumerate()
            .filter_map(|(index, step)| match &step.kind {
                StepKind::Import(import) => Some((import.gpa, import.len, u32::try_from(index).ok()?)),
                _ => None,
            })
            .collect();
        // The imports of a built plan are disjoint, and most files list them in order already.
        imports.sort_unstable();
        Self { plan, imports }
    }

    /// The import that covers `gpa`.
    pub(crate) fn at(&self, gpa: u64) -> Option<&'p Import<'a>> {
        let next = self.imports.partition_point(|&(start, ..)| start <= gpa);
        let &(start, len, step) = self.imports.get(next.checked_sub(1)?)?;
        if gpa - start >= len {
            return None;
        }
        match &self.plan.steps().get(step as usize)?.kind {
            StepKind::Import(import) => Some(import),
            _ => None,
        }
    }

    /// Fills `out` with the bytes at `gpa`; false when not all of them are imported. Parameter areas show
    /// their initial contents.
    pub(crate) fn read(&self, gpa: u64, out: &mut [u8]) -> bool {
        let mut done = 0;
        while done < out.len() {
            let Some(at) = gpa.checked_add(done as u64) else {
                return false;
            };
            let Some(import) = self.at(at) else { return false };
            let offset = at - import.gpa;
            let take = usize::try_from(import.len - offset)
                .unwrap_or(usize::MAX)
                .min(out.len() - done);
            let data = bytes_of(&import.contents);
            let rest = usize::try_from(offset)
                .ok()
                .and_then(|from| data.get(from..))
                .unwrap_or(&[]);
            let copied = rest.len().min(take);
            out[done..done + copied].copy_from_slice(&rest[..copied]);
            out[done + copied..done + take].fill(0);
            done += take;
        }
        true
    }

    /// `LEN` bytes at `gpa`.
    pub(crate) fn array<const LEN: usize>(&self, gpa: u64) -> Option<[u8; LEN]> {
        let mut out = [0; LEN];
        self.read(gpa, &mut out).then_some(out)
    }

    /// A little-endian u32 at `gpa`.
    pub(crate) fn u32(&self, gpa: u64) -> Option<u32> {
        self.array(gpa).map(u32::from_le_bytes)
    }

    /// The imported range that `gpa` lies in, imports that touch joined, as (first byte, length); the
    /// search stops `limit` bytes to each side.
    pub(crate) fn extent(&self, gpa: u64, limit: u64) -> Option<(u64, u64)> {
        let import = self.at(gpa)?;
        let (mut start, mut end) = (import.gpa, import.gpa.saturating_add(import.len));
        while gpa - start < limit
            && let Some(below) = start.checked_sub(1).and_then(|last| self.at(last))
        {
            start = below.gpa;
        }
        while end.saturating_sub(gpa) < limit
            && let Some(above) = self.at(end)
        {
            end = above.gpa.saturating_add(above.len);
        }
        Some((start, end - start))
    }

    /// Ranges of imported addresses in order, touching imports joined, as (first byte, length).
    pub(crate) fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for &(gpa, len, _) in &self.imports {
            match ranges.last_mut() {
                Some((start, total)) if start.checked_add(*total) == Some(gpa) => *total += len,
                _ => ranges.push((gpa, len)),
            }
        }
        ranges
    }
}

/// The bytes of contents that are given; the rest of an import is zero.
pub(crate) fn bytes_of<'c>(contents: &'c Contents<'_>) -> &'c [u8] {
    match contents {
        Contents::Zero => &[],
        Contents::Bytes(bytes) => bytes,
        Contents::Parameters(area) => &area.initial,
    }
}
