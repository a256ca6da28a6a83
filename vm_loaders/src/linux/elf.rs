// SPDX-License-Identifier: MIT
//! ELF kernels: `vmlinux` and anything with a PVH note (System V ABI; Xen ELF notes).
//!
//! Always true: whole pages of a segment are borrowed; only pages that a segment covers in part are
//! copied, so that segments may share one. Not here: relocation, symbols, section headers.

use super::boot_params::ELF_CMDLINE_SIZE;
use super::{Entry, Kernel, LinuxError, part};
use openvmm_defs::GpaRange;
use std::borrow::Cow;
use std::collections::BTreeMap;
use x86defs::paging::{PAGE_BYTES, PAGE_SIZE};

/// First bytes of an ELF file.
pub(super) const MAGIC: &[u8] = b"\x7FELF";

const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u16 = 62;
const PROGRAM_HEADER_BYTES: usize = 56;
/// More than any kernel has; bounds what a file can make us allocate.
const MAX_PROGRAM_HEADERS: usize = 128;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// XEN_ELFNOTE_PHYS32_ENTRY.
const NOTE_PHYS32_ENTRY: u32 = 18;
/// x86-64 Linux takes an initrd below 2 GiB by default.
const INITRD_LIMIT: u64 = 1 << 31;

#[derive(Debug, Clone, Copy)]
struct Segment {
    index: usize,
    file: usize,
    file_len: usize,
    vaddr: u64,
    memory: GpaRange,
}

/// Reads headers, segments and the PVH note.
pub(super) fn parse(bytes: &[u8]) -> Result<Kernel<'_>, LinuxError> {
    let header = part(bytes, 0, 64, "the ELF header")?;
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN || u16_at(header, 18) != MACHINE_X86_64 {
        return Err(LinuxError::Elf("it is not for 64-bit x86"));
    }
    if usize::from(u16_at(header, 54)) != PROGRAM_HEADER_BYTES {
        return Err(LinuxError::Elf("its program headers are not 56 bytes long"));
    }
    let table = to_usize(u64_at(header, 32));
    let count = usize::from(u16_at(header, 56));
    if count > MAX_PROGRAM_HEADERS {
        return Err(LinuxError::Elf("it has more than 128 program headers"));
    }
    let table = part(bytes, table, count * PROGRAM_HEADER_BYTES, "the program headers")?;
    let mut segments = Vec::new();
    let mut pvh_entry = None;
    for (index, program) in table.chunks_exact(PROGRAM_HEADER_BYTES).enumerate() {
        match u32_at(program, 0) {
            PT_LOAD => segments.extend(segment(bytes, index, program)?),
            PT_NOTE if pvh_entry.is_none() => pvh_entry = pvh_note(bytes, program)?,
            _ => {}
        }
    }
    segments.sort_by_key(|segment| segment.memory.gpa);
    let range = check_segments(&segments)?;
    let entry = match pvh_entry {
        Some(entry) if covers(&segments, entry.into()) => Entry::Pvh(entry),
        Some(entry) => return Err(LinuxError::EntryOutside(entry.into())),
        None => Entry::Long(physical_entry(&segments, u64_at(header, 24))?),
    };
    Ok(Kernel {
        parts: parts(bytes, &segments),
        range,
        entry,
        cmdline_limit: ELF_CMDLINE_SIZE as usize - 1,
        initrd_limit: INITRD_LIMIT,
        setup_header: None,
    })
}

fn segment(bytes: &[u8], index: usize, program: &[u8]) -> Result<Option<Segment>, LinuxError> {
    let memory = GpaRange::new(u64_at(program, 24), u64_at(program, 40));
    if memory.is_empty() {
        return Ok(None);
    }
    let (file, file_len) = (to_usize(u64_at(program, 8)), to_usize(u64_at(program, 32)));
    if file_len as u64 > memory.len {
        return Err(LinuxError::Elf("a segment's file size exceeds its memory size"));
    }
    if memory.gpa.checked_add(memory.len).is_none() {
        return Err(LinuxError::Elf("a segment passes the end of the address space"));
    }
    part(bytes, file, file_len, "a segment")?;
    Ok(Some(Segment {
        index,
        file,
        file_len,
        vaddr: u64_at(program, 16),
        memory,
    }))
}

