// SPDX-License-Identifier: MIT
//! The manifest's schema (version 1); `Guide/src/editing.md` explains it by example.
//!
//! Always true: addresses, masks and policies are hexadecimal strings (numbers are taken too); places in
//! file data count from its first byte, so that they stay right when headers come and go.

use crate::overview::schema::Hex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Version of the schema.
pub(super) const SCHEMA: u32 = 1;

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        let text = match Either::deserialize(deserializer)? {
            Either::Number(number) => return Ok(Self(number)),
            Either::Text(text) => text,
        };
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        parsed
            .map(Self)
            .map_err(|error| serde::de::Error::custom(format!("{text:?} is not a number: {error}")))
    }
}

/// Bytes as hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom(format!("{text:?} is not an even number of hex digits"));
        if !text.is_ascii() || !text.len().is_multiple_of(2) {
            return Err(wrong());
        }
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// [`SCHEMA`].
    pub(super) schema: u32,
    /// Format version, 1 or 2.
    pub(super) format_version: u32,
    /// Architecture number of a version 2 file: 0 x64, 1 aarch64.
    pub(super) architecture: u32,
    /// Page size of a version 2 file.
    pub(super) page_size: u32,
    /// Bytes between the fixed header and the first variable header.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(super) gap: Bytes,
    /// How the file that was extracted stored its data.
    pub(super) stored: Stored,
    /// Variable headers in order.
    pub(super) headers: Vec<Entry>,
}

fn is_empty(bytes: &Bytes) -> bool {
    bytes.0.is_empty()
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// How data lay in the file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    /// Bytes of all variable headers.
    pub(super) header_bytes: u64,
    /// Bytes of file data.
    pub(super) data_bytes: u64,
    /// Whether equal pages shared their bytes.
    pub(super) shared: bool,
    /// Data that no header refers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unused: Vec<Payload>,
    /// Total size of the fixed header, if it was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) total_file_size: Option<u32>,
    /// Checksum of the fixed header, if it was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) checksum: Option<u32>,
}

/// Bytes in a file of the folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    /// The file's name.
    pub(super) file: String,
    /// SHA-256 of the file as it was extracted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<String>,
    /// Where its bytes were: pairs of place in the file data and length. Leave it out for new data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) at: Vec<(u64, u64)>,
}

/// A header, or a run of page headers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "header", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Entry {
    /// SUPPORTED_PLATFORM.
    SupportedPlatform {
        platform: String,
        mask: Hex,
        highest_vtl: u8,
        version: u16,
        shared_gpa_boundary: Hex,
    },
    /// GUEST_POLICY.
    GuestPolicy { policy: Hex, mask: Hex },
    /// VERSION_STRING.
    VersionString { text: String },
    /// CORIM_DOCUMENT.
    CorimDocument { mask: Hex, payload: Payload },
    /// CORIM_SIGNATURE.
    CorimSignature { mask: Hex, payload: Payload },
    /// PAGE_DATA, one or more in ascending order. Their number follows from the payload.
    Pages {
        gpa: Hex,
        mask: Hex,
        /// `normal`, `secrets`, `cpuid` or `cpuid-xf`.
        kind: String,
        #[serde(default, skip_serializing_if = "is_false")]
        unmeasured: bool,
        #[serde(default, skip_serializing_if = "is_false")]
        shared: bool,
        /// 2 MiB pages.
        #[serde(default, skip_serializing_if = "is_false")]
        large: bool,
        /// Number of pages without data.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zero_pages: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payload: Option<Payload>,
    },
    /// PARAMETER_AREA.
    ParameterArea {
        area: u32,
        bytes: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payload: Option<Payload>,
    },
    /// VP_COUNT and all other parameters, by name.
    Parameter {
        name: String,
        area: u32,
        byte_offset: u32,
    },
    /// PARAMETER_INSERT.
    ParameterInsert { gpa: Hex, mask: Hex, area: u32 },
    /// VP_CONTEXT; the payload is what the file holds for it.
    VpContext {
        vp: u16,
        gpa: Hex,
        mask: Hex,
        payload: Payload,
    },
    /// REQUIRED_MEMORY.
    RequiredMemory {
        gpa: Hex,
        bytes: u32,
        mask: Hex,
        #[serde(default, skip_serializing_if = "is_false")]
        vtl2_protectable: bool,
    },
    /// ERROR_RANGE.
    ErrorRange { gpa: Hex, bytes: u32, mask: Hex },
    /// Any other header, as it is.
    Raw {
        #[serde(rename = "type")]
        typ: Hex,
        /// Name of the type, for readers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        content: Bytes,
        /// Bytes up to the next header, if they are not zero.
        #[serde(default, skip_serializing_if = "is_empty")]
        padding: Bytes,
    },
}

impl Entry {
    /// The payload, if there is one.
    pub(super) fn payload(&self) -> Option<&Payload> {
        match self {
            Self::CorimDocument { payload, .. }
            | Self::CorimSignature { payload, .. }
            | Self::VpContext { payload, .. } => Some(payload),
            Self::Pages { payload, .. } | Self::ParameterArea { payload, .. } => payload.as_ref(),
            _ => None,
        }
    }

    /// The payload, to be changed.
    pub(super) fn payload_mut(&mut self) -> Option<&mut Payload> {
        match self {
            Self::CorimDocument { payload, .. }
            | Self::CorimSignature { payload, .. }
            | Self::VpContext { payload, .. } => Some(payload),
            Self::Pages { payload, .. } | Self::ParameterArea { payload, .. } => payload.as_mut(),
            _ => None,
        }
    }
}
