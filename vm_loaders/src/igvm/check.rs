// SPDX-License-Identifier: MIT
//! The rules that a file must keep whatever platform it is loaded for, header by header.
//!
//! Always true: one pass in file order, every problem of a header is reported, memory grows with the
//! number of headers only. Headers with an error are marked, so that planning skips them. Not here: rules
//! that need one platform's whole picture, such as overlap (`interpret`).

mod directives;
mod initialization;
mod layout;

use super::codes::{Code, Severity};
use super::file::File;
use super::header::{Header, HeaderError, RawHeader, Section};
use super::interpret::interpret;
use super::platform_type::isolation_of;
use super::problem::{Problem, Problems};
use directives::Areas;
use igvm_defs::IGVM_VHS_SUPPORTED_PLATFORM;
use launch_plan::{Arch, Isolation};

/// A platform that a file supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    /// Which.
    pub isolation: Isolation,
    /// Its bit in compatibility masks.
    pub mask: u32,
    /// Highest VTL that the image uses.
    pub highest_vtl: u8,
    /// First byte address of shared memory, 0 when unused.
    pub shared_gpa_boundary: u64,
    /// Index of its header.
    pub header: u32,
    /// File offset of its header.
    pub file_offset: u32,
}

/// What the pass found out.
pub(super) struct Survey {
    pub(super) arch: Arch,
    pub(super) platforms: Vec<Platform>,
    pub(super) problems: Problems,
    /// Per header: it has an error of its own and is not interpreted.
    pub(super) bad: Vec<bool>,
    /// Pieces of file data that nothing refers to, as (start, end), when asked for.
    pub(super) unused: Vec<(u64, u64)>,
}

impl File<'_> {
    /// Every problem of the file, in file order, notes included; empty for a flawless one.
    pub fn check(&self) -> Vec<Problem> {
        let mut survey = survey(self, true);
        for platform in survey.platforms.clone() {
            let (_, found) = interpret(self, &survey, &platform);
            for problem in found.into_vec() {
                // Platforms share headers; one report per header and rule is enough.
                if !survey.problems.has(problem.code, problem.header) {
                    survey.problems.push(problem);
                }
            }
        }
        let mut problems = survey.problems.into_vec();
        problems.sort_by_key(|problem| (problem.header.is_some(), problem.file_offset));
        problems
    }

    /// The platforms that the file lists, in file order; those with a broken header are left out.
    pub fn platforms(&self) -> Vec<Platform> {
        survey(self, false).platforms
    }

    /// Pieces of file data that no header refers to, as ranges of file offsets in order.
    pub fn unused_data(&self) -> Vec<(u64, u64)> {
        survey(self, true).unused
    }
}

/// Runs the pass. `with_data` also looks for file data that nothing refers to.
pub(super) fn survey(file: &File<'_>, with_data: bool) -> Survey {
    let mut checker = Checker {
        file,
        survey: Survey {
            arch: if file.fixed_header().architecture == 1 {
                Arch::Aarch64
            } else {
                Arch::X64
            },
            platforms: Vec::new(),
            problems: Problems::default(),
            bad: vec![false; file.headers().len()],
            unused: Vec::new(),
        },
        declared: 0,
        section: Section::Platform,
        references: with_data.then(Vec::new),
        at: At {
            index: 0,
            offset: 0,
            gpa: None,
        },
        seen: Seen::default(),
        areas: Areas::default(),
    };
    checker.check_layout();
    for (index, raw) in file.headers().iter().enumerate() {
        checker.check_header(index as u32, raw);
    }
    checker.finish();
    checker.survey
}

/// The header that is being checked.
#[derive(Debug, Clone, Copy)]
struct At {
    index: u32,
    offset: u32,
    gpa: Option<u64>,
}

/// Mask bits for which a once-per-platform header was seen.
#[derive(Debug, Default)]
struct Seen {
    policy: u32,
    cca_policy: u32,
    page_tables: u32,
    corim_document: u32,
    corim_signature: u32,
    id_block: u32,
    vbs_measurement: u32,
    version_string: bool,
}

