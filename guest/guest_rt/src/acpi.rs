// SPDX-License-Identifier: MIT
//! Reads ACPI tables from bytes (ACPI 6.5 chapter 5).
//!
//! Always true: nothing is believed before its length and checksum are checked; no read passes the end of
//! a table. No memory access of its own, so host tests run it too. Not here: following pointers in guest
//! memory (`acpi_walk`), AML.

/// Length of the header that every table has.
pub const HEADER_BYTES: usize = 36;

/// What is wrong with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Shorter than its header or its fixed part.
    Short,
    /// The length field is larger than the bytes there are.
    Length,
    /// The bytes do not add up to 0.
    Checksum,
    /// Not the signature asked for.
    Signature,
    /// An entry whose length is 0 or passes the end.
    Entry,
}

impl Flaw {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Short => "shorter than its fixed part",
            Self::Length => "length field passes the end",
            Self::Checksum => "checksum wrong",
            Self::Signature => "signature wrong",
            Self::Entry => "entry length wrong",
        }
    }
}

impl core::fmt::Display for Flaw {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

/// A little-endian u16; `None` past the end.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A little-endian u32; `None` past the end.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A little-endian u64; `None` past the end.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Whether the bytes add up to 0.
pub fn adds_up(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

/// A table whose length and checksum are right.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a>(&'a [u8]);

impl<'a> Table<'a> {
    /// Takes a table at the start of `bytes`; what follows it is ignored.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Flaw> {
        let len = u32_at(bytes, 4).ok_or(Flaw::Short)? as usize;
        if len < HEADER_BYTES {
            return Err(Flaw::Short);
        }
        let table = bytes.get(..len).ok_or(Flaw::Length)?;
        if !adds_up(table) {
            return Err(Flaw::Checksum);
        }
        Ok(Self(table))
    }

    /// Takes a table with this signature.
    pub fn with_signature(bytes: &'a [u8], signature: &[u8; 4]) -> Result<Self, Flaw> {
        let table = Self::new(bytes)?;
        if table.signature() == signature {
            Ok(table)
        } else {
            Err(Flaw::Signature)
        }
    }

    /// Signature.
    pub fn signature(&self) -> &'a [u8] {
        &self.0[..4]
    }

    /// Revision.
    pub fn revision(&self) -> u8 {
        self.0[8]
    }

    /// OEM id.
    pub fn oem(&self) -> &'a [u8] {
        &self.0[10..16]
    }

    /// The whole table.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// {u8 type, u8 length, ...} entries behind a fixed part of `fixed` bytes.
    fn entries(&self, fixed: usize) -> Result<Entries<'a>, Flaw> {
        Ok(Entries(self.0.get(fixed..).ok_or(Flaw::Short)?))
    }
}

/// Entries of MADT, SRAT and PPTT: a type byte, a length byte, the rest.
#[derive(Debug, Clone)]
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Result<&'a [u8], Flaw>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let len = usize::from(self.0.get(1).copied().unwrap_or(0));
        if len < 2 || len > self.0.len() {
            self.0 = &[];
            return Some(Err(Flaw::Entry));
        }
        let (entry, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(Ok(entry))
    }
}

/// What a MADT says (ACPI 5.2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Madt {
    /// Local APIC address.
    pub local_apic: u32,
    /// Flags; bit 0: dual 8259s.
    pub flags: u32,
    /// APIC ids of enabled processors, the first [`Madt::MAX`] of them.
    pub apic_ids: [u32; Madt::MAX],
    /// Enabled processors, also those beyond [`Madt::MAX`].
    pub processors: usize,
    /// I/O APICs.
    pub io_apics: usize,
    /// Interrupt source overrides.
    pub overrides: usize,
}

impl Madt {
    /// APIC ids kept.
    pub const MAX: usize = 256;

