// SPDX-License-Identifier: MIT
//! The smallest payload: one byte to COM1, then the test-exit port.
//!
//! Always true: the same bytes run in 32-bit and in 64-bit mode, without a stack and without memory, so
//! that a start-up benchmark measures the VMM and nothing else. Not here: setting up the port.
#![no_std]
#![no_main]

// 32-bit code on purpose: none of these instructions differs in 64-bit mode.
core::arch::global_asm!(
    ".section .entry32, \"ax\"",
    ".code32",
    ".globl guest_entry32",
    "guest_entry32:",
    "mov edx, 0x3f8",
    "mov al, 0x21",
    "out dx, al",
    "xor eax, eax",
    "mov edx, 0xf4",
    "out dx, eax",
    "2: hlt",
    "jmp 2b",
    ".section .entry64, \"ax\"",
    ".globl guest_entry64",
    "guest_entry64:",
    "jmp guest_entry32",
    ".code64",
    // PVH: {name size, descriptor size, type 18, "Xen", 32-bit entry}.
    ".section .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long guest_entry32",
    ".text",
);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
