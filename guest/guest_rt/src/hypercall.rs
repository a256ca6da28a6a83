// SPDX-License-Identifier: MIT
//! Calls into a page of the hypervisor's code (Hypervisor Top Level Functional Specification, "Hypercall
//! interface").
//!
//! Always true: nothing but the registers named is handed over. Not here: what calls exist.

use core::arch::asm;

/// Calls into the hypercall page at `page`: the result, and whether RCX, RDX and R8 came back as they were.
pub fn call(page: u64, control: u64, input: u64, output: u64) -> (u64, bool) {
    let (result, rcx, rdx, r8): (u64, u64, u64, u64);
    // SAFETY: the page holds the hypervisor's code; it returns with the stack as it was.
    unsafe {
        asm!("call {page}", page = in(reg) page,
            inout("rcx") control => rcx, inout("rdx") input => rdx, inout("r8") output => r8,
            out("rax") result);
    }
    (result, (rcx, rdx, r8) == (control, input, output))
}