    /// Reads a MADT.
    pub fn read(bytes: &[u8]) -> Result<Self, Flaw> {
        let table = Table::with_signature(bytes, b"APIC")?;
        let field = |at| u32_at(table.bytes(), at).ok_or(Flaw::Short);
        let mut madt = Self {
            local_apic: field(36)?,
            flags: field(40)?,
            apic_ids: [0; Self::MAX],
            processors: 0,
            io_apics: 0,
            overrides: 0,
        };
        for entry in table.entries(44)? {
            let entry = entry?;
            match (entry[0], entry.len()) {
                (0, 8) if entry[4] & 1 != 0 => madt.add(u32::from(entry[3])),
                (9, 16) if entry[8] & 1 != 0 => madt.add(u32_at(entry, 4).ok_or(Flaw::Entry)?),
                (0, 8) | (9, 16) => {}
                (1, 12) => madt.io_apics += 1,
                (2, 10) => madt.overrides += 1,
                (0 | 1 | 2 | 9, _) => return Err(Flaw::Entry),
                _ => {}
            }
        }
        Ok(madt)
    }

    fn add(&mut self, apic_id: u32) {
        if let Some(slot) = self.apic_ids.get_mut(self.processors) {
            *slot = apic_id;
        }
        self.processors += 1;
    }

    /// The APIC ids kept.
    pub fn ids(&self) -> &[u32] {
        &self.apic_ids[..self.processors.min(Self::MAX)]
    }
}

/// What an SRAT says (ACPI 5.2.16).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Srat {
    /// Enabled processors, APIC or x2APIC.
    pub processors: usize,
    /// Enabled memory ranges.
    pub ranges: usize,
    /// Bytes in them.
    pub memory: u64,
    /// First byte after the highest of them.
    pub end: u64,
}

impl Srat {
    /// Reads an SRAT.
    pub fn read(bytes: &[u8]) -> Result<Self, Flaw> {
        let table = Table::with_signature(bytes, b"SRAT")?;
        let mut srat = Self::default();
        for entry in table.entries(48)? {
            let entry = entry?;
            match (entry[0], entry.len()) {
                (0, 16) => srat.processors += usize::from(entry[4] & 1),
                (2, 24) => srat.processors += usize::from(entry[12] & 1),
                (1, 40) if entry[28] & 1 != 0 => {
                    let field = |at| u64_at(entry, at).ok_or(Flaw::Entry);
                    let (base, len) = (field(8)?, field(16)?);
                    srat.ranges += 1;
                    srat.memory = srat.memory.wrapping_add(len);
                    srat.end = srat.end.max(base.wrapping_add(len));
                }
                (1, 40) => {}
                (0..=2, _) => return Err(Flaw::Entry),
                _ => {}
            }
        }
        Ok(srat)
    }
}

/// Reads a SLIT: the number of localities; their distances to themselves must be 10 and the others at
/// least that (ACPI 5.2.17).
pub fn slit_localities(bytes: &[u8]) -> Result<u64, Flaw> {
    let table = Table::with_signature(bytes, b"SLIT")?;
    let count = u64_at(table.bytes(), 36).ok_or(Flaw::Short)?;
    let matrix = &table.bytes()[44..];
    if count.checked_mul(count) != Some(matrix.len() as u64) {
        return Err(Flaw::Entry);
    }
    let row = count as usize;
    let right = (0..matrix.len()).all(|at| match matrix[at] {
        10 => true,
        other => other > 10 && at / row != at % row,
    });
    if right { Ok(count) } else { Err(Flaw::Entry) }
}

/// Reads a PPTT: the number of leaf processors, those with a valid ACPI processor id (ACPI 5.2.30).
pub fn pptt_processors(bytes: &[u8]) -> Result<usize, Flaw> {
    const ID_VALID_AND_LEAF: u32 = 0b1010;
    let table = Table::with_signature(bytes, b"PPTT")?;
    let mut leaves = 0;
    for entry in table.entries(HEADER_BYTES)? {
        let entry = entry?;
        if entry[0] != 0 {
            continue;
        }
        let flags = u32_at(entry, 4).ok_or(Flaw::Entry)?;
        leaves += usize::from(flags & ID_VALID_AND_LEAF == ID_VALID_AND_LEAF);
    }
    Ok(leaves)
}

