// SPDX-License-Identifier: MIT
//! Another firmware image in the place of the old one.
//!
//! Always true: only images of the same size and with the same tables take each other's place, because
//! pages, parameters and contexts were made for those tables. Not here: making a file of an image
//! (`wrap`, `build`).

use super::pages::{bytes_of, overwrite, pages_in};
use super::{headers, refuse};
use crate::failure::Failure;
use vm_loaders::igvm::{Edit, File, Header, NewHeader};
use vm_loaders::ovmf::Tables;
use vm_loaders::uefi::{find_sec_entry, x64};

const FOUR_GIB: u64 = 1 << 32;
/// Where native files repeat the end of an OVMF image, and how much of it.
const MIRROR: u64 = 0x10_0000;
const MIRROR_BYTES: u64 = 0x2_0000;
/// Number of RIP in a VBS list, and its place in a native context.
const VBS_RIP: u32 = 0x0002_0010;
const NATIVE_RIP: usize = 128;

/// Replaces the firmware of the file.
pub(super) fn replace(edit: &mut Edit<'_>, image: &[u8]) -> Result<(), Failure> {
    if image.len() as u64 == x64::IMAGE_SIZE && find_sec_entry(image).is_ok() {
        return uefi(edit, image);
    }
    let tables = Tables::read(image).map_err(|error| refuse(format!("--firmware: {error}")))?;
    let start = FOUR_GIB - image.len() as u64;
    let file = edit.file().clone();
    let old = old_image(&file, start, image.len());
    let below = pages_in(&file, &(start.saturating_sub(0x1000)..start));
    if !below.is_empty() {
        return Err(refuse("--firmware: the file's image is larger; wrap the new one"));
    }
    let old_tables =
        Tables::read(&old).map_err(|error| refuse(format!("--firmware: the file's own image: {error}")))?;
    if tables != old_tables {
        return Err(refuse(
            "--firmware: the image's tables are not those of the old one; wrap the new one",
        ));
    }
    overwrite(edit, "--firmware", start, image)?;
    let mirror = MIRROR - MIRROR_BYTES;
    let tail = &image[image.len() - MIRROR_BYTES as usize..];
    let old_tail = &old[old.len() - MIRROR_BYTES as usize..];
    if old_image(&file, mirror, MIRROR_BYTES as usize) == old_tail {
        overwrite(edit, "--firmware (copy below 1 MiB)", mirror, tail)?;
    }
    Ok(())
}

/// The bytes at `start` as the file has them; zeros where it has none.
fn old_image(file: &File<'_>, start: u64, len: usize) -> Vec<u8> {
    let mut image = vec![0; len];
    for (_, page) in pages_in(file, &(start..start + len as u64)) {
        let bytes = bytes_of(file, &page);
        let at = (page.gpa - start) as usize;
        let end = (at + bytes.len()).min(len);
        image[at..end].copy_from_slice(&bytes[..end - at]);
    }
    image
}

/// MSVM.fd: the image and the entry point, which lies in it.
fn uefi(edit: &mut Edit<'_>, image: &[u8]) -> Result<(), Failure> {
    let file = edit.file().clone();
    let old = old_image(&file, x64::IMAGE_GPA, image.len());
    let entry = |bytes: &[u8]| {
        find_sec_entry(bytes)
            .map(|offset| x64::IMAGE_GPA + offset)
            .map_err(|error| refuse(format!("--firmware: {error}")))
    };
    let (before, after) = (entry(&old)?, entry(image)?);
    overwrite(edit, "--firmware", x64::IMAGE_GPA, image)?;
    if before == after {
        return Ok(());
    }
    let mut moved = false;
    for (index, header) in headers(&file) {
        let Header::VpContext(context) = &header else {
            continue;
        };
        let Some((at, len)) = rip_place(&file, context.file_offset, before) else {
            continue;
        };
        let Some(bytes) = file.data(context.file_offset, len as u64) else {
            continue;
        };
        let mut bytes = bytes.to_vec();
        bytes[at..at + 8].copy_from_slice(&after.to_le_bytes());
        let new = NewHeader::with_data(&header, bytes, len).map_err(refuse)?;
        edit.replace(index, new).map_err(refuse)?;
        moved = true;
    }
    if moved {
        Ok(())
    } else {
        Err(refuse(format!(
            "--firmware: no context starts at the old image's entry {before:#x}"
        )))
    }
}

/// Where a context holds RIP with this value, and the context's length: in a VBS list or a native page.
fn rip_place(file: &File<'_>, offset: u32, rip: u64) -> Option<(usize, usize)> {
    let count = u32::from_le_bytes(file.data(offset, 4)?.try_into().ok()?) as usize;
    let list = count.checked_mul(32)?.checked_add(4)?;
    if let Some(bytes) = file.data(offset, list as u64).filter(|_| count <= 64) {
        let entry = (0..count).find(|entry| {
            let at = 4 + entry * 32;
            bytes[at + 1..at + 5] == VBS_RIP.to_le_bytes() && bytes[at + 16..at + 24] == rip.to_le_bytes()
        });
        if let Some(entry) = entry {
            return Some((4 + entry * 32 + 16, list));
        }
    }
    let page = file.data(offset, 4096)?;
    (page[NATIVE_RIP..NATIVE_RIP + 8] == rip.to_le_bytes()).then_some((NATIVE_RIP, 4096))
}
