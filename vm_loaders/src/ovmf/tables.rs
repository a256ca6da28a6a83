// SPDX-License-Identifier: MIT
//! The GUIDed table at the end of an OVMF image and what it points at (edk2 `OvmfPkg/ResetVector`,
//! `OvmfSevMetadata`; igvm-format section 12).
//!
//! The footer GUID ends 32 bytes before the end of the image; entries lie below it, each as data, u16
//! length (data + 18) and GUID.

use std::fmt;
use uuid::Uuid;

/// Footer of the table; its 16 bytes end 32 bytes before the end of the image.
pub(crate) const FOOTER: Uuid = Uuid::from_u128(0x96B5_82DE_1FB2_45F7_BAEA_A366_C55A_082D);
const GUID_FOOTER: [u8; 16] = FOOTER.to_bytes_le();
const GUID_SEV_ES_RESET: [u8; 16] = Uuid::from_u128(0x00F7_71DE_1A7E_4FCB_890E_68C7_7E2F_B44E).to_bytes_le();
const GUID_SEV_METADATA: [u8; 16] = Uuid::from_u128(0xDC88_6566_984A_4798_A75E_5585_A7BF_67CC).to_bytes_le();
const GUID_HASH_TABLE: [u8; 16] = Uuid::from_u128(0x7255_371F_3A3B_4B04_927B_1DA6_EFA8_D454).to_bytes_le();
const GUID_TDX: [u8; 16] = Uuid::from_u128(0xE47A_6535_984A_4798_865E_4685_A7BF_8EC2).to_bytes_le();
const GUID_IGVM: [u8; 16] = Uuid::from_u128(0x784F_A70E_3176_4677_8A20_04B6_8699_E374).to_bytes_le();

/// Bytes between the footer GUID and the end of the image (the reset vector).
const FOOTER_DISTANCE: usize = 32;
/// Length and GUID behind the data of each entry.
const ENTRY_TAIL: usize = 18;
/// More sections than any image has; bounds what a hostile one can make us do.
const MAX_SECTIONS: u32 = 64;

/// Why an image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OvmfError {
    /// Size.
    #[error(
        "the image has {size:#x} bytes; an ovmf image is a multiple of 0x1000 between 0x20000 and 0x1000000"
    )]
    Size {
        /// Bytes.
        size: usize,
    },
    /// No footer.
    #[error(
        "no ovmf table footer (guid 96b582de-1fb2-45f7-baea-a366c55a082d) 32 bytes before the end of the image; this is not an ovmf image, or it is only the variable store"
    )]
    NoFooter,
    /// A table that does not fit its place.
    #[error("the ovmf {table} at image offset {offset:#x} is malformed: {reason}")]
    Malformed {
        /// Which table.
        table: &'static str,
        /// Where.
        offset: usize,
        /// What is wrong.
        reason: String,
    },
    /// A platform needs a table that is missing.
    #[error(
        "{platform} needs the {table} in the image, and there is none; use an image that is built with it (debian's OVMF.fd has it, OVMF_CODE_4M.fd has not)"
    )]
    Missing {
        /// The platform.
        platform: &'static str,
        /// The table.
        table: &'static str,
    },
    /// The plan that the tables ask for is not consistent.
    #[error(transparent)]
    Plan(#[from] launch_plan::PlanError),
    /// A platform that OVMF images are not wrapped for.
    #[error("ovmf images cannot be wrapped for {0}; choose native, sev, sev-es, sev-snp or tdx")]
    Platform(&'static str),
}

/// What a section of the SEV metadata is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// Memory that the firmware uses before it validates any (type 1).
    Memory,
    /// The secrets page (type 2).
    Secrets,
    /// The CPUID page (type 3).
    Cpuid,
    /// The SVSM calling area (type 4).
    SvsmCaa,
    /// The page with hashes of kernel, initrd and command line (type 0x10).
    KernelHashes,
}

/// A section of the SEV metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// First byte address, page aligned.
    pub gpa: u64,
    /// Length in bytes, a multiple of 4 KiB.
    pub len: u64,
    /// What it is for.
    pub kind: SectionKind,
}

