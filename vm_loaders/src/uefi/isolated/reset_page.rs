// SPDX-License-Identifier: MIT
//! The TDX reset page: 32-bit code at the reset vector that enters 64-bit mode and the firmware.
//!
//! A TD starts at 0xFFFFFFF0 in flat 32-bit mode with the VP's number in ESI (Intel TDX module, initial
//! state of a TD VCPU). The page begins with the wake-up mailbox of ACPI 6.4 section 5.2.12.19, where the
//! firmware finds it; other processors wait there for their APIC id. TDCALL leaf 6 accepts a page
//! (TDG.MEM.PAGE.ACCEPT), leaf 0 with R11 = 31 reads an MSR through the host (GHCI, Instruction.RDMSR).

use super::RESET_PAGE_GPA;
use launch_plan::{VbsRegister, VbsRegisterName as Name, VbsValue};
use x86defs::paging::PAGE_BYTES;

/// The mailbox: u16 command, u16 reserved, u32 APIC id, u64 wake-up vector.
const MAILBOX_APIC_ID: usize = 4;
const MAILBOX_VECTOR: usize = 8;
/// Null and a 64-bit code segment, for the way into 64-bit mode.
const GDT: usize = 0x10;
/// Its 32-bit descriptor.
const GDT_POINTER: usize = 0x20;
/// The firmware's 64-bit GDT descriptor.
const IMAGE_GDT_POINTER: usize = 0x30;
/// Far pointer to the firmware: u64 offset, u16 selector.
const ENTRY: usize = 0x40;
const CODE: usize = 0x50;
const RESET_VECTOR: usize = 0xFF0;

const TDCALL: [u8; 4] = [0x66, 0x0F, 0x01, 0xCC];

/// Code in the making.
struct Page {
    bytes: Vec<u8>,
    at: usize,
}

impl Page {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn code(&mut self, bytes: &[u8]) {
        self.put(self.at, bytes);
        self.at += bytes.len();
    }

    /// An instruction that ends with a 32-bit value.
    fn with_u32(&mut self, bytes: &[u8], value: u32) {
        self.code(bytes);
        self.code(&value.to_le_bytes());
    }

    /// A 64-bit instruction that ends with the RIP-relative address of `target` in the page.
    fn relative(&mut self, bytes: &[u8], target: usize) {
        let end = self.at + bytes.len() + 4;
        self.with_u32(bytes, (target as u32).wrapping_sub(end as u32));
    }

    /// A short jump to `target`, which is known already.
    fn back(&mut self, opcode: u8, target: usize) {
        let end = self.at + 2;
        self.code(&[opcode, target.wrapping_sub(end) as u8]);
    }

    /// A near conditional jump whose target follows; the result goes to [`Self::land`].
    fn ahead(&mut self, condition: u8) -> usize {
        self.code(&[0x0F, condition, 0, 0, 0, 0]);
        self.at
    }

    /// Lets a jump of [`Self::ahead`] end here.
    fn land(&mut self, jump: usize) {
        let distance = (self.at - jump) as u32;
        self.put(jump - 4, &distance.to_le_bytes());
    }
}

/// What the code loads.
struct State {
    cr0: u64,
    cr3: u64,
    cr4: u64,
    rbp: u64,
    data_selector: u16,
}

/// The page for `registers`, with `leaf` in R8-R11.
pub(super) fn reset_page(registers: &[VbsRegister], leaf: [u64; 4]) -> Vec<u8> {
    // INT3 where nothing is.
    let mut page = Page {
        bytes: vec![0xCC; PAGE_BYTES],
        at: CODE,
    };
    page.put(0, &[0; CODE]);
    let state = tables(&mut page, registers);
    enter_long_mode(&mut page, &state);
    page.code(&[0x85, 0xF6]); // test esi, esi
    let other = page.ahead(0x85); // jnz other processors
    accept_low_memory(&mut page);
    page.code(&[0x48, 0xBD]); // mov rbp, imm64
    page.code(&state.rbp.to_le_bytes());
    for (register, value) in (0xB8u8..).zip(leaf) {
        page.code(&[0x49, register]); // mov r8..r11, imm64
        page.code(&value.to_le_bytes());
    }
    page.relative(&[0x48, 0xFF, 0x2D], ENTRY); // jmp far [entry]
    page.land(other);
    wait_in_mailbox(&mut page);
    page.at = RESET_VECTOR;
    page.relative(&[0xE9], CODE); // jmp code
    page.bytes
}

