// SPDX-License-Identifier: MIT
//! Reads a configuration blob by the firmware's rules (uefi-launch 3.5-3.8) and names the rule that a
//! bad blob breaks.
//!
//! Always true: what the firmware would refuse is refused here, with the offset; what it ignores
//! (unknown types, bytes behind the declared total) is ignored. One rule is stricter than the
//! firmware's: a memory map with a partial entry is refused, where the firmware drops the rest.
//! The parser never allocates more than the blob is long.

use super::format::{
    ACPI_HEADER_BYTES, ALIGNMENT, APERTURE_BYTES, ENTROPY_BYTES, HEADER_BYTES, LEGACY_MEMORY_ENTRY_BYTES,
    MEMORY_ENTRY_BYTES, Payload, REQUIRED, describe, flags, types,
};
use std::fmt;
use uuid::Uuid;

/// Page number of 4 GiB.
const FOUR_GIB_PAGE: u64 = 0x10_0000;

/// A rule that the blob breaks; the firmware would crash on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum RuleError {
    #[error("config blob offset {offset:#x}: {have} bytes where the declared total is {total} bytes")]
    Truncated {
        offset: usize,
        have: usize,
        total: usize,
    },
    #[error("config blob offset 0x0: the first structure has type {0:#x}; it must be StructureCount (0x0)")]
    CountNotFirst(u32),
    #[error("config blob offset 0x8: the structure count is {0}; it must be above 1")]
    CountTooSmall(u32),
    #[error(
        "config blob offset {offset:#x}: {name} has length {len}; it must be a multiple of 8 and above 8"
    )]
    Length {
        offset: usize,
        name: &'static str,
        len: u32,
    },
    #[error("config blob offset {offset:#x}: {name} has length {len}; it must be {expected}")]
    FixedLength {
        offset: usize,
        name: &'static str,
        len: u32,
        expected: u32,
    },
    #[error("config blob offset {offset:#x}: {name} of {len} bytes passes the declared total of {total}")]
    PassesTotal {
        offset: usize,
        name: &'static str,
        len: usize,
        total: usize,
    },
    #[error("config blob offset {offset:#x}: {name} holds {have} bytes; an ACPI table has at least 36")]
    AcpiShort {
        offset: usize,
        name: &'static str,
        have: usize,
    },
    #[error(
        "config blob offset {offset:#x}: the ACPI table's length field {declared} exceeds its {have} bytes"
    )]
    AcpiLength {
        offset: usize,
        declared: usize,
        have: usize,
    },
    #[error("the config blob lacks {0}, which the firmware requires")]
    Missing(&'static str),
    #[error("the config blob's structures end at {end} bytes; the declared total is {total}")]
    TotalMismatch { end: usize, total: usize },
    #[error("config blob offset {offset:#x}: {field} is zero")]
    ZeroProcessors { offset: usize, field: &'static str },
    #[error(
        "config blob offset {offset:#x}: the low MMIO range at page {first:#x} of {count:#x} pages must end at or below 4 GiB"
    )]
    LowMmio { offset: usize, first: u64, count: u64 },
    #[error(
        "config blob offset {offset:#x}: the high MMIO range at page {first:#x} of {count:#x} pages must start at or above 4 GiB and not wrap"
    )]
    HighMmio { offset: usize, first: u64, count: u64 },
    #[error(
        "config blob offset {offset:#x}: PCIe apertures of {bytes} bytes are not one or more entries of 40 bytes"
    )]
    ApertureLength { offset: usize, bytes: usize },
    #[error(
        "config blob offset {offset:#x}: PCIe aperture {index} has last bus {end} below first bus {start}"
    )]
    ApertureBuses {
        offset: usize,
        index: usize,
        start: u8,
        end: u8,
    },
    #[error(
        "config blob offset {offset:#x}: a memory map of {bytes} bytes is not whole entries of {entry} bytes"
    )]
    MemoryMapLength {
        offset: usize,
        bytes: usize,
        entry: usize,
    },
}

/// One structure as it stands in the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Structure<'a> {
    /// Byte offset of the type field.
    pub offset: usize,
    /// Structure type.
    pub structure_type: u32,
    /// Payload with its padding.
    pub payload: &'a [u8],
}

impl Structure<'_> {
    /// The type's name.
    pub fn name(&self) -> &'static str {
        describe(self.structure_type).0
    }
}

/// A memory map entry in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEntry {
    /// First byte.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
    /// 0 RAM, 1 platform reserved, 2 persistent, 4 specific purpose.
    pub flags: u32,
}

