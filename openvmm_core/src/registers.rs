// SPDX-License-Identifier: MIT
//! Registers and the memory around them as text, for `dump` and the crash report.
//!
//! Always true: reads only, and a guest whose page tables are nonsense costs nothing but a missing line.
//! Not here: disassembly.

use guest_memory::GuestMemory;
use std::fmt::Write;
use virt::VpIndex;
use x86defs::paging::{PTE_ADDR, PTE_P, PTE_PS};
use x86defs::{SegmentRegister, X86State, cr0, cr4, efer};

/// Bytes of code shown from the instruction pointer on.
const CODE_BYTES: usize = 16;
pub(crate) const GPR_NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// One VP's registers, and the code at its instruction pointer.
pub(crate) fn describe(vp: VpIndex, s: &X86State, memory: &GuestMemory) -> String {
    let mut out = describe_registers(vp, s);
    let linear = code_address(s);
    match bytes_at(s, memory, linear) {
        Some(code) => {
            let _ = writeln!(out, "  code at {linear:#x}: {}", hex(&code));
        }
        None => {
            let _ = writeln!(out, "  code at {linear:#x} is not in ram");
        }
    }
    out
}

/// One VP's registers.
pub(crate) fn describe_registers(vp: VpIndex, s: &X86State) -> String {
    let mut out = format!(
        "vp {vp}: rip {:#x} in {} mode, rflags {:#x}\n",
        s.rip,
        mode(s),
        s.rflags
    );
    for (i, row) in GPR_NAMES.chunks(4).enumerate() {
        for (j, name) in row.iter().enumerate() {
            let _ = write!(out, "  {name:<3} {:016x}", s.gpr[i * 4 + j]);
        }
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "  cr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} efer {:#x}",
        s.cr0, s.cr2, s.cr3, s.cr4, s.efer
    );
    for (name, r) in [
        ("cs", &s.cs),
        ("ss", &s.ss),
        ("ds", &s.ds),
        ("es", &s.es),
        ("fs", &s.fs),
        ("gs", &s.gs),
    ] {
        segment(&mut out, name, r);
    }
    segment(&mut out, "tr", &s.tr);
    let _ = writeln!(
        out,
        "  gdtr {:#x}/{:#x} idtr {:#x}/{:#x}",
        s.gdtr.base, s.gdtr.limit, s.idtr.base, s.idtr.limit
    );
    out
}

fn segment(out: &mut String, name: &str, r: &SegmentRegister) {
    let _ = writeln!(
        out,
        "  {name} {:04x} base {:#x} limit {:#x} attributes {:#x}",
        r.selector, r.base, r.limit, r.attributes.0
    );
}

fn mode(s: &X86State) -> &'static str {
    match (s.cr0 & cr0::PE != 0, s.efer & efer::LMA != 0) {
        (false, _) => "real",
        (true, false) => "protected",
        (true, true) if s.is_64bit() => "64-bit",
        (true, true) => "compatibility",
    }
}

fn code_address(s: &X86State) -> u64 {
    if s.is_64bit() {
        s.rip
    } else {
        s.cs.base.wrapping_add(s.rip) & 0xFFFF_FFFF
    }
}

/// Code bytes at a linear address; they end at the page's end.
fn bytes_at(s: &X86State, memory: &GuestMemory, linear: u64) -> Option<Vec<u8>> {
    let gpa = translate(s, memory, linear)?;
    let mut bytes = vec![0; CODE_BYTES.min((4096 - (gpa & 0xFFF)) as usize)];
    memory.read(gpa, &mut bytes).ok()?;
    Some(bytes)
}

/// Walks the guest's page tables (APM2 section 5.2 and 5.3) without looking at permissions.
fn translate(s: &X86State, memory: &GuestMemory, linear: u64) -> Option<u64> {
    if s.cr0 & cr0::PG == 0 {
        return Some(linear);
    }
    if s.cr4 & cr4::PAE == 0 {
        return translate_32(s, memory, linear);
    }
    let top = match (s.efer & efer::LMA != 0, s.cr4 & cr4::LA57 != 0) {
        (false, _) => 2,
        (true, false) => 3,
        (true, true) => 4,
    };
    let mut table = s.cr3 & PTE_ADDR;
    if top == 2 {
        // The PDPT of 32-bit PAE paging is only 32-byte aligned.
        table = s.cr3 & 0xFFFF_FFE0;
    }
    for level in (0..=top).rev() {
        let shift = 12 + 9 * level;
        let mut entry = [0; 8];
        memory
            .read(table + ((linear >> shift) & 0x1FF) * 8, &mut entry)
            .ok()?;
        let entry = u64::from_le_bytes(entry);
        if entry & PTE_P == 0 {
            return None;
        }
        if level == 0 || (level <= 2 && top > 2 || level == 1) && entry & PTE_PS != 0 {
            let within = (1u64 << shift) - 1;
            return Some((entry & PTE_ADDR & !within) | (linear & within));
        }
        table = entry & PTE_ADDR;
    }
    None
}

