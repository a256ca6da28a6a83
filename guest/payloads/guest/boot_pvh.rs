// SPDX-License-Identifier: MIT
//! PVH start info (Xen's x86/HVM direct boot ABI, version 1).

use crate::{HandOver, Range, check_memory_map};
use guest_rt::acpi::{u32_at, u64_at};
use guest_rt::memory;
use guest_rt::report::{check, equal, info};

const MAGIC: u64 = 0x336E_C578;
/// Length of version 1 with its memory map fields.
const LEN: usize = 56;
/// More entries than any memory map has.
const MAX_ENTRIES: u32 = 1024;

/// The start info at a gpa.
pub(crate) fn read(gpa: u64) -> Option<HandOver> {
    let start = memory::bytes(gpa, LEN);
    let word = |at| u32_at(start, at).unwrap_or(0);
    let wide = |at| u64_at(start, at).unwrap_or(0);
    equal("start-info", word(0).into(), MAGIC);
    if u64::from(word(0)) != MAGIC {
        return None;
    }
    check("start-info-version", word(4) >= 1, format_args!("{}", word(4)));
    let (modules, first_module) = (word(12), wide(16));
    let (command_line, rsdp) = (wide(24), wide(32));
    let (map, entries) = (wide(40), word(48));
    info(
        "start-info",
        format_args!("{gpa:#x} modules {modules} command line at {command_line:#x} memory map at {map:#x}"),
    );
    check(
        "memory-map-count",
        (1..=MAX_ENTRIES).contains(&entries),
        format_args!("{entries}"),
    );
    let table = memory::bytes(map, entries.min(MAX_ENTRIES) as usize * 24);
    let ranges = table.chunks_exact(24).filter_map(|entry| {
        Some(Range {
            gpa: u64_at(entry, 0)?,
            len: u64_at(entry, 8)?,
            kind: u32_at(entry, 16)?,
        })
    });
    check_memory_map(ranges, crate::IMAGE);
    check("rsdp-handed-over", rsdp != 0, format_args!("{rsdp:#x}"));
    let module = || (memory::read_u64(first_module), memory::read_u64(first_module + 8));
    Some(HandOver {
        command_line: if command_line == 0 {
            &[]
        } else {
            memory::c_string(command_line, 0x1000)
        },
        initrd: (modules != 0).then(module),
        rsdp,
    })
}
