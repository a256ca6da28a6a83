// SPDX-License-Identifier: MIT
//! Which file data headers refer to, and which of it nobody needs any more after a change.
//!
//! Always true: data is only given up when its whole extent is known and no other header that stays
//! refers to it. Not here: moving it.

use crate::igvm::file::File;
use crate::igvm::header::{Header, RawHeader};
use launch_plan::Isolation;
use x86defs::paging::{LARGE_PAGE_SIZE, PAGE_SIZE};

/// A range of file offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Data that is left out, for questions about what follows it.
pub(super) struct Dropped<'e> {
    extents: &'e [Extent],
    /// Per extent: bytes in all extents before it.
    before: Vec<u64>,
}

impl<'e> Dropped<'e> {
    /// `extents` are disjoint and ascending.
    pub(super) fn new(extents: &'e [Extent]) -> Self {
        let mut sum = 0;
        let before = extents.iter().map(|extent| {
            let before = sum;
            sum += extent.end - extent.start;
            before
        });
        Self {
            before: before.collect(),
            extents,
        }
    }

    /// How many of its bytes lie below `offset`.
    pub(super) fn below(&self, offset: u64) -> u64 {
        let after = self.extents.partition_point(|extent| extent.start < offset);
        let Some(last) = after.checked_sub(1) else {
            return 0;
        };
        self.before[last] + offset.min(self.extents[last].end) - self.extents[last].start
    }
}

/// Where the content of a header type has a file offset; `None` for types without one.
pub(super) const fn offset_field(typ: u32) -> Option<usize> {
    match typ {
        // PARAMETER_AREA, PAGE_DATA and VP_CONTEXT.
        0x301 | 0x302 | 0x304 => Some(12),
        // CORIM_DOCUMENT and CORIM_SIGNATURE.
        0x104 | 0x105 => Some(4),
        _ => None,
    }
}

/// Masks of the platforms whose contexts say how long they are.
struct Masks {
    /// Register lists behind their count.
    vbs: u32,
    /// Save areas of one page.
    vmsa: u32,
}

/// The data that only the headers `gone` (sorted) refer to, and none of `new` (type and content of headers
/// that refer to the file's data): disjoint extents in ascending order.
pub(super) fn freed_data<'n>(
    file: &File<'_>,
    gone: &[u32],
    new: impl Iterator<Item = (u32, &'n [u8])>,
) -> Vec<Extent> {
    let masks = masks(file);
    let typed = |raw: &RawHeader| Header::decode(raw.typ, file.content(raw)).ok();
    let freed = gone
        .iter()
        .filter_map(|index| certain(file, &typed(file.headers().get(*index as usize)?)?, &masks));
    let freed = merged(freed.collect());
    if freed.is_empty() {
        return freed;
    }
    let mut needed = Vec::new();
    let mut need = |header: Option<Header<'_>>| {
        let extent = header.and_then(|header| possible(file, &header, &masks));
        needed.extend(extent.filter(|extent| touches(&freed, *extent)));
    };
    for (index, raw) in file.headers().iter().enumerate() {
        if gone.binary_search(&(index as u32)).is_err() {
            need(typed(raw));
        }
    }
    for (typ, content) in new {
        need(Header::decode(typ, content).ok());
    }
    without(&freed, &merged(needed))
}

fn masks(file: &File<'_>) -> Masks {
    let mut masks = Masks { vbs: 0, vmsa: 0 };
    for platform in file.platforms() {
        match platform.isolation {
            Isolation::Vsm => masks.vbs |= platform.mask,
            Isolation::Snp | Isolation::SevEs => masks.vmsa |= platform.mask,
            _ => {}
        }
    }
    masks
}

/// The data that certainly belongs to a header: nothing for contexts that may be bare or padded.
fn certain(file: &File<'_>, header: &Header<'_>, masks: &Masks) -> Option<Extent> {
    let vague = matches!(header, Header::VpContext(context)
        if context.compatibility_mask & (masks.vbs | masks.vmsa) == 0);
    if vague {
        return None;
    }
    let (offset, len) = place(file, header, masks)?;
    file.data(offset, len)?;
    extent(file, offset, len)
}

/// All data that may belong to a header.
fn possible(file: &File<'_>, header: &Header<'_>, masks: &Masks) -> Option<Extent> {
    let (offset, len) = place(file, header, masks)?;
    extent(file, offset, len)
}

fn extent(file: &File<'_>, offset: u32, len: u64) -> Option<Extent> {
    let start = u64::from(offset);
    let end = start.saturating_add(len).min(file.bytes().len() as u64);
    (offset != 0 && start < end).then_some(Extent { start, end })
}

/// Offset and length of a header's data.
fn place(file: &File<'_>, header: &Header<'_>, masks: &Masks) -> Option<(u32, u64)> {
    Some(match header {
        Header::PageData(page) if page.flags.is_2mb_page() => (page.file_offset, LARGE_PAGE_SIZE),
        Header::PageData(page) => (page.file_offset, PAGE_SIZE),
        Header::ParameterArea(area) => (area.file_offset, area.number_of_bytes),
        Header::CorimDocument(data) | Header::CorimSignature(data) => {
            (data.file_offset, data.size_bytes.into())
        }
        Header::VpContext(context) if context.compatibility_mask & masks.vbs != 0 => {
            let count = file.data(context.file_offset, 4)?;
            let count = u32::from_le_bytes([count[0], count[1], count[2], count[3]]);
            (context.file_offset, 4 + 32 * u64::from(count))
        }
        Header::VpContext(context) => (context.file_offset, PAGE_SIZE),
        _ => return None,
    })
}

/// Sorted, overlapping and touching extents joined.
fn merged(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.sort_unstable();
    let mut out: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match out.last_mut() {
            Some(last) if extent.start <= last.end => last.end = last.end.max(extent.end),
            _ => out.push(extent),
        }
    }
    out
}

/// Whether `extent` shares a byte with one of `sorted`.
fn touches(sorted: &[Extent], extent: Extent) -> bool {
    let after = sorted.partition_point(|other| other.end <= extent.start);
    sorted.get(after).is_some_and(|other| other.start < extent.end)
}

/// `from` without `parts`; both are disjoint and ascending.
fn without(from: &[Extent], parts: &[Extent]) -> Vec<Extent> {
    let mut out = Vec::new();
    for extent in from {
        let mut start = extent.start;
        let first = parts.partition_point(|part| part.end <= start);
        for part in parts[first..].iter().take_while(|part| part.start < extent.end) {
            if part.start > start {
                out.push(Extent {
                    start,
                    end: part.start,
                });
            }
            start = start.max(part.end);
        }
        if start < extent.end {
            out.push(Extent {
                start,
                end: extent.end,
            });
        }
    }
    out
}