/// ProcessorInformation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processors {
    /// Highest possible count.
    pub max: u32,
    /// Count.
    pub count: u32,
    /// VPs per virtual socket.
    pub per_socket: u32,
    /// Threads per core.
    pub threads_per_core: u32,
}

/// An MMIO range in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MmioRange {
    /// First page number.
    pub first_page: u64,
    /// Page count; 0 is empty.
    pub page_count: u64,
}

/// A PCIe aperture entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aperture {
    /// PCI segment.
    pub segment: u16,
    /// First and last bus.
    pub buses: (u8, u8),
    /// Host bridge `_UID`.
    pub uid: u32,
    /// Low window: base and length in bytes.
    pub low: (u64, u64),
    /// High window: base and length in bytes.
    pub high: (u64, u64),
}

/// A blob that keeps every rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigBlob<'a> {
    /// Every structure in order, the count structure first.
    pub structures: Vec<Structure<'a>>,
    /// Declared total length in bytes.
    pub total: usize,
    /// Firmware image size in pages, as BiosInformation says.
    pub image_pages: u32,
    /// Memory map.
    pub memory_map: Vec<MemoryEntry>,
    /// Entropy.
    pub entropy: &'a [u8],
    /// BIOS GUID.
    pub bios_guid: Uuid,
    /// Flags, see [`flags`].
    pub flags: u64,
    /// Processors.
    pub processors: Processors,
    /// Low MMIO gap.
    pub low_mmio: MmioRange,
    /// High MMIO gap.
    pub high_mmio: MmioRange,
    /// ACPI tables, cut to their own length fields.
    pub acpi_tables: Vec<&'a [u8]>,
    /// SMBIOS strings by structure type, without terminator; a missing terminator cuts the last byte off,
    /// as the firmware does.
    pub smbios: Vec<(u32, &'a [u8])>,
    /// PCIe apertures.
    pub apertures: Vec<Aperture>,
}

/// Reads a blob; the first broken rule is the error.
pub fn parse(bytes: &[u8]) -> Result<ConfigBlob<'_>, RuleError> {
    let (structures, total) = walk(bytes)?;
    let [bios, memory, entropy, guid, flag_bits, processors, mmio] = required(&structures)?;
    let image_pages = le32(bios.payload, 0);
    let legacy_map = le32(bios.payload, 4) & 1 != 0;
    let memory_map = parse_memory_map(&memory, legacy_map)?;
    let processors = parse_processors(&processors)?;
    let (low_mmio, high_mmio) = parse_mmio(&mmio)?;
    let mut blob = ConfigBlob {
        total,
        image_pages,
        memory_map,
        entropy: &entropy.payload[..ENTROPY_BYTES],
        bios_guid: parse_guid(guid.payload),
        flags: le64(flag_bits.payload, 0),
        processors,
        low_mmio,
        high_mmio,
        acpi_tables: Vec::new(),
        smbios: Vec::new(),
        apertures: Vec::new(),
        structures: Vec::new(),
    };
    for structure in &structures {
        match describe(structure.structure_type).1 {
            Payload::AcpiTable => blob.acpi_tables.push(parse_acpi(structure)?),
            Payload::Text => blob
                .smbios
                .push((structure.structure_type, parse_text(structure.payload))),
            _ if structure.structure_type == types::PCIE_BAR_APERTURES => {
                blob.apertures = parse_apertures(structure)?;
            }
            _ => {}
        }
    }
    blob.structures = structures;
    Ok(blob)
}

/// Walks the declared number of structures and checks framing and fixed lengths.
fn walk(bytes: &[u8]) -> Result<(Vec<Structure<'_>>, usize), RuleError> {
    if bytes.len() < 2 * HEADER_BYTES {
        return Err(RuleError::Truncated {
            offset: 0,
            have: bytes.len(),
            total: 2 * HEADER_BYTES,
        });
    }
    let first = le32(bytes, 0);
    if first != types::STRUCTURE_COUNT {
        return Err(RuleError::CountNotFirst(first));
    }
    let (count, total) = (le32(bytes, 8), le32(bytes, 12) as usize);
    if count <= 1 {
        return Err(RuleError::CountTooSmall(count));
    }
    let Some(bytes) = bytes.get(..total) else {
        let have = bytes.len();
        return Err(RuleError::Truncated {
            offset: 0,
            have,
            total,
        });
    };
    let mut structures = Vec::new();
    let mut offset = 0;
    for _ in 0..count {
        let structure = structure_at(bytes, offset)?;
        offset += HEADER_BYTES + structure.payload.len();
        structures.push(structure);
    }
    if offset != total {
        return Err(RuleError::TotalMismatch { end: offset, total });
    }
    Ok((structures, total))
}

