// SPDX-License-Identifier: MIT
//! What a launch submits, as runs of equal neighbouring pages in the order in which they are measured.
//!
//! Always true: runs follow [`launch_digest::events::submit`] for [`Profile::Kvm`] and never reorder;
//! pages of a run are adjacent in guest memory. Payload bytes stay borrowed; [`Staging`] copies one run
//! at a time to where the kernel wants them.

use launch_digest::events::{self, Measured};
use launch_digest::{MeasureError, PageClass, Profile};
use launch_plan::{BoundPlan, Origin, PageKind};
use std::collections::BTreeMap;
use x86defs::paging::{PAGE_BYTES, PAGE_SIZE};

/// Most pages of a run: what one call copies, 2 MiB.
const MAX_RUN: usize = 512;

/// Neighbouring pages of one class.
#[derive(Debug, Clone)]
pub(crate) struct Run<'p> {
    /// First guest physical byte address.
    pub(crate) gpa: u64,
    /// How they are submitted.
    pub(crate) class: PageClass,
    /// At most a page of bytes each, zeros beyond.
    pub(crate) pages: Vec<&'p [u8]>,
    /// Where the first came from.
    pub(crate) origin: Origin,
}

impl Run<'_> {
    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.pages.len() as u64 * PAGE_SIZE
    }
}

/// The runs of a launch with `vp_count` VPs.
pub(crate) fn runs<'p>(bound: &'p BoundPlan<'_>, vp_count: u32) -> Result<Vec<Run<'p>>, MeasureError> {
    let unmeasured: BTreeMap<u64, &'p [u8]> = bound
        .imports()
        .filter(|import| import.kind == PageKind::Unmeasured)
        .map(|import| (import.gpa, import.data.unwrap_or(&[])))
        .collect();
    let mut runs: Vec<Run<'p>> = Vec::new();
    events::submit(bound.plan(), Profile::Kvm, vp_count, &mut |event| {
        let Measured::Page { gpa, class, data } = event.what else {
            return Ok(());
        };
        let data = if class == PageClass::Unmeasured {
            // The host's values are in the bound plan only; they are no part of the digest.
            page_of(&unmeasured, gpa)
        } else {
            data
        };
        match runs.last_mut() {
            Some(run) if run.class == class && run.gpa + run.len() == gpa && run.pages.len() < MAX_RUN => {
                run.pages.push(data);
            }
            _ => runs.push(Run {
                gpa,
                class,
                pages: vec![data],
                origin: event.origin,
            }),
        }
        Ok(())
    })?;
    Ok(runs)
}

/// The bytes of the page at `gpa`; the import that begins last before it is its own, because imports are
/// disjoint.
fn page_of<'p>(imports: &BTreeMap<u64, &'p [u8]>, gpa: u64) -> &'p [u8] {
    let Some((start, bytes)) = imports.range(..=gpa).next_back() else {
        return &[];
    };
    let from = usize::try_from(gpa - start)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let to = from.saturating_add(PAGE_BYTES).min(bytes.len());
    &bytes[from..to]
}

/// A page-aligned buffer for one run.
#[derive(Debug)]
pub(crate) struct Staging {
    bytes: Vec<u8>,
    aligned: usize,
}

impl Staging {
    pub(crate) fn new() -> Self {
        let bytes = vec![0; (MAX_RUN + 1) * PAGE_BYTES];
        let aligned = bytes.as_ptr().align_offset(PAGE_BYTES);
        Self { bytes, aligned }
    }

    /// The pages of a run, each padded with zeros.
    pub(crate) fn fill(&mut self, pages: &[&[u8]]) -> &mut [u8] {
        let end = self.aligned + pages.len() * PAGE_BYTES;
        let bytes = &mut self.bytes[self.aligned..end];
        for (to, from) in bytes.chunks_exact_mut(PAGE_BYTES).zip(pages) {
            to[..from.len()].copy_from_slice(from);
            to[from.len()..].fill(0);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use launch_plan::{
        Arch, Contents, HostValues, Import, Isolation, LaunchPlan, ParameterArea, ParameterKind,
        ParameterSlot, PlanBuilder, PlatformFacts,
    };

    const HERE: Origin = Origin::Host("test");

    fn import(
        builder: &mut PlanBuilder<'static>,
        gpa: u64,
        kind: PageKind,
        contents: Contents<'static>,
        pages: u64,
    ) {
        let import = Import {
            gpa,
            len: pages * PAGE_SIZE,
            large: false,
            kind,
            contents,
        };
        builder.import(import, HERE).unwrap();
    }

    fn plan(isolation: Isolation) -> LaunchPlan<'static> {
        let mut b = PlanBuilder::new(PlatformFacts::new(isolation, Arch::X64));
        import(
            &mut b,
            0x1000,
            PageKind::Measured,
            Contents::Bytes(vec![7; 0x1800].into()),
            2,
        );
        import(&mut b, 0x3000, PageKind::Measured, Contents::Zero, 1);
        let slot = ParameterSlot {
            kind: ParameterKind::VpCount,
            byte_offset: 0x1000,
            origin: HERE,
        };
        let area = ParameterArea {
            index: 0,
            initial: Default::default(),
            slots: vec![slot],
        };
        import(
            &mut b,
            0x4000,
            PageKind::Unmeasured,
            Contents::Parameters(Box::new(area)),
            3,
        );
        import(&mut b, 0x8000, PageKind::Measured, Contents::Zero, 1);
        import(&mut b, 0x9000, PageKind::Shared, Contents::Zero, 1);
        import(&mut b, 0x20_0000, PageKind::Measured, Contents::Zero, 600);
        b.finish()
    }

    fn shape(isolation: Isolation) -> Vec<(u64, PageClass, usize)> {
        let plan = plan(isolation);
        let bound = plan.bind(&HostValues::new(3)).unwrap();
        let runs = runs(&bound, 3).unwrap();
        runs.iter().map(|r| (r.gpa, r.class, r.pages.len())).collect()
    }

    #[test]
    fn equal_neighbours_join_in_file_order_up_to_two_mebibytes() {
        use PageClass::{Normal, Unmeasured};
        let normal = [
            (0x8000, Normal, 1),
            (0x20_0000, Normal, 512),
            (0x40_0000, Normal, 88),
        ];
        let snp = [&[(0x1000, Normal, 3), (0x4000, Unmeasured, 3)][..], &normal].concat();
        assert_eq!(shape(Isolation::Snp), snp);
        assert_eq!(
            shape(Isolation::Sev),
            [&[(0x1000, Normal, 3)][..], &normal].concat()
        );
    }

    #[test]
    fn values_of_the_host_are_in_the_unmeasured_pages() {
        let plan = plan(Isolation::Snp);
        let bound = plan.bind(&HostValues::new(3)).unwrap();
        let runs = runs(&bound, 3).unwrap();
        let mut staging = Staging::new();
        let area = staging.fill(&runs[1].pages);
        assert!((area.as_ptr() as usize).is_multiple_of(PAGE_BYTES) && area.len() == 0x3000);
        assert_eq!((area[0xFFF], area[0x1000], area[0x1001]), (0, 3, 0));
        let first = staging.fill(&runs[0].pages);
        assert_eq!(
            (first[0x17FF], first[0x1800], first[0x2000]),
            (7, 0, 0),
            "padded, and nothing is left over"
        );
    }
}
