// SPDX-License-Identifier: MIT
//! Plans become an IGVM file: the inverse of planning.
//!
//! Always true: the output depends on the plans and options only, so builds are reproducible; page bytes
//! are borrowed until they are written, one pass, in order; `plan(encode(plan)) == plan`. Platforms get
//! mask bits in the order of the plans; data that several platforms use is stored once. A file without
//! any data gets eight zero bytes, because the `igvm` crate refuses files that end with their headers.
//! Not here: deciding what goes in (manifests, `igvmtool`).

mod output;

use super::context;
use super::endorse;
use super::file::FormatVersion;
use super::header::Header;
use super::platform_type::platform_type;
use igvm_defs::*;
use launch_plan::{
    Arch, Contents, Import, Isolation, LaunchPlan, PageContents, PageKind, ParameterArea, PlanPage, StepKind,
    VpContext, VpIndex, VpState,
};
pub use output::Encoded;
use output::Output;
pub(super) use output::Piece;
use std::borrow::Cow;

/// How to encode.
#[derive(Debug, Clone, Default)]
pub struct EncodeOptions {
    /// Format version; AArch64 needs version 2.
    pub format: FormatVersion,
    /// Text of a VERSION_STRING header. The `igvm` crate 0.5.0 cannot read files that have one.
    pub version_string: Option<String>,
}

/// Why plans have no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum EncodeError {
    #[error("a file needs at least one platform")]
    NoPlans,
    #[error("platform {0} is given twice; a file holds one plan per platform")]
    DuplicatePlatform(Isolation),
    #[error("plans for x64 and aarch64 cannot be in one file")]
    MixedArchitectures,
    #[error("format version 1 holds x64 images only; choose version 2")]
    NeedsVersion2,
    #[error("vp {vp} of platform {isolation} has a context of another platform's form")]
    ContextForm { vp: VpIndex, isolation: Isolation },
    #[error("vp index {0} does not fit 16 bits")]
    VpIndex(VpIndex),
    #[error("{what} of {len:#x} bytes at gpa {gpa:#x} does not fit the 32-bit size field of its header")]
    RangeTooLarge { what: &'static str, gpa: u64, len: u64 },
    #[error("the file would have {0:#x} bytes; the format's limit is 4 GiB")]
    FileTooLarge(u64),
}

/// Encodes one plan per platform. Nothing is copied but headers and contexts; see [`Encoded`].
pub fn encode<'p>(plans: &'p [LaunchPlan<'_>], options: &EncodeOptions) -> Result<Encoded<'p>, EncodeError> {
    encode_with_records(plans, options, &[])
}

/// Encodes with more initialization headers, given by type and content; with the optional bit set, readers
/// that do not know them skip them. The `igvm` crate 0.5.0 refuses files with such headers.
pub fn encode_with_records<'p>(
    plans: &'p [LaunchPlan<'_>],
    options: &EncodeOptions,
    records: &[(u32, &[u8])],
) -> Result<Encoded<'p>, EncodeError> {
    let arch = plans.first().ok_or(EncodeError::NoPlans)?.facts.arch;
    for (index, plan) in plans.iter().enumerate() {
        let isolation = plan.facts.isolation;
        if plan.facts.arch != arch {
            return Err(EncodeError::MixedArchitectures);
        }
        if plans[..index]
            .iter()
            .any(|other| other.facts.isolation == isolation)
        {
            return Err(EncodeError::DuplicatePlatform(isolation));
        }
    }
    if arch == Arch::Aarch64 && options.format == FormatVersion::V1 {
        return Err(EncodeError::NeedsVersion2);
    }
    let mut encoder = Encoder {
        out: Output::new(plans.len() > 1),
        areas: 0,
        mask: 0,
        isolation: Isolation::Native,
    };
    // One header per step is exact for plans that were read from a file, and a start for all others.
    encoder
        .out
        .reserve(plans.iter().map(|plan| plan.steps().len()).sum());
    // There are fewer platform types than mask bits, and each is there once.
    let masks: Vec<u32> = (0..plans.len()).map(|bit| 1 << bit).collect();
    for (plan, &mask) in plans.iter().zip(&masks) {
        encoder.platform(plan, mask);
    }
    for (plan, &mask) in plans.iter().zip(&masks) {
        encoder.initialization(plan, mask);
    }
    if let Some(text) = &options.version_string {
        encoder.out.header(&Header::VersionString(text.as_bytes()));
    }
    for (typ, content) in records {
        encoder.out.raw_header(*typ, content);
    }
    for (plan, &mask) in plans.iter().zip(&masks) {
        encoder.directives(plan, mask)?;
    }
    let architecture = if arch == Arch::Aarch64 { 1 } else { 0 };
    encoder.out.finish(options.format, architecture)
}

