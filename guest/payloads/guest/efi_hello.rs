// SPDX-License-Identifier: MIT
//! The smallest EFI application: says that it runs, on the firmware's console, and powers the machine off.
//!
//! Always true: position independent and without relocations, so it runs wherever firmware puts it. Not here: the PE
//! headers around it.
#![no_std]
#![no_main]

/// What it says, as the firmware takes text.
static TEXT: [u16; LINE.len()] = {
    let mut units = [0; LINE.len()];
    let mut at = 0;
    while at < units.len() {
        units[at] = LINE[at] as u16;
        at += 1;
    }
    units
};
const LINE: &[u8] = b"efi_hello: started by firmware\r\n\0";

// UEFI 2.10 section 4.3: RDX is the system table; ConOut is at 64 with OutputString at 8, RuntimeServices at 88 with
// ResetSystem at 104; 2 is EfiResetShutdown. The stack is aligned, and 32 bytes of it are the callee's.
core::arch::global_asm!(
    ".section .entry64, \"ax\"",
    ".code64",
    ".globl guest_entry64",
    "guest_entry64:",
    "push rbx",
    "sub rsp, 32",
    "mov rbx, rdx",
    "mov rcx, [rbx + 64]",
    "lea rdx, [rip + {text}]",
    "call [rcx + 8]",
    "mov rax, [rbx + 88]",
    "mov ecx, 2",
    "xor edx, edx",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "call [rax + 104]",
    "2: hlt",
    "jmp 2b",
    ".text",
    text = sym TEXT,
);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
