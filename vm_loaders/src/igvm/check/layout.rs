// SPDX-License-Identifier: MIT
//! Rules about the file as a whole: fixed header, checksum, unused data.

use super::Checker;
use crate::igvm::codes::Code;
use crate::igvm::file::FormatVersion;
use crate::igvm::problem::Problem;
use launch_plan::Isolation;

impl Checker<'_, '_> {
    pub(super) fn check_layout(&mut self) {
        let fixed = *self.file.fixed_header();
        let bytes = self.file.bytes();
        let mut report =
            |code, offset, message: String| self.survey.problems.push(Problem::file(code, offset, message));
        let start = fixed.variable_header_offset;
        if !start.is_multiple_of(8) {
            report(
                Code::HeaderAlignment,
                8,
                format!("variable header offset {start:#x} is not a multiple of 8"),
            );
        }
        if u64::from(fixed.total_file_size) != bytes.len() as u64 {
            let message = format!(
                "total file size {:#x} is not the file's length {:#x}",
                fixed.total_file_size,
                bytes.len()
            );
            report(Code::TotalSize, 16, message);
        }
        let checksum = fixed.compute_checksum(self.file.variable_headers());
        if checksum != fixed.checksum {
            let message = format!("checksum {:#010x} should be {checksum:#010x}", fixed.checksum);
            report(Code::Checksum, 20, message);
        }
        if fixed.version == FormatVersion::V2 {
            if fixed.architecture > 1 {
                report(
                    Code::Architecture,
                    24,
                    format!("architecture {} is not known", fixed.architecture),
                );
            }
            if fixed.page_size != 4096 {
                report(
                    Code::PageSize,
                    28,
                    format!("page size {:#x} must be 0x1000", fixed.page_size),
                );
            }
        }
        let gap = &bytes[fixed.len()..start as usize];
        if !gap.is_empty() {
            let message = format!(
                "{:#x} bytes between the fixed header and the variable headers",
                gap.len()
            );
            report(Code::HeaderGap, fixed.len() as u64, message);
        }
    }

    pub(super) fn finish(&mut self) {
        let problems = &mut self.survey.problems;
        if self.survey.platforms.is_empty() {
            let message = "no usable supported platform header";
            problems.push(Problem::file(Code::PlatformNone, self.file.data_start(), message));
        }
        for platform in &self.survey.platforms {
            if platform.isolation == Isolation::Snp && platform.mask & self.seen.policy == 0 {
                problems.push(Problem {
                    header: Some(platform.header),
                    ..Problem::file(
                        Code::PolicyMissing,
                        platform.file_offset.into(),
                        "platform snp has no guest policy",
                    )
                });
            }
        }
        self.finish_areas();
        self.finish_data();
    }

    /// Reports each piece of file data that no header refers to.
    fn finish_data(&mut self) {
        let Some(mut references) = self.references.take() else {
            return;
        };
        references.sort_unstable();
        let mut used = self.file.data_start();
        let end = self.file.bytes().len() as u64;
        references.push((end as u32, end as u32));
        for (start, stop) in references {
            if u64::from(start) > used {
                let message = format!("{:#x} bytes of file data are not used", u64::from(start) - used);
                self.survey
                    .problems
                    .push(Problem::file(Code::UnusedData, used, message));
                self.survey.unused.push((used, start.into()));
            }
            used = used.max(stop.into());
        }
    }
}
