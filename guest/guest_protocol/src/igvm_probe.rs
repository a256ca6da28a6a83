// SPDX-License-Identifier: MIT
//! The layout contract of `igvm_probe`: what lies where, and which registers hold what.
//!
//! Always true: every address is an offset from the image's base, a multiple of 2 MiB, so that the whole
//! region may be moved; the image is position independent. Offsets of parameter areas that an image does
//! not have hold zero pages. Not here: building the image (`payloads`), checking it (the payload).

/// Base at the file's own addresses.
pub const BASE_GPA: u64 = 0x40_0000;
/// Length of the region that moves, in bytes. The page tables follow it: IGVM keeps them in a region of
/// their own, which moves by the same distance.
pub const REGION_LEN: u64 = 0x40_0000;
/// RAM that the image requires from its base on, page tables included.
pub const REQUIRED_LEN: u64 = PAGE_TABLES + PAGE_TABLE_ROOM * 0x1000;
/// Alignment of the base.
pub const ALIGNMENT: u64 = 0x20_0000;

/// Offset of the 32-bit entry: flat protected mode, paging off, CR3 holding the page tables, GDTR the GDT.
pub const ENTRY32: u64 = 0;
/// Offset of the 64-bit entry.
pub const ENTRY64: u64 = 0x200;
/// Room for the image.
pub const IMAGE_ROOM: u64 = 0x10_0000;
/// Six page table pages, with two spare ones behind them.
pub const PAGE_TABLES: u64 = REGION_LEN;
/// Pages of page tables in use.
pub const PAGE_TABLE_PAGES: u64 = 6;
/// Pages of page tables with the spare ones.
pub const PAGE_TABLE_ROOM: u64 = 8;
/// One page with the GDT: null, 64-bit code 0x08, data 0x10, 32-bit code 0x18.
pub const GDT: u64 = 0x10_8000;
/// GDTR limit.
pub const GDT_LIMIT: u16 = 31;

/// A parameter area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Offset from the base.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// VP count, environment info and MMIO ranges in one area, at these byte offsets; the rest of the area
/// keeps the initial data [`INITIAL_BYTE`].
pub const VALUES: Area = area(0x11_0000, 0x1000);
/// Byte offset of the VP count in [`VALUES`].
pub const VP_COUNT_AT: u32 = 0x10;
/// Byte offset of the environment info in [`VALUES`].
pub const ENVIRONMENT_AT: u32 = 0x80;
/// Byte offset of the MMIO ranges in [`VALUES`].
pub const MMIO_AT: u32 = 0x400;
/// Initial data of [`VALUES`].
pub const INITIAL_BYTE: u8 = 0xC5;
/// Memory map.
pub const MEMORY_MAP: Area = area(0x11_1000, 0x1000);
/// Command line.
pub const COMMAND_LINE: Area = area(0x11_2000, 0x1000);
/// MADT.
pub const MADT: Area = area(0x11_4000, 0x4000);
/// SRAT.
pub const SRAT: Area = area(0x11_8000, 0x4000);
/// SLIT.
pub const SLIT: Area = area(0x11_C000, 0x2000);
/// PPTT.
pub const PPTT: Area = area(0x12_0000, 0x4000);
/// Device tree.
pub const DEVICE_TREE: Area = area(0x13_0000, 0x1_0000);

const fn area(offset: u64, len: u64) -> Area {
    Area { offset, len }
}

/// How a page of [`PAGES`] is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Measured.
    Measured,
    /// Unmeasured.
    Unmeasured,
    /// Shared with the host.
    Shared,
}

/// A page that the probe looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// In the report: `page-NAME`.
    pub name: &'static str,
    /// Offset from the base.
    pub offset: u64,
    /// How it is imported.
    pub kind: Kind,
    /// Bytes of pattern from its start; zero behind them.
    pub pattern: u64,
}

/// One page of each kind.
pub const PAGES: [Page; 7] = [
    page("zero", 0x14_0000, Kind::Measured, 0),
    page("measured", 0x14_1000, Kind::Measured, 0x1000),
    page("unmeasured", 0x14_2000, Kind::Unmeasured, 0x1000),
    page("unmeasured-zero", 0x14_3000, Kind::Unmeasured, 0),
    page("shared", 0x14_4000, Kind::Shared, 0x1000),
    page("shared-zero", 0x14_5000, Kind::Shared, 0),
    page("short", 0x14_6000, Kind::Measured, 0x68),
];

