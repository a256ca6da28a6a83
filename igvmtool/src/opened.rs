// SPDX-License-Identifier: MIT
//! Opening an IGVM file for a command that looks at it.

use crate::failure::Failure;
use launch_plan::{Isolation, LaunchPlan};
use std::path::Path;
use vm_loaders::igvm::{File, MappedFile};

/// Maps `path`.
pub(crate) fn map(path: &Path) -> Result<MappedFile, Failure> {
    MappedFile::open(path).map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        Failure::Unreadable(format!("{error}{cause}"))
    })
}

/// Reads the structure of a mapped file.
pub(crate) fn read(mapped: &MappedFile) -> Result<File<'_>, Failure> {
    File::read(mapped.bytes())
        .map_err(|problem| Failure::Unreadable(format!("{}: {problem}", mapped.name().display())))
}

/// The plan of one platform.
pub(crate) fn plan<'a>(
    mapped: &MappedFile,
    file: &File<'a>,
    isolation: Isolation,
) -> Result<LaunchPlan<'a>, Failure> {
    let shown = mapped.name().display();
    file.plan(isolation)
        .map_err(|refused| Failure::Unreadable(format!("{shown}: {refused}")))
}

/// Fails if the file was changed under our eyes.
pub(crate) fn finish(
    mapped: &MappedFile,
    outcome: crate::failure::Outcome,
) -> Result<crate::failure::Outcome, Failure> {
    mapped
        .verify_unchanged()
        .map_err(|error| Failure::Unreadable(error.to_string()))?;
    Ok(outcome)
}
