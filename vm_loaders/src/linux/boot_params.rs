// SPDX-License-Identifier: MIT
//! The zero page, `struct boot_params` (Linux Documentation/arch/x86/zero-page.rst).
//!
//! Always true: everything that the loader does not set is zero, the sentinel included. Not here:
//! reading a kernel's header.

use super::HandOver;
use super::memory::{COMMAND_LINE_GPA, E820Entry};
use x86defs::paging::PAGE_BYTES;

/// First byte of the setup header, in the file and in the zero page.
pub(super) const HEADER_START: usize = offset::SETUP_SECTS;

/// Offsets in the zero page; setup header fields have the same in a bzImage.
pub(super) mod offset {
    pub(crate) const ACPI_RSDP_ADDR: usize = 0x070;
    pub(crate) const E820_ENTRIES: usize = 0x1E8;
    pub(crate) const SETUP_SECTS: usize = 0x1F1;
    pub(crate) const SYSSIZE: usize = 0x1F4;
    pub(crate) const VID_MODE: usize = 0x1FA;
    pub(crate) const BOOT_FLAG: usize = 0x1FE;
    pub(crate) const JUMP: usize = 0x200;
    pub(crate) const MAGIC: usize = 0x202;
    pub(crate) const VERSION: usize = 0x206;
    pub(crate) const TYPE_OF_LOADER: usize = 0x210;
    pub(crate) const LOADFLAGS: usize = 0x211;
    pub(crate) const RAMDISK_IMAGE: usize = 0x218;
    pub(crate) const RAMDISK_SIZE: usize = 0x21C;
    pub(crate) const CMD_LINE_PTR: usize = 0x228;
    pub(crate) const INITRD_ADDR_MAX: usize = 0x22C;
    pub(crate) const XLOADFLAGS: usize = 0x236;
    pub(crate) const CMDLINE_SIZE: usize = 0x238;
    pub(crate) const SETUP_DATA: usize = 0x250;
    pub(crate) const PREF_ADDRESS: usize = 0x258;
    pub(crate) const INIT_SIZE: usize = 0x260;
    /// The setup header may not grow beyond this.
    pub(crate) const HEADER_LIMIT: usize = 0x290;
    pub(crate) const E820_TABLE: usize = 0x2D0;
}

/// A boot loader without an assigned number.
const UNDEFINED_LOADER: u8 = 0xFF;
/// "normal" video mode.
const VIDEO_NORMAL: u16 = 0xFFFF;
/// The protocol that an ELF kernel's made-up header claims: the one with `acpi_rsdp_addr`.
const PROTOCOL: u16 = 0x20E;
/// Longest command line of an ELF kernel: x86 Linux's COMMAND_LINE_SIZE.
pub(super) const ELF_CMDLINE_SIZE: u32 = 2048;

/// The zero page; an ELF kernel has no setup header of its own.
pub(super) fn zero_page(setup_header: Option<&[u8]>, hand_over: &HandOver) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    match setup_header {
        Some(header) => put(HEADER_START, header),
        None => {
            put(offset::BOOT_FLAG, &[0x55, 0xAA]);
            put(offset::MAGIC, b"HdrS");
            put(offset::VERSION, &PROTOCOL.to_le_bytes());
            put(offset::LOADFLAGS, &[1]);
            put(offset::CMDLINE_SIZE, &ELF_CMDLINE_SIZE.to_le_bytes());
        }
    }
    put(offset::VID_MODE, &VIDEO_NORMAL.to_le_bytes());
    put(offset::TYPE_OF_LOADER, &[UNDEFINED_LOADER]);
    // Below 4 GiB by the placement rules: fixed address, and the initrd under the kernel's limit.
    put(offset::CMD_LINE_PTR, &(COMMAND_LINE_GPA as u32).to_le_bytes());
    if let Some(initrd) = hand_over.initrd {
        put(offset::RAMDISK_IMAGE, &(initrd.gpa as u32).to_le_bytes());
        put(offset::RAMDISK_SIZE, &(initrd.len as u32).to_le_bytes());
    }
    put(offset::ACPI_RSDP_ADDR, &hand_over.rsdp_gpa.to_le_bytes());
    // At most MAX_ENTRIES.
    put(offset::E820_ENTRIES, &[hand_over.map.len() as u8]);
    for (index, &E820Entry { gpa, len, kind }) in hand_over.map.iter().enumerate() {
        let at = offset::E820_TABLE + index * 20;
        put(at, &gpa.to_le_bytes());
        put(at + 8, &len.to_le_bytes());
        put(at + 16, &kind.to_le_bytes());
    }
    page
}
