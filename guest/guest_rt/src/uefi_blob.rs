// SPDX-License-Identifier: MIT
//! The UEFI configuration blob, read by the firmware's strict rules (uefi-launch 3.8).
//!
//! Always true: what the firmware would fail fast on is an error here, under its own name; unknown types
//! that are well formed are skipped, as the firmware does. No memory access of its own, so host tests run
//! it too. Written from the rules alone, apart from the host's builder and re-parser, so that a mistake in
//! one is not repeated in the other. Not here: printing.

use crate::acpi::{Flaw, Table, u16_at, u32_at, u64_at};

/// Why the firmware would refuse a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The blob does not begin with a structure count of more than 1.
    NoCount,
    /// A length that is not above 8 or not a multiple of 8.
    Length(u32),
    /// A length that is not the one that the type demands.
    FixedLength(u32),
    /// A structure that passes the declared total.
    PastTotal(u32),
    /// The structures do not add up to the declared total, or their number to the declared count.
    Total,
    /// A table structure whose table is not whole.
    AcpiTable(Flaw),
    /// A count in ProcessorInformation is 0.
    Processors,
    /// An MMIO range on the wrong side of 4 GiB, or not exactly two of them.
    Mmio,
    /// Apertures that are not a positive number of whole entries with ordered buses.
    Apertures,
    /// A memory map that is not made of whole entries.
    MemoryMap,
    /// Not all of the seven required structures; the mask of those found.
    Missing(u32),
}

/// Structure types that are printed or required.
#[allow(missing_docs)]
pub mod types {
    pub const COUNT: u32 = 0x00;
    pub const BIOS_INFORMATION: u32 = 0x01;
    pub const SRAT: u32 = 0x02;
    pub const MEMORY_MAP: u32 = 0x03;
    pub const ENTROPY: u32 = 0x04;
    pub const BIOS_GUID: u32 = 0x05;
    pub const CHASSIS_ASSET_TAG: u32 = 0x09;
    pub const FLAGS: u32 = 0x12;
    pub const PROCESSORS: u32 = 0x13;
    pub const MMIO: u32 = 0x14;
    pub const ACPI_TABLE: u32 = 0x16;
    pub const MADT: u32 = 0x18;
    pub const APERTURES: u32 = 0x28;
}

const REQUIRED: [u32; 7] = [
    types::BIOS_INFORMATION,
    types::MEMORY_MAP,
    types::ENTROPY,
    types::BIOS_GUID,
    types::FLAGS,
    types::PROCESSORS,
    types::MMIO,
];

/// One structure: where it is, and what.
#[derive(Debug, Clone, Copy)]
pub struct Structure<'a> {
    /// Offset of its header from the start of the blob.
    pub offset: usize,
    /// Type.
    pub kind: u32,
    /// Payload with its padding.
    pub payload: &'a [u8],
}

/// A blob that the firmware would accept.
#[derive(Debug, Clone, Copy)]
pub struct Blob<'a> {
    bytes: &'a [u8],
    /// Number of structures, the first included.
    pub count: u32,
}

/// The total size that the count structure declares, so that the caller knows how much to hand in.
pub fn declared_size(first: &[u8]) -> Result<usize, Refusal> {
    let word = |at| u32_at(first, at).ok_or(Refusal::NoCount);
    if word(0)? != types::COUNT || word(4)? != 16 || word(8)? <= 1 {
        return Err(Refusal::NoCount);
    }
    Ok(word(12)? as usize)
}

/// The length that a type demands, header included.
const fn fixed_length(kind: u32) -> Option<u32> {
    Some(match kind {
        0x00 | 0x01 | 0x12 | 0x17 => 16,
        0x04 => 72,
        0x05 | 0x13 | 0x19 => 24,
        0x0B => 32,
        0x14 => 40,
        _ => return None,
    })
}

const fn is_table(kind: u32) -> bool {
    matches!(kind, 0x02 | 0x16 | 0x18 | 0x20..=0x22 | 0x24..=0x27)
}