/// What a section of the TDX metadata is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TdxKind {
    /// Boot firmware volume: code (type 0).
    Firmware,
    /// Configuration volume: variables (type 1).
    Variables,
    /// Hand-off blocks, which the host writes (type 2).
    HandOff,
    /// Stack and heap before memory is accepted (type 3).
    Temporary,
}

/// A section of the TDX metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TdxSection {
    /// First byte address, page aligned.
    pub gpa: u64,
    /// Length in bytes, a multiple of 4 KiB.
    pub len: u64,
    /// Where its bytes are in the image, as offset and length; no bytes are zeros.
    pub image: (usize, usize),
    /// What it is for.
    pub kind: TdxKind,
    /// Its contents are measured (attribute bit 0, MR.EXTEND).
    pub measured: bool,
}

/// The image's own IGVM metadata (edk2 from 2026 on).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IgvmArea {
    /// Parameter area: address and length, page aligned.
    pub parameters: (u64, u64),
    /// Offset of the memory map in the parameter area.
    pub memory_map: Option<u32>,
    /// Offset of the VP count in the parameter area.
    pub vp_count: Option<u32>,
    /// Hand-off block area: address and length.
    pub hob: Option<(u64, u64)>,
}

/// What the tables of an image say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tables {
    /// Where application processors start under SEV-ES and SEV-SNP.
    pub ap_reset: Option<u32>,
    /// Base and size of the kernel hash table; base 0 means that the image does not support it.
    pub hash_table: Option<(u32, u32)>,
    /// SEV metadata sections in table order; `None` when the image has none.
    pub sections: Option<Vec<Section>>,
    /// TDX metadata sections in table order; `None` when the image has none, or is the code part of a
    /// flash whose variables are in another file.
    pub tdx: Option<Vec<TdxSection>>,
    /// IGVM metadata.
    pub igvm: Option<IgvmArea>,
}

fn u16_at(image: &[u8], at: usize) -> Option<u16> {
    image
        .get(at..at.checked_add(2)?)?
        .try_into()
        .ok()
        .map(u16::from_le_bytes)
}

fn u32_at(image: &[u8], at: usize) -> Option<u32> {
    image
        .get(at..at.checked_add(4)?)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
}

/// Shorthand for a malformed table.
fn bad(table: &'static str, offset: usize, reason: impl fmt::Display) -> OvmfError {
    OvmfError::Malformed {
        table,
        offset,
        reason: reason.to_string(),
    }
}

impl Tables {
    /// Reads the tables of `image`.
    pub fn read(image: &[u8]) -> Result<Self, OvmfError> {
        let size = image.len();
        if !size.is_multiple_of(0x1000) || !(0x2_0000..=0x100_0000).contains(&size) {
            return Err(OvmfError::Size { size });
        }
        let footer_end = size - FOOTER_DISTANCE;
        if image[footer_end - 16..footer_end] != GUID_FOOTER {
            return Err(OvmfError::NoFooter);
        }
        let length_at = footer_end - ENTRY_TAIL;
        let total = usize::from(u16_at(image, length_at).unwrap_or(0));
        let start = footer_end.checked_sub(total).filter(|_| total >= ENTRY_TAIL);
        let start =
            start.ok_or_else(|| bad("table footer", length_at, format!("its length is {total:#x}")))?;
        let mut tables = Self::default();
        let mut end = length_at;
        while end > start {
            let (data, at) = entry(image, start, end)?;
            tables.take(image, &image[end - 16..end], data, at)?;
            end = at;
        }
        Ok(tables)
    }