/// The 32-bit entry point of a Xen note in this segment, if any.
fn pvh_note(bytes: &[u8], program: &[u8]) -> Result<Option<u32>, LinuxError> {
    let (file, len) = (to_usize(u64_at(program, 8)), to_usize(u64_at(program, 32)));
    let align = if u64_at(program, 48) == 8 { 8 } else { 4 };
    let notes = part(bytes, file, len, "a note segment")?;
    let mut at = 0;
    while let Some(header) = notes.get(at..).and_then(|rest| rest.get(..12)) {
        let (name_len, len) = (u32_at(header, 0) as usize, u32_at(header, 4) as usize);
        let name_at = at + 12;
        let contents_at = (name_at + name_len).next_multiple_of(align);
        let name = notes.get(name_at..name_at + name_len);
        let contents = notes.get(contents_at..contents_at + len);
        let (Some(name), Some(contents)) = (name, contents) else {
            return Err(LinuxError::Elf("a note passes the end of its segment"));
        };
        if name == b"Xen\0" && u32_at(header, 8) == NOTE_PHYS32_ENTRY {
            return match contents.len() {
                4 => Ok(Some(u32_at(contents, 0))),
                8 if u32_at(contents, 4) == 0 => Ok(Some(u32_at(contents, 0))),
                _ => Err(LinuxError::Elf("its PVH note does not hold a 32-bit entry point")),
            };
        }
        at = (contents_at + len).next_multiple_of(align);
    }
    Ok(None)
}

/// All memory from the first to the last segment's end; segments are sorted by address.
fn check_segments(segments: &[Segment]) -> Result<GpaRange, LinuxError> {
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
        return Err(LinuxError::Elf("it has no loadable segment"));
    };
    if first.memory.gpa < super::memory::ONE_MIB {
        let (index, range) = (first.index, first.memory);
        return Err(LinuxError::SegmentLow { index, range });
    }
    for pair in segments.windows(2) {
        if pair[0].memory.overlaps(&pair[1].memory) {
            let (first, second) = (pair[0].index, pair[1].index);
            return Err(LinuxError::SegmentsOverlap { first, second });
        }
    }
    let gpa = first.memory.gpa;
    Ok(GpaRange::new(gpa, last.memory.end() - gpa))
}

fn covers(segments: &[Segment], gpa: u64) -> bool {
    let byte = GpaRange::new(gpa, 1);
    segments.iter().any(|segment| segment.memory.contains(&byte))
}

/// `vmlinux` has a physical entry point; others may have a virtual one.
fn physical_entry(segments: &[Segment], entry: u64) -> Result<u64, LinuxError> {
    if covers(segments, entry) {
        return Ok(entry);
    }
    segments
        .iter()
        .find_map(|segment| {
            let offset = entry.checked_sub(segment.vaddr)?;
            (offset < segment.memory.len).then(|| segment.memory.gpa + offset)
        })
        .ok_or(LinuxError::EntryOutside(entry))
}

/// Page-aligned pieces in address order: whole pages borrowed, pages covered in part copied together.
fn parts<'a>(bytes: &'a [u8], segments: &[Segment]) -> Vec<(u64, Cow<'a, [u8]>)> {
    let mut whole = Vec::new();
    let mut edges: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for segment in segments {
        let data = &bytes[segment.file..segment.file + segment.file_len];
        let (start, end) = (segment.memory.gpa, segment.memory.gpa + data.len() as u64);
        let head_end = start.next_multiple_of(PAGE_SIZE).min(end);
        let tail = (end & !(PAGE_SIZE - 1)).max(head_end);
        let pieces = [(start, head_end), (tail, end)];
        for (from, to) in pieces.into_iter().filter(|(from, to)| from < to) {
            let page = edges
                .entry(from & !(PAGE_SIZE - 1))
                .or_insert_with(|| vec![0; PAGE_BYTES]);
            let at = (from % PAGE_SIZE) as usize;
            let piece = &data[(from - start) as usize..(to - start) as usize];
            page[at..at + piece.len()].copy_from_slice(piece);
        }
        if head_end < tail {
            let middle = &data[(head_end - start) as usize..(tail - start) as usize];
            whole.push((head_end, Cow::Borrowed(middle)));
        }
    }
    whole.extend(edges.into_iter().map(|(gpa, page)| (gpa, Cow::Owned(page))));
    whole.sort_by_key(|(gpa, _)| *gpa);
    whole
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Fields of a header whose length is checked.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
