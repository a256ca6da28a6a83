// SPDX-License-Identifier: MIT
//! Manifest entries from headers and back.
//!
//! Always true: an entry made from a header gives the header back byte for byte, or it is a raw entry.
//! Not here: where data lies (`layout`).

use super::manifest::{Bytes, Entry, Payload};
use crate::inspect::platform;
use crate::overview::schema::Hex;
use igvm_defs::*;
use launch_plan::ParameterKind;
use vm_loaders::igvm::{self, Header, isolation_of, type_name};

/// Size of a page of an entry.
pub(super) const fn page_bytes(large: bool) -> u64 {
    if large { 2 << 20 } else { 4096 }
}

fn platform_name(platform: IgvmPlatformType) -> String {
    isolation_of(platform).map_or_else(|| platform.0.to_string(), |isolation| isolation.name().to_owned())
}

pub(super) fn platform_type(name: &str) -> Result<IgvmPlatformType, String> {
    match name.parse() {
        Ok(number) => Ok(IgvmPlatformType(number)),
        Err(_) => platform(name).map(igvm::platform_type),
    }
}

const KINDS: [(&str, IgvmPageDataType); 4] = [
    ("normal", IgvmPageDataType::NORMAL),
    ("secrets", IgvmPageDataType::SECRETS),
    ("cpuid", IgvmPageDataType::CPUID_DATA),
    ("cpuid-xf", IgvmPageDataType::CPUID_XF),
];

fn kind_name(kind: IgvmPageDataType) -> Option<String> {
    let row = KINDS.iter().find(|row| row.1 == kind)?;
    Some(row.0.to_owned())
}

/// The entry of a header; `payload` holds the data that it refers to.
pub(super) fn entry(header: &Header<'_>, payload: Option<Payload>) -> Option<Entry> {
    let mask = || Some(Hex(header.mask()?.into()));
    Some(match header {
        Header::SupportedPlatform(h) => Entry::SupportedPlatform {
            platform: platform_name(h.platform_type),
            mask: mask()?,
            highest_vtl: h.highest_vtl,
            version: h.platform_version,
            shared_gpa_boundary: Hex(h.shared_gpa_boundary),
        },
        Header::GuestPolicy(h) => Entry::GuestPolicy {
            policy: Hex(h.policy),
            mask: mask()?,
        },
        Header::VersionString(text) => Entry::VersionString {
            text: String::from_utf8(text.to_vec()).ok()?,
        },
        Header::CorimDocument(_) => Entry::CorimDocument {
            mask: mask()?,
            payload: payload?,
        },
        Header::CorimSignature(_) => Entry::CorimSignature {
            mask: mask()?,
            payload: payload?,
        },
        Header::PageData(h) => Entry::Pages {
            gpa: Hex(h.gpa),
            mask: mask()?,
            kind: kind_name(h.data_type)?,
            unmeasured: h.flags.unmeasured(),
            shared: h.flags.shared(),
            large: h.flags.is_2mb_page(),
            zero_pages: payload.is_none().then_some(1),
            payload,
        },
        Header::ParameterArea(h) => Entry::ParameterArea {
            area: h.parameter_area_index,
            bytes: h.number_of_bytes,
            payload,
        },
        Header::Parameter(kind, h) => Entry::Parameter {
            name: kind.name().to_owned(),
            area: h.parameter_area_index,
            byte_offset: h.byte_offset,
        },
        Header::ParameterInsert(h) => Entry::ParameterInsert {
            gpa: Hex(h.gpa),
            mask: mask()?,
            area: h.parameter_area_index,
        },
        Header::VpContext(h) => Entry::VpContext {
            vp: h.vp_index,
            gpa: Hex(h.gpa.get()),
            mask: mask()?,
            payload: payload?,
        },
        Header::RequiredMemory(h) => Entry::RequiredMemory {
            gpa: Hex(h.gpa),
            bytes: h.number_of_bytes,
            mask: mask()?,
            vtl2_protectable: h.flags.vtl2_protectable(),
        },
        Header::ErrorRange(h) => Entry::ErrorRange {
            gpa: Hex(h.gpa),
            bytes: h.size_bytes,
            mask: mask()?,
        },
        _ => return None,
    })
}

/// A header as raw bytes.
pub(super) fn raw(typ: u32, content: &[u8], padding: &[u8]) -> Entry {
    let zero = padding.iter().all(|&byte| byte == 0);
    Entry::Raw {
        typ: Hex(typ.into()),
        name: type_name(typ).map(str::to_owned),
        content: Bytes(content.to_vec()),
        padding: Bytes(if zero { Vec::new() } else { padding.to_vec() }),
    }
}

fn narrow(what: &str, value: Hex) -> Result<u32, String> {
    u32::try_from(value.0).map_err(|_| format!("{what} {value} does not fit 32 bits"))
}

