// SPDX-License-Identifier: MIT
//! Where the loader's own parts lie, and the memory map that the kernel gets.
//!
//! Always true: everything here is below 1 MiB; 0xA0000-0x100000 is reserved and holds the ACPI tables.
//! Not here: kernel and initrd.

use openvmm_defs::MemoryLayout;

/// First byte of extended memory.
pub(super) const ONE_MIB: u64 = 0x10_0000;
/// Four descriptors.
pub(super) const GDT_GPA: u64 = 0x6000;
/// Zero page, or PVH start info with its lists.
pub const ZERO_PAGE_GPA: u64 = 0x7000;
/// End of a page of stack for the 64-bit entry; the kernel soon uses its own.
pub(super) const STACK_END_GPA: u64 = 0x9000;
/// Six page table pages.
pub(super) const PAGE_TABLES_GPA: u64 = 0x9000;
/// The command line.
pub const COMMAND_LINE_GPA: u64 = 0x2_0000;
/// Bytes for the command line and its terminator.
pub const COMMAND_LINE_ROOM: u64 = 0x1_0000;
/// End of usable low memory.
const LOW_END: u64 = 0xA_0000;
/// ACPI tables, the RSDP first.
pub const ACPI_GPA: u64 = 0xE_0000;
/// Bytes for the ACPI tables.
pub const ACPI_ROOM: u64 = ONE_MIB - ACPI_GPA;

/// Entries that both hand-over pages have room for.
pub(super) const MAX_ENTRIES: usize = 128;

/// Kinds of memory; PVH uses the same numbers.
const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// One range of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct E820Entry {
    pub(super) gpa: u64,
    pub(super) len: u64,
    pub(super) kind: u32,
}

/// A map that does not fit the page it is handed over in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the memory map has {0} entries; a kernel takes at most {MAX_ENTRIES}")]
pub struct E820Error(usize);

/// RAM without the hole below 1 MiB, the hole, and the ECAM windows, ascending.
pub(super) fn e820(layout: &MemoryLayout) -> Result<Vec<E820Entry>, E820Error> {
    let mut map = Vec::new();
    let mut push = |gpa: u64, end: u64, kind| {
        if gpa < end {
            let len = end - gpa;
            map.push(E820Entry { gpa, len, kind });
        }
    };
    for range in &layout.ram {
        push(range.gpa, range.end().min(LOW_END), RAM);
        push(range.gpa.max(ONE_MIB), range.end(), RAM);
    }
    push(LOW_END, ONE_MIB, RESERVED);
    for complex in &layout.root_complexes {
        push(complex.ecam.gpa, complex.ecam.end(), RESERVED);
    }
    map.sort_by_key(|entry| entry.gpa);
    if map.len() > MAX_ENTRIES {
        return Err(E820Error(map.len()));
    }
    Ok(map)
}
