// SPDX-License-Identifier: MIT
//! The parameter area that `config_type: igvm` places where the configuration blob would be
//! (uefi-launch 3.10).
//!
//! Always true: 62 pages of it are parameter areas; the first page says where all parts are, in pages
//! from itself; SEV-SNP adds page tables behind the first page and two CPUID pages at the end. Not here:
//! what the parameters say (`crate::params`), the save area page behind the area (`super::isolated`).

use super::x64;
use launch_plan::{
    Contents, Import, Origin, PageKind, ParameterArea, ParameterKind, ParameterSlot, PlanBuilder, PlanError,
};
use std::borrow::Cow;
use std::ops::Range;
use x86defs::paging::PAGE_SIZE;

/// Pages of each of the large parts.
const LARGE_PART_PAGES: u32 = 20;
/// Page number that says that no VP context page exists.
const NO_VP_CONTEXT_PAGE: u64 = 0xF_FFFF;

/// What the area holds beside the parameters.
#[derive(Debug, Clone, Default)]
pub(super) struct Extras {
    /// Page tables behind the first page, whole pages.
    pub(super) page_tables: Vec<u8>,
    /// The CPUID page; a CPUID page with extended state follows it.
    pub(super) cpuid: Option<Vec<u8>>,
}

/// Where the parts lie, in pages from the beginning of the area.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    loader_block: u32,
    command_line: u32,
    memory_map: u32,
    madt: u32,
    srat: u32,
    scratch: u32,
    /// 0 without CPUID pages.
    cpuid: u32,
    total: u32,
}

impl Places {
    pub(super) fn new(extras: &Extras) -> Self {
        let mut next = 1 + (extras.page_tables.len() as u64 / PAGE_SIZE) as u32;
        let mut take = |pages: u32| {
            next += pages;
            next - pages
        };
        let mut places = Self {
            loader_block: take(1),
            command_line: take(1),
            memory_map: take(LARGE_PART_PAGES),
            madt: take(LARGE_PART_PAGES),
            srat: take(LARGE_PART_PAGES),
            scratch: take(LARGE_PART_PAGES),
            cpuid: if extras.cpuid.is_some() { take(2) } else { 0 },
            total: 0,
        };
        places.total = next;
        places
    }

    /// First byte behind the area.
    pub(super) fn end_gpa(&self) -> u64 {
        page_gpa(self.total)
    }
}

/// The address of a page of the area.
pub(super) const fn page_gpa(page: u32) -> u64 {
    x64::CONFIG_BLOB_GPA + page as u64 * PAGE_SIZE
}

/// Adds the area's pages in address order.
pub(super) fn add(builder: &mut PlanBuilder<'_>, extras: Extras) -> Result<(), PlanError> {
    let places = Places::new(&extras);
    let info = owned(info_page(&places));
    import(builder, 0..1, PageKind::Measured, info, "uefi parameter info")?;
    if !extras.page_tables.is_empty() {
        let tables = owned(extras.page_tables);
        let pages = 1..places.loader_block;
        import(
            builder,
            pages,
            PageKind::Measured,
            tables,
            "uefi shared page tables",
        )?;
    }
    let areas = [
        (
            places.loader_block..places.command_line,
            ParameterKind::VpCount,
            "uefi loader block",
        ),
        (
            places.command_line..places.memory_map,
            ParameterKind::CommandLine,
            "uefi command line",
        ),
        (
            places.memory_map..places.madt,
            ParameterKind::MemoryMap,
            "uefi memory map",
        ),
        (places.madt..places.srat, ParameterKind::Madt, "uefi madt"),
        (places.srat..places.scratch, ParameterKind::Srat, "uefi srat"),
    ];
    for (index, (pages, kind, what)) in (0..).zip(areas) {
        let slot = ParameterSlot {
            kind,
            byte_offset: 0,
            origin: Origin::Host(what),
        };
        let area = ParameterArea {
            index,
            initial: Cow::Borrowed(&[]),
            slots: vec![slot],
        };
        let contents = Contents::Parameters(Box::new(area));
        import(builder, pages, PageKind::Unmeasured, contents, what)?;
    }
    import(
        builder,
        places.scratch..places.scratch + LARGE_PART_PAGES,
        PageKind::Unmeasured,
        Contents::Zero,
        "uefi memory map scratch",
    )?;
    let Some(cpuid) = extras.cpuid else { return Ok(()) };
    let at = places.cpuid;
    import(
        builder,
        at..at + 1,
        PageKind::Cpuid,
        owned(cpuid),
        "uefi cpuid page",
    )?;
    import(
        builder,
        at + 1..at + 2,
        PageKind::CpuidXf,
        Contents::Zero,
        "uefi extended cpuid page",
    )
}

fn owned(bytes: Vec<u8>) -> Contents<'static> {
    Contents::Bytes(Cow::Owned(bytes))
}

fn import<'a>(
    builder: &mut PlanBuilder<'a>,
    pages: Range<u32>,
    kind: PageKind,
    contents: Contents<'a>,
    what: &'static str,
) -> Result<(), PlanError> {
    let import = Import {
        gpa: page_gpa(pages.start),
        len: pages.len() as u64 * PAGE_SIZE,
        large: false,
        kind,
        contents,
    };
    builder.import(import, Origin::Host(what))
}

fn info_page(places: &Places) -> Vec<u8> {
    let mut page = vec![0; 64];
    let fields = [
        (0, places.total),
        (4, places.cpuid),
        (16, places.loader_block),
        (20, places.command_line),
        (24, 1),
        (28, places.memory_map),
        (32, LARGE_PART_PAGES),
        (36, places.madt),
        (40, LARGE_PART_PAGES),
        (44, places.srat),
        (48, LARGE_PART_PAGES),
        (56, places.scratch),
        (60, LARGE_PART_PAGES),
    ];
    for (offset, value) in fields {
        page[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    let context = match places.cpuid {
        0 => NO_VP_CONTEXT_PAGE,
        _ => places.end_gpa() / PAGE_SIZE,
    };
    page[8..16].copy_from_slice(&context.to_le_bytes());
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_83_pages_and_with_page_tables_and_cpuid_pages_more() {
        let plain = Places::new(&Extras::default());
        assert_eq!((plain.total, plain.end_gpa()), (83, 0x75_C000));
        assert_eq!(info_page(&plain)[8..16], 0xF_FFFFu64.to_le_bytes());
        let snp = Places::new(&Extras {
            page_tables: vec![0; 5 * 4096],
            cpuid: Some(Vec::new()),
        });
        assert_eq!((snp.loader_block, snp.cpuid, snp.total), (6, 88, 90));
        assert_eq!(info_page(&snp)[8..16], 0x763u64.to_le_bytes());
    }
}
