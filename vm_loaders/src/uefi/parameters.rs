// SPDX-License-Identifier: MIT
//! The parameter area that `config_type: igvm` places where the configuration blob would be
//! (uefi-launch 3.10), without the parts that only isolated guests have.
//!
//! Always true: 83 pages from 0x709000, 62 of them parameter areas; the first page says where the
//! others are, in pages from itself. Not here: what the parameters say (`crate::params`).

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

const LOADER_BLOCK: u32 = 1;
const COMMAND_LINE: u32 = LOADER_BLOCK + 1;
const MEMORY_MAP: u32 = COMMAND_LINE + 1;
const MADT: u32 = MEMORY_MAP + LARGE_PART_PAGES;
const SRAT: u32 = MADT + LARGE_PART_PAGES;
const SCRATCH: u32 = SRAT + LARGE_PART_PAGES;
/// Pages of the whole area.
const TOTAL_PAGES: u32 = SCRATCH + LARGE_PART_PAGES;

/// First byte behind the area.
pub(super) const END_GPA: u64 = x64::CONFIG_BLOB_GPA + TOTAL_PAGES as u64 * PAGE_SIZE;

/// Adds the area's pages in address order.
pub(super) fn add(builder: &mut PlanBuilder<'_>) -> Result<(), PlanError> {
    let info = Contents::Bytes(Cow::Owned(info_page()));
    import(
        builder,
        0..LOADER_BLOCK,
        PageKind::Measured,
        info,
        "uefi parameter info",
    )?;
    let areas = [
        (
            LOADER_BLOCK..COMMAND_LINE,
            ParameterKind::VpCount,
            "uefi loader block",
        ),
        (
            COMMAND_LINE..MEMORY_MAP,
            ParameterKind::CommandLine,
            "uefi command line",
        ),
        (MEMORY_MAP..MADT, ParameterKind::MemoryMap, "uefi memory map"),
        (MADT..SRAT, ParameterKind::Madt, "uefi madt"),
        (SRAT..SCRATCH, ParameterKind::Srat, "uefi srat"),
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
        SCRATCH..TOTAL_PAGES,
        PageKind::Unmeasured,
        Contents::Zero,
        "uefi memory map scratch",
    )
}

fn import<'a>(
    builder: &mut PlanBuilder<'a>,
    pages: Range<u32>,
    kind: PageKind,
    contents: Contents<'a>,
    what: &'static str,
) -> Result<(), PlanError> {
    let import = Import {
        gpa: x64::CONFIG_BLOB_GPA + u64::from(pages.start) * PAGE_SIZE,
        len: pages.len() as u64 * PAGE_SIZE,
        large: false,
        kind,
        contents,
    };
    builder.import(import, Origin::Host(what))
}

fn info_page() -> Vec<u8> {
    let mut page = vec![0; 64];
    let fields = [
        (0, TOTAL_PAGES),
        (16, LOADER_BLOCK),
        (20, COMMAND_LINE),
        (24, 1),
        (28, MEMORY_MAP),
        (32, LARGE_PART_PAGES),
        (36, MADT),
        (40, LARGE_PART_PAGES),
        (44, SRAT),
        (48, LARGE_PART_PAGES),
        (56, SCRATCH),
        (60, LARGE_PART_PAGES),
    ];
    for (offset, value) in fields {
        page[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    page[8..16].copy_from_slice(&NO_VP_CONTEXT_PAGE.to_le_bytes());
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_83_pages() {
        assert_eq!(TOTAL_PAGES, 83);
        assert_eq!(END_GPA, 0x75_C000);
    }
}
