// SPDX-License-Identifier: MIT
//! Rules about directives: pages, parameter areas, contexts, memory, ID blocks.

use super::Checker;
use crate::igvm::codes::Code;
use igvm_defs::*;
use launch_plan::{Isolation, ParameterKind, RangeSet};
use std::collections::HashMap;
use x86defs::paging::{LARGE_PAGE_SIZE, PAGE_SIZE};

/// Largest parameter area that is accepted, in bytes. The format has no limit; loaders allocate areas.
const MAX_AREA: u64 = 1 << 30;

/// Parameter areas declared so far, by index.
#[derive(Debug, Default)]
pub(super) struct Areas(HashMap<u32, Area>);

#[derive(Debug)]
struct Area {
    bytes: u64,
    header: u32,
    file_offset: u32,
    inserted: bool,
    taken: RangeSet,
}

/// The fewest bytes that a value of a kind takes.
fn smallest_value(kind: ParameterKind) -> u64 {
    match kind {
        ParameterKind::VpCount | ParameterKind::EnvironmentInfo => 4,
        ParameterKind::Srat | ParameterKind::Madt | ParameterKind::Slit | ParameterKind::Pptt => 36,
        ParameterKind::MmioRanges => 32,
        ParameterKind::MemoryMap => 24,
        ParameterKind::CommandLine => 1,
        ParameterKind::DeviceTree => 40,
    }
}

impl Checker<'_, '_> {
    pub(super) fn check_area(&mut self, header: &IGVM_VHS_PARAMETER_AREA) {
        let bytes = header.number_of_bytes;
        let index = header.parameter_area_index;
        if bytes == 0 || !bytes.is_multiple_of(PAGE_SIZE) || bytes > MAX_AREA {
            let message = format!(
                "parameter area {index} of {bytes:#x} bytes must be 0x1000 to {MAX_AREA:#x} in pages"
            );
            self.report(Code::AreaSize, message);
        } else if header.file_offset != 0 {
            self.check_data(header.file_offset, bytes);
        }
        if self.areas.0.contains_key(&index) {
            return self.report(
                Code::AreaDuplicate,
                format!("parameter area {index} is declared twice"),
            );
        }
        let area = Area {
            bytes,
            header: self.at.index,
            file_offset: self.at.offset,
            inserted: false,
            taken: RangeSet::default(),
        };
        self.areas.0.insert(index, area);
    }

    pub(super) fn check_parameter(&mut self, kind: ParameterKind, header: &IGVM_VHS_PARAMETER) {
        let (index, offset) = (header.parameter_area_index, header.byte_offset);
        let Some(area) = self.areas.0.get_mut(&index) else {
            return self.report(
                Code::AreaUnknown,
                format!("{kind} refers to undeclared parameter area {index}"),
            );
        };
        if area.inserted {
            let message = format!("{kind} refers to parameter area {index}, which is inserted already");
            return self.report(Code::AreaInserted, message);
        }
        let end = u64::from(offset) + smallest_value(kind);
        if end > area.bytes {
            let message = format!(
                "{kind} at byte offset {offset:#x} passes the end of parameter area {index} of {:#x} bytes",
                area.bytes
            );
            return self.report(Code::ParameterRange, message);
        }
        if !area.taken.insert(offset.into(), end - 1) {
            let message =
                format!("{kind} at byte offset {offset:#x} overlaps another parameter of area {index}");
            self.report(Code::ParameterOverlap, message);
        }
    }

    pub(super) fn check_insert(&mut self, header: &IGVM_VHS_PARAMETER_INSERT) {
        let index = header.parameter_area_index;
        let gpa = header.gpa;
        let Some(area) = self.areas.0.get_mut(&index) else {
            return self.report(
                Code::AreaUnknown,
                format!("insert of undeclared parameter area {index}"),
            );
        };
        let bytes = area.bytes;
        if std::mem::replace(&mut area.inserted, true) {
            return self.report(
                Code::AreaInserted,
                format!("parameter area {index} is inserted already"),
            );
        }
        self.check_pages("parameter insert", gpa, bytes, PAGE_SIZE);
    }