fn translate_32(s: &X86State, memory: &GuestMemory, linear: u64) -> Option<u64> {
    let entry_at = |table: u64, index: u64| {
        let mut entry = [0; 4];
        memory.read(table + index * 4, &mut entry).ok()?;
        let entry = u64::from(u32::from_le_bytes(entry));
        (entry & PTE_P != 0).then_some(entry)
    };
    let directory = entry_at(s.cr3 & 0xFFFF_F000, (linear >> 22) & 0x3FF)?;
    if directory & PTE_PS != 0 && s.cr4 & cr4::PSE != 0 {
        return Some((directory & 0xFFC0_0000) | (linear & 0x3F_FFFF));
    }
    let page = entry_at(directory & 0xFFFF_F000, (linear >> 12) & 0x3FF)?;
    Some((page & 0xFFFF_F000) | (linear & 0xFFF))
}

/// Bytes as spaced hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 3);
    for (i, byte) in bytes.iter().enumerate() {
        let _ = write!(out, "{}{byte:02x}", if i == 0 { "" } else { " " });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use x86defs::state::gpr;

    fn memory() -> GuestMemory {
        GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap()
    }

    #[test]
    fn real_mode_code_is_found_at_cs_base() {
        let m = memory();
        m.write(0x1234, &[0xF4, 0x90]).unwrap();
        let mut s = X86State::reset();
        s.cs.base = 0x1000;
        s.rip = 0x234;
        s.gpr[gpr::RSP] = 0x7C00;
        let text = describe(3, &s, &m);
        assert!(
            text.starts_with("vp 3: rip 0x234 in real mode, rflags 0x2\n"),
            "{text}"
        );
        assert!(text.contains("rsp 0000000000007c00"), "{text}");
        assert!(text.contains("code at 0x1234: f4 90 00"), "{text}");
    }

    #[test]
    fn long_mode_code_is_found_through_page_tables() {
        let m = memory();
        let mut s = X86State::reset();
        s.cr0 = cr0::PE | cr0::PG;
        s.cr4 = cr4::PAE;
        s.efer = efer::LME | efer::LMA;
        s.cr3 = 0x1000;
        s.cs.attributes.0 = 0xA09B;
        m.write(0x1000, &(0x2000 | PTE_P).to_le_bytes()).unwrap();
        m.write(0x2000, &(0x3000 | PTE_P).to_le_bytes()).unwrap();
        m.write(0x3008, &(0x4000 | PTE_P).to_le_bytes()).unwrap();
        m.write(0x4010, &(0x8000 | PTE_P).to_le_bytes()).unwrap();
        assert_eq!(translate(&s, &m, 0x20_2345), Some(0x8345));
        assert_eq!(translate(&s, &m, 0x20_3345), None);
        // A 2 MiB leaf.
        m.write(0x3010, &(0x40_0000 | PTE_P | PTE_PS).to_le_bytes())
            .unwrap();
        assert_eq!(translate(&s, &m, 0x41_2345), Some(0x41_2345));
        s.cr3 = 0xFFFF_F000;
        s.rip = 0x7000;
        assert!(describe(0, &s, &m).contains("code at 0x7000 is not in ram"));
    }

    #[test]
    fn legacy_paging_is_walked() {
        let m = memory();
        let mut s = X86State::reset();
        s.cr0 = cr0::PE | cr0::PG;
        s.cr3 = 0x1000;
        m.write(0x1004, &(0x2000u32 | 1).to_le_bytes()).unwrap();
        m.write(0x2008, &(0x9000u32 | 1).to_le_bytes()).unwrap();
        assert_eq!(translate(&s, &m, 0x40_2010), Some(0x9010));
        s.cr4 = cr4::PSE;
        m.write(0x1008, &(0x40_0000u32 | 0x81).to_le_bytes()).unwrap();
        assert_eq!(translate(&s, &m, 0x80_0010), Some(0x40_0010));
    }
}
