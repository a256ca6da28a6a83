// SPDX-License-Identifier: MIT
//! SMBIOS structures of the machine: system, chassis, processors, memory (DMTF DSP0134 3.7).
//!
//! Always true: structures have ascending types and unique handles and end with type 127; strings are
//! those that a guest without asset management would show. Type 0 (firmware) is left to the firmware.
//! Not here: how the structures reach the guest (fw_cfg), what Microsoft's UEFI makes itself.

use openvmm_defs::{GpaRange, MemoryLayout};
use uuid::Uuid;

/// Anchor and structures, as two fw_cfg files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smbios {
    /// The 3.0 entry point; its address of the structures is filled in by firmware.
    pub anchor: Vec<u8>,
    /// The structures.
    pub tables: Vec<u8>,
}

impl Smbios {
    /// Name of the file with the anchor.
    pub const ANCHOR: &'static str = "etc/smbios/smbios-anchor";
    /// Name of the file with the structures.
    pub const TABLES: &'static str = "etc/smbios/smbios-tables";
}

const MANUFACTURER: &str = "openvmm";
const PRODUCT: &str = "OVMF machine";
/// "Unknown" and "none of these" in one-byte enumerations.
const UNKNOWN: u8 = 2;
const OTHER: u8 = 1;
/// Handles by type, in the usual style: type times 0x100, then counted.
const CHASSIS: u16 = 0x300;
const PROCESSOR: u16 = 0x400;
const ARRAY: u16 = 0x1000;
const MEMORY: u16 = 0x1100;
const MAPPED: u16 = 0x1300;
/// Size field of a memory device: the size is in the extended field.
const EXTENDED_SIZE: u16 = 0x7FFF;
/// The extended size field has 31 bits of MiB.
const MOST_MIB: u64 = 0x7FFF_FFFF;

/// The structures for `layout`; `uuid` names the system.
pub fn build(layout: &MemoryLayout, uuid: Uuid) -> Smbios {
    let mut tables = Vec::new();
    system(&mut tables, uuid);
    chassis(&mut tables);
    for vp in 0..layout.vp_count.min(0xFF) {
        processor(&mut tables, vp as u16);
    }
    memory(&mut tables, layout);
    Structure::new(32, 0x2000).bytes(&[0; 7]).end(&mut tables, &[]);
    Structure::new(127, 0x7F00).end(&mut tables, &[]);
    Smbios {
        anchor: anchor(tables.len() as u32),
        tables,
    }
}

/// The 64-bit entry point (section 5.2.2).
fn anchor(len: u32) -> Vec<u8> {
    let mut bytes = b"_SM3_".to_vec();
    // Checksum, length, version 3.0 of the specification's structures, revision of the entry point.
    bytes.extend_from_slice(&[0, 24, 3, 0, 0, 1, 0]);
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes[5] = crate::acpi::checksum(&bytes);
    bytes
}

/// A structure being built: header, then its formatted part.
struct Structure(Vec<u8>);