    /// Takes over one entry whose data begins at `at`.
    fn take(&mut self, image: &[u8], guid: &[u8], data: &[u8], at: usize) -> Result<(), OvmfError> {
        if guid == GUID_SEV_ES_RESET {
            let value =
                u32_at(data, 0).ok_or_else(|| bad("sev-es reset block", at, "shorter than 4 bytes"))?;
            self.ap_reset = Some(value);
        } else if guid == GUID_HASH_TABLE {
            let pair = u32_at(data, 0).zip(u32_at(data, 4));
            self.hash_table = Some(pair.ok_or_else(|| bad("hash table entry", at, "shorter than 8 bytes"))?);
        } else if guid == GUID_SEV_METADATA {
            self.sections = Some(sections(image, metadata_offset(image, data, at)?)?);
        } else if guid == GUID_TDX {
            let metadata = metadata_offset(image, data, at)?;
            if !is_code_part(image, metadata) {
                self.tdx = Some(tdx_sections(image, metadata)?);
            }
        } else if guid == GUID_IGVM {
            self.igvm = Some(igvm_area(image, metadata_offset(image, data, at)?)?);
        }
        Ok(())
    }
}

/// The entry whose GUID ends at `end`: its data and where that begins.
fn entry(image: &[u8], start: usize, end: usize) -> Result<(&[u8], usize), OvmfError> {
    let wrong = |reason: String| bad("table entry", end, reason);
    let length_at = end.checked_sub(ENTRY_TAIL).filter(|at| *at >= start);
    let length_at = length_at.ok_or_else(|| wrong("it begins before the table".into()))?;
    let length = usize::from(u16_at(image, length_at).unwrap_or(0));
    let at = end
        .checked_sub(length)
        .filter(|at| length >= ENTRY_TAIL && *at >= start);
    let at = at.ok_or_else(|| wrong(format!("its length is {length:#x}")))?;
    Ok((&image[at..length_at], at))
}

/// The image offset that an entry gives as a distance from the end.
fn metadata_offset(image: &[u8], data: &[u8], at: usize) -> Result<usize, OvmfError> {
    let distance = u32_at(data, 0).ok_or_else(|| bad("metadata entry", at, "shorter than 4 bytes"))? as usize;
    image.len().checked_sub(distance).ok_or_else(|| {
        bad(
            "metadata entry",
            at,
            format!("it points {distance:#x} bytes before the end, outside the image"),
        )
    })
}

/// SEV metadata: `ASEV`, u32 length, u32 version, u32 count, then {u32 base, u32 size, u32 type}.
fn sections(image: &[u8], at: usize) -> Result<Vec<Section>, OvmfError> {
    const TABLE: &str = "sev metadata";
    if image.get(at..at.saturating_add(4)) != Some(b"ASEV") {
        return Err(bad(TABLE, at, "no ASEV signature"));
    }
    let header = |i: usize| u32_at(image, at + 4 * i).ok_or_else(|| bad(TABLE, at, "cut off"));
    let (version, count) = (header(2)?, header(3)?);
    if version != 1 || count > MAX_SECTIONS {
        return Err(bad(
            TABLE,
            at,
            format!("version {version} with {count} sections; known is version 1"),
        ));
    }
    let mut out = Vec::with_capacity(count as usize);
    for i in 0..count as usize {
        let place = at + 16 + 12 * i;
        let field = |n: usize| u32_at(image, place + 4 * n).ok_or_else(|| bad(TABLE, place, "cut off"));
        let (base, size, kind) = (field(0)?, field(1)?, field(2)?);
        let kind = match kind {
            1 => SectionKind::Memory,
            2 => SectionKind::Secrets,
            3 => SectionKind::Cpuid,
            4 => SectionKind::SvsmCaa,
            0x10 => SectionKind::KernelHashes,
            other => return Err(bad(TABLE, place, format!("unknown section type {other:#x}"))),
        };
        let one_page = !matches!(kind, SectionKind::Memory) && size != 0x1000;
        if base == 0 || base % 0x1000 != 0 || size == 0 || size % 0x1000 != 0 || one_page {
            return Err(bad(
                TABLE,
                place,
                format!("section {base:#x} with {size:#x} bytes is not page aligned"),
            ));
        }
        out.push(Section {
            gpa: base.into(),
            len: size.into(),
            kind,
        });
    }
    Ok(out)
}

