// SPDX-License-Identifier: MIT
//! Finds the entry point of an x64 firmware image (uefi-launch 5.1; UEFI PI specification volume 3
//! sections 2.2 and 2.3 for firmware volumes, files and sections).
//!
//! Always true: every read is bounds checked against the image, and each error says at which image
//! offset the walk ended and why. Not here: any other content of the image.

use super::x64;

/// Length of a firmware volume header up to its block map.
const VOLUME_HEADER_MIN: usize = 56;
/// Length of a file header.
const FILE_HEADER: usize = 24;
/// Length of a large file's header.
const LARGE_FILE_HEADER: usize = 32;
/// File attribute: the size is in the 64-bit field that follows the header.
const FILE_ATTRIBUTE_LARGE: u8 = 1;
/// File type of the security core.
const FILE_TYPE_SECURITY_CORE: u8 = 3;
/// Section that holds a PE32+ image.
const SECTION_PE32: u8 = 0x10;
/// Section that holds a terse executable.
const SECTION_TE: u8 = 0x12;
/// Length of a TE image header.
const TE_HEADER: usize = 40;

/// Why an image is not a firmware that can be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FirmwareError {
    #[error(
        "the UEFI firmware image is {0:#x} bytes; it must be exactly 0x600000 (a GCC DEBUG build is larger and cannot be used)"
    )]
    InvalidImageSize(u64),
    #[error("no SEC entry point in the UEFI firmware image: image offset {offset:#x}: {reason}")]
    NoSecEntryPoint { offset: usize, reason: &'static str },
}

/// Offset of the SEC core's first instruction in `image`.
pub fn find_sec_entry(image: &[u8]) -> Result<u64, FirmwareError> {
    if image.len() as u64 != x64::IMAGE_SIZE {
        return Err(FirmwareError::InvalidImageSize(image.len() as u64));
    }
    let start = x64::SEC_VOLUME_OFFSET as usize;
    let volume = volume_at(image, start)?;
    let file = find_file(image, volume)?;
    let executable = find_executable(image, file)?;
    let entry = entry_of(image, executable)?;
    if !(executable.start..executable.end).contains(&entry) {
        return Err(fail(
            executable.start,
            "the executable's entry point lies outside its section",
        ));
    }
    Ok(entry as u64)
}

/// A part of the image, in image offsets.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

fn fail(offset: usize, reason: &'static str) -> FirmwareError {
    FirmwareError::NoSecEntryPoint { offset, reason }
}

/// `LEN` bytes at `offset`, which must lie below `end`.
fn read<const LEN: usize>(image: &[u8], offset: usize, end: usize) -> Option<[u8; LEN]> {
    let stop = offset.checked_add(LEN).filter(|stop| *stop <= end)?;
    image.get(offset..stop)?.try_into().ok()
}

fn read_u24(image: &[u8], offset: usize, end: usize) -> Option<usize> {
    let [a, b, c] = read::<3>(image, offset, end)?;
    Some(u32::from_le_bytes([a, b, c, 0]) as usize)
}

/// The volume's files: behind its header, up to its length.
fn volume_at(image: &[u8], start: usize) -> Result<Span, FirmwareError> {
    let limit = image.len();
    let cut = || fail(start, "the firmware volume header is cut off");
    if read::<4>(image, start + 40, limit).ok_or_else(cut)? != *b"_FVH" {
        return Err(fail(start, "no firmware volume header (signature _FVH at +0x28)"));
    }
    let len = u64::from_le_bytes(read(image, start + 32, limit).ok_or_else(cut)?);
    let header = usize::from(u16::from_le_bytes(
        read(image, start + 48, limit).ok_or_else(cut)?,
    ));
    let end = usize::try_from(len)
        .ok()
        .and_then(|len| start.checked_add(len))
        .filter(|end| *end <= limit)
        .ok_or_else(|| fail(start, "the firmware volume is longer than the image"))?;
    if header < VOLUME_HEADER_MIN || start + header > end {
        return Err(fail(start, "the firmware volume's header length does not fit it"));
    }
    Ok(Span {
        start: start + header,
        end,
    })
}

