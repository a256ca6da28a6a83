// SPDX-License-Identifier: MIT
//! Guest memory in an edit: pages and parameter areas by address.
//!
//! Always true: a page keeps its header, only its data is new; pages of all platforms that hold an address
//! are changed together.

use super::{headers, refuse};
use crate::failure::Failure;
use igvm_defs::IGVM_VHS_PAGE_DATA;
use std::ops::Range;
use vm_loaders::igvm::{Edit, File, Header, NewHeader};

const PAGE: u64 = 4096;

/// The 4 KiB page headers within a range of addresses, in file order.
pub(super) fn pages_in(file: &File<'_>, range: &Range<u64>) -> Vec<(u32, IGVM_VHS_PAGE_DATA)> {
    headers(file)
        .filter_map(|(index, header)| match header {
            Header::PageData(page) if range.contains(&page.gpa) => Some((index, page)),
            _ => None,
        })
        .collect()
}

/// The bytes of a page; nothing for one without data.
pub(super) fn bytes_of<'a>(file: &File<'a>, page: &IGVM_VHS_PAGE_DATA) -> &'a [u8] {
    if page.file_offset == 0 {
        return &[];
    }
    file.data(page.file_offset, PAGE).unwrap_or(&[])
}

/// Gives the pages of `gpa..gpa + bytes.len()` new data; all of them must be there.
pub(super) fn overwrite(edit: &mut Edit<'_>, what: &str, gpa: u64, bytes: &[u8]) -> Result<(), Failure> {
    let file = edit.file().clone();
    let range = gpa..gpa.saturating_add(bytes.len() as u64);
    let mut covered = 0;
    let mut masks = 0;
    for (index, page) in pages_in(&file, &range) {
        if page.flags.is_2mb_page() {
            return Err(refuse(format!(
                "{what}: gpa {:#x} is a 2 MiB page, which cannot be changed in part",
                page.gpa
            )));
        }
        let from = (page.gpa - gpa) as usize;
        let chunk = &bytes[from..(from + PAGE as usize).min(bytes.len())];
        if page.compatibility_mask & masks == 0 || covered == 0 {
            masks |= page.compatibility_mask;
        }
        covered += PAGE;
        if bytes_of(&file, &page) == chunk {
            continue;
        }
        let header = Header::PageData(page);
        let new = NewHeader::with_data(&header, chunk.to_vec(), PAGE as usize).map_err(refuse)?;
        edit.replace(index, new).map_err(refuse)?;
    }
    if covered < bytes.len() as u64 {
        return Err(refuse(format!(
            "{what}: the file has not all pages of {:#x}..{:#x}",
            range.start, range.end
        )));
    }
    Ok(())
}

/// Replaces all pages of a range by pages of `bytes` from its start on, where the first of them stood.
pub(super) fn exchange(
    edit: &mut Edit<'_>,
    what: &str,
    range: &Range<u64>,
    bytes: &[u8],
) -> Result<(), Failure> {
    let file = edit.file().clone();
    let old = pages_in(&file, range);
    let Some((place, first)) = old.first().copied() else {
        return Err(refuse(format!(
            "{what}: the file has no page at gpa {:#x}",
            range.start
        )));
    };
    let alike = |page: &IGVM_VHS_PAGE_DATA| {
        (page.compatibility_mask, page.flags.into_bits(), page.data_type)
            == (first.compatibility_mask, first.flags.into_bits(), first.data_type)
    };
    if first.flags.is_2mb_page() || !old.iter().all(|(_, page)| alike(page)) {
        return Err(refuse(format!(
            "{what}: its pages are of different kinds; extract and pack the file instead"
        )));
    }
    for (index, _) in &old {
        edit.remove(*index).map_err(refuse)?;
    }
    for (number, chunk) in bytes.chunks(PAGE as usize).enumerate() {
        let header = Header::PageData(IGVM_VHS_PAGE_DATA {
            gpa: range.start + number as u64 * PAGE,
            ..first
        });
        let new = NewHeader::with_data(&header, chunk.to_vec(), PAGE as usize).map_err(refuse)?;
        edit.insert(place, new).map_err(refuse)?;
    }
    Ok(())
}

/// Gives a parameter area new initial data.
pub(super) fn set_area(edit: &mut Edit<'_>, area: u32, bytes: &[u8]) -> Result<(), Failure> {
    let file = edit.file().clone();
    let found = headers(&file).find_map(|(index, header)| match header {
        Header::ParameterArea(h) if h.parameter_area_index == area => Some((index, h)),
        _ => None,
    });
    let Some((index, header)) = found else {
        return Err(refuse(format!(
            "--parameter-data: the file has no parameter area {area}"
        )));
    };
    if bytes.len() as u64 > header.number_of_bytes {
        return Err(refuse(format!(
            "--parameter-data: parameter area {area} has {:#x} bytes, not {:#x}",
            header.number_of_bytes,
            bytes.len()
        )));
    }
    let len = usize::try_from(header.number_of_bytes).unwrap_or(usize::MAX);
    let new = NewHeader::with_data(&Header::ParameterArea(header), bytes.to_vec(), len).map_err(refuse)?;
    edit.replace(index, new).map_err(refuse)
}