/// Whether the TDX metadata at `at` says that this image is the code part of a larger flash (Debian's
/// OVMF_CODE_4M.fd): its offsets count from the start of the variables, which are in another file.
fn is_code_part(image: &[u8], at: usize) -> bool {
    let first = [0, 4, 24].map(|field| u32_at(image, at + 16 + field));
    matches!(first, [Some(offset), Some(bytes), Some(0)] if offset > 0 && bytes as usize == image.len())
}

/// TDX metadata: `TDVF`, u32 length, u32 version, u32 count, then {u32 image offset, u32 image size, u64
/// address, u64 size, u32 type, u32 attributes} (Intel TDX Virtual Firmware Design Guide, table 11-2).
fn tdx_sections(image: &[u8], at: usize) -> Result<Vec<TdxSection>, OvmfError> {
    const TABLE: &str = "tdx metadata";
    if image.get(at..at.saturating_add(4)) != Some(b"TDVF") {
        return Err(bad(TABLE, at, "no TDVF signature"));
    }
    let header = |i: usize| u32_at(image, at + 4 * i).ok_or_else(|| bad(TABLE, at, "cut off"));
    let (version, count) = (header(2)?, header(3)?);
    if version != 1 || count > MAX_SECTIONS {
        let reason = format!("version {version} with {count} sections; known is version 1");
        return Err(bad(TABLE, at, reason));
    }
    (0..count as usize)
        .map(|i| tdx_section(image, at + 16 + 32 * i))
        .collect()
}

fn tdx_section(image: &[u8], place: usize) -> Result<TdxSection, OvmfError> {
    const TABLE: &str = "tdx metadata";
    let word = |n: usize| u32_at(image, place + 4 * n).ok_or_else(|| bad(TABLE, place, "cut off"));
    let long = |n: usize| Ok::<_, OvmfError>(u64::from(word(n)?) | u64::from(word(n + 1)?) << 32);
    let (offset, bytes, gpa, len) = (word(0)? as usize, word(1)? as usize, long(2)?, long(4)?);
    let kind = match word(6)? {
        0 => TdxKind::Firmware,
        1 => TdxKind::Variables,
        2 => TdxKind::HandOff,
        3 => TdxKind::Temporary,
        other => return Err(bad(TABLE, place, format!("unknown section type {other:#x}"))),
    };
    let aligned = gpa % 0x1000 == 0 && len > 0 && len % 0x1000 == 0 && gpa.checked_add(len).is_some();
    if !aligned || bytes as u64 > len || offset.checked_add(bytes).is_none_or(|end| end > image.len()) {
        let reason = format!(
            "section {gpa:#x} with {len:#x} bytes, {bytes:#x} of them at image offset {offset:#x}, does not fit"
        );
        return Err(bad(TABLE, place, reason));
    }
    Ok(TdxSection {
        gpa,
        len,
        image: (offset, bytes),
        kind,
        measured: word(7)? & 1 != 0,
    })
}

/// IGVM metadata: `IGVM`, u32 length, u32 version, u32 count, then {u32 base, u32 size, u32 type}.
fn igvm_area(image: &[u8], at: usize) -> Result<IgvmArea, OvmfError> {
    const TABLE: &str = "igvm metadata";
    if image.get(at..at.saturating_add(4)) != Some(b"IGVM") {
        return Err(bad(TABLE, at, "no IGVM signature"));
    }
    let count = u32_at(image, at + 12).filter(|c| *c <= MAX_SECTIONS);
    let count = count.ok_or_else(|| bad(TABLE, at, "its entry count is missing or too large"))?;
    let mut area = IgvmArea::default();
    for i in 0..count as usize {
        let place = at + 16 + 12 * i;
        let field = |n: usize| u32_at(image, place + 4 * n).ok_or_else(|| bad(TABLE, place, "cut off"));
        let (base, size, kind) = (field(0)?, field(1)?, field(2)?);
        match kind {
            0x100 => area.parameters = (base.into(), size.into()),
            0x101 => area.memory_map = Some(base),
            0x102 => area.vp_count = Some(base),
            0x200 => area.hob = Some((base.into(), size.into())),
            // Entries of later firmware are for loaders that know them.
            _ => {}
        }
    }
    Ok(area)
}

#[cfg(test)]
mod tests;
