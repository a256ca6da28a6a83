// SPDX-License-Identifier: MIT
//! Registers at the entry.

use guest_rt::cpu::{self, msr};
use guest_rt::entry::Entry;
use guest_rt::paging;
use guest_rt::protocol::igvm_probe as contract;
use guest_rt::protocol::igvm_probe::registers;
use guest_rt::report::{check, equal, info};

// The 32-bit entry: paging off, CR3 and GDTR as the context gave them, a stack from the context. It turns
// on long mode with these page tables and goes to the 64-bit entry, with a mark in RAX.
core::arch::global_asm!(
    ".section .entry32, \"ax\"",
    ".code32",
    "mov eax, cr4",
    "or eax, 0x20",
    "mov cr4, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x100",
    "wrmsr",
    "call 2f",
    "2:",
    "pop ebx",
    "and ebx, 0xfffff000",
    "add ebx, 0x200",
    "mov eax, cr0",
    "or eax, 0x80000000",
    "mov cr0, eax",
    "mov eax, {marker}",
    "push 0x08",
    "push ebx",
    "retf",
    ".code64",
    ".text",
    marker = const ENTERED_32,
);

/// RAX after the 32-bit entry.
const ENTERED_32: u32 = 0x3232_3232;
const RAX: usize = 0;

pub(crate) fn check_registers(entry: &Entry) {
    let rax = entry.saved.gpr[RAX];
    let way = match rax {
        rax if rax == registers::gpr(RAX) => "native",
        rax if rax == u64::from(ENTERED_32) => "native-32",
        _ => "vbs",
    };
    info("entry", format_args!("{way}"));
    match way {
        "native" => check_native(entry),
        "vbs" => check_vbs(entry),
        _ => {}
    }
    let base = entry.image;
    equal("cr3", entry.cr3, base + contract::PAGE_TABLES);
    let (gdt, limit) = (entry.gdtr.base, entry.gdtr.limit);
    let right = gdt == base + contract::GDT && limit == contract::GDT_LIMIT;
    check("gdtr", right, format_args!("{gdt:#x}+{limit:#x}"));
    equal("cs", u64::from(entry.selectors[0]), 0x08);
    if way != "native-32" {
        equal("cr0", entry.cr0, registers::CR0);
        equal("cr4", entry.cr4, registers::CR4);
        equal("efer", entry.efer, registers::EFER);
        let flat = entry.selectors[1..].iter().all(|&selector| selector == 0x10);
        check(
            "data-selectors",
            flat,
            format_args!("{:x?}", &entry.selectors[1..]),
        );
    }
    let own = paging::translate(entry.cr3, base);
    check(
        "own-page-maps-to-itself",
        own == Some(base),
        format_args!("{own:x?}"),
    );
    let large = base + contract::LARGE_PAGE.offset;
    let mapped = paging::translate(entry.cr3, large);
    check(
        "large-page-maps-to-itself",
        mapped == Some(large),
        format_args!("{mapped:x?}"),
    );
}

fn check_native(entry: &Entry) {
    let wrong = (0..16).find(|&index| entry.saved.gpr[index] != registers::gpr(index));
    match wrong {
        None => check("gprs", true, format_args!("16")),
        Some(index) => {
            let value = entry.saved.gpr[index];
            check("gprs", false, format_args!("register {index} is {value:#x}"));
        }
    }
    equal("rflags", entry.saved.rflags, registers::RFLAGS);
    equal("gs-base", entry.gs_base, registers::GS_BASE);
    equal("pat", entry.pat, registers::PAT_RESET);
    check_idtr(entry);
}

fn check_vbs(entry: &Entry) {
    for index in registers::VBS_GPRS {
        let value = entry.saved.gpr[index];
        let right = value == registers::gpr(index);
        check("gpr", right, format_args!("register {index} is {value:#x}"));
    }
    equal("rflags", entry.saved.rflags, registers::RFLAGS);
    equal("pat", entry.pat, registers::PAT);
    check_idtr(entry);
    equal(
        "mtrr-default",
        cpu::rdmsr(msr::MTRR_DEF_TYPE),
        registers::MTRR_DEFAULT,
    );
    for (number, value) in registers::MTRR_FIXED {
        equal("mtrr-fixed", cpu::rdmsr(number), value);
    }
    for pair in 0..registers::MTRR_PAIRS {
        let number = msr::MTRR_PHYS_BASE0 + 2 * pair as u32;
        let value = (cpu::rdmsr(number), cpu::rdmsr(number + 1));
        let right = value == registers::mtrr_variable(pair);
        check(
            "mtrr-variable",
            right,
            format_args!("{pair}: {:#x} {:#x}", value.0, value.1),
        );
    }
}

fn check_idtr(entry: &Entry) {
    let (base, limit) = (entry.idtr.base, entry.idtr.limit);
    check(
        "idtr",
        (base, limit) == registers::IDTR,
        format_args!("{base:#x}+{limit:#x}"),
    );
}
