// SPDX-License-Identifier: MIT
//! PVH start info (Xen's `hvm_start_info`, version 1) with its module list and memory map, in one page.
//!
//! Always true: all addresses in it point into that page, to the command line or to the initrd. Not
//! here: the entry point (`super::elf`).

use super::HandOver;
use super::memory::{COMMAND_LINE_GPA, E820Entry, MAX_ENTRIES, ZERO_PAGE_GPA};
use x86defs::paging::PAGE_BYTES;

/// First field of the start info.
pub const START_INFO_MAGIC: u32 = 0x336E_C578;

const VERSION: u32 = 1;
/// Offset of the module list, one entry of 32 bytes.
const MODULES: usize = 0x40;
/// Offset of the memory map.
const MEMORY_MAP: usize = 0x80;
const ENTRY_BYTES: usize = 24;
const _: () = assert!(MEMORY_MAP + MAX_ENTRIES * ENTRY_BYTES <= PAGE_BYTES);

/// The page at [`ZERO_PAGE_GPA`].
pub(super) fn start_info(hand_over: &HandOver) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    let address = |offset: usize| (ZERO_PAGE_GPA + offset as u64).to_le_bytes();
    put(0, &START_INFO_MAGIC.to_le_bytes());
    put(4, &VERSION.to_le_bytes());
    if let Some(initrd) = hand_over.initrd {
        put(12, &1u32.to_le_bytes());
        put(16, &address(MODULES));
        put(MODULES, &initrd.gpa.to_le_bytes());
        put(MODULES + 8, &initrd.len.to_le_bytes());
    }
    put(24, &COMMAND_LINE_GPA.to_le_bytes());
    put(32, &hand_over.rsdp_gpa.to_le_bytes());
    put(40, &address(MEMORY_MAP));
    // At most MAX_ENTRIES.
    put(48, &(hand_over.map.len() as u32).to_le_bytes());
    for (index, &E820Entry { gpa, len, kind }) in hand_over.map.iter().enumerate() {
        let at = MEMORY_MAP + index * ENTRY_BYTES;
        put(at, &gpa.to_le_bytes());
        put(at + 8, &len.to_le_bytes());
        put(at + 16, &kind.to_le_bytes());
    }
    page
}
