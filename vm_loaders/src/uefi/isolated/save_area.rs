// SPDX-License-Identifier: MIT
//! The SEV-SNP save area of the boot processor, and the program that runs first.
//!
//! What igvmfilegen leaves zero but a processor needs or KVM rebuilds (RFLAGS bit 1, DR6, DR7, XCR0, FCW,
//! MXCSR, TR, LDTR, IDTR limits) has its reset value here, so that only what KVM cannot honour remains:
//! vTOM and restricted injection.

use super::x64;
use launch_plan::{VbsRegister, VbsRegisterName as Name, VbsValue};
use x86defs::paging::PAGE_BYTES;
use x86defs::vmsa::{ResetState, VMSA_SIZE, descriptor, offset, reset_page, sev_features};
use x86defs::{SegmentRegister, TableRegister, efer};

/// Where the program in page 0 begins; its target stands in front of it.
pub(super) const TRAMPOLINE_ENTRY: u64 = 8;

/// The program in page 0: validates 0x1000 to 1 MiB with PVALIDATE, then jumps to `entry`. Runs in 64-bit
/// mode, on an identity map, without an IDT: a refused page ends the guest by UD2.
pub(super) fn trampoline(entry: u64) -> Vec<u8> {
    let mut code = entry.to_le_bytes().to_vec();
    code.extend([0xBE, 0x00, 0x10, 0x00, 0x00]); // mov esi, 0x1000
    let next = code.len();
    code.extend([0x89, 0xF0]); // mov eax, esi
    code.extend([0x31, 0xC9]); // xor ecx, ecx: 4 KiB
    code.extend([0xBA, 0x01, 0x00, 0x00, 0x00]); // mov edx, 1: validate
    code.extend([0xF2, 0x0F, 0x01, 0xFF]); // pvalidate
    let carry = code.len();
    code.extend([0x72, 0]); // jc fail: nothing changed
    code.extend([0x85, 0xC0]); // test eax, eax
    let status = code.len();
    code.extend([0x75, 0]); // jnz fail
    code.extend([0x81, 0xC6, 0x00, 0x10, 0x00, 0x00]); // add esi, 0x1000
    code.extend([0x81, 0xFE, 0x00, 0x00, 0x10, 0x00]); // cmp esi, 0x100000
    code.extend([0x72, next.wrapping_sub(code.len() + 2) as u8]); // jb next
    code.extend([0xFF, 0x25]); // jmp [rip + target]
    let after = code.len() as u32 + 4;
    code.extend(0u32.wrapping_sub(after).to_le_bytes());
    let fail = code.len();
    code.extend([0x0F, 0x0B]); // fail: ud2
    for jump in [carry, status] {
        code[jump + 1] = (fail - (jump + 2)) as u8;
    }
    code.resize(PAGE_BYTES, 0);
    code
}

/// The save area with `registers` over the reset state.
pub(super) fn save_area(registers: &[VbsRegister], leaf: [u64; 4], boundary: u64) -> Vec<u8> {
    let features = sev_features::SNP_ACTIVE
        | sev_features::VTOM
        | sev_features::RESTRICTED_INJECTION
        | sev_features::DEBUG_SWAP;
    let reset = ResetState {
        entry: 0,
        rdx: 0,
        code: 0x9B,
        data: 0x93,
        task: 0x8B,
        features,
    };
    let mut page = reset_page(&reset);
    for register in registers {
        match register.value {
            VbsValue::Segment(value) => segment(&mut page, register.name, &value),
            VbsValue::Table(value) => table(&mut page, register.name, value),
            VbsValue::U64(value) => number(&mut page, register.name, value),
        }
    }
    for (index, value) in leaf.into_iter().enumerate() {
        put(&mut page, offset::R8 + 8 * index, &value.to_le_bytes());
    }
    // R12 names the parameter area before the firmware has parsed anything.
    put(&mut page, offset::R8 + 8 * 4, &x64::CONFIG_BLOB_GPA.to_le_bytes());
    put(&mut page, offset::VIRTUAL_TOM, &boundary.to_le_bytes());
    page.to_vec()
}

fn put(page: &mut [u8; VMSA_SIZE], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

fn segment(page: &mut [u8; VMSA_SIZE], name: Name, value: &SegmentRegister) {
    let at = match name {
        Name::Es => offset::ES,
        Name::Cs => offset::CS,
        Name::Ss => offset::SS,
        Name::Ds => offset::DS,
        Name::Fs => offset::FS,
        Name::Gs => offset::GS,
        _ => return,
    };
    put(page, at, &descriptor(value));
}

fn table(page: &mut [u8; VMSA_SIZE], name: Name, value: TableRegister) {
    let at = if name == Name::Gdtr {
        offset::GDTR
    } else {
        offset::IDTR
    };
    put(page, at + 4, &u32::from(value.limit).to_le_bytes());
    put(page, at + 8, &value.base.to_le_bytes());
}

/// MTRRs are not part of a save area, and R8-R12 are set apart.
fn number(page: &mut [u8; VMSA_SIZE], name: Name, value: u64) {
    let (at, value) = match name {
        Name::Cr0 => (offset::CR0, value),
        Name::Cr3 => (offset::CR3, value),
        Name::Cr4 => (offset::CR4, value),
        Name::Efer => (offset::EFER, value | efer::SVME),
        Name::Pat => (offset::PAT, value),
        Name::Rbp => (offset::RBP, value),
        Name::Rip => (offset::RIP, value),
        _ => return,
    };
    put(page, at, &value.to_le_bytes());
}
