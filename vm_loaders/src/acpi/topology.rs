// SPDX-License-Identifier: MIT
//! SRAT, SLIT and PPTT: which processors and memory belong together (ACPI 6.5 sections 5.2.16, 5.2.17,
//! 5.2.30).
//!
//! Always true: one proximity domain and one socket, because a layout has no more; one thread per core.
//! Not here: caches, which would be the host's.

use super::table::{HV, Table};
use openvmm_defs::MemoryLayout;

/// Memory or processor entry is in use.
const ENABLED: u32 = 1;

/// The SRAT: an entry per VP and per RAM range.
pub fn srat(layout: &MemoryLayout) -> Vec<u8> {
    let mut table = Table::new(b"SRAT", 3, &HV);
    table.u32(1).u64(0);
    for apic_id in 0..layout.vp_count {
        match u8::try_from(apic_id) {
            Ok(id) if id < 255 => table.bytes(&[0, 16, 0, id]).u32(ENABLED).u64(0),
            _ => table
                .bytes(&[2, 24, 0, 0])
                .u32(0)
                .u32(apic_id)
                .u32(ENABLED)
                .u64(0),
        };
    }
    for range in layout.ram.iter().filter(|range| !range.is_empty()) {
        table.bytes(&[1, 40]).u32(0).bytes(&[0; 2]);
        table.u64(range.gpa).u64(range.len).u32(0).u32(ENABLED).u64(0);
    }
    table.finish()
}

/// The SLIT of one proximity domain, which is at distance 10 from itself. Only for guests that ask for
/// the table by name: a blob carries it only when distances are configured.
pub fn slit() -> Vec<u8> {
    let mut table = Table::new(b"SLIT", 1, &HV);
    table.u64(1).bytes(&[10]);
    table.finish()
}

/// The PPTT: one package, a leaf per VP.
pub fn pptt(layout: &MemoryLayout) -> Vec<u8> {
    const PHYSICAL_PACKAGE: u32 = 1;
    const UID_VALID: u32 = 2;
    const LEAF: u32 = 8;
    let mut table = Table::new(b"PPTT", 1, &HV);
    let package = table.position() as u32;
    node(&mut table, PHYSICAL_PACKAGE, 0, 0);
    for vp in 0..layout.vp_count {
        node(&mut table, UID_VALID | LEAF, package, vp.saturating_add(1));
    }
    table.finish()
}

/// A processor hierarchy node without private resources; `parent` is an offset in the table.
fn node(table: &mut Table, flags: u32, parent: u32, uid: u32) {
    table.bytes(&[0, 20, 0, 0]).u32(flags).u32(parent).u32(uid).u32(0);
}