struct Checker<'f, 'a> {
    file: &'f File<'a>,
    survey: Survey,
    /// Mask bits of all platforms so far.
    declared: u32,
    section: Section,
    /// Referenced file data as (start, end), when asked for.
    references: Option<Vec<(u32, u32)>>,
    at: At,
    seen: Seen,
    areas: Areas,
}

impl Checker<'_, '_> {
    fn report(&mut self, code: Code, message: impl Into<String>) {
        let At { index, offset, gpa } = self.at;
        if code.severity() == Severity::Error {
            self.survey.bad[index as usize] = true;
        }
        let problem = Problem {
            code,
            header: Some(index),
            file_offset: u64::from(offset),
            gpa,
            message: message.into(),
        };
        self.survey.problems.push(problem);
    }

    fn check_header(&mut self, index: u32, raw: &RawHeader) {
        self.at = At {
            index,
            offset: raw.offset,
            gpa: None,
        };
        if self.file.padding(raw).iter().any(|&byte| byte != 0) {
            self.report(
                Code::HeaderPadding,
                format!("padding behind {} bytes of content is not zero", raw.len),
            );
        }
        self.check_section(raw);
        if raw.is_optional() {
            self.report(
                Code::HeaderOptional,
                format!("optional header of type {:#x} is skipped", raw.typ),
            );
            return;
        }
        let header = match self.file.decode(raw) {
            Ok(header) => header,
            Err(HeaderError::UnknownType(0x306)) => {
                return self.report(Code::HeaderTypeRetired, "header type 0x306 is retired");
            }
            Err(error @ HeaderError::UnknownType(_)) => {
                return self.report(Code::HeaderType, error.to_string());
            }
            Err(error @ HeaderError::Length { .. }) => {
                return self.report(Code::HeaderLength, error.to_string());
            }
        };
        self.at.gpa = header.gpa();
        match &header {
            Header::SupportedPlatform(platform) => self.check_platform(platform),
            _ => {
                if let Some(mask) = header.mask() {
                    self.check_mask(mask);
                }
                self.check_content(&header);
            }
        }
    }

    fn check_section(&mut self, raw: &RawHeader) {
        let Some(section) = Section::of(raw.typ) else {
            return;
        };
        if section < self.section {
            let message = format!(
                "a {section:?} header stands behind the first {:?} header",
                self.section
            );
            self.report(Code::SectionOrder, message.to_lowercase());
        } else {
            self.section = section;
        }
    }

    fn check_mask(&mut self, mask: u32) {
        if mask & self.declared == 0 {
            let message = format!(
                "mask {mask:#x} names none of the file's platforms ({:#x})",
                self.declared
            );
            self.report(Code::MaskNoPlatform, message);
        } else if mask & !self.declared != 0 {
            let message = format!(
                "mask {mask:#x} has bits beyond the file's platforms ({:#x})",
                self.declared
            );
            self.report(Code::MaskUnknownBit, message);
        }
    }

    fn check_content(&mut self, header: &Header<'_>) {
        match header {
            Header::SupportedPlatform(_) => {}
            Header::GuestPolicy(policy) => self.check_policy(policy),
            Header::CcaPolicy(policy) => self.check_cca_policy(policy),
            Header::RelocatableRegion(region) => self.check_region(region),
            Header::PageTableRelocation(region) => self.check_page_tables(region),
            Header::CorimDocument(data) => self.check_corim(data, false),
            Header::CorimSignature(data) => self.check_corim(data, true),
            Header::VersionString(text) => self.check_version_string(text),
            Header::ParameterArea(area) => self.check_area(area),
            Header::Parameter(kind, parameter) => self.check_parameter(*kind, parameter),
            Header::ParameterInsert(insert) => self.check_insert(insert),
            Header::PageData(page) => self.check_page(page),
            Header::VpContext(context) => self.check_context(context),
            Header::RequiredMemory(memory) => self.check_required_memory(memory),
            Header::ErrorRange(range) => self.check_error_range(range),
            Header::SnpIdBlock(block) => self.check_id_block(block),
            Header::VbsMeasurement(measurement) => self.check_vbs_measurement(measurement),
        }
    }