/// The header of one page of an entry, or of the entry, with its data at `file_offset`. `len` is the
/// payload's length.
pub(super) fn header(entry: &Entry, page: u64, file_offset: u32, len: u64) -> Result<(u32, Vec<u8>), String> {
    let header = match entry {
        Entry::SupportedPlatform {
            platform,
            mask,
            highest_vtl,
            version,
            shared_gpa_boundary,
        } => Header::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
            compatibility_mask: narrow("mask", *mask)?,
            highest_vtl: *highest_vtl,
            platform_type: platform_type(platform)?,
            platform_version: *version,
            shared_gpa_boundary: shared_gpa_boundary.0,
        }),
        Entry::GuestPolicy { policy, mask } => Header::GuestPolicy(IGVM_VHS_GUEST_POLICY {
            policy: policy.0,
            compatibility_mask: narrow("mask", *mask)?,
            reserved: 0,
        }),
        Entry::VersionString { text } => return Ok((0x107, text.as_bytes().to_vec())),
        Entry::CorimDocument { mask, .. } => Header::CorimDocument(corim(*mask, file_offset, len)?),
        Entry::CorimSignature { mask, .. } => Header::CorimSignature(corim(*mask, file_offset, len)?),
        Entry::Pages { .. } => Header::PageData(page_data(entry, page, file_offset)?),
        Entry::ParameterArea { area, bytes, .. } => Header::ParameterArea(IGVM_VHS_PARAMETER_AREA {
            number_of_bytes: *bytes,
            parameter_area_index: *area,
            file_offset,
        }),
        Entry::Raw { typ, content, .. } => return Ok((narrow("type", *typ)?, content.0.clone())),
        _ => other_directive(entry, file_offset)?,
    };
    Ok((header.typ(), header.content().to_vec()))
}

fn other_directive(entry: &Entry, file_offset: u32) -> Result<Header<'static>, String> {
    Ok(match entry {
        Entry::Parameter {
            name,
            area,
            byte_offset,
        } => {
            let kind = ParameterKind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = kind.ok_or_else(|| {
                let known: Vec<_> = ParameterKind::ALL.iter().map(|kind| kind.name()).collect();
                format!("there is no parameter {name:?}; there are {}", known.join(", "))
            })?;
            let parameter = IGVM_VHS_PARAMETER {
                parameter_area_index: *area,
                byte_offset: *byte_offset,
            };
            Header::Parameter(kind, parameter)
        }
        Entry::ParameterInsert { gpa, mask, area } => Header::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
            gpa: gpa.0,
            compatibility_mask: narrow("mask", *mask)?,
            parameter_area_index: *area,
        }),
        Entry::VpContext { vp, gpa, mask, .. } => Header::VpContext(IGVM_VHS_VP_CONTEXT {
            gpa: gpa.0.into(),
            compatibility_mask: narrow("mask", *mask)?,
            file_offset,
            vp_index: *vp,
            reserved: 0,
        }),
        Entry::RequiredMemory {
            gpa,
            bytes,
            mask,
            vtl2_protectable,
        } => Header::RequiredMemory(IGVM_VHS_REQUIRED_MEMORY {
            gpa: gpa.0,
            compatibility_mask: narrow("mask", *mask)?,
            number_of_bytes: *bytes,
            flags: RequiredMemoryFlags::new().with_vtl2_protectable(*vtl2_protectable),
            reserved: 0,
        }),
        Entry::ErrorRange { gpa, bytes, mask } => Header::ErrorRange(IGVM_VHS_ERROR_RANGE {
            gpa: gpa.0,
            compatibility_mask: narrow("mask", *mask)?,
            size_bytes: *bytes,
        }),
        _ => return Err("an entry has no header".to_owned()),
    })
}

fn corim(mask: Hex, file_offset: u32, len: u64) -> Result<IGVM_VHS_CORIM_DATA, String> {
    Ok(IGVM_VHS_CORIM_DATA {
        compatibility_mask: narrow("mask", mask)?,
        file_offset,
        size_bytes: narrow("payload length", Hex(len))?,
        reserved: 0,
    })
}

fn page_data(entry: &Entry, page: u64, file_offset: u32) -> Result<IGVM_VHS_PAGE_DATA, String> {
    let Entry::Pages {
        gpa,
        mask,
        kind,
        unmeasured,
        shared,
        large,
        ..
    } = entry
    else {
        return Err("an entry has no pages".to_owned());
    };
    let row = KINDS.iter().find(|row| row.0 == kind);
    let gpa = page
        .checked_mul(page_bytes(*large))
        .and_then(|offset| gpa.0.checked_add(offset));
    Ok(IGVM_VHS_PAGE_DATA {
        gpa: gpa.ok_or("pages pass the end of the address space")?,
        compatibility_mask: narrow("mask", *mask)?,
        file_offset,
        flags: IgvmPageDataFlags::new()
            .with_is_2mb_page(*large)
            .with_unmeasured(*unmeasured)
            .with_shared(*shared),
        data_type: row.ok_or_else(|| format!("there is no page kind {kind:?}"))?.1,
        reserved: 0,
    })
}
