// SPDX-License-Identifier: MIT
//! Instructions that fault, for `trap::catch`.
//!
//! Always true: a fault at the instruction named, with nothing changed before it.

use core::arch::asm;

/// An address that the runtime's page tables do not map.
pub const UNMAPPED: u64 = 0x1_4000_0000;

macro_rules! faulting {
    ($(#[$doc:meta])* $name:ident: $($instruction:literal),+) => {
        $(#[$doc])*
        pub extern "C" fn $name() {
            // SAFETY: faults before it does anything; the caller catches it.
            unsafe {
                asm!($($instruction),+, out("rax") _, out("rdx") _, options(nostack));
            }
        }
    };
}

faulting!(
    /// #DE.
    divide_by_zero: "xor eax, eax", "xor edx, edx", "div edx"
);
faulting!(
    /// #BP.
    breakpoint: "int3"
);
faulting!(
    /// #UD.
    invalid_opcode: "ud2"
);
faulting!(
    /// #GP with error code 0.
    non_canonical_read: "mov rax, 0x8000000000000000", "mov rax, [rax]"
);
faulting!(
    /// #PF, a read of [`UNMAPPED`].
    unmapped_read: "mov rax, 0x140000000", "mov rax, [rax]"
);
faulting!(
    /// #PF, a write to [`UNMAPPED`].
    unmapped_write: "mov rax, 0x140000000", "mov [rax], rax"
);

/// An AVX instruction with AVX off: #UD on a real processor, and beyond every emulator of ring 0.
pub fn unhandled_instruction() {
    // SAFETY: faults; nothing here uses the register that it would change.
    unsafe { asm!("vaddps ymm0, ymm1, ymm2", options(nomem, nostack)) };
}
