// SPDX-License-Identifier: MIT
//! Variable headers in typed form.
//!
//! Always true: decoding checks a header's type and length and nothing else, copies at most one
//! structure, and encoding a decoded header gives its content back byte for byte. Not here: whether the
//! values make sense ([`super::check`]).

use igvm_defs::*;
use launch_plan::ParameterKind;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where a header stands in a file. The content follows the 8-byte type and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawHeader {
    /// Type, with the optional bit.
    pub typ: u32,
    /// File offset of the type field.
    pub offset: u32,
    /// Length of the content, without padding.
    pub len: u32,
}

impl RawHeader {
    /// Whether a reader may skip the header.
    pub const fn is_optional(&self) -> bool {
        self.typ & IGVM_VHT_OPTIONAL_BIT != 0
    }

    /// File offset of the content.
    pub const fn content_offset(&self) -> u32 {
        self.offset + 8
    }
}

/// The three sections of the variable headers, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Supported platforms.
    Platform,
    /// Initialization.
    Initialization,
    /// Directives.
    Directive,
}

impl Section {
    /// The section of a type, without its optional bit; `None` outside the three ranges.
    pub fn of(typ: u32) -> Option<Self> {
        let typ = typ & !IGVM_VHT_OPTIONAL_BIT;
        if IGVM_VHT_RANGE_PLATFORM.contains(&typ) {
            Some(Self::Platform)
        } else if IGVM_VHT_RANGE_INIT.contains(&typ) {
            Some(Self::Initialization)
        } else if IGVM_VHT_RANGE_DIRECTIVE.contains(&typ) {
            Some(Self::Directive)
        } else {
            None
        }
    }
}

/// A header's content. The structures are those of `igvm_defs`.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Header<'a> {
    SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM),
    GuestPolicy(IGVM_VHS_GUEST_POLICY),
    RelocatableRegion(IGVM_VHS_RELOCATABLE_REGION),
    PageTableRelocation(IGVM_VHS_PAGE_TABLE_RELOCATION),
    CorimDocument(IGVM_VHS_CORIM_DATA),
    CorimSignature(IGVM_VHS_CORIM_DATA),
    CcaPolicy(IGVM_VHS_CCA_POLICY),
    VersionString(&'a [u8]),
    ParameterArea(IGVM_VHS_PARAMETER_AREA),
    PageData(IGVM_VHS_PAGE_DATA),
    ParameterInsert(IGVM_VHS_PARAMETER_INSERT),
    VpContext(IGVM_VHS_VP_CONTEXT),
    RequiredMemory(IGVM_VHS_REQUIRED_MEMORY),
    Parameter(ParameterKind, IGVM_VHS_PARAMETER),
    SnpIdBlock(Box<IGVM_VHS_SNP_ID_BLOCK>),
    ErrorRange(IGVM_VHS_ERROR_RANGE),
    VbsMeasurement(Box<IGVM_VHS_VBS_MEASUREMENT>),
}

/// Why a header has no typed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The type is not known, or has the optional bit.
    #[error("header type {0:#x} is not known")]
    UnknownType(u32),
    /// The length is not the structure's.
    #[error("{name} has {len} bytes, not {expected}")]
    Length {
        /// Name of the header type.
        name: &'static str,
        /// Length in the file.
        len: usize,
        /// Length of the structure.
        expected: usize,
    },
}

/// Header type of each parameter.
const PARAMETER_TYPES: [(u32, ParameterKind, &str); 10] = [
    (0x307, ParameterKind::VpCount, "VP_COUNT_PARAMETER"),
    (0x308, ParameterKind::Srat, "SRAT"),
    (0x309, ParameterKind::Madt, "MADT"),
    (0x30A, ParameterKind::MmioRanges, "MMIO_RANGES"),
    (0x30C, ParameterKind::MemoryMap, "MEMORY_MAP"),
    (0x30E, ParameterKind::CommandLine, "COMMAND_LINE"),
    (0x30F, ParameterKind::Slit, "SLIT"),
    (0x310, ParameterKind::Pptt, "PPTT"),
    (0x312, ParameterKind::DeviceTree, "DEVICE_TREE"),
    (
        0x313,
        ParameterKind::EnvironmentInfo,
        "ENVIRONMENT_INFO_PARAMETER",
    ),
];

/// The name of a header type as the specification spells it, without `IGVM_VHT_`; `None` when unknown.
pub fn type_name(typ: u32) -> Option<&'static str> {
    Some(match typ {
        0x001 => "SUPPORTED_PLATFORM",
        0x101 => "GUEST_POLICY",
        0x102 => "RELOCATABLE_REGION",
        0x103 => "PAGE_TABLE_RELOCATION_REGION",
        0x104 => "CORIM_DOCUMENT",
        0x105 => "CORIM_SIGNATURE",
        0x106 => "CCA_POLICY",
        0x107 => "VERSION_STRING",
        0x301 => "PARAMETER_AREA",
        0x302 => "PAGE_DATA",
        0x303 => "PARAMETER_INSERT",
        0x304 => "VP_CONTEXT",
        0x305 => "REQUIRED_MEMORY",
        0x30B => "SNP_ID_BLOCK",
        0x30D => "ERROR_RANGE",
        0x311 => "VBS_MEASUREMENT",
        _ => return PARAMETER_TYPES.iter().find(|row| row.0 == typ).map(|row| row.2),
    })
}

fn fixed<T: FromBytes + KnownLayout + Immutable>(typ: u32, content: &[u8]) -> Result<T, HeaderError> {
    T::read_from_bytes(content).map_err(|_| HeaderError::Length {
        name: type_name(typ).unwrap_or("header"),
        len: content.len(),
        expected: size_of::<T>(),
    })
}

