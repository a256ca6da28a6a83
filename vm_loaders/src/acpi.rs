// SPDX-License-Identifier: MIT
//! ACPI tables from the memory layout: for the UEFI blob, for IGVM parameters, and a whole set for
//! guests that get no firmware (uefi-launch 3.9, ovmf-machine 2.2).
//!
//! Always true: a table's length field and checksum are right; processor UIDs are VP index + 1 and
//! APIC ids are VP indices in every table; all of RAM is in proximity domain 0, as the layout has one.
//! Not here: where a set goes in memory, tables that firmware brings itself (FADT and DSDT of UEFI),
//! fw_cfg itself.

mod dsdt;
mod madt;
mod q35;
mod root_complex;
mod set;
mod table;
mod topology;

pub use madt::madt;
pub use q35::{FwCfgTables, Q35Facts, q35_tables};
pub use root_complex::{mcfg, ssdt};
pub use set::{AcpiSet, SetError, hardware, linux_set};
pub use table::{ACPI_HEADER_BYTES, checksum};
pub use topology::{pptt, slit, srat};

use openvmm_defs::MemoryLayout;

/// The tables of the UEFI configuration blob, in emission order (uefi-launch 3.3).
pub fn uefi_tables(layout: &MemoryLayout) -> Vec<Vec<u8>> {
    let mut tables = vec![madt(layout), srat(layout)];
    tables.extend(mcfg(layout));
    tables.extend(ssdt(layout));
    tables
}

#[cfg(test)]
mod tests;