fn structure_at(bytes: &[u8], offset: usize) -> Result<Structure<'_>, RuleError> {
    let total = bytes.len();
    if total - offset < HEADER_BYTES {
        return Err(RuleError::PassesTotal {
            offset,
            name: "a structure header",
            len: HEADER_BYTES,
            total,
        });
    }
    let (structure_type, len) = (le32(bytes, offset), le32(bytes, offset + 4));
    let (name, payload) = describe(structure_type);
    let size = len as usize;
    if !size.is_multiple_of(ALIGNMENT) || size <= HEADER_BYTES {
        return Err(RuleError::Length { offset, name, len });
    }
    match payload {
        Payload::Fixed(expected) if expected != len => {
            return Err(RuleError::FixedLength {
                offset,
                name,
                len,
                expected,
            });
        }
        _ => {}
    }
    let payload = offset
        .checked_add(size)
        .and_then(|end| bytes.get(offset + HEADER_BYTES..end))
        .ok_or(RuleError::PassesTotal {
            offset,
            name,
            len: size,
            total,
        })?;
    Ok(Structure {
        offset,
        structure_type,
        payload,
    })
}

/// The required structures in the order of [`REQUIRED`]; of a repeated one, the last counts.
fn required<'a>(structures: &[Structure<'a>]) -> Result<[Structure<'a>; 7], RuleError> {
    let mut found = [structures[0]; 7];
    for (slot, wanted) in found.iter_mut().zip(REQUIRED) {
        *slot = *structures
            .iter()
            .rev()
            .find(|s| s.structure_type == wanted)
            .ok_or(RuleError::Missing(describe(wanted).0))?;
    }
    Ok(found)
}

fn parse_memory_map(structure: &Structure<'_>, legacy: bool) -> Result<Vec<MemoryEntry>, RuleError> {
    let entry = if legacy {
        LEGACY_MEMORY_ENTRY_BYTES
    } else {
        MEMORY_ENTRY_BYTES
    };
    let (offset, bytes) = (structure.offset, structure.payload.len());
    if !bytes.is_multiple_of(entry) {
        return Err(RuleError::MemoryMapLength { offset, bytes, entry });
    }
    let entries = structure.payload.chunks_exact(entry).map(|entry| MemoryEntry {
        gpa: le64(entry, 0),
        len: le64(entry, 8),
        flags: if legacy { 0 } else { le32(entry, 16) },
    });
    Ok(entries.collect())
}

fn parse_processors(structure: &Structure<'_>) -> Result<Processors, RuleError> {
    let processors = Processors {
        max: le32(structure.payload, 0),
        count: le32(structure.payload, 4),
        per_socket: le32(structure.payload, 8),
        threads_per_core: le32(structure.payload, 12),
    };
    let fields = [
        ("processor count", processors.count),
        ("processors per socket", processors.per_socket),
        ("threads per core", processors.threads_per_core),
    ];
    match fields.iter().find(|(_, value)| *value == 0) {
        Some(&(field, _)) => Err(RuleError::ZeroProcessors {
            offset: structure.offset,
            field,
        }),
        None => Ok(processors),
    }
}

/// Tells low from high as the firmware does and checks both (uefi-launch 3.7).
fn parse_mmio(structure: &Structure<'_>) -> Result<(MmioRange, MmioRange), RuleError> {
    let offset = structure.offset;
    let range = |at| MmioRange {
        first_page: le64(structure.payload, at),
        page_count: le64(structure.payload, at + 8),
    };
    let (first, second) = (range(0), range(16));
    let first_is_high = first.first_page >= FOUR_GIB_PAGE && first.page_count != 0;
    let (low, high) = if first_is_high {
        (second, first)
    } else {
        (first, second)
    };
    let low_end = low.first_page.checked_add(low.page_count);
    let low_fits = low.page_count <= FOUR_GIB_PAGE && low_end.is_some_and(|end| end <= FOUR_GIB_PAGE);
    if !low_fits {
        let (first, count) = (low.first_page, low.page_count);
        return Err(RuleError::LowMmio { offset, first, count });
    }
    let high_end = high.first_page.checked_add(high.page_count);
    let high_fits = high.page_count == 0
        || high.first_page >= FOUR_GIB_PAGE && high_end.is_some_and(|end| end <= u64::MAX >> 12);
    if !high_fits {
        let (first, count) = (high.first_page, high.page_count);
        return Err(RuleError::HighMmio { offset, first, count });
    }
    Ok((low, high))
}

