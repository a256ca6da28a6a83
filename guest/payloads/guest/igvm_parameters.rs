// SPDX-License-Identifier: MIT
//! Every parameter but the device tree, and what they say about each other.

use crate::area;
use guest_rt::acpi::{self, Madt, Srat, u32_at, u64_at};
use guest_rt::protocol::Fnv1a;
use guest_rt::protocol::igvm_probe as contract;
use guest_rt::report::{check, equal, info};
use guest_rt::text::Ascii;

/// What the device tree is compared with.
pub(crate) struct Parameters {
    pub(crate) vp_count: u32,
    pub(crate) ram: u64,
    pub(crate) command_line: &'static str,
}

/// Type of a memory map entry: ordinary RAM.
const MEMORY: u16 = 0;

pub(crate) fn check_parameters(base: u64) -> Parameters {
    let values = area(base, contract::VALUES);
    let vp_count = u32_at(values, contract::VP_COUNT_AT as usize).unwrap_or(0);
    check(
        "vp-count",
        vp_count != 0 && vp_count < 1 << 16,
        format_args!("{vp_count}"),
    );
    let environment = u32_at(values, contract::ENVIRONMENT_AT as usize).unwrap_or(0);
    equal("environment-info", environment.into(), 1);
    check_initial_data(values);
    let ram = check_memory_map(base);
    check_mmio(values, base);
    check_tables(base, vp_count, ram);
    Parameters {
        vp_count,
        ram,
        command_line: command_line(base),
    }
}

fn command_line(base: u64) -> &'static str {
    let bytes = area(base, contract::COMMAND_LINE);
    let len = bytes.iter().position(|&byte| byte == 0);
    check("command-line-terminated", len.is_some(), format_args!(""));
    let text = &bytes[..len.unwrap_or(0)];
    info("command-line", format_args!("{}", Ascii(text)));
    let rest = bytes[len.unwrap_or(0)..].iter().all(|&byte| byte == 0);
    check("command-line-rest-zero", rest, format_args!(""));
    core::str::from_utf8(text).unwrap_or("")
}

/// Everything in the first area that is no value keeps the file's bytes.
fn check_initial_data(values: &[u8]) {
    let deposits = [
        (contract::VP_COUNT_AT, 4),
        (contract::ENVIRONMENT_AT, 4),
        (contract::MMIO_AT, 32),
    ];
    let is_value = |at: usize| {
        let inside = |&(from, len): &(u32, usize)| (from as usize..from as usize + len).contains(&at);
        deposits.iter().any(inside)
    };
    let wrong = (0..values.len()).find(|&at| !is_value(at) && values[at] != contract::INITIAL_BYTE);
    match wrong {
        None => check("initial-data", true, format_args!("kept")),
        Some(at) => check(
            "initial-data",
            false,
            format_args!("byte {at:#x} is {:#x}", values[at]),
        ),
    }
}

/// An entry of the memory map: first page, pages, type.
fn entries(base: u64) -> impl Iterator<Item = (u64, u64, u16)> {
    area(base, contract::MEMORY_MAP)
        .chunks_exact(24)
        .map_while(|entry| {
            let (page, pages) = (u64_at(entry, 0)?, u64_at(entry, 8)?);
            (pages != 0).then_some((page, pages, acpi::u16_at(entry, 16)?))
        })
}

