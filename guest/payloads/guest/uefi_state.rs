// SPDX-License-Identifier: MIT
//! The state in which the firmware starts (uefi-launch 5.1, 5.2).

use guest_rt::cpu::{self, msr};
use guest_rt::entry::Entry;
use guest_rt::protocol::uefi_image;
use guest_rt::report::{check, equal, info};
use guest_rt::{memory, paging};

/// CR0.ET reads as 1 on every processor since the 486, whatever was loaded.
const CR0_ET: u64 = 1 << 4;
const PAGE_TABLES: u64 = 0x70_0000;
const GDT: u64 = 0x70_6000;
/// The blob's fixed address (uefi-launch 3.1).
pub(crate) const BLOB: u64 = 0x70_9000;
/// The 64-bit code and flat data descriptors, limits 0xFFFF in memory.
const GDT_CODE: u64 = 0x00A0_9B00_0000_FFFF;
const GDT_DATA: u64 = 0x00C0_9300_0000_FFFF;
/// A descriptor's accessed bit, which the processor may set.
const ACCESSED: u64 = 1 << 40;

/// Registers, GDT and page tables.
pub(crate) fn check_entry(entry: &Entry) {
    let gpr = &entry.saved.gpr;
    equal("cr0", entry.cr0 & !CR0_ET, 0x8000_0023);
    equal("cr3", entry.cr3, PAGE_TABLES);
    equal("cr4", entry.cr4, 0x660);
    equal("efer", entry.efer, 0xD00);
    equal("pat", entry.pat, 0x0007_0406_0007_0406);
    equal("rflags", entry.saved.rflags, 2);
    equal("rbp", gpr[5], uefi_image::SEC_VOLUME_GPA);
    for (name, index) in [("r8", 8), ("r9", 9), ("r10", 10), ("r11", 11)] {
        equal(name, gpr[index], 0);
    }
    match gpr[12] {
        0 => info("r12", format_args!("absent")),
        value => info("r12", format_args!("{value:#x}")),
    }
    let code = u64::from(entry.selectors[0]);
    equal("cs", code, 0x08);
    let flat = entry.selectors[1..].iter().all(|&selector| selector == 0x10);
    check(
        "data-selectors",
        flat,
        format_args!("{:x?}", &entry.selectors[1..]),
    );
    let (base, limit) = (entry.gdtr.base, entry.gdtr.limit);
    check(
        "gdtr",
        (base, limit) == (GDT, 31),
        format_args!("{base:#x}+{limit:#x}"),
    );
    let gdt = [0, 8, 16, 24].map(|at| memory::read_u64(GDT + at));
    let accessed = |descriptor: u64| descriptor | ACCESSED;
    let right = gdt[0] == 0 && accessed(gdt[1]) == GDT_CODE && accessed(gdt[2]) == GDT_DATA && gdt[3] == 0;
    check("gdt", right, format_args!("{gdt:#x?}", gdt = Row(&gdt)));
    check_paging();
    let scratch = (0..0x2000_u64)
        .step_by(8)
        .all(|at| memory::read_u64(GDT + 0x1000 + at) == 0);
    check("scratch-pages-zero", scratch, format_args!(""));
}

/// Hexadecimal words in one line.
struct Row<'a>(&'a [u64]);

impl core::fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (at, word) in self.0.iter().enumerate() {
            write!(f, "{}{word:#x}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// Every gibibyte's first and last large page maps to itself, and nothing is mapped at 4 GiB.
fn check_paging() {
    let large = 2 << 20_u64;
    let identity = (0..4_u64 << 30)
        .step_by(512 << 20)
        .flat_map(|at| [at, at + (512 << 20) - large + 0x1238])
        .all(|at| paging::translate(PAGE_TABLES, at) == Some(at));
    check("identity-map", identity, format_args!(""));
    let above = paging::translate(PAGE_TABLES, 4 << 30);
    check("nothing-mapped-above", above.is_none(), format_args!(""));
    let root = memory::read_u64(PAGE_TABLES);
    equal("pml4-entry", root & !0x40, (PAGE_TABLES + 0x1000) | 0x23);
}

/// The image lies where it belongs, whole: every 64 KiB of it outside the SEC volume begins with a mark.
pub(crate) fn check_image() {
    let marks = uefi_image::marks().count();
    let wrong = || uefi_image::marks().filter(|&(gpa, mark)| memory::read_u64(gpa) != mark);
    match wrong().next() {
        None => check("image-marks", true, format_args!("{marks} of {marks}")),
        Some((gpa, _)) => {
            let there = marks - wrong().count();
            check(
                "image-marks",
                false,
                format_args!("{there} of {marks}, the first is missing at {gpa:#x}"),
            );
        }
    }
    let signature = memory::read_u32(uefi_image::SEC_VOLUME_GPA + 40);
    equal(
        "sec-volume",
        u64::from(signature),
        u64::from(u32::from_le_bytes(*b"_FVH")),
    );
}

/// Memory types: default and fixed ranges checked, variable ones printed.
pub(crate) fn show_mtrrs() {
    equal("mtrr-default-type", cpu::rdmsr(msr::MTRR_DEF_TYPE), 0xC00);
    for (number, first) in msr::MTRR_FIXED {
        let expected = if first < 0xA0000 { 0x0606_0606_0606_0606 } else { 0 };
        let value = cpu::rdmsr(number);
        if value != expected || first == 0 {
            equal("mtrr-fixed", value, expected);
        }
    }
    let variable = (cpu::rdmsr(msr::MTRR_CAP) & 0xFF) as u32;
    let mut used = 0;
    for pair in 0..variable {
        let base = cpu::rdmsr(msr::MTRR_PHYS_BASE0 + 2 * pair);
        let mask = cpu::rdmsr(msr::MTRR_PHYS_BASE0 + 2 * pair + 1);
        if mask & 0x800 != 0 {
            used += 1;
            info(
                "mtrr-variable",
                format_args!("{pair} base {base:#x} mask {mask:#x}"),
            );
        }
    }
    check(
        "mtrr-variable-used",
        used > 0,
        format_args!("{used} of {variable}"),
    );
}
