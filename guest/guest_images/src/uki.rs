// SPDX-License-Identifier: MIT
//! Unified kernel images: systemd's EFI stub with kernel, initial RAM disk and command line as further
//! sections (UAPI group, Unified Kernel Image; PE format, Microsoft's specification).
//!
//! Always true: the stub's own sections stay where they are; new ones follow, aligned as its header says.
//! Not here: signatures.

use anyhow::{Context, Result, ensure};

/// Offset of the PE header's offset in the DOS header.
const PE_OFFSET_AT: usize = 0x3C;
/// COFF header after the signature.
const COFF: usize = 20;
const SECTION: usize = 40;
/// Readable, initialised data.
const DATA: u32 = 0x4000_0040;
/// Offsets in the optional header of 64-bit images.
const SECTION_ALIGNMENT: usize = 32;
const FILE_ALIGNMENT: usize = 36;
const IMAGE_SIZE: usize = 56;
const HEADERS_SIZE: usize = 60;

/// `stub` with `sections` (names such as `.linux`, and contents) added.
pub fn unified_kernel(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut image = stub.to_vec();
    let pe = u32_at(&image, PE_OFFSET_AT)? as usize;
    ensure!(
        image.get(pe..pe + 4) == Some(b"PE\0\0"),
        "the stub is not a PE file"
    );
    let coff = pe + 4;
    let optional = coff + COFF;
    let table = optional + usize::from(u16_at(&image, coff + 16)?);
    let section_alignment = u32_at(&image, optional + SECTION_ALIGNMENT)?.max(1);
    let file_alignment = u32_at(&image, optional + FILE_ALIGNMENT)?.max(1) as usize;
    let headers = u32_at(&image, optional + HEADERS_SIZE)? as usize;
    let mut count = u16_at(&image, coff + 2)?;
    let mut next = u32_at(&image, optional + IMAGE_SIZE)?;
    for (name, bytes) in sections {
        ensure!(name.len() <= 8, "{name}: section names have at most 8 characters");
        let at = table + usize::from(count) * SECTION;
        ensure!(
            at + SECTION <= headers,
            "the stub's header has no room for section {name}"
        );
        next = next.next_multiple_of(section_alignment);
        image.resize(image.len().next_multiple_of(file_alignment), 0);
        let file_at = u32::try_from(image.len()).context("an image of 4 GiB")?;
        let len = u32::try_from(bytes.len()).context("a section of 4 GiB")?;
        image.extend_from_slice(bytes);
        image.resize(image.len().next_multiple_of(file_alignment), 0);
        let raw = u32::try_from(image.len()).context("an image of 4 GiB")? - file_at;
        let entry = &mut image[at..at + SECTION];
        entry.fill(0);
        entry[..name.len()].copy_from_slice(name.as_bytes());
        for (field, value) in [(8, len), (12, next), (16, raw), (20, file_at), (36, DATA)] {
            entry[field..field + 4].copy_from_slice(&value.to_le_bytes());
        }
        next = next.checked_add(len).context("an image of 4 GiB")?;
        count += 1;
    }
    image[coff + 2..coff + 4].copy_from_slice(&count.to_le_bytes());
    let size = next.next_multiple_of(section_alignment);
    image[optional + IMAGE_SIZE..optional + IMAGE_SIZE + 4].copy_from_slice(&size.to_le_bytes());
    Ok(image)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let field = bytes
        .get(at..at + 2)
        .context("the stub ends inside its headers")?;
    Ok(u16::from_le_bytes([field[0], field[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let field = bytes
        .get(at..at + 4)
        .context("the stub ends inside its headers")?;
    Ok(u32::from_le_bytes([field[0], field[1], field[2], field[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers of a PE file with one section and room for three.
    fn stub() -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[PE_OFFSET_AT] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x86] = 1;
        bytes[0x84 + 16] = 112;
        let optional = 0x98;
        bytes[optional + SECTION_ALIGNMENT + 1] = 0x10;
        bytes[optional + FILE_ALIGNMENT + 1] = 2;
        bytes[optional + IMAGE_SIZE + 1] = 0x20;
        let table = optional + 112;
        let end = (table + 3 * SECTION) as u32;
        bytes[optional + HEADERS_SIZE..optional + HEADERS_SIZE + 4].copy_from_slice(&end.to_le_bytes());
        bytes
    }

    #[test]
    fn sections_follow_the_stubs_in_memory_and_in_the_file() {
        let image = unified_kernel(&stub(), &[(".cmdline", b"quiet"), (".linux", &[7; 0x1001])]).unwrap();
        assert_eq!(image[0x86], 3);
        let table = 0x98 + 112;
        let field = |section: usize, at: usize| u32_at(&image, table + section * SECTION + at).unwrap();
        assert_eq!([field(1, 8), field(1, 12), field(1, 20)], [5, 0x2000, 0x400]);
        assert_eq!([field(2, 8), field(2, 12), field(2, 20)], [0x1001, 0x3000, 0x600]);
        assert_eq!(&image[0x400..0x405], b"quiet");
        assert_eq!(u32_at(&image, 0x98 + IMAGE_SIZE).unwrap(), 0x5000);
        assert_eq!(image.len() % 0x200, 0);
    }

    #[test]
    fn stubs_without_room_or_that_are_no_pe_files_are_refused() {
        let three = [(".a", &b"1"[..]), (".b", b"2"), (".c", b"3")];
        let error = unified_kernel(&stub(), &three).unwrap_err();
        assert_eq!(error.to_string(), "the stub's header has no room for section .c");
        assert!(unified_kernel(&[0; 100], &three).is_err());
        assert!(unified_kernel(&[], &three).is_err());
    }
}
