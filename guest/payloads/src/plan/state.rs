// SPDX-License-Identifier: MIT
//! Page tables, GDT and segments of a flat 64-bit (or 32-bit) entry state.

use x86defs::paging::{LARGE_PAGE_SIZE, PAGE_BYTES, PAGE_SIZE, PTE_A, PTE_D, PTE_P, PTE_PS, PTE_W};
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister};

/// Selectors of [`gdt`].
const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;

/// Attributes of the code segment.
const CODE_64: u32 = 0xA09B;
const CODE_32: u32 = 0xC09B;
const DATA: u32 = 0xC093;

/// Identity map of the first 4 GiB in 2 MiB pages: root, one table of gibibytes, four of large pages.
pub(super) fn page_tables(gpa: u64) -> Vec<u8> {
    let mut entries = vec![0_u64; 6 * PAGE_BYTES / 8];
    let table = |index: u64| (gpa + index * PAGE_SIZE) | PTE_P | PTE_W | PTE_A;
    entries[0] = table(1);
    for gibibyte in 0..4 {
        entries[512 + gibibyte] = table(2 + gibibyte as u64);
    }
    for (leaf, at) in (0..).zip(&mut entries[1024..]) {
        *at = (leaf * LARGE_PAGE_SIZE) | PTE_P | PTE_W | PTE_A | PTE_D | PTE_PS;
    }
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// Null, 64-bit code, data, 32-bit code.
pub(super) fn gdt() -> Vec<u8> {
    let descriptor = |attributes: u32| u64::from(attributes) << 40 | 0x000F_0000_0000_FFFF;
    [0, descriptor(CODE_64), descriptor(DATA), descriptor(CODE_32)]
        .iter()
        .flat_map(|descriptor| descriptor.to_le_bytes())
        .collect()
}

/// GDTR for [`gdt`] at `gpa`.
pub(super) fn gdtr(gpa: u64) -> TableRegister {
    TableRegister { base: gpa, limit: 31 }
}

/// The code segment, 64-bit or 32-bit.
pub(super) fn code(long: bool) -> SegmentRegister {
    if long {
        segment(CODE_SELECTOR, CODE_64)
    } else {
        segment(0x18, CODE_32)
    }
}

/// All data segments.
pub(super) fn data() -> SegmentRegister {
    segment(DATA_SELECTOR, DATA)
}

fn segment(selector: u16, attributes: u32) -> SegmentRegister {
    SegmentRegister {
        selector,
        attributes: SegmentAttributes(attributes),
        limit: u32::MAX,
        base: 0,
    }
}