fn parse_acpi<'a>(structure: &Structure<'a>) -> Result<&'a [u8], RuleError> {
    let (offset, have) = (structure.offset, structure.payload.len());
    if have < ACPI_HEADER_BYTES {
        let name = structure.name();
        return Err(RuleError::AcpiShort { offset, name, have });
    }
    let declared = le32(structure.payload, 4) as usize;
    structure.payload.get(..declared).ok_or(RuleError::AcpiLength {
        offset,
        declared,
        have,
    })
}

fn parse_text(payload: &[u8]) -> &[u8] {
    let end = payload
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(payload.len() - 1);
    &payload[..end]
}

fn parse_apertures(structure: &Structure<'_>) -> Result<Vec<Aperture>, RuleError> {
    let (offset, bytes) = (structure.offset, structure.payload.len());
    if bytes == 0 || !bytes.is_multiple_of(APERTURE_BYTES) {
        return Err(RuleError::ApertureLength { offset, bytes });
    }
    let mut apertures = Vec::with_capacity(bytes / APERTURE_BYTES);
    for (index, entry) in structure.payload.chunks_exact(APERTURE_BYTES).enumerate() {
        let (start, end) = (entry[2], entry[3]);
        if end < start {
            return Err(RuleError::ApertureBuses {
                offset,
                index,
                start,
                end,
            });
        }
        apertures.push(Aperture {
            segment: u16::from_le_bytes([entry[0], entry[1]]),
            buses: (start, end),
            uid: le32(entry, 4),
            low: (le64(entry, 8), le64(entry, 16)),
            high: (le64(entry, 24), le64(entry, 32)),
        });
    }
    Ok(apertures)
}

fn parse_guid(payload: &[u8]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&payload[..16]);
    Uuid::from_bytes_le(bytes)
}

/// Little-endian u32 at `at`; callers have checked the length.
fn le32(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

impl ConfigBlob<'_> {
    /// Console mode: 0 default, 1 COM1, 2 COM2, 3 none.
    pub fn console_mode(&self) -> u8 {
        (self.flags >> flags::CONSOLE_SHIFT & 3) as u8
    }

    /// Memory protection: 0 off, 1 default, 2 strict, 3 relaxed.
    pub fn memory_protection(&self) -> u8 {
        (self.flags >> flags::MEMORY_PROTECTION_SHIFT & 3) as u8
    }
}

impl fmt::Display for ConfigBlob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "config blob: {} structures, {:#x} bytes",
            self.structures.len(),
            self.total
        )?;
        writeln!(
            f,
            "  image pages {:#x}, bios guid {}",
            self.image_pages, self.bios_guid
        )?;
        for entry in &self.memory_map {
            let end = entry.gpa.saturating_add(entry.len);
            writeln!(f, "  memory {:#x}..{end:#x} flags {:#x}", entry.gpa, entry.flags)?;
        }
        for (name, range) in [("low", self.low_mmio), ("high", self.high_mmio)] {
            let first = range.first_page << 12;
            let end = first.saturating_add(range.page_count << 12);
            writeln!(f, "  {name} mmio {first:#x}..{end:#x}")?;
        }
        let p = &self.processors;
        writeln!(
            f,
            "  processors {} of {}, {} per socket, {} threads per core",
            p.count, p.max, p.per_socket, p.threads_per_core
        )?;
        let names: Vec<&str> = flags::NAMES
            .iter()
            .filter(|(bit, _)| self.flags & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        writeln!(
            f,
            "  flags {:#x}: {}; console mode {}, memory protection {}",
            self.flags,
            names.join(" "),
            self.console_mode(),
            self.memory_protection()
        )?;
        for (structure_type, text) in &self.smbios {
            let name = describe(*structure_type).0;
            writeln!(f, "  {name} {:?}", String::from_utf8_lossy(text))?;
        }
        for table in &self.acpi_tables {
            let signature = String::from_utf8_lossy(&table[..table.len().min(4)]);
            writeln!(f, "  acpi table {signature} of {:#x} bytes", table.len())?;
        }
        for a in &self.apertures {
            writeln!(
                f,
                "  pcie aperture segment {} buses {}-{} uid {} low {:#x}+{:#x} high {:#x}+{:#x}",
                a.segment, a.buses.0, a.buses.1, a.uid, a.low.0, a.low.1, a.high.0, a.high.1
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