impl Structure {
    fn new(kind: u8, handle: u16) -> Self {
        let [low, high] = handle.to_le_bytes();
        Self(vec![kind, 0, low, high])
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Closes the formatted part and appends the strings, numbered from 1.
    fn end(mut self, tables: &mut Vec<u8>, strings: &[&str]) {
        self.0[1] = self.0.len() as u8;
        tables.extend(self.0);
        for string in strings {
            tables.extend_from_slice(string.as_bytes());
            tables.push(0);
        }
        if strings.is_empty() {
            tables.push(0);
        }
        tables.push(0);
    }
}

/// Type 1. The first three fields of the UUID are little-endian.
fn system(tables: &mut Vec<u8>, uuid: Uuid) {
    const POWER_SWITCH: u8 = 6;
    Structure::new(1, 0x100)
        .bytes(&[1, 2, 0, 0])
        .bytes(&uuid.to_bytes_le())
        .bytes(&[POWER_SWITCH, 0, 0])
        .end(tables, &[MANUFACTURER, PRODUCT]);
}

/// Type 3.
fn chassis(tables: &mut Vec<u8>) {
    const SAFE: u8 = 3;
    Structure::new(3, CHASSIS)
        .bytes(&[1, OTHER, 0, 0, 0, SAFE, SAFE, SAFE, UNKNOWN])
        .u32(0)
        .bytes(&[0, 0, 0, 0, 0])
        .end(tables, &[MANUFACTURER]);
}

/// Type 4: a socket with one core.
fn processor(tables: &mut Vec<u8>, vp: u16) {
    const CENTRAL: u8 = 3;
    const POPULATED_AND_ENABLED: u8 = 0x41;
    const CAPABLE_OF_64_BITS: u16 = 1 << 2;
    let socket = format!("CPU {vp}");
    Structure::new(4, PROCESSOR + vp)
        .bytes(&[1, CENTRAL, OTHER, 2])
        .u64(0)
        .bytes(&[0, 0])
        // External clock, maximum and current speed: unknown.
        .u16(0)
        .u16(0)
        .u16(0)
        .bytes(&[POPULATED_AND_ENABLED, OTHER])
        // No cache structures.
        .u16(0xFFFF)
        .u16(0xFFFF)
        .u16(0xFFFF)
        .bytes(&[0, 0, 0])
        // Cores, enabled cores, threads.
        .bytes(&[1, 1, 1])
        .u16(CAPABLE_OF_64_BITS)
        // Processor family 2: other.
        .u16(OTHER.into())
        .end(tables, &[&socket, MANUFACTURER]);
}

/// Types 16, 17 and 19.
fn memory(tables: &mut Vec<u8>, layout: &MemoryLayout) {
    const SYSTEM_BOARD: u8 = 3;
    const SYSTEM_MEMORY: u8 = 3;
    const MULTI_BIT_ECC: u8 = 6;
    const NO_ERROR_INFORMATION: u16 = 0xFFFE;
    const DIMM: u8 = 9;
    const RAM: u8 = 7;
    Structure::new(16, ARRAY)
        .bytes(&[SYSTEM_BOARD, SYSTEM_MEMORY, MULTI_BIT_ECC])
        // The capacity is in the extended field.
        .u32(0x8000_0000)
        .u16(NO_ERROR_INFORMATION)
        .u16(1)
        .u64(layout.ram_size())
        .end(tables, &[]);
    let mib = (layout.ram_size() >> 20).min(MOST_MIB);
    let (short, extended) = match u16::try_from(mib) {
        Ok(mib) if mib < EXTENDED_SIZE => (mib, 0),
        _ => (EXTENDED_SIZE, mib as u32),
    };
    Structure::new(17, MEMORY)
        .u16(ARRAY)
        .u16(NO_ERROR_INFORMATION)
        // Total and data width unknown.
        .u16(0xFFFF)
        .u16(0xFFFF)
        .u16(short)
        .bytes(&[DIMM, 0, 1, 0, RAM])
        .u16(1 << 1)
        .u16(0)
        .bytes(&[2, 0, 0, 0, 0])
        .u32(extended)
        .u16(0)
        .u16(0)
        .u16(0)
        .u16(0)
        .end(tables, &["DIMM 0", MANUFACTURER]);
    for (i, range) in (0..).zip(&layout.ram) {
        mapped(tables, MAPPED + i, range);
    }
}

/// Type 19, with 64-bit addresses.
fn mapped(tables: &mut Vec<u8>, handle: u16, range: &GpaRange) {
    Structure::new(19, handle)
        .u32(0xFFFF_FFFF)
        .u32(0xFFFF_FFFF)
        .u16(ARRAY)
        .bytes(&[1])
        .u64(range.gpa)
        .u64(range.end() - 1)
        .end(tables, &[]);
}

#[cfg(test)]
mod tests;
