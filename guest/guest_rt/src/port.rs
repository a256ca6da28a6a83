// SPDX-License-Identifier: MIT
//! Port I/O.
//!
//! Always true: one instruction per call. Not here: what the ports mean (`guest_protocol::ports`).

use core::arch::asm;

macro_rules! port {
    ($read:ident, $write:ident, $type:ty, $register:tt) => {
        /// IN.
        pub fn $read(port: u16) -> $type {
            let value: $type;
            // SAFETY: a port read touches no memory of ours; the devices that do DMA are not driven here.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }

        /// OUT.
        pub fn $write(port: u16, value: $type) {
            // SAFETY: as for the read.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                    options(nomem, nostack, preserves_flags));
            }
        }
    };
}

port!(read_u8, write_u8, u8, "al");
port!(read_u16, write_u16, u16, "ax");
port!(read_u32, write_u32, u32, "eax");
