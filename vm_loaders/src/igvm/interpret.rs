// SPDX-License-Identifier: MIT
//! The interpretation of directives: one platform of a file becomes a launch plan.
//!
//! Always true: this is the only place in the tree that gives headers a meaning; `check` runs it to find
//! what only shows in a platform's whole picture, `plan` to use the result. Steps keep file order, one
//! per header; page bytes stay borrowed. Not here: rules that a header breaks alone (`check`), moving the
//! result (`relocate`).

use super::check::{Platform, Survey, survey};
use super::codes::Code;
use super::context::{self, Source};
use super::endorse;
use super::file::File;
use super::header::{Header, RawHeader};
use super::problem::{MAX_PROBLEMS, Problem, Problems, Refused};
use igvm_defs::*;
use launch_plan::{
    CcaPolicy, Contents, Corim, ExpectMemory, Import, Isolation, LaunchPlan, Origin, PageKind,
    PageTableRegion, ParameterArea, ParameterSlot, PlanBuilder, PlanError, PlatformFacts, RangeSet,
    RelocatableRegion, VpContext, VpState, check_state,
};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use x86defs::paging::{LARGE_PAGE_SIZE, PAGE_SIZE};

impl<'a> File<'a> {
    /// The launch plan of a platform at the file's own addresses. Refused when the file as a whole or this
    /// platform has an error.
    pub fn plan(&self, isolation: Isolation) -> Result<LaunchPlan<'a>, Refused> {
        let survey = survey(self, false);
        if survey.problems.errors() > 0 {
            return Err(Refused::new(survey.problems.into_vec()));
        }
        let Some(platform) = survey
            .platforms
            .iter()
            .find(|platform| platform.isolation == isolation)
        else {
            let has: Vec<_> = survey
                .platforms
                .iter()
                .map(|platform| platform.isolation.name())
                .collect();
            let message = format!("the file has no platform {isolation}; it has {}", has.join(", "));
            return Err(Refused::new(vec![Problem::file(
                Code::PlatformAbsent,
                self.data_start(),
                message,
            )]));
        };
        let (plan, problems) = interpret(self, &survey, platform);
        if problems.errors() > 0 {
            return Err(Refused::new(problems.into_vec()));
        }
        Ok(plan)
    }
}

/// Interprets the headers of one platform; headers with errors are left out of the plan.
pub(super) fn interpret<'a>(
    file: &File<'a>,
    survey: &Survey,
    platform: &Platform,
) -> (LaunchPlan<'a>, Problems) {
    let mut facts = PlatformFacts::new(platform.isolation, survey.arch);
    facts.highest_vtl = platform.highest_vtl;
    facts.shared_gpa_boundary = platform.shared_gpa_boundary;
    let mut builder = PlanBuilder::new(facts);
    builder.reserve(file.headers().len());
    builder.plan_mut().source = Some(file.bytes());
    let mut interpreter = Interpreter {
        file,
        platform,
        survey,
        builder,
        areas: HashMap::new(),
        problems: Problems::default(),
        references: OnceCell::new(),
        at: RawHeader {
            typ: 0,
            offset: 0,
            len: 0,
        },
        index: 0,
        movers: Vec::new(),
        regions: RangeSet::default(),
    };
    for (index, raw) in file.headers().iter().enumerate() {
        // A report lists no more than this, and each of these errors costs a search through the plan.
        if interpreter.problems.errors() > MAX_PROBLEMS as u64 {
            break;
        }
        if survey.bad.get(index) == Some(&false) && !raw.is_optional() {
            interpreter.header(index as u32, raw);
        }
    }
    interpreter.finish()
}

/// A declared area that is not inserted yet.
struct Area<'a> {
    bytes: u64,
    area: ParameterArea<'a>,
}

/// A relocation header and the VP that it names.
struct Mover {
    index: u32,
    raw: RawHeader,
    gpa: u64,
    vp: u32,
    vtl: u8,
    is_page_tables: bool,
}

struct Interpreter<'f, 'a> {
    file: &'f File<'a>,
    platform: &'f Platform,
    survey: &'f Survey,
    builder: PlanBuilder<'a>,
    areas: HashMap<u32, Area<'a>>,
    problems: Problems,
    /// Sorted file offsets that headers refer to; computed when a context needs them.
    references: OnceCell<Vec<u32>>,
    at: RawHeader,
    index: u32,
    movers: Vec<Mover>,
    regions: RangeSet,
}