impl<'a> Blob<'a> {
    /// Checks a blob; `bytes` is as long as it declares.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        if declared_size(bytes)? != bytes.len() {
            return Err(Refusal::Total);
        }
        let blob = Self {
            bytes,
            count: u32_at(bytes, 8).ok_or(Refusal::NoCount)?,
        };
        let mut found = 0;
        let mut count = 0_u32;
        let mut at = 0;
        while at < bytes.len() {
            let structure = blob.structure_at(at)?;
            check(&structure, &blob)?;
            if let Some(bit) = REQUIRED.iter().position(|&kind| kind == structure.kind) {
                found |= 1 << bit;
            }
            at += 8 + structure.payload.len();
            count += 1;
        }
        if count != blob.count {
            return Err(Refusal::Total);
        }
        if found != (1 << REQUIRED.len()) - 1 {
            return Err(Refusal::Missing(found));
        }
        Ok(blob)
    }

    fn structure_at(&self, at: usize) -> Result<Structure<'a>, Refusal> {
        let word = |at| u32_at(self.bytes, at).ok_or(Refusal::PastTotal(at as u32));
        let (kind, len) = (word(at)?, word(at + 4)?);
        if len <= 8 || len % 8 != 0 {
            return Err(Refusal::Length(kind));
        }
        if fixed_length(kind).is_some_and(|fixed| fixed != len) {
            return Err(Refusal::FixedLength(kind));
        }
        let payload = self
            .bytes
            .get(at + 8..)
            .and_then(|rest| rest.get(..len as usize - 8))
            .ok_or(Refusal::PastTotal(kind))?;
        Ok(Structure {
            offset: at,
            kind,
            payload,
        })
    }

    /// The structures in order.
    pub fn structures(&self) -> impl Iterator<Item = Structure<'a>> + use<'a> {
        let blob = *self;
        let mut at = 0;
        core::iter::from_fn(move || {
            // A checked blob has whole structures up to its end.
            let structure = blob.structure_at(at).ok()?;
            at += 8 + structure.payload.len();
            Some(structure)
        })
    }

    /// The payload of the first structure of a type.
    pub fn find(&self, kind: u32) -> Option<&'a [u8]> {
        self.structures().find(|s| s.kind == kind).map(|s| s.payload)
    }

    /// The ACPI tables in order, under whichever type.
    pub fn tables(&self) -> impl Iterator<Item = Table<'a>> + use<'a> {
        self.structures()
            .filter(|s| is_table(s.kind))
            .filter_map(|s| Table::new(s.payload).ok())
    }

    /// Flag bits.
    pub fn flags(&self) -> u64 {
        self.find(types::FLAGS).and_then(|p| u64_at(p, 0)).unwrap_or(0)
    }

    /// Bytes of one memory map entry: BiosInformation bit 0 selects the legacy format (3.5).
    fn memory_entry_bytes(&self) -> usize {
        let legacy = self
            .find(types::BIOS_INFORMATION)
            .and_then(|p| u32_at(p, 4))
            .is_some_and(|flags| flags & 1 != 0);
        if legacy { 16 } else { 24 }
    }

    /// Memory map entries: base, length, flags.
    pub fn memory_map(&self) -> impl Iterator<Item = (u64, u64, u32)> + use<'a> {
        let size = self.memory_entry_bytes();
        let payload = self.find(types::MEMORY_MAP).unwrap_or(&[]);
        payload.chunks_exact(size).filter_map(|entry| {
            Some((
                u64_at(entry, 0)?,
                u64_at(entry, 8)?,
                u32_at(entry, 16).unwrap_or(0),
            ))
        })
    }

    /// The MMIO ranges as first page and number of pages: low, high (3.7).
    pub fn mmio(&self) -> Option<((u64, u64), (u64, u64))> {
        mmio(self.find(types::MMIO)?)
    }

    /// The chassis asset tag up to its NUL.
    pub fn asset_tag(&self) -> Option<&'a str> {
        let payload = self.find(types::CHASSIS_ASSET_TAG)?;
        let len = payload.iter().position(|&b| b == 0).unwrap_or(payload.len());
        core::str::from_utf8(&payload[..len]).ok()
    }
}

