// SPDX-License-Identifier: MIT
//! Bytes from tables, shown in a line.
//!
//! Always true: prints printable ASCII and nothing that could break a report line.

use core::fmt::{self, Write};

/// Bytes as text; what is not printable ASCII becomes `\xNN`.
#[derive(Debug, Clone, Copy)]
pub struct Ascii<'a>(pub &'a [u8]);

impl fmt::Display for Ascii<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&byte| match byte {
            b'\\' => f.write_str("\\\\"),
            0x20..=0x7E => f.write_char(char::from(byte)),
            _ => write!(f, "\\x{byte:02x}"),
        })
    }
}

/// A GUID in its wire form (mixed endian), in the usual notation.
#[derive(Debug, Clone, Copy)]
pub struct Guid<'a>(pub &'a [u8; 16]);

impl fmt::Display for Guid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        for (at, &from) in ORDER.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_char('-')?;
            }
            write!(f, "{:02x}", self.0[from])?;
        }
        Ok(())
    }
}