    fn check_platform(&mut self, header: &IGVM_VHS_SUPPORTED_PLATFORM) {
        let mask = header.compatibility_mask;
        if mask.count_ones() != 1 {
            self.report(
                Code::PlatformMask,
                format!("platform mask {mask:#x} must have exactly one bit"),
            );
        }
        if mask & self.declared != 0 {
            self.report(
                Code::PlatformMaskShared,
                format!("platform mask {mask:#x} is taken by another platform"),
            );
        }
        self.declared |= mask;
        if header.platform_version != 1 {
            self.report(
                Code::PlatformVersion,
                format!("platform version {} must be 1", header.platform_version),
            );
        }
        if !matches!(header.highest_vtl, 0 | 2) {
            self.report(
                Code::PlatformVtl,
                format!("highest vtl {} must be 0 or 2", header.highest_vtl),
            );
        }
        let Some(isolation) = isolation_of(header.platform_type) else {
            let message = format!("platform type {} is not known", header.platform_type.0);
            return self.report(Code::PlatformType, message);
        };
        self.check_known_platform(header, isolation);
        if !self.survey.bad[self.at.index as usize] {
            self.survey.platforms.push(Platform {
                isolation,
                mask,
                highest_vtl: header.highest_vtl,
                shared_gpa_boundary: header.shared_gpa_boundary,
                header: self.at.index,
                file_offset: self.at.offset,
            });
        }
    }

    fn check_known_platform(&mut self, header: &IGVM_VHS_SUPPORTED_PLATFORM, isolation: Isolation) {
        if self
            .survey
            .platforms
            .iter()
            .any(|platform| platform.isolation == isolation)
        {
            self.report(
                Code::PlatformDuplicate,
                format!("platform {isolation} is listed twice"),
            );
        }
        let arch = self.survey.arch;
        let fits = match isolation {
            Isolation::Vsm => true,
            Isolation::Cca => arch == Arch::Aarch64,
            _ => arch == Arch::X64,
        };
        if !fits {
            self.report(
                Code::PlatformArchitecture,
                format!("platform {isolation} does not exist on {arch}"),
            );
        }
        let plain = matches!(isolation, Isolation::Native | Isolation::Sev | Isolation::SevEs);
        if header.highest_vtl == 2 && plain {
            self.report(
                Code::PlatformVtlUnused,
                format!("platform {isolation} has no vtl 2"),
            );
        }
        let boundary = header.shared_gpa_boundary;
        if boundary != 0 && (plain || isolation == Isolation::Cca || !boundary.is_power_of_two()) {
            let message = format!("shared gpa boundary {boundary:#x} on platform {isolation}");
            self.report(Code::SharedBoundary, message);
        }
    }

    /// Notes a reference to file data and checks its range. Offset 0 means "no data" to all headers that
    /// may leave it out; the caller handles that.
    fn check_data(&mut self, file_offset: u32, len: u64) {
        if self.file.data(file_offset, len).is_some() {
            self.note_data(file_offset, len);
            return;
        }
        let message = format!(
            "data at file offset {file_offset:#x} of {len:#x} bytes is outside the file data {:#x}..{:#x}",
            self.file.data_start(),
            self.file.bytes().len()
        );
        self.report(Code::DataRange, message);
    }

    /// Notes that a header refers to `len` bytes of file data, as far as they are there.
    fn note_data(&mut self, file_offset: u32, len: u64) {
        if let Some(references) = &mut self.references {
            let end = u64::from(file_offset).saturating_add(len);
            references.push((file_offset, end.min(self.file.bytes().len() as u64) as u32));
        }
    }

    /// Reports a field that must be zero.
    fn check_reserved(&mut self, field: &'static str, value: u64) {
        if value != 0 {
            self.report(
                Code::ReservedField,
                format!("{field} is {value:#x} and must be zero"),
            );
        }
    }

    /// The platforms that a mask names.
    fn platforms_of(&self, mask: u32) -> Vec<Platform> {
        self.survey
            .platforms
            .iter()
            .filter(|platform| platform.mask & mask != 0)
            .copied()
            .collect()
    }
}
