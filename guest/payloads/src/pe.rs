// SPDX-License-Identifier: MIT
//! A PE32+ file around flat code (Microsoft PE format, "PE header").
//!
//! Always true: one section at the end of the headers, which are as long as a page, so that file offsets and
//! addresses agree; there are no relocations, and all 16 directories are empty. Not here: signatures.

use guest_protocol::uefi_image as image;

const PE: usize = 0x80;
const OPTIONAL: usize = PE + 24;
const DIRECTORIES: u32 = 16;
const OPTIONAL_SIZE: usize = 112 + DIRECTORIES as usize * 8;
const SECTION: usize = OPTIONAL + OPTIONAL_SIZE;

/// What kind of program it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// IMAGE_SUBSYSTEM_EFI_APPLICATION or another.
    pub(crate) subsystem: u16,
    /// Where alone it runs; `None` for anywhere.
    pub(crate) base: Option<u64>,
}

/// The file; its entry is the code's 64-bit one.
pub(crate) fn image(code: &[u8], kind: &Kind) -> Vec<u8> {
    let headers = image::PE_HEADERS as usize;
    let code_size = code.len().next_multiple_of(0x200);
    let size = (headers + code_size).next_multiple_of(0x1000) as u32;
    let address = headers as u32;
    let mut pe = vec![0; headers + code_size];
    put(&mut pe, 0, b"MZ");
    put(&mut pe, 0x3C, &(PE as u32).to_le_bytes());
    put(&mut pe, PE, b"PE\0\0");
    // AMD64, one section.
    put(&mut pe, PE + 4, &[0x64, 0x86, 1, 0]);
    put(&mut pe, PE + 20, &(OPTIONAL_SIZE as u16).to_le_bytes());
    // Executable, large addresses; relocations are stripped from what must not move.
    let stripped = u16::from(kind.base.is_some());
    put(&mut pe, PE + 22, &(0x0022 | stripped).to_le_bytes());
    put(&mut pe, OPTIONAL, &0x020B_u16.to_le_bytes());
    for (at, value) in [
        (4, code_size as u32),
        (16, address + crate::ENTRY64_OFFSET as u32),
        (20, address),
        (32, 0x1000),
        (36, 0x200),
        (56, size),
        (60, address),
        (108, DIRECTORIES),
    ] {
        put(&mut pe, OPTIONAL + at, &value.to_le_bytes());
    }
    put(&mut pe, OPTIONAL + 24, &kind.base.unwrap_or(0).to_le_bytes());
    put(&mut pe, OPTIONAL + 68, &kind.subsystem.to_le_bytes());
    put(&mut pe, SECTION, b".text\0\0\0");
    for (at, value) in [
        (8, code.len() as u32),
        (12, address),
        (16, code_size as u32),
        (20, address),
        // Code, executable, readable, writable.
        (36, 0xE000_0020),
    ] {
        put(&mut pe, SECTION + at, &value.to_le_bytes());
    }
    put(&mut pe, headers, code);
    pe
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    to[at..at + bytes.len()].copy_from_slice(bytes);
}
