// SPDX-License-Identifier: MIT
//! Which file data belongs to which header.

use vm_loaders::igvm::{File, Header};
use x86defs::paging::PAGE_BYTES;

/// Bytes of a CCA context, the smallest of fixed size.
const SMALLEST_CONTEXT: u64 = 80;

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file offset that a header refers to; `None` when its type has none.
pub(super) fn offset_of(header: &Header<'_>) -> Option<u32> {
    Some(match header {
        Header::PageData(h) => h.file_offset,
        Header::ParameterArea(h) => h.file_offset,
        Header::VpContext(h) => h.file_offset,
        Header::CorimDocument(h) | Header::CorimSignature(h) => h.file_offset,
        _ => return None,
    })
}

/// All file offsets that headers refer to, sorted.
pub(super) fn references(file: &File<'_>) -> Vec<u32> {
    let headers = file.headers().iter().filter_map(|raw| file.decode(raw).ok());
    let mut references: Vec<u32> = headers.filter_map(|header| offset_of(&header)).collect();
    references.sort_unstable();
    references.dedup();
    references
}

/// The data of a header: its page, area, document, or what a context may use of its page; `None` when it
/// has none or refers outside of the file data.
pub(super) fn data_of<'a>(file: &File<'a>, header: &Header<'_>, references: &[u32]) -> Option<&'a [u8]> {
    let offset = offset_of(header).filter(|&offset| offset != 0)?;
    match header {
        Header::PageData(h) => file.data(offset, super::fields::page_bytes(h.flags.is_2mb_page())),
        Header::ParameterArea(h) => file.data(offset, h.number_of_bytes),
        Header::CorimDocument(h) | Header::CorimSignature(h) => file.data(offset, h.size_bytes.into()),
        Header::VpContext(_) => {
            let next = references.partition_point(|&other| other <= offset);
            let end = references
                .get(next)
                .map_or(file.bytes().len() as u64, |&other| other.into());
            let room = end.min(file.bytes().len() as u64).checked_sub(offset.into())?;
            let len = context_bytes(file, offset).max(room.min(PAGE_BYTES as u64));
            file.data(offset, len)
        }
        _ => None,
    }
}

/// The bytes that a context surely uses: a VBS list says its length in its first word, but a save area
/// may begin with anything, so the word counts only if it is small.
fn context_bytes(file: &File<'_>, offset: u32) -> u64 {
    let count = file
        .data(offset, 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes);
    let list = 4 + 32 * u64::from(count);
    if (1..=64).contains(&count) && file.data(offset, list).is_some() {
        list
    } else {
        SMALLEST_CONTEXT
    }
}