/// The contents of the volume's first security core file. Files are 8-aligned within their volume.
fn find_file(image: &[u8], volume: Span) -> Result<Span, FirmwareError> {
    let base = x64::SEC_VOLUME_OFFSET as usize;
    let mut at = volume.start;
    loop {
        at = base + (at - base).next_multiple_of(8);
        let none = || fail(at, "the firmware volume holds no SEC core file (type 3)");
        let header = read::<FILE_HEADER>(image, at, volume.end).ok_or_else(none)?;
        if header.iter().all(|&byte| byte == 0xFF) {
            return Err(none());
        }
        let large = header[19] & FILE_ATTRIBUTE_LARGE != 0;
        let (len, header_len) = if large {
            let size = read(image, at + FILE_HEADER, volume.end).ok_or_else(none)?;
            let len = usize::try_from(u64::from_le_bytes(size)).unwrap_or(usize::MAX);
            (len, LARGE_FILE_HEADER)
        } else {
            let len = u32::from_le_bytes([header[20], header[21], header[22], 0]) as usize;
            (len, FILE_HEADER)
        };
        let end = at
            .checked_add(len)
            .filter(|end| len >= header_len && *end <= volume.end)
            .ok_or_else(|| fail(at, "a firmware file's size does not fit its volume"))?;
        if header[18] == FILE_TYPE_SECURITY_CORE {
            return Ok(Span {
                start: at + header_len,
                end,
            });
        }
        at = end;
    }
}

/// The contents of the file's first executable section. Sections are 4-aligned within their file.
fn find_executable(image: &[u8], file: Span) -> Result<Span, FirmwareError> {
    let mut at = file.start;
    loop {
        at = file.start + (at - file.start).next_multiple_of(4);
        let none = || fail(at, "the SEC core file holds no executable section (type 0x10)");
        let short = read_u24(image, at, file.end).ok_or_else(none)?;
        let [kind] = read::<1>(image, at + 3, file.end).ok_or_else(none)?;
        let (len, header_len) = if short == 0xFF_FFFF {
            let size = read(image, at + 4, file.end).ok_or_else(none)?;
            (u32::from_le_bytes(size) as usize, 8)
        } else {
            (short, 4)
        };
        let end = at
            .checked_add(len)
            .filter(|end| len >= header_len && *end <= file.end)
            .ok_or_else(|| fail(at, "a section's size does not fit its file"))?;
        if matches!(kind, SECTION_PE32 | SECTION_TE) {
            return Ok(Span {
                start: at + header_len,
                end,
            });
        }
        at = end;
    }
}

/// Image offset of a PE or TE image's entry point. The SEC core runs in place, so its relative
/// addresses are file offsets.
fn entry_of(image: &[u8], executable: Span) -> Result<usize, FirmwareError> {
    let Span { start, end } = executable;
    let cut = || fail(start, "the executable's header is cut off");
    let magic = read::<2>(image, start, end).ok_or_else(cut)?;
    let out = || fail(start, "the executable's entry point does not fit the image");
    if magic == *b"VZ" {
        let stripped = usize::from(u16::from_le_bytes(read(image, start + 6, end).ok_or_else(cut)?));
        let entry = u32::from_le_bytes(read(image, start + 8, end).ok_or_else(cut)?) as usize;
        return (start + TE_HEADER)
            .checked_add(entry)
            .and_then(|sum| sum.checked_sub(stripped))
            .ok_or_else(out);
    }
    if magic != *b"MZ" {
        return Err(fail(
            start,
            "the executable section holds neither a PE nor a TE image",
        ));
    }
    let header = u32::from_le_bytes(read(image, start + 0x3C, end).ok_or_else(cut)?) as usize;
    let pe = start.checked_add(header).ok_or_else(out)?;
    if read::<4>(image, pe, end).ok_or_else(cut)? != *b"PE\0\0" {
        return Err(fail(start, "the executable's PE signature is missing"));
    }
    // Signature 4, COFF header 20, then 16 bytes into the optional header.
    let entry = u32::from_le_bytes(read(image, pe + 40, end).ok_or_else(cut)?) as usize;
    start.checked_add(entry).ok_or_else(out)
}

#[cfg(test)]
pub(crate) mod tests;
