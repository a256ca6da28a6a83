// SPDX-License-Identifier: MIT
//! The real-mode part of `boot_probe`'s bzImage.
//!
//! Always true: says on COM1 that it was entered in the one way that the probe does not support, and ends
//! through the test-exit port with a failure; position independent, at most 1 KiB. Not here: BIOS calls.
#![no_std]
#![no_main]

core::arch::global_asm!(
    ".section .entry32, \"ax\"",
    ".code16",
    "cli",
    "cld",
    // The call leaves the text's address on the stack that the loader gave.
    "call 2f",
    ".asciz \"panic: boot_probe has no real-mode entry; use the 64-bit or 32-bit one\\r\\n\"",
    "2: pop si",
    "mov dx, 0x3f8",
    "3: cs lodsb",
    "test al, al",
    "jz 4f",
    "out dx, al",
    "jmp 3b",
    "4: mov eax, 1",
    "mov dx, 0xf4",
    "out dx, eax",
    "5: hlt",
    "jmp 5b",
    ".code64",
    ".section .entry64, \"ax\"",
    ".globl guest_entry64",
    "guest_entry64:",
    "ud2",
    ".text",
);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