/// The ports and addresses of a FADT that an OS needs to end (ACPI 5.2.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fadt {
    /// gpa of the FACS.
    pub facs: u64,
    /// gpa of the DSDT.
    pub dsdt: u64,
    /// PM1a event block port.
    pub pm1a_event: u32,
    /// PM1a control port.
    pub pm1a_control: u32,
    /// PM timer port.
    pub pm_timer: u32,
    /// SCI.
    pub sci: u16,
    /// Flags; bit 10: the reset register is supported.
    pub flags: u32,
    /// Reset register address and value.
    pub reset: (u64, u8),
}

impl Fadt {
    /// Reads a FADT; 64-bit fields win where they are not 0.
    pub fn read(bytes: &[u8]) -> Result<Self, Flaw> {
        let table = Table::with_signature(bytes, b"FACP")?.bytes();
        let word = |at| u32_at(table, at).ok_or(Flaw::Short);
        let wide = |at, or: u32| u64_at(table, at).filter(|&v| v != 0).unwrap_or(u64::from(or));
        Ok(Self {
            facs: wide(132, word(36)?),
            dsdt: wide(140, word(40)?),
            pm1a_event: word(56)?,
            pm1a_control: word(64)?,
            pm_timer: word(76)?,
            sci: u16_at(table, 46).ok_or(Flaw::Short)?,
            flags: word(112)?,
            reset: (
                u64_at(table, 120).ok_or(Flaw::Short)?,
                table.get(128).copied().ok_or(Flaw::Short)?,
            ),
        })
    }
}

/// The XSDT's gpa of an RSDP of revision 2 or later (ACPI 5.2.5).
pub fn rsdp_xsdt(bytes: &[u8]) -> Result<u64, Flaw> {
    let first = bytes.get(..20).ok_or(Flaw::Short)?;
    if &first[..8] != b"RSD PTR " {
        return Err(Flaw::Signature);
    }
    if !adds_up(first) {
        return Err(Flaw::Checksum);
    }
    let whole = bytes.get(..36).ok_or(Flaw::Short)?;
    if first[15] < 2 || u32_at(whole, 20) != Some(36) {
        return Err(Flaw::Length);
    }
    if !adds_up(whole) {
        return Err(Flaw::Checksum);
    }
    u64_at(whole, 24).ok_or(Flaw::Short)
}

/// Sleep type values of `\_S5` in a DSDT or SSDT: finds the package by name and decodes its first two
/// elements as ACPI's own example does (a full AML interpreter is not needed for a constant package).
pub fn s5_sleep_types(aml: &[u8]) -> Option<(u8, u8)> {
    const NAME: u8 = 0x08;
    const PACKAGE: u8 = 0x12;
    let at = aml.windows(4).position(|four| four == b"_S5_")?;
    let named = at.checked_sub(1).map(|before| aml[before])?;
    let in_root = named == b'\\' && at.checked_sub(2).map(|before| aml[before]) == Some(NAME);
    if named != NAME && !in_root {
        return None;
    }
    let package = &aml[at + 4..];
    if *package.first()? != PACKAGE {
        return None;
    }
    // PkgLength: bits 6-7 of the lead byte count the bytes that follow it; then the element count.
    let follow = usize::from(*package.get(1)? >> 6);
    let elements = package.get(2 + follow + 1..)?;
    let (first, used) = small_integer(elements)?;
    let (second, _) = small_integer(elements.get(used..)?)?;
    Some((first, second))
}

/// An AML integer that fits a byte, and how long it is.
fn small_integer(aml: &[u8]) -> Option<(u8, usize)> {
    match *aml.first()? {
        0x00 => Some((0, 1)),
        0x01 => Some((1, 1)),
        0x0A => Some((*aml.get(1)?, 2)),
        _ => None,
    }
}
