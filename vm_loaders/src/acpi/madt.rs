// SPDX-License-Identifier: MIT
//! MADT: interrupt controllers and processors (ACPI 6.5 section 5.2.12, uefi-launch 3.9).
//!
//! Always true: entries in the order I/O APIC, overrides, NMI, processors; a processor that does not
//! fit the 8-bit entry gets an x2APIC entry. Not here: GIC.

use super::hardware::{IO_APIC_GPA, LOCAL_APIC_GPA, SCI};
use super::table::{HV, Table};
use openvmm_defs::{Machine, MemoryLayout};

/// Active high, level triggered.
const LEVEL_HIGH: u16 = 0x0D;

/// The MADT. The Hyper-V machine has neither PIC nor PIT; the others have both.
pub fn madt(layout: &MemoryLayout) -> Vec<u8> {
    let legacy = layout.machine != Machine::HyperV;
    let mut table = Table::new(b"APIC", 5, &HV);
    table.u32(LOCAL_APIC_GPA).u32(u32::from(legacy));
    table.bytes(&[1, 12, 0, 0]).u32(IO_APIC_GPA).u32(0);
    interrupt_override(&mut table, SCI, SCI.into(), LEVEL_HIGH);
    if legacy {
        interrupt_override(&mut table, 0, 2, 0);
    }
    // NMI on LINT1 of the boot processor.
    table.bytes(&[4, 6, 1, 0, 0, 1]);
    for vp in 0..layout.vp_count {
        processor(&mut table, vp);
    }
    table.finish()
}

fn interrupt_override(table: &mut Table, source: u8, gsi: u32, flags: u16) {
    table
        .bytes(&[2, 10, 0, source])
        .u32(gsi)
        .bytes(&flags.to_le_bytes());
}

fn processor(table: &mut Table, apic_id: u32) {
    let uid = apic_id.saturating_add(1);
    match (u8::try_from(uid), u8::try_from(apic_id)) {
        (Ok(uid), Ok(id)) if id < 255 => table.bytes(&[0, 8, uid, id]).u32(1),
        _ => table.bytes(&[9, 16, 0, 0]).u32(apic_id).u32(1).u32(uid),
    };
}
