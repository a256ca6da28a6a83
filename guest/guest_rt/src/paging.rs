// SPDX-License-Identifier: MIT
//! The runtime's page tables and GDT, and a walker for the tables that the VMM gave.
//!
//! Always true: the runtime's tables map 0-4 GiB one to one, 2 MiB leaves, writable and executable,
//! uncached from 0xF8000000 on; they are static data of the image, so that 32-bit entries and application
//! processors can use them at once. Not here: memory above 4 GiB.

use crate::cpu::{self, TableRegister};
use crate::memory;
use core::arch::global_asm;

global_asm!(
    ".section .data.paging, \"aw\"",
    ".balign 4096",
    ".globl guest_rt_pml4",
    "guest_rt_pml4:",
    ".quad guest_rt_pdpt + 3",
    ".fill 511, 8, 0",
    "guest_rt_pdpt:",
    ".quad guest_rt_pd + 0x0003",
    ".quad guest_rt_pd + 0x1003",
    ".quad guest_rt_pd + 0x2003",
    ".quad guest_rt_pd + 0x3003",
    ".fill 508, 8, 0",
    "guest_rt_pd:",
    ".set leaf, 0",
    ".rept 0x7c0",
    ".quad (leaf << 21) | 0x83",
    ".set leaf, leaf + 1",
    ".endr",
    ".rept 0x40",
    ".quad (leaf << 21) | 0x9b",
    ".set leaf, leaf + 1",
    ".endr",
    ".globl guest_rt_gdt",
    "guest_rt_gdt:",
    ".quad 0",
    // 0x08 64-bit code, 0x10 data, 0x18 32-bit code; accessed bits set, so that nothing is written back.
    ".quad 0x00af9b000000ffff",
    ".quad 0x00cf93000000ffff",
    ".quad 0x00cf9b000000ffff",
    ".globl guest_rt_gdtr",
    "guest_rt_gdtr:",
    ".word 31",
    ".quad guest_rt_gdt",
    ".balign 8",
    ".text",
);

unsafe extern "C" {
    static guest_rt_pml4: u8;
    static guest_rt_gdt: u8;
}

/// CR3 of the runtime's tables.
pub fn root() -> u64 {
    (&raw const guest_rt_pml4) as u64
}

/// Address of the runtime's GDT, 32 bytes.
pub fn gdt() -> u64 {
    (&raw const guest_rt_gdt) as u64
}

/// Switches to the runtime's tables and GDT.
pub fn activate() {
    cpu::set_cr3(root());
    cpu::load_gdt(&TableRegister {
        limit: 31,
        base: gdt(),
    });
}

/// Where 4-level tables at `root` map an address; `None` when they do not. The tables must lie below
/// 4 GiB.
pub fn translate(root: u64, address: u64) -> Option<u64> {
    const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
    let mut table = root & ADDRESS;
    for level in (0..4_u32).rev() {
        let shift = 12 + 9 * level;
        let index = (address >> shift) & 511;
        let entry = memory::read_u64(table + index * 8);
        if entry & 1 == 0 {
            return None;
        }
        let is_leaf = level == 0 || (level < 3 && entry & 0x80 != 0);
        if is_leaf {
            let span = (1_u64 << shift) - 1;
            return Some((entry & ADDRESS & !span) | (address & span));
        }
        table = entry & ADDRESS;
        if table >> 32 != 0 {
            return None;
        }
    }
    None
}