/// First page number at 4 GiB.
const FOUR_GIB_PAGE: u64 = 0x10_0000;

fn mmio(payload: &[u8]) -> Option<((u64, u64), (u64, u64))> {
    let range = |at| Some((u64_at(payload, at)?, u64_at(payload, at + 8)?));
    let (first, second) = (range(0)?, range(16)?);
    let first_is_high = first.0 >= FOUR_GIB_PAGE && first.1 != 0;
    Some(if first_is_high {
        (second, first)
    } else {
        (first, second)
    })
}

fn check(structure: &Structure<'_>, blob: &Blob<'_>) -> Result<(), Refusal> {
    let payload = structure.payload;
    match structure.kind {
        types::PROCESSORS => {
            let zero = (1..4).any(|field| u32_at(payload, field * 4) == Some(0));
            if zero { Err(Refusal::Processors) } else { Ok(()) }
        }
        types::MMIO => check_mmio(payload),
        types::MEMORY_MAP => {
            // The padding of an odd number of legacy entries cannot be told from an entry; there is none,
            // both entry sizes are multiples of 8.
            let whole = payload.len().is_multiple_of(blob.memory_entry_bytes());
            if whole { Ok(()) } else { Err(Refusal::MemoryMap) }
        }
        types::APERTURES => {
            let mut entries = payload.chunks_exact(40);
            let ordered = entries.all(|entry| entry[2] <= entry[3]);
            let whole = payload.len().is_multiple_of(40) && payload.len() >= 40;
            if ordered && whole {
                Ok(())
            } else {
                Err(Refusal::Apertures)
            }
        }
        kind if is_table(kind) => check_table(payload),
        _ => Ok(()),
    }
}

/// The firmware checks the table's length only; a checksum that is wrong would be found by the OS, so it
/// is refused here.
fn check_table(payload: &[u8]) -> Result<(), Refusal> {
    let table = Table::new(payload).map_err(Refusal::AcpiTable)?;
    let padding = &payload[table.bytes().len()..];
    if padding.len() < 8 && padding.iter().all(|&b| b == 0) {
        Ok(())
    } else {
        Err(Refusal::AcpiTable(Flaw::Length))
    }
}

fn check_mmio(payload: &[u8]) -> Result<(), Refusal> {
    let (low, high) = mmio(payload).ok_or(Refusal::Mmio)?;
    let end = |(page, pages): (u64, u64)| page.checked_add(pages).filter(|&end| end <= 1 << 52);
    let low_right = low.1 <= FOUR_GIB_PAGE && end(low).is_some_and(|end| end <= FOUR_GIB_PAGE);
    let high_right = high.1 == 0 || (high.0 >= FOUR_GIB_PAGE && end(high).is_some());
    if low_right && high_right {
        Ok(())
    } else {
        Err(Refusal::Mmio)
    }
}

/// What a host bridge has (3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aperture {
    /// Segment.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
    /// Window for BARs below 4 GiB: gpa and length.
    pub low: (u64, u64),
    /// The same above 4 GiB.
    pub high: (u64, u64),
}

/// The apertures in order.
pub fn apertures(payload: &[u8]) -> impl Iterator<Item = Aperture> + '_ {
    payload.chunks_exact(40).filter_map(|entry| {
        Some(Aperture {
            segment: u16_at(entry, 0)?,
            first_bus: entry[2],
            last_bus: entry[3],
            low: (u64_at(entry, 8)?, u64_at(entry, 16)?),
            high: (u64_at(entry, 24)?, u64_at(entry, 32)?),
        })
    })
}