const fn page(name: &'static str, offset: u64, kind: Kind, pattern: u64) -> Page {
    Page {
        name,
        offset,
        kind,
        pattern,
    }
}

/// An error range: zero pages that are no RAM in the memory map.
pub const ERROR_RANGE: Area = area(0x15_0000, 0x2000);
/// Memory that nothing imports: stacks of the application processors.
pub const STACKS: Area = area(0x16_0000, 0x1_0000);
/// One 2 MiB page full of pattern.
pub const LARGE_PAGE: Area = area(0x20_0000, 0x20_0000);

/// The pattern's 8 bytes at an offset from the base.
pub const fn pattern(offset: u64) -> u64 {
    (offset + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Register values that the image gives and the probe expects.
pub mod registers {
    /// General purpose register `index` (encoding order) of a native context; a VBS list gives the same
    /// to those that it can name.
    pub const fn gpr(index: usize) -> u64 {
        0x6A70_0000_C0DE_0000 | (index as u64) << 20 | index as u64
    }
    /// Registers that a VBS list can name: RBP, RSI, RSP, R8-R12.
    pub const VBS_GPRS: [usize; 8] = [5, 6, 4, 8, 9, 10, 11, 12];
    /// RFLAGS as a native context has it: CF and ZF, bit 1 missing.
    pub const NATIVE_RFLAGS: u64 = 0x41;
    /// RFLAGS as the probe sees it.
    pub const RFLAGS: u64 = 0x43;
    /// CR0.
    pub const CR0: u64 = 0x8000_0033;
    /// CR4: PAE, MCE, FXSR, XMMEXCPT.
    pub const CR4: u64 = 0x660;
    /// EFER: LME, LMA, NXE.
    pub const EFER: u64 = 0xD00;
    /// GS base of a native context.
    pub const GS_BASE: u64 = 0xFFFF_8000_1234_5000;
    /// IDTR, which nothing uses before the probe replaces it.
    pub const IDTR: (u64, u16) = (0x12_3000, 0x7FF);
    /// PAT of a VBS list.
    pub const PAT: u64 = 0x0007_0105_0007_0106;
    /// PAT without one.
    pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;
    /// MTRR default type of a VBS list: enabled, fixed enabled, write-back.
    pub const MTRR_DEFAULT: u64 = 0xC06;
    /// Fixed MTRRs of a VBS list: MSR and value.
    pub const MTRR_FIXED: [(u32, u64); 6] = [
        (0x250, 0x0606_0606_0606_0606),
        (0x258, 0x0606_0606_0605_0404),
        (0x26C, 0x0505_0505_0505_0505),
        (0x26D, 0x0505_0505_0404_0404),
        (0x26E, 0x0404_0404_0404_0404),
        (0x26F, 0x0606_0606_0101_0101),
    ];
    /// Variable MTRR pairs of a VBS list.
    pub const MTRR_PAIRS: usize = 5;
    /// Base and mask of a variable MTRR pair: 256 MiB each, in a physical address space of 36 bits or more.
    pub const fn mtrr_variable(pair: usize) -> (u64, u64) {
        ((pair as u64) << 28 | 6, 0xF_F000_0800)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps_and_everything_is_inside_the_region() {
        let areas = [
            VALUES,
            MEMORY_MAP,
            COMMAND_LINE,
            MADT,
            SRAT,
            SLIT,
            PPTT,
            DEVICE_TREE,
        ];
        let fixed = [
            area(0, IMAGE_ROOM),
            area(PAGE_TABLES, PAGE_TABLE_ROOM * 0x1000),
            area(GDT, 0x1000),
            ERROR_RANGE,
            STACKS,
            LARGE_PAGE,
        ];
        let pages = PAGES.map(|page| area(page.offset, 0x1000));
        let all = || areas.iter().chain(&fixed).chain(&pages);
        for (at, one) in all().enumerate() {
            assert!(one.offset % 0x1000 == 0 && one.len % 0x1000 == 0);
            assert!(one.offset + one.len <= REQUIRED_LEN);
            for other in all().skip(at + 1) {
                let apart = one.offset + one.len <= other.offset || other.offset + other.len <= one.offset;
                assert!(apart, "{one:?} and {other:?}");
            }
        }
        assert_eq!(LARGE_PAGE.offset % ALIGNMENT, 0);
        assert_eq!(BASE_GPA % ALIGNMENT, 0);
    }
}
