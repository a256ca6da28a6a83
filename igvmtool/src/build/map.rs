// SPDX-License-Identifier: MIT
//! The map beside a built file: what lies where, platform by platform, as text.

use launch_plan::{LaunchPlan, size_text};
use std::path::{Path, PathBuf};
use vm_loaders::igvm::FormatVersion;

/// Where the map of `file` goes.
pub(super) fn path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".map");
    name.into()
}

/// The map's text; it names the file but no folder, so that it is the same wherever it is built.
pub(super) fn text(file: &Path, format: FormatVersion, len: u64, plans: &[LaunchPlan<'_>]) -> String {
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
    let version = if format == FormatVersion::V1 { 1 } else { 2 };
    let mut text = format!("{name}: IGVM format {version}, {}\n", size_text(len));
    for plan in plans {
        text.push('\n');
        text.push_str(&plan.to_string());
    }
    text
}
