// SPDX-License-Identifier: MIT
//! Guest physical memory, identity mapped.
//!
//! Always true: single values are read and written volatile; a slice is taken only of memory that nobody
//! writes while it is used (tables, parameters, initrd). See the crate's first paragraph for why these
//! functions are safe to call here.

use core::ptr;

/// Bytes at a gpa.
pub fn bytes(gpa: u64, len: usize) -> &'static [u8] {
    // SAFETY: the address is mapped or traps; u8 has no invalid values; nobody writes it while it is read.
    unsafe { core::slice::from_raw_parts(ptr::with_exposed_provenance(gpa as usize), len) }
}

/// The bytes at a gpa up to a NUL, at most `limit` of them.
pub fn c_string(gpa: u64, limit: usize) -> &'static [u8] {
    let all = bytes(gpa, limit);
    let len = all.iter().position(|&byte| byte == 0).unwrap_or(limit);
    &all[..len]
}

macro_rules! volatile {
    ($read:ident, $write:ident, $type:ty) => {
        /// Reads one value, any alignment.
        pub fn $read(gpa: u64) -> $type {
            let at: *const [u8; size_of::<$type>()] = ptr::with_exposed_provenance(gpa as usize);
            if gpa as usize % align_of::<$type>() == 0 {
                // SAFETY: mapped or traps, aligned, any bit pattern is a value.
                unsafe { at.cast::<$type>().read_volatile() }
            } else {
                // SAFETY: as above; bytes have no alignment.
                <$type>::from_le_bytes(unsafe { at.read_volatile() })
            }
        }

        /// Writes one value to an aligned gpa.
        pub fn $write(gpa: u64, value: $type) {
            let at: *mut $type = ptr::with_exposed_provenance_mut(gpa as usize);
            // SAFETY: mapped or traps; the payload gives addresses of memory that it set aside.
            unsafe { at.write_volatile(value) }
        }
    };
}

volatile!(read_u8, write_u8, u8);
volatile!(read_u16, write_u16, u16);
volatile!(read_u32, write_u32, u32);
volatile!(read_u64, write_u64, u64);

/// Copies bytes to a gpa.
pub fn write(gpa: u64, bytes: &[u8]) {
    let to: *mut u8 = ptr::with_exposed_provenance_mut(gpa as usize);
    // SAFETY: as for `write_u64`; a slice of Rust's and memory that the payload set aside do not overlap.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
}