impl<'a> Header<'a> {
    /// Decodes the content of a header of type `typ`.
    pub fn decode(typ: u32, content: &'a [u8]) -> Result<Self, HeaderError> {
        // Pages first: they are nearly all headers of a large file.
        if typ == 0x302 {
            return Ok(Self::PageData(fixed(typ, content)?));
        }
        if let Some(&(_, kind, _)) = PARAMETER_TYPES.iter().find(|row| row.0 == typ) {
            return Ok(Self::Parameter(kind, fixed(typ, content)?));
        }
        Ok(match typ {
            0x001 => Self::SupportedPlatform(fixed(typ, content)?),
            0x101 => Self::GuestPolicy(fixed(typ, content)?),
            0x102 => Self::RelocatableRegion(fixed(typ, content)?),
            0x103 => Self::PageTableRelocation(fixed(typ, content)?),
            0x104 => Self::CorimDocument(fixed(typ, content)?),
            0x105 => Self::CorimSignature(fixed(typ, content)?),
            0x106 => Self::CcaPolicy(fixed(typ, content)?),
            0x107 => Self::VersionString(content),
            0x301 => Self::ParameterArea(fixed(typ, content)?),
            0x303 => Self::ParameterInsert(fixed(typ, content)?),
            0x304 => Self::VpContext(fixed(typ, content)?),
            0x305 => Self::RequiredMemory(fixed(typ, content)?),
            0x30B => Self::SnpIdBlock(Box::new(fixed(typ, content)?)),
            0x30D => Self::ErrorRange(fixed(typ, content)?),
            0x311 => Self::VbsMeasurement(Box::new(fixed(typ, content)?)),
            _ => return Err(HeaderError::UnknownType(typ)),
        })
    }

    /// The header type.
    pub fn typ(&self) -> u32 {
        match self {
            Self::SupportedPlatform(_) => 0x001,
            Self::GuestPolicy(_) => 0x101,
            Self::RelocatableRegion(_) => 0x102,
            Self::PageTableRelocation(_) => 0x103,
            Self::CorimDocument(_) => 0x104,
            Self::CorimSignature(_) => 0x105,
            Self::CcaPolicy(_) => 0x106,
            Self::VersionString(_) => 0x107,
            Self::ParameterArea(_) => 0x301,
            Self::PageData(_) => 0x302,
            Self::ParameterInsert(_) => 0x303,
            Self::VpContext(_) => 0x304,
            Self::RequiredMemory(_) => 0x305,
            Self::SnpIdBlock(_) => 0x30B,
            Self::ErrorRange(_) => 0x30D,
            Self::VbsMeasurement(_) => 0x311,
            Self::Parameter(kind, _) => PARAMETER_TYPES
                .iter()
                .find(|row| row.1 == *kind)
                .map_or(0, |row| row.0),
        }
    }

    /// The content as bytes.
    pub fn content(&self) -> &[u8] {
        match self {
            Self::SupportedPlatform(h) => h.as_bytes(),
            Self::GuestPolicy(h) => h.as_bytes(),
            Self::RelocatableRegion(h) => h.as_bytes(),
            Self::PageTableRelocation(h) => h.as_bytes(),
            Self::CorimDocument(h) | Self::CorimSignature(h) => h.as_bytes(),
            Self::CcaPolicy(h) => h.as_bytes(),
            Self::VersionString(text) => text,
            Self::ParameterArea(h) => h.as_bytes(),
            Self::PageData(h) => h.as_bytes(),
            Self::ParameterInsert(h) => h.as_bytes(),
            Self::VpContext(h) => h.as_bytes(),
            Self::RequiredMemory(h) => h.as_bytes(),
            Self::Parameter(_, h) => h.as_bytes(),
            Self::SnpIdBlock(h) => h.as_bytes(),
            Self::ErrorRange(h) => h.as_bytes(),
            Self::VbsMeasurement(h) => h.as_bytes(),
        }
    }

    /// The platforms that the header is for; `None` for headers without a compatibility mask.
    pub fn mask(&self) -> Option<u32> {
        Some(match self {
            Self::SupportedPlatform(h) => h.compatibility_mask,
            Self::GuestPolicy(h) => h.compatibility_mask,
            Self::RelocatableRegion(h) => h.compatibility_mask,
            Self::PageTableRelocation(h) => h.compatibility_mask,
            Self::CorimDocument(h) | Self::CorimSignature(h) => h.compatibility_mask,
            Self::CcaPolicy(h) => h.compatibility_mask,
            Self::PageData(h) => h.compatibility_mask,
            Self::ParameterInsert(h) => h.compatibility_mask,
            Self::VpContext(h) => h.compatibility_mask,
            Self::RequiredMemory(h) => h.compatibility_mask,
            Self::SnpIdBlock(h) => h.compatibility_mask,
            Self::ErrorRange(h) => h.compatibility_mask,
            Self::VbsMeasurement(h) => h.compatibility_mask,
            Self::VersionString(_) | Self::ParameterArea(_) | Self::Parameter(..) => return None,
        })
    }

    /// The guest physical address that the header names, if it names one.
    pub fn gpa(&self) -> Option<u64> {
        Some(match self {
            Self::RelocatableRegion(h) => h.relocation_region_gpa,
            Self::PageTableRelocation(h) => h.gpa,
            Self::PageData(h) => h.gpa,
            Self::ParameterInsert(h) => h.gpa,
            Self::VpContext(h) => h.gpa.get(),
            Self::RequiredMemory(h) => h.gpa,
            Self::ErrorRange(h) => h.gpa,
            _ => return None,
        })
    }
}