struct Encoder<'p> {
    out: Output<'p>,
    /// Parameter areas so far; an area's index is its number.
    areas: u32,
    mask: u32,
    isolation: Isolation,
}

impl<'p> Encoder<'p> {
    fn platform(&mut self, plan: &LaunchPlan<'_>, mask: u32) {
        let facts = &plan.facts;
        self.out
            .header(&Header::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
                compatibility_mask: mask,
                highest_vtl: facts.highest_vtl,
                platform_type: platform_type(facts.isolation),
                platform_version: 1,
                shared_gpa_boundary: facts.shared_gpa_boundary,
            }));
    }

    fn initialization(&mut self, plan: &'p LaunchPlan<'_>, mask: u32) {
        if let Some(policy) = plan.facts.policy {
            let header = IGVM_VHS_GUEST_POLICY {
                policy,
                compatibility_mask: mask,
                reserved: 0,
            };
            self.out.header(&Header::GuestPolicy(header));
        }
        if let Some(policy) = &plan.facts.cca_policy {
            self.out.header(&Header::CcaPolicy(IGVM_VHS_CCA_POLICY {
                compatibility_mask: mask,
                reserved: 0,
                attributes_required_zeroes: policy.required_zeroes,
                attributes_required_ones: policy.required_ones,
                hash_algorithm: CcaHashAlgorithm(policy.hash_algorithm),
                lfa_policy: CcaLfaPolicy(policy.lfa_policy),
                reserved2: [0; 6],
            }));
        }
        for region in &plan.relocatable {
            let flag = |set, flag: u8| if set { flag } else { 0 };
            self.out
                .header(&Header::RelocatableRegion(IGVM_VHS_RELOCATABLE_REGION {
                    compatibility_mask: mask,
                    vp_index: region.vp as u16,
                    vtl: region.vtl,
                    flags: flag(region.is_vtl2, IGVM_VHF_RELOCATABLE_REGION_IS_VTL2)
                        | flag(region.apply_pc, IGVM_VHF_RELOCATABLE_REGION_APPLY_PC)
                        | flag(region.apply_gdtr, IGVM_VHF_RELOCATABLE_REGION_APPLY_GDTR),
                    relocation_alignment: region.alignment,
                    relocation_region_gpa: region.gpa,
                    relocation_region_size: region.len,
                    minimum_relocation_gpa: region.min_gpa,
                    maximum_relocation_gpa: region.max_gpa,
                }));
        }
        if let Some(tables) = &plan.page_tables {
            self.out
                .header(&Header::PageTableRelocation(IGVM_VHS_PAGE_TABLE_RELOCATION {
                    compatibility_mask: mask,
                    vp_index: tables.vp as u16,
                    vtl: tables.vtl,
                    reserved: 0,
                    gpa: tables.gpa,
                    size: tables.len,
                    used_size: tables.used,
                }));
        }
        if let Some(corim) = &plan.endorsements.corim {
            self.corim(&corim.document, mask, Header::CorimDocument);
            if let Some(signature) = &corim.signature {
                self.corim(signature, mask, Header::CorimSignature);
            }
        }
    }

    fn corim(&mut self, bytes: &'p [u8], mask: u32, header: fn(IGVM_VHS_CORIM_DATA) -> Header<'static>) {
        let file_offset = self.out.data(Cow::Borrowed(bytes), bytes.len());
        let data = IGVM_VHS_CORIM_DATA {
            compatibility_mask: mask,
            file_offset,
            size_bytes: bytes.len() as u32,
            reserved: 0,
        };
        self.out.header_with_data(&header(data), 4);
    }

    fn directives(&mut self, plan: &'p LaunchPlan<'_>, mask: u32) -> Result<(), EncodeError> {
        (self.mask, self.isolation) = (mask, plan.facts.isolation);
        for step in plan.steps() {
            match &step.kind {
                StepKind::Import(import) => self.import(import),
                StepKind::ErrorRange { gpa, len } => {
                    let size_bytes = size_field("an error range", *gpa, *len)?;
                    let header = IGVM_VHS_ERROR_RANGE {
                        gpa: *gpa,
                        compatibility_mask: mask,
                        size_bytes,
                    };
                    self.out.header(&Header::ErrorRange(header));
                }
                StepKind::ExpectMemory(expect) => {
                    let number_of_bytes = size_field("required memory", expect.gpa, expect.len)?;
                    self.out.header(&Header::RequiredMemory(IGVM_VHS_REQUIRED_MEMORY {
                        gpa: expect.gpa,
                        compatibility_mask: mask,
                        number_of_bytes,
                        flags: RequiredMemoryFlags::new().with_vtl2_protectable(expect.vtl2_protectable),
                        reserved: 0,
                    }));
                }
                StepKind::VpContext(context) => self.context(context)?,
            }
        }
        if let Some(block) = &plan.endorsements.id_block {
            self.out
                .header(&Header::SnpIdBlock(Box::new(endorse::raw_id_block(block, mask))));
        }
        if let Some(measurement) = &plan.endorsements.vbs_measurement {
            let raw = endorse::raw_vbs_measurement(measurement, mask);
            self.out.header(&Header::VbsMeasurement(Box::new(raw)));
        }
        Ok(())
    }

    fn import(&mut self, import: &'p Import<'_>) {
        if let Contents::Parameters(area) = &import.contents {
            return self.parameters(import.gpa, import.len, area);
        }
        for page in import.pages() {
            self.page(&page, import.large);
        }
    }

    fn page(&mut self, page: &PlanPage<'p, '_>, large: bool) {
        let data_type = match page.kind {
            PageKind::Secrets => IgvmPageDataType::SECRETS,
            PageKind::Cpuid => IgvmPageDataType::CPUID_DATA,
            PageKind::CpuidXf => IgvmPageDataType::CPUID_XF,
            PageKind::Measured | PageKind::Unmeasured | PageKind::Shared => IgvmPageDataType::NORMAL,
        };
        let mut header = IGVM_VHS_PAGE_DATA {
            gpa: page.gpa,
            compatibility_mask: self.mask,
            file_offset: 0,
            flags: IgvmPageDataFlags::new()
                .with_is_2mb_page(large)
                .with_unmeasured(page.kind == PageKind::Unmeasured)
                .with_shared(page.kind == PageKind::Shared),
            data_type,
            reserved: 0,
        };
        let PageContents::Bytes(bytes) = page.contents else {
            return self.out.header(&Header::PageData(header));
        };
        header.file_offset = self.out.data(Cow::Borrowed(bytes), page.size as usize);
        self.out.header_with_data(&Header::PageData(header), 12);
    }

    fn parameters(&mut self, gpa: u64, number_of_bytes: u64, area: &'p ParameterArea<'_>) {
        let parameter_area_index = self.areas;
        self.areas += 1;
        let mut header = IGVM_VHS_PARAMETER_AREA {
            number_of_bytes,
            parameter_area_index,
            file_offset: 0,
        };
        if area.initial.is_empty() {
            self.out.header(&Header::ParameterArea(header));
        } else {
            let initial = Cow::Borrowed(&*area.initial);
            header.file_offset = self
                .out
                .data(initial, usize::try_from(number_of_bytes).unwrap_or(usize::MAX));
            self.out.header_with_data(&Header::ParameterArea(header), 12);
        }
        for slot in &area.slots {
            let parameter = IGVM_VHS_PARAMETER {
                parameter_area_index,
                byte_offset: slot.byte_offset,
            };
            self.out.header(&Header::Parameter(slot.kind, parameter));
        }
        let compatibility_mask = self.mask;
        let insert = IGVM_VHS_PARAMETER_INSERT {
            gpa,
            compatibility_mask,
            parameter_area_index,
        };
        self.out.header(&Header::ParameterInsert(insert));
    }

    fn context(&mut self, vp_context: &'p VpContext<'_>) -> Result<(), EncodeError> {
        let vp = vp_context.vp;
        let fits = matches!(
            (&vp_context.state, self.isolation),
            (VpState::Native(_), Isolation::Native | Isolation::Sev)
                | (VpState::Vbs(_) | VpState::Aarch64Vbs(_), Isolation::Vsm)
                | (VpState::Vmsa(_), Isolation::SevEs | Isolation::Snp)
                | (VpState::Cca(_), Isolation::Cca)
        );
        if !fits {
            return Err(EncodeError::ContextForm {
                vp,
                isolation: self.isolation,
            });
        }
        let vp_index = u16::try_from(vp).map_err(|_| EncodeError::VpIndex(vp))?;
        let payload = context::encode(&vp_context.state);
        let len = payload.len();
        let header = IGVM_VHS_VP_CONTEXT {
            gpa: vp_context.gpa.into(),
            compatibility_mask: self.mask,
            file_offset: self.out.data(payload, len),
            vp_index,
            reserved: 0,
        };
        self.out.header_with_data(&Header::VpContext(header), 12);
        Ok(())
    }
}

fn size_field(what: &'static str, gpa: u64, len: u64) -> Result<u32, EncodeError> {
    u32::try_from(len).map_err(|_| EncodeError::RangeTooLarge { what, gpa, len })
}