    pub(super) fn finish_areas(&mut self) {
        let mut unused: Vec<(u32, u32, u32)> = self
            .areas
            .0
            .iter()
            .filter(|(_, area)| !area.inserted)
            .map(|(&index, area)| (area.header, area.file_offset, index))
            .collect();
        unused.sort_unstable();
        for (header, offset, index) in unused {
            self.at = super::At {
                index: header,
                offset,
                gpa: None,
            };
            self.report(
                Code::AreaUnused,
                format!("parameter area {index} is never inserted"),
            );
        }
    }

    pub(super) fn check_page(&mut self, header: &IGVM_VHS_PAGE_DATA) {
        self.check_reserved("undefined flags", header.flags.reserved().into());
        self.check_reserved("reserved field", header.reserved.into());
        let size = if header.flags.is_2mb_page() {
            LARGE_PAGE_SIZE
        } else {
            PAGE_SIZE
        };
        self.check_pages("page", header.gpa, size, size);
        if header.file_offset != 0 {
            self.check_data(header.file_offset, size);
        }
        if header.data_type == IgvmPageDataType::NORMAL {
            return;
        }
        if header.data_type.0 > IgvmPageDataType::CPUID_XF.0 {
            return self.report(
                Code::PageType,
                format!("page data type {} is not known", header.data_type.0),
            );
        }
        for platform in self.platforms_of(header.compatibility_mask) {
            if platform.isolation != Isolation::Snp {
                let message = format!("{:?} page on platform {}", header.data_type, platform.isolation);
                self.report(Code::PageTypePlatform, message);
            }
        }
    }

    /// Checks the alignment and the end of a range of pages.
    fn check_pages(&mut self, what: &str, gpa: u64, bytes: u64, align: u64) {
        if !gpa.is_multiple_of(align) || !bytes.is_multiple_of(align) {
            let message = format!("{what} of {bytes:#x} bytes must start and end at multiples of {align:#x}");
            self.report(Code::PageAlignment, message);
        }
        self.check_gpa_range(what, gpa, bytes);
    }

    fn check_gpa_range(&mut self, what: &str, gpa: u64, bytes: u64) {
        let last = bytes.checked_sub(1).and_then(|span| gpa.checked_add(span));
        if last.is_none() {
            let message =
                format!("{what} of {bytes:#x} bytes is empty or passes the end of the address space");
            self.report(Code::GpaRange, message);
        }
    }

    pub(super) fn check_context(&mut self, header: &IGVM_VHS_VP_CONTEXT) {
        self.check_reserved("reserved field", header.reserved.into());
        let platforms = self.platforms_of(header.compatibility_mask);
        if header.compatibility_mask.count_ones() > 1 {
            let message = format!(
                "mask {:#x} names more than one platform",
                header.compatibility_mask
            );
            self.report(Code::ContextPlatform, message);
        }
        let Some(platform) = platforms.first() else { return };
        let isolation = platform.isolation;
        if isolation == Isolation::Tdx {
            return self.report(Code::ContextPlatform, "platform tdx takes no VP context");
        }
        self.note_context_data(isolation, header.file_offset);
        let gpa = header.gpa.get();
        let encrypted = matches!(isolation, Isolation::SevEs | Isolation::Snp);
        if (encrypted && !gpa.is_multiple_of(PAGE_SIZE)) || (!encrypted && gpa != 0) {
            self.report(
                Code::ContextAddress,
                format!("VP context of platform {isolation} with gpa {gpa:#x}"),
            );
        }
        if isolation == Isolation::Vsm && header.vp_index != 0 {
            let message = format!("a VBS register list for vp {} must be for vp 0", header.vp_index);
            self.report(Code::ContextVpIndex, message);
        }
    }