impl<'a> Interpreter<'_, 'a> {
    fn header(&mut self, index: u32, raw: &RawHeader) {
        (self.at, self.index) = (*raw, index);
        let Ok(header) = self.file.decode(raw) else { return };
        if header.mask().is_some_and(|mask| mask & self.platform.mask == 0) {
            return;
        }
        match header {
            Header::PageData(page) => self.page(&page),
            Header::ParameterArea(area) => self.area(&area),
            Header::Parameter(kind, parameter) => {
                let slot = ParameterSlot {
                    kind,
                    byte_offset: parameter.byte_offset,
                    origin: self.origin(),
                };
                if let Some(area) = self.areas.get_mut(&parameter.parameter_area_index) {
                    area.area.slots.push(slot);
                }
            }
            Header::ParameterInsert(insert) => self.insert(&insert),
            Header::VpContext(context) => self.context(&context),
            Header::RequiredMemory(memory) => {
                let (gpa, len) = (memory.gpa, memory.number_of_bytes.into());
                let expect = ExpectMemory {
                    gpa,
                    len,
                    vtl2_protectable: memory.flags.vtl2_protectable(),
                };
                let result = self.builder.expect_memory(expect, self.origin());
                self.accept(result, gpa);
            }
            Header::ErrorRange(range) => {
                let result = self
                    .builder
                    .error_range(range.gpa, range.size_bytes.into(), self.origin());
                self.accept(result, range.gpa);
            }
            other => self.initialization(other),
        }
    }

    /// Headers that become facts, endorsements or relocation rules.
    fn initialization(&mut self, header: Header<'a>) {
        let plan = self.builder.plan_mut();
        match header {
            Header::GuestPolicy(policy) => plan.facts.policy = Some(policy.policy),
            Header::CcaPolicy(policy) => {
                plan.facts.cca_policy = Some(CcaPolicy {
                    required_zeroes: policy.attributes_required_zeroes,
                    required_ones: policy.attributes_required_ones,
                    hash_algorithm: policy.hash_algorithm.0,
                    lfa_policy: policy.lfa_policy.0,
                });
            }
            Header::SnpIdBlock(block) => {
                plan.endorsements.id_block = Some(Box::new(endorse::id_block(&block)));
            }
            Header::VbsMeasurement(measurement) => {
                plan.endorsements.vbs_measurement = Some(Box::new(endorse::vbs_measurement(&measurement)));
            }
            Header::CorimDocument(data) => {
                if let Some(document) = self.file.data(data.file_offset, data.size_bytes.into()) {
                    plan.endorsements.corim = Some(Corim {
                        document: Cow::Borrowed(document),
                        signature: None,
                    });
                }
            }
            Header::CorimSignature(data) => {
                let signature = self.file.data(data.file_offset, data.size_bytes.into());
                if let (Some(corim), Some(signature)) = (&mut plan.endorsements.corim, signature) {
                    corim.signature = Some(Cow::Borrowed(signature));
                }
            }
            Header::RelocatableRegion(region) => self.region(&region),
            Header::PageTableRelocation(region) => self.page_tables(&region),
            _ => {}
        }
    }

    fn region(&mut self, header: &IGVM_VHS_RELOCATABLE_REGION) {
        let has = |flag: u8| header.flags & flag != 0;
        let region = RelocatableRegion {
            vp: header.vp_index.into(),
            vtl: header.vtl,
            is_vtl2: has(IGVM_VHF_RELOCATABLE_REGION_IS_VTL2),
            apply_pc: has(IGVM_VHF_RELOCATABLE_REGION_APPLY_PC),
            apply_gdtr: has(IGVM_VHF_RELOCATABLE_REGION_APPLY_GDTR),
            alignment: header.relocation_alignment,
            gpa: header.relocation_region_gpa,
            len: header.relocation_region_size,
            min_gpa: header.minimum_relocation_gpa,
            max_gpa: header.maximum_relocation_gpa,
        };
        self.mover(region.gpa, region.len, (region.vp, region.vtl), false);
        self.builder.plan_mut().relocatable.push(region);
    }

    fn page_tables(&mut self, header: &IGVM_VHS_PAGE_TABLE_RELOCATION) {
        let region = PageTableRegion {
            vp: header.vp_index.into(),
            vtl: header.vtl,
            gpa: header.gpa,
            len: header.size,
            used: header.used_size,
        };
        self.mover(region.gpa, region.len, (region.vp, region.vtl), true);
        self.builder.plan_mut().page_tables = Some(region);
    }

    /// Notes a relocation header and checks it against the regions before it.
    fn mover(&mut self, gpa: u64, len: u64, (vp, vtl): (u32, u8), is_page_tables: bool) {
        // Lengths and ends were checked header by header.
        if !self.regions.insert(gpa, gpa + (len - 1)) {
            let message =
                format!("region of {len:#x} bytes overlaps another relocatable or page table region");
            self.report(Code::RelocationOverlap, Some(gpa), message);
        }
        let (index, raw) = (self.index, self.at);
        self.movers.push(Mover {
            index,
            raw,
            gpa,
            vp,
            vtl,
            is_page_tables,
        });
    }

    fn page(&mut self, page: &IGVM_VHS_PAGE_DATA) {
        let large = page.flags.is_2mb_page();
        let len = if large { LARGE_PAGE_SIZE } else { PAGE_SIZE };
        let kind = match page.data_type {
            IgvmPageDataType::SECRETS => PageKind::Secrets,
            IgvmPageDataType::CPUID_DATA => PageKind::Cpuid,
            IgvmPageDataType::CPUID_XF => PageKind::CpuidXf,
            // An unmeasured flag wins over a shared one, as OpenVMM has it.
            _ if page.flags.unmeasured() => PageKind::Unmeasured,
            _ if page.flags.shared() => PageKind::Shared,
            _ => PageKind::Measured,
        };
        let data = (page.file_offset != 0)
            .then(|| self.file.data(page.file_offset, len))
            .flatten();
        let contents = data.map_or(Contents::Zero, Contents::borrowed);
        let import = Import {
            gpa: page.gpa,
            len,
            large,
            kind,
            contents,
        };
        let result = self.builder.import(import, self.origin());
        self.accept(result, page.gpa);
    }

    fn area(&mut self, header: &IGVM_VHS_PARAMETER_AREA) {
        let bytes = header.number_of_bytes;
        let initial = (header.file_offset != 0)
            .then(|| self.file.data(header.file_offset, bytes))
            .flatten();
        let area = ParameterArea {
            index: header.parameter_area_index,
            initial: Cow::Borrowed(initial.unwrap_or(&[])),
            slots: Vec::new(),
        };
        self.areas
            .insert(header.parameter_area_index, Area { bytes, area });
    }

    fn insert(&mut self, header: &IGVM_VHS_PARAMETER_INSERT) {
        let Some(Area { bytes, area }) = self.areas.remove(&header.parameter_area_index) else {
            return;
        };
        let gpa = header.gpa;
        let tables = self.builder.plan_mut().page_tables;
        if tables.is_some_and(|tables| gpa < tables.gpa + tables.len && tables.gpa < gpa + bytes) {
            let message = format!(
                "parameter area {} is inserted in the page table region",
                area.index
            );
            self.report(Code::PageTableInsert, Some(gpa), message);
        }
        let contents = Contents::Parameters(Box::new(area));
        let import = Import {
            gpa,
            len: bytes,
            large: false,
            kind: PageKind::Unmeasured,
            contents,
        };
        let result = self.builder.import(import, self.origin());
        self.accept(result, gpa);
    }

    fn context(&mut self, header: &IGVM_VHS_VP_CONTEXT) {
        let file = self.file;
        let references = &self.references;
        let next_reference = |offset| {
            let sorted = references.get_or_init(|| file_references(file));
            let next = sorted.partition_point(|&start| start <= offset);
            sorted
                .get(next)
                .map_or(file.bytes().len() as u64, |&start| start.into())
        };
        let source = Source {
            file,
            arch: self.survey.arch,
            isolation: self.platform.isolation,
            highest_vtl: self.platform.highest_vtl,
            next_reference: &next_reference,
        };
        let state = match context::decode(&source, header) {
            Ok(state) => state,
            Err((code, message)) => return self.report(code, None, message),
        };
        if let Some(registers) = state.to_x86()
            && let Err(error) = check_state(&registers)
        {
            self.report(Code::ContextState, None, error.to_string());
        }
        self.check_vmsa(&state);
        let context = VpContext {
            vp: header.vp_index.into(),
            gpa: header.gpa.get(),
            state,
        };
        let result = self.builder.vp_context(context, self.origin());
        self.accept(result, header.gpa.get());
    }

    fn check_vmsa(&mut self, state: &VpState<'_>) {
        /// Offset of SEV_FEATURES in a VMSA (APM2 table B-4).
        const SEV_FEATURES: usize = 0x3B0;
        let VpState::Vmsa(vmsa) = state else { return };
        let active = vmsa.get(SEV_FEATURES).is_some_and(|features| features & 1 != 0);
        if active != (self.platform.isolation == Isolation::Snp) {
            let message = format!(
                "bit 0 of the VMSA's features is {} on {}",
                u8::from(active),
                self.platform.isolation
            );
            self.report(Code::VmsaFeatures, None, message);
        }
    }

    fn origin(&self) -> Origin {
        Origin::Header {
            index: self.index,
            offset: self.at.offset,
        }
    }

    /// Turns the builder's refusal into a problem.
    fn accept(&mut self, result: Result<(), PlanError>, gpa: u64) {
        let Err(error) = result else { return };
        let platform = self.platform.isolation;
        let (code, message) = match error {
            PlanError::Overlap {
                len,
                other_gpa,
                other_len,
                other,
                ..
            } => (
                Code::GpaOverlap,
                format!(
                    "{len:#x} bytes overlap gpa {other_gpa:#x} of {other_len:#x} bytes from {other} on platform {platform}"
                ),
            ),
            PlanError::DuplicateVp { vp, other, .. } => (
                Code::ContextDuplicate,
                format!("vp {vp} already has a context from {other} on platform {platform}"),
            ),
            PlanError::DuplicateRegister { name, .. } | PlanError::RegisterShape { name, .. } => (
                Code::ContextRegister,
                format!("register {name:?} is listed twice or has another shape"),
            ),
            PlanError::Empty { .. } | PlanError::Overflow { .. } => (Code::GpaRange, error.to_string()),
            PlanError::Unaligned { .. } | PlanError::LargePageLength { .. } => {
                (Code::PageAlignment, error.to_string())
            }
            PlanError::ContentsTooLong { .. }
            | PlanError::ParametersNotUnmeasured { .. }
            | PlanError::ParameterOutsideArea { .. } => (Code::ParameterRange, error.to_string()),
        };
        self.report(code, Some(gpa), message);
    }

    fn report(&mut self, code: Code, gpa: Option<u64>, message: String) {
        let file_offset = self.at.offset.into();
        self.problems.push(Problem {
            code,
            header: Some(self.index),
            file_offset,
            gpa,
            message,
        });
    }

    fn finish(mut self) -> (LaunchPlan<'a>, Problems) {
        let movers = std::mem::take(&mut self.movers);
        if !movers.is_empty() {
            let plan = self.builder.plan_mut();
            let vps: BTreeSet<(u32, u8)> = plan
                .vp_contexts()
                .filter_map(|(c, _)| Some((c.vp, vtl_of(&c.state)?)))
                .collect();
            for mover in movers {
                (self.at, self.index) = (mover.raw, mover.index);
                self.check_mover(&mover, &vps);
            }
        }
        (self.builder.finish(), self.problems)
    }

    /// Whether the VP that a relocation header names can move with its region.
    fn check_mover(&mut self, mover: &Mover, vps: &BTreeSet<(u32, u8)>) {
        if !vps.contains(&(mover.vp, mover.vtl)) {
            let message = format!(
                "vp {} of vtl {} has no context whose registers can move",
                mover.vp, mover.vtl
            );
            return self.report(Code::RelocationContext, Some(mover.gpa), message);
        }
        let plan = self.builder.plan_mut();
        let Some(tables) = plan.page_tables.filter(|_| mover.is_page_tables) else {
            return;
        };
        let state = plan
            .vp_contexts()
            .find(|(c, _)| c.vp == mover.vp)
            .and_then(|(c, _)| c.state.to_x86());
        let Some(state) = state else { return };
        let root = state.cr3 & x86defs::paging::PTE_ADDR;
        let paging = state.efer & x86defs::efer::LMA != 0 && state.cr0 & x86defs::cr0::PG != 0;
        if !paging || root < tables.gpa || root >= tables.gpa + tables.len {
            let message = format!("vp {} has cr3 {root:#x} and 64-bit paging {paging}", mover.vp);
            self.report(Code::PageTablePaging, Some(mover.gpa), message);
        }
    }
}

/// The trust level of a context whose registers can be moved.
pub(super) fn vtl_of(state: &VpState<'_>) -> Option<u8> {
    match state {
        VpState::Native(_) => Some(0),
        VpState::Vbs(registers) => registers.first().map(|register| register.vtl),
        VpState::Aarch64Vbs(registers) => registers.first().map(|register| register.vtl),
        VpState::Vmsa(_) | VpState::Cca(_) => None,
    }
}

/// The file offsets of all data that headers refer to, sorted.
fn file_references(file: &File<'_>) -> Vec<u32> {
    let mut references: Vec<u32> = file
        .headers()
        .iter()
        .filter_map(|raw| match file.decode(raw).ok()? {
            Header::PageData(page) => Some(page.file_offset),
            Header::ParameterArea(area) => Some(area.file_offset),
            Header::VpContext(context) => Some(context.file_offset),
            Header::CorimDocument(data) | Header::CorimSignature(data) => Some(data.file_offset),
            _ => None,
        })
        .collect();
    references.sort_unstable();
    references
}
