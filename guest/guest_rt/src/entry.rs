// SPDX-License-Identifier: MIT
//! From the first instruction to the payload's main function.
//!
//! Always true: every general purpose register and RFLAGS are saved before anything changes them; the
//! image's own relative relocations (position-independent payloads only) are applied before any static is
//! used; the state that the VMM set is captured before the runtime replaces page tables, GDT and IDT.
//! Image layout (the link script's): 32-bit entry at +0 where a payload has one, 64-bit entry at
//! [`ENTRY64_OFFSET`]. Not here: 32-bit entries (`entry32!` of a payload), what the values should be.

use crate::cpu::{self, TableRegister, msr};
use crate::{paging, power, report, serial, trap};
use core::arch::global_asm;
use core::cell::UnsafeCell;

/// Offset of the 64-bit entry from the start of the image; the one that Linux uses too.
pub const ENTRY64_OFFSET: u64 = 0x200;

global_asm!(
    ".section .entry64, \"ax\"",
    ".code64",
    ".globl guest_entry64",
    "guest_entry64:",
    "mov [rip + guest_rt_saved + 0x00], rax",
    "mov [rip + guest_rt_saved + 0x08], rcx",
    "mov [rip + guest_rt_saved + 0x10], rdx",
    "mov [rip + guest_rt_saved + 0x18], rbx",
    "mov [rip + guest_rt_saved + 0x20], rsp",
    "mov [rip + guest_rt_saved + 0x28], rbp",
    "mov [rip + guest_rt_saved + 0x30], rsi",
    "mov [rip + guest_rt_saved + 0x38], rdi",
    "mov [rip + guest_rt_saved + 0x40], r8",
    "mov [rip + guest_rt_saved + 0x48], r9",
    "mov [rip + guest_rt_saved + 0x50], r10",
    "mov [rip + guest_rt_saved + 0x58], r11",
    "mov [rip + guest_rt_saved + 0x60], r12",
    "mov [rip + guest_rt_saved + 0x68], r13",
    "mov [rip + guest_rt_saved + 0x70], r14",
    "mov [rip + guest_rt_saved + 0x78], r15",
    "lea rsp, [rip + guest_rt_stack_top]",
    "pushfq",
    "pop qword ptr [rip + guest_rt_saved + 0x80]",
    "cli",
    "cld",
    // R_X86_64_RELATIVE entries {offset, info, addend}, linked at address 0.
    "lea rbx, [rip + __image_start]",
    "lea rsi, [rip + __relocations_start]",
    "lea rdi, [rip + __relocations_end]",
    "2:",
    "cmp rsi, rdi",
    "jae 3f",
    "mov rax, [rsi]",
    "mov rcx, [rsi + 16]",
    "add rcx, rbx",
    "mov [rbx + rax], rcx",
    "add rsi, 24",
    "jmp 2b",
    "3:",
    "xor ebp, ebp",
    "call guest_rt_start",
    "ud2",
    ".section .bss.stack, \"aw\", @nobits",
    ".balign 16",
    ".skip 0x8000",
    ".globl guest_rt_stack_top",
    "guest_rt_stack_top:",
    ".text",
);

/// Registers at the first instruction, as the entry code stores them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct SavedRegisters {
    /// General purpose registers in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8-R15.
    pub gpr: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
}

#[repr(transparent)]
struct Saved(UnsafeCell<SavedRegisters>);

// SAFETY: written by the entry code before any Rust runs, only read afterwards.
unsafe impl Sync for Saved {}

#[unsafe(no_mangle)]
static guest_rt_saved: Saved = Saved(UnsafeCell::new(SavedRegisters {
    gpr: [0; 16],
    rflags: 0,
}));

/// What the VMM started the payload with.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Registers at the first instruction.
    pub saved: SavedRegisters,
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// Page attribute table.
    pub pat: u64,
    /// GDTR.
    pub gdtr: TableRegister,
    /// IDTR.
    pub idtr: TableRegister,
    /// CS, DS, ES, FS, GS and SS selectors.
    pub selectors: [u16; 6],
    /// GS base.
    pub gs_base: u64,
    /// Where the image is.
    pub image: u64,
}

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
}

unsafe extern "Rust" {
    fn guest_payload_main(entry: &Entry) -> power::End;
}

/// First byte after the image and its zeroed data.
pub fn image_end() -> u64 {
    (&raw const __image_end) as u64
}

fn capture() -> Entry {
    Entry {
        // SAFETY: nobody writes it any more.
        saved: unsafe { *guest_rt_saved.0.get() },
        cr0: cpu::cr0(),
        cr3: cpu::cr3(),
        cr4: cpu::cr4(),
        efer: cpu::rdmsr(msr::EFER),
        pat: cpu::rdmsr(msr::PAT),
        gdtr: cpu::gdtr(),
        idtr: cpu::idtr(),
        selectors: [cpu::cs(), cpu::ds(), cpu::es(), cpu::fs(), cpu::gs(), cpu::ss()],
        gs_base: cpu::rdmsr(msr::GS_BASE),
        image: (&raw const __image_start) as u64,
    }
}

#[unsafe(no_mangle)]
extern "C" fn guest_rt_start() -> ! {
    serial::init();
    let entry = capture();
    paging::activate();
    trap::activate();
    // SAFETY: `entry!` of the payload defines it with this signature.
    let end = unsafe { guest_payload_main(&entry) };
    report::done();
    power::end(end)
}

/// The 32-bit entry of an image that is linked at a fixed address: flat protected mode, paging off, as
/// PVH and the 32-bit Linux protocol start. Turns on paging with the runtime's own tables and goes to
/// the 64-bit entry with EBX and ESI kept and `$marker` in EAX.
#[macro_export]
macro_rules! entry32 {
    ($section:literal, $name:literal, $marker:literal) => {
        core::arch::global_asm!(
            concat!(".section ", $section, ", \"ax\""),
            ".code32",
            concat!(".globl ", $name),
            concat!($name, ":"),
            "mov eax, cr4",
            "or eax, 0x20",
            "mov cr4, eax",
            "mov eax, offset guest_rt_pml4",
            "mov cr3, eax",
            "mov ecx, 0xc0000080",
            "rdmsr",
            "or eax, 0x100",
            "wrmsr",
            "mov eax, cr0",
            "or eax, 0x80000000",
            "mov cr0, eax",
            "lgdt [guest_rt_gdtr]",
            concat!("mov eax, ", $marker),
            ".byte 0xea",
            ".long guest_entry64",
            ".word 0x08",
            ".code64",
            ".text",
        );
    };
}
