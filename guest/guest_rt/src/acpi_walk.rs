// SPDX-License-Identifier: MIT
//! Follows ACPI pointers through guest memory.
//!
//! Always true: each table is checked before its pointers are followed; tables lie below 4 GiB. Not here:
//! what tables say (`acpi`).

use crate::acpi::{self, Flaw, HEADER_BYTES, Table};
use crate::memory;

/// Longest table that is believed, in bytes.
const MAX_TABLE: usize = 1 << 20;

/// The table at a gpa.
pub fn table_at(gpa: u64) -> Result<Table<'static>, Flaw> {
    if gpa == 0 || gpa >> 32 != 0 {
        return Err(Flaw::Length);
    }
    let len = acpi::u32_at(memory::bytes(gpa, HEADER_BYTES), 4).ok_or(Flaw::Short)? as usize;
    if len > MAX_TABLE {
        return Err(Flaw::Length);
    }
    Table::new(memory::bytes(gpa, len))
}

/// Visits the tables that an RSDP leads to, with the gpa of each; those with a flaw too.
pub fn walk(rsdp: u64, mut visit: impl FnMut(u64, Result<Table<'static>, Flaw>)) -> Result<usize, Flaw> {
    let xsdt = table_at(acpi::rsdp_xsdt(memory::bytes(rsdp, 36))?)?;
    if xsdt.signature() != b"XSDT" {
        return Err(Flaw::Signature);
    }
    let pointers = xsdt.bytes()[HEADER_BYTES..].chunks_exact(8);
    if !pointers.remainder().is_empty() {
        return Err(Flaw::Entry);
    }
    let count = pointers.len();
    for pointer in pointers {
        let gpa = acpi::u64_at(pointer, 0).ok_or(Flaw::Entry)?;
        visit(gpa, table_at(gpa));
    }
    Ok(count)
}

/// Where the BIOS area has an RSDP, as an OS without a hint looks for it (ACPI 5.2.5.1).
pub fn find_rsdp() -> Option<u64> {
    (0xE_0000..0x10_0000_u64).step_by(16).find(|&gpa| {
        memory::read_u64(gpa) == u64::from_le_bytes(*b"RSD PTR ")
            && acpi::rsdp_xsdt(memory::bytes(gpa, 36)).is_ok()
    })
}
