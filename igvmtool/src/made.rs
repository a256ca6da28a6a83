// SPDX-License-Identifier: MIT
//! What commands that write a file say about it with `--json`: `build`, `wrap` and `sign`.
//!
//! Always true: fields are only ever added within a schema version; digests are those of a launch through
//! KVM, lower-case hexadecimal. `Guide/src/json.md` is the description for users.

use crate::failure::Failure;
use launch_digest::{Options, measure};
use launch_plan::{Isolation, LaunchPlan};
use serde::Serialize;
use std::path::Path;
use vm_loaders::igvm::FormatVersion;

/// Version of the schema.
pub(crate) const SCHEMA: u32 = 1;

/// A format version as JSON has it.
pub(crate) const fn version_number(format: FormatVersion) -> u32 {
    match format {
        FormatVersion::V1 => 1,
        FormatVersion::V2 => 2,
    }
}

/// A written file.
#[derive(Debug, Serialize)]
pub(crate) struct Made {
    pub(crate) schema: u32,
    /// The file as it was named.
    pub(crate) output: String,
    /// Its size.
    pub(crate) bytes: u64,
    pub(crate) format_version: u32,
    /// In file order.
    pub(crate) platforms: Vec<MadePlatform>,
    /// Files that were written beside it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) beside: Vec<String>,
}

/// A platform of it.
#[derive(Debug, Serialize)]
pub(crate) struct MadePlatform {
    pub(crate) platform: &'static str,
    /// `None` on platforms without one.
    pub(crate) launch_digest: Option<String>,
    /// VPs that the digest covers.
    pub(crate) vp_count: Option<u32>,
    /// Whether the platform has an ID block.
    pub(crate) signed: bool,
}

impl Made {
    /// A description of `plans` as they stand in `output`.
    pub(crate) fn new(
        output: &Path,
        bytes: u64,
        format: FormatVersion,
        plans: &[LaunchPlan<'_>],
    ) -> Result<Self, Failure> {
        let platforms = plans.iter().map(platform).collect::<Result<_, _>>()?;
        Ok(Self {
            schema: SCHEMA,
            output: output.display().to_string(),
            bytes,
            format_version: version_number(format),
            platforms,
            beside: Vec::new(),
        })
    }
}

fn platform(plan: &LaunchPlan<'_>) -> Result<MadePlatform, Failure> {
    let isolation = plan.facts.isolation;
    let measurement = match isolation {
        Isolation::Native | Isolation::Cca => None,
        _ => Some(measure(plan, &Options::default()).map_err(|e| Failure::Usage(e.to_string()))?),
    };
    Ok(MadePlatform {
        platform: isolation.name(),
        vp_count: measurement.as_ref().map(|m| m.vp_count),
        launch_digest: measurement.map(|m| m.digest.to_string()),
        signed: plan.endorsements.id_block.is_some(),
    })
}
