// SPDX-License-Identifier: MIT
//! Linux's zero page (Documentation/arch/x86/boot.rst and zero-page.rst).

use crate::{HandOver, Range, check_memory_map};
use guest_rt::acpi::{u32_at, u64_at};
use guest_rt::entry::Entry;
use guest_rt::report::{check, equal, info};
use guest_rt::{memory, paging};

/// Selectors of the 64-bit protocol: `__BOOT_CS` and `__BOOT_DS`.
const BOOT_CS: u64 = 0x10;
const BOOT_DS: u16 = 0x18;
const RFLAGS_IF: u64 = 1 << 9;
/// `HdrS`.
const MAGIC: u64 = 0x5372_6448;
const LOADED_HIGH: u8 = 1;

/// Fields of the zero page.
mod field {
    pub(super) const RSDP: u64 = 0x70;
    pub(super) const EXT_INITRD: u64 = 0xC0;
    pub(super) const EXT_INITRD_SIZE: u64 = 0xC4;
    pub(super) const EXT_COMMAND_LINE: u64 = 0xC8;
    pub(super) const E820_COUNT: u64 = 0x1E8;
    pub(super) const MAGIC: u64 = 0x202;
    pub(super) const VERSION: u64 = 0x206;
    pub(super) const LOADER: u64 = 0x210;
    pub(super) const LOAD_FLAGS: u64 = 0x211;
    pub(super) const INITRD: u64 = 0x218;
    pub(super) const INITRD_SIZE: u64 = 0x21C;
    pub(super) const COMMAND_LINE: u64 = 0x228;
    pub(super) const E820: u64 = 0x2D0;
}

/// The 64-bit protocol's registers, then the zero page.
pub(crate) fn read_with_state(entry: &Entry) -> Option<HandOver> {
    equal("cs", entry.selectors[0].into(), BOOT_CS);
    let [_, ds, es, _, _, ss] = entry.selectors;
    let flat = [ds, es, ss].iter().all(|&selector| selector == BOOT_DS);
    check("data-selectors", flat, format_args!("{ds:#x} {es:#x} {ss:#x}"));
    equal("interrupts-off", entry.saved.rflags & RFLAGS_IF, 0);
    let zero_page = entry.saved.gpr[6];
    for (name, gpa) in [
        ("image-maps-to-itself", entry.image),
        ("zero-page-maps-to-itself", zero_page),
    ] {
        check(
            name,
            paging::translate(entry.cr3, gpa) == Some(gpa),
            format_args!("{gpa:#x}"),
        );
    }
    read(zero_page)
}

/// The zero page at a gpa.
pub(crate) fn read(page: u64) -> Option<HandOver> {
    let magic = memory::read_u32(page + field::MAGIC).into();
    equal("setup-header", magic, MAGIC);
    if magic != MAGIC {
        return None;
    }
    let version = memory::read_u16(page + field::VERSION);
    check(
        "protocol",
        version >= 0x20C,
        format_args!("{}.{}", version >> 8, version & 0xFF),
    );
    let loader = memory::read_u8(page + field::LOADER);
    check("loader-type", loader != 0, format_args!("{loader:#x}"));
    let flags = memory::read_u8(page + field::LOAD_FLAGS);
    check(
        "loaded-high",
        flags & LOADED_HIGH != 0,
        format_args!("{flags:#x}"),
    );

    let count = usize::from(memory::read_u8(page + field::E820_COUNT));
    check("e820-count", (1..=128).contains(&count), format_args!("{count}"));
    let table = memory::bytes(page + field::E820, count.min(128) * 20);
    let ranges = table.chunks_exact(20).filter_map(|entry| {
        Some(Range {
            gpa: u64_at(entry, 0)?,
            len: u64_at(entry, 8)?,
            kind: u32_at(entry, 16)?,
        })
    });
    check_memory_map(ranges, crate::IMAGE);

    let wide = |low: u64, high: u64| {
        u64::from(memory::read_u32(page + high)) << 32 | u64::from(memory::read_u32(page + low))
    };
    let command_line = wide(field::COMMAND_LINE, field::EXT_COMMAND_LINE);
    let len = wide(field::INITRD_SIZE, field::EXT_INITRD_SIZE);
    info(
        "zero-page",
        format_args!("{page:#x} command line at {command_line:#x}"),
    );
    Some(HandOver {
        command_line: if command_line == 0 {
            &[]
        } else {
            memory::c_string(command_line, 0x1000)
        },
        initrd: (len != 0).then(|| (wide(field::INITRD, field::EXT_INITRD), len)),
        rsdp: memory::read_u64(page + field::RSDP),
    })
}
