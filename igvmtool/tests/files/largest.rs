// SPDX-License-Identifier: MIT
//! A file as large as the format allows, which takes no room on the disk: its data is a hole.

use std::io::Result;
use std::path::Path;
use vm_loaders::igvm::{FixedHeader, FormatVersion};

/// Pages of data that fit below 4 GiB with their headers.
pub(crate) const PAGES: u64 = 1_020_000;

/// Writes a SEV-SNP file of [`PAGES`] measured pages from gpa 0 on, 3.9 GiB of data.
pub(crate) fn largest_file(path: &Path) -> Result<()> {
    let mut headers = Vec::with_capacity(PAGES as usize * 32 + 48);
    let mut header = |typ: u32, content: &[u8]| {
        headers.extend_from_slice(&typ.to_le_bytes());
        headers.extend_from_slice(&(content.len() as u32).to_le_bytes());
        headers.extend_from_slice(content);
    };
    // SUPPORTED_PLATFORM: mask 1, VTL 0, SEV_SNP, version 1. GUEST_POLICY: the usual one.
    header(1, &[1, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    header(0x101, &[0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let start = 24 + 48 + PAGES * 32;
    for page in 0..PAGES {
        let mut content = [0; 24];
        content[..8].copy_from_slice(&(page * 4096).to_le_bytes());
        content[8] = 1;
        content[12..16].copy_from_slice(&((start + page * 4096) as u32).to_le_bytes());
        header(0x302, &content);
    }
    let mut fixed = FixedHeader {
        version: FormatVersion::V1,
        variable_header_offset: 24,
        variable_header_size: headers.len() as u32,
        total_file_size: (start + PAGES * 4096) as u32,
        checksum: 0,
        architecture: 0,
        page_size: 4096,
    };
    fixed.checksum = fixed.compute_checksum(&headers);
    std::fs::write(path, [fixed.to_bytes(), headers].concat())?;
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.set_len(fixed.total_file_size.into())
}