/// Checks the memory map; the RAM in it, in bytes.
fn check_memory_map(base: u64) -> u64 {
    let mut end = 0;
    let mut ram = 0;
    let mut sorted = true;
    for (page, pages, kind) in entries(base) {
        info(
            "memory",
            format_args!("{:#x}+{:#x} type {kind}", page << 12, pages << 12),
        );
        sorted &= page >= end;
        end = page.saturating_add(pages);
        if kind == MEMORY {
            ram += pages << 12;
        }
    }
    check("memory-map-sorted", sorted, format_args!("{ram:#x} bytes"));
    let count = entries(base).count();
    let terminated = (count + 1) * 24 <= contract::MEMORY_MAP.len as usize;
    check(
        "memory-map-terminated",
        terminated,
        format_args!("{count} entries"),
    );
    let holds = |start: u64, len: u64, kind: u16| {
        let (first, last) = (start >> 12, (start + len - 1) >> 12);
        entries(base).any(|(page, pages, is)| is == kind && page <= first && last < page + pages)
    };
    let image = holds(base, contract::IMAGE_ROOM, MEMORY);
    check("image-is-ram", image, format_args!("{base:#x}"));
    let error = base + contract::ERROR_RANGE.offset;
    let reserved = !entries(base).any(|(page, pages, kind)| {
        kind == MEMORY && page < (error + contract::ERROR_RANGE.len) >> 12 && error >> 12 < page + pages
    });
    check("error-range-is-no-ram", reserved, format_args!("{error:#x}"));
    ram
}

/// Low gap below 4 GiB, high gap above, neither over RAM.
fn check_mmio(values: &[u8], base: u64) {
    const FOUR_GIB: u64 = 1 << 20;
    let at = contract::MMIO_AT as usize;
    let word = |index: usize| u64_at(values, at + index * 8).unwrap_or(u64::MAX);
    let (low, high) = ((word(0), word(1)), (word(2), word(3)));
    info("mmio-low", format_args!("{:#x}+{:#x}", low.0 << 12, low.1 << 12));
    info(
        "mmio-high",
        format_args!("{:#x}+{:#x}", high.0 << 12, high.1 << 12),
    );
    let low_right = low.0.checked_add(low.1).is_some_and(|end| end <= FOUR_GIB);
    check("mmio-low", low_right && low.1 != 0, format_args!(""));
    let high_right = high.1 == 0 || high.0 >= FOUR_GIB;
    check("mmio-high", high_right, format_args!(""));
    let apart = entries(base).all(|(page, pages, _)| {
        [low, high]
            .iter()
            .all(|&(first, count)| first.saturating_add(count) <= page || page + pages <= first || count == 0)
    });
    check("mmio-apart-from-memory", apart, format_args!(""));
}

fn check_tables(base: u64, vp_count: u32, ram: u64) {
    let count = vp_count as usize;
    match Madt::read(area(base, contract::MADT)) {
        Ok(madt) => {
            let ids = madt.ids();
            let unique = ids.iter().enumerate().all(|(at, id)| !ids[..at].contains(id));
            let right = madt.processors == count && unique && madt.local_apic == 0xFEE0_0000;
            check("madt", right, format_args!("{} processors", madt.processors));
        }
        Err(flaw) => check("madt", false, format_args!("{flaw}")),
    }
    match Srat::read(area(base, contract::SRAT)) {
        Ok(srat) => {
            // The memory map may leave out error ranges, so SRAT may have those more.
            let spare = contract::ERROR_RANGE.len;
            let right = srat.processors == count && (ram..=ram + spare).contains(&srat.memory);
            check(
                "srat",
                right,
                format_args!("{} processors {:#x} bytes", srat.processors, srat.memory),
            );
        }
        Err(flaw) => check("srat", false, format_args!("{flaw}")),
    }
    match acpi::slit_localities(area(base, contract::SLIT)) {
        Ok(localities) => check("slit", localities > 0, format_args!("{localities} localities")),
        Err(flaw) => check("slit", false, format_args!("{flaw}")),
    }
    match acpi::pptt_processors(area(base, contract::PPTT)) {
        Ok(leaves) => check("pptt", leaves == count, format_args!("{leaves} processors")),
        Err(flaw) => check("pptt", false, format_args!("{flaw}")),
    }
    for (name, place) in [
        ("madt", contract::MADT),
        ("srat", contract::SRAT),
        ("slit", contract::SLIT),
        ("pptt", contract::PPTT),
    ] {
        if let Ok(table) = acpi::Table::new(area(base, place)) {
            let (len, hash) = (table.bytes().len(), Fnv1a::of(table.bytes()));
            info(name, format_args!("{len} bytes hash {hash:016x}"));
        }
    }
}