/// Fills the tables and picks out what the code needs.
fn tables(page: &mut Page, registers: &[VbsRegister]) -> State {
    let mut state = State {
        cr0: 0,
        cr3: 0,
        cr4: 0,
        rbp: 0,
        data_selector: 0,
    };
    page.put(GDT + 8, &0x00A0_9B00_0000_FFFFu64.to_le_bytes());
    page.put(GDT_POINTER, &15u16.to_le_bytes());
    page.put(
        GDT_POINTER + 2,
        &(RESET_PAGE_GPA as u32 + GDT as u32).to_le_bytes(),
    );
    for register in registers {
        match (register.name, register.value) {
            (Name::Gdtr, VbsValue::Table(gdtr)) => {
                page.put(IMAGE_GDT_POINTER, &gdtr.limit.to_le_bytes());
                page.put(IMAGE_GDT_POINTER + 2, &gdtr.base.to_le_bytes());
            }
            (Name::Cs, VbsValue::Segment(cs)) => page.put(ENTRY + 8, &cs.selector.to_le_bytes()),
            (Name::Ds, VbsValue::Segment(ds)) => state.data_selector = ds.selector,
            (Name::Rip, VbsValue::U64(rip)) => page.put(ENTRY, &rip.to_le_bytes()),
            (Name::Cr0, VbsValue::U64(value)) => state.cr0 = value,
            (Name::Cr3, VbsValue::U64(value)) => state.cr3 = value,
            (Name::Cr4, VbsValue::U64(value)) => state.cr4 = value,
            (Name::Rbp, VbsValue::U64(value)) => state.rbp = value,
            // EFER belongs to the TDX module; PAT and MTRRs are the reset values there.
            _ => {}
        }
    }
    state
}

fn enter_long_mode(page: &mut Page, state: &State) {
    let absolute = |at: usize| RESET_PAGE_GPA as u32 + at as u32;
    page.with_u32(&[0x0F, 0x01, 0x15], absolute(GDT_POINTER)); // lgdt [gdt pointer]
    // The order matters: paging comes on with CR0, LME is set by the module.
    page.with_u32(&[0xB8], state.cr4 as u32); // mov eax, cr4
    page.code(&[0x0F, 0x22, 0xE0]); // mov cr4, eax
    page.with_u32(&[0xB8], state.cr3 as u32); // mov eax, cr3: below 4 GiB
    page.code(&[0x0F, 0x22, 0xD8]); // mov cr3, eax
    page.with_u32(&[0xB8], state.cr0 as u32); // mov eax, cr0
    page.code(&[0x0F, 0x22, 0xC0]); // mov cr0, eax
    let long_mode = absolute(page.at + 7);
    page.with_u32(&[0xEA], long_mode); // jmp 8:long mode
    page.code(&[0x08, 0x00]);
    page.relative(&[0x0F, 0x01, 0x15], IMAGE_GDT_POINTER); // lgdt [rip + image gdt pointer]
    let [low, high] = state.data_selector.to_le_bytes();
    page.code(&[0x66, 0xB8, low, high]); // mov ax, data selector
    for register in [0xD0, 0xD8, 0xC0, 0xE0, 0xE8] {
        page.code(&[0x8E, register]); // mov ss, ds, es, fs, gs, ax
    }
}

fn accept_low_memory(page: &mut Page) {
    page.code(&[0x31, 0xC9]); // xor ecx, ecx
    let next = page.at;
    page.with_u32(&[0xB8], 6); // mov eax, 6: TDG.MEM.PAGE.ACCEPT
    page.code(&[0x31, 0xD2]); // xor edx, edx
    page.code(&TDCALL);
    page.code(&[0x48, 0x85, 0xC0]); // test rax, rax
    page.code(&[0x74, 1, 0xCC]); // jz over int3
    page.with_u32(&[0x81, 0xC1], 0x1000); // add ecx, 0x1000
    page.with_u32(&[0x81, 0xF9], 0x10_0000); // cmp ecx, 0x100000
    page.back(0x72, next); // jb next
}

/// Other processors: read the own APIC id, then wait for it and command 1 in the mailbox.
fn wait_in_mailbox(page: &mut Page) {
    page.code(&[0x31, 0xC0]); // xor eax, eax: TDG.VP.VMCALL
    page.with_u32(&[0xB9], 0x1C00); // mov ecx, r10-r12 pass through
    page.code(&[0x45, 0x31, 0xD2]); // xor r10d, r10d
    page.with_u32(&[0x41, 0xBB], 31); // mov r11d, 31: RDMSR
    page.with_u32(&[0x41, 0xBC], 0x802); // mov r12d, 0x802: x2APIC id
    page.code(&TDCALL);
    let wait = page.at;
    page.code(&[0xF3, 0x90]); // pause
    page.relative(&[0x44, 0x39, 0x1D], MAILBOX_APIC_ID); // cmp [apic id], r11d
    page.back(0x75, wait); // jne wait
    page.relative(&[0x8B, 0x05], 0); // mov eax, [command]
    page.code(&[0x66, 0x83, 0xF8, 0x01]); // cmp ax, 1
    page.back(0x75, wait); // jne wait
    page.relative(&[0x48, 0x8B, 0x1D], MAILBOX_VECTOR); // mov rbx, [wake-up vector]
    page.code(&[0x31, 0xC0]); // xor eax, eax
    page.relative(&[0x66, 0x89, 0x05], 0); // mov [command], ax: taken
    page.code(&[0xFF, 0xE3]); // jmp rbx
}