    /// Notes what a context's payload covers; whether it is there shows when it is decoded.
    fn note_context_data(&mut self, isolation: Isolation, offset: u32) {
        let len = match self.file.data(offset, 4) {
            Some(count) if isolation == Isolation::Vsm => {
                4 + 32 * u64::from(u32::from_le_bytes(count.try_into().unwrap_or_default()))
            }
            _ => PAGE_SIZE,
        };
        self.note_data(offset, len);
    }

    pub(super) fn check_required_memory(&mut self, header: &IGVM_VHS_REQUIRED_MEMORY) {
        self.check_reserved("undefined flags", header.flags.reserved().into());
        self.check_reserved("reserved field", header.reserved.into());
        self.check_pages(
            "required memory",
            header.gpa,
            header.number_of_bytes.into(),
            PAGE_SIZE,
        );
        if !header.flags.vtl2_protectable() {
            return;
        }
        for platform in self.platforms_of(header.compatibility_mask) {
            if platform.highest_vtl != 2 {
                let message = format!(
                    "vtl2-protectable memory on platform {} of vtl 0",
                    platform.isolation
                );
                self.report(Code::RequiredMemoryVtl, message);
            }
        }
    }

    pub(super) fn check_error_range(&mut self, header: &IGVM_VHS_ERROR_RANGE) {
        self.check_pages("error range", header.gpa, header.size_bytes.into(), PAGE_SIZE);
    }

    pub(super) fn check_id_block(&mut self, header: &IGVM_VHS_SNP_ID_BLOCK) {
        self.check_reserved(
            "reserved field",
            header.reserved.iter().map(|&byte| u64::from(byte)).sum(),
        );
        let keys = header.id_public_key.reserved | header.author_public_key.reserved;
        self.check_reserved("key reserved field", keys.into());
        if header.compatibility_mask & self.seen.id_block != 0 {
            self.report(
                Code::IdBlockDuplicate,
                "a platform of this mask already has an ID block",
            );
        }
        self.seen.id_block |= header.compatibility_mask;
        for platform in self.platforms_of(header.compatibility_mask) {
            if platform.isolation != Isolation::Snp {
                self.report(
                    Code::IdBlockPlatform,
                    format!("ID block for platform {}", platform.isolation),
                );
            }
        }
        let author = header.author_key_enabled;
        let author_fits = match author {
            0 => true,
            1 => header.author_key_algorithm == 1 && header.author_public_key.curve == 2,
            _ => false,
        };
        let id_fits = header.version == 1 && header.id_key_algorithm == 1 && header.id_public_key.curve == 2;
        if !author_fits || !id_fits {
            let message = format!(
                "version {}, id key algorithm {} curve {}, author key enabled {author} algorithm {} curve {}",
                header.version,
                header.id_key_algorithm,
                header.id_public_key.curve,
                header.author_key_algorithm,
                header.author_public_key.curve
            );
            self.report(Code::IdBlockValue, message);
        }
    }

    pub(super) fn check_vbs_measurement(&mut self, header: &IGVM_VHS_VBS_MEASUREMENT) {
        if header.compatibility_mask & self.seen.vbs_measurement != 0 {
            self.report(
                Code::VbsMeasurementDuplicate,
                "a platform of this mask already has a VBS measurement",
            );
        }
        self.seen.vbs_measurement |= header.compatibility_mask;
        for platform in self.platforms_of(header.compatibility_mask) {
            if platform.isolation != Isolation::Vsm {
                let message = format!("VBS measurement for platform {}", platform.isolation);
                self.report(Code::VbsMeasurementPlatform, message);
            }
        }
        let (digest, signing) = (header.boot_digest_algo, header.signing_algo);
        if digest != VbsDigestAlgorithm::SHA256.0 || signing != VbsSigningAlgorithm::ECDSA_P384.0 {
            let message = format!("digest algorithm {digest} and signing algorithm {signing} must both be 1");
            self.report(Code::VbsMeasurementValue, message);
        }
    }
}
