// SPDX-License-Identifier: MIT
//! Launching an isolated guest: the same decisions, layout, values and binding as for any other, then the
//! whole plan goes to the platform.
//!
//! Always true: nothing is launched that the files do not hold any more after the launch; the configuration
//! blob and register defaults of direct boots are never given to an isolated guest, whose file brings its
//! own. Not here: the platform, and running the guest.

use super::{Launcher, allocate, write_report};
use crate::entropy::EntropySource;
use crate::load::{Files, Notes};
use crate::report::{Timings, launched_json};
use openvmm_defs::Config;
use std::path::PathBuf;
use std::sync::Arc;
use virt::IsolatingHypervisor;

/// What an isolated launch is made from.
pub struct IsolatedOptions {
    /// The VM.
    pub config: Config,
    /// What launches it.
    pub hypervisor: Arc<dyn IsolatingHypervisor>,
    /// Random bytes.
    pub entropy: EntropySource,
    /// Where to write what the loader did.
    pub report: Option<PathBuf>,
}

/// Launches a guest; what it became, for people.
pub fn launch_isolated(options: IsolatedOptions) -> anyhow::Result<String> {
    let IsolatedOptions {
        mut config,
        hypervisor,
        entropy,
        report,
    } = options;
    let mut notes = Notes::logged();
    let mut timings = Timings::start();
    let files = Files::open(&config.load)?;
    let limits = hypervisor.capabilities().into();
    let mut launcher = Launcher::plan(&mut config, &files, limits, entropy, &mut notes)?;
    timings.stage("plan");
    let memory = allocate(&launcher.layout, &launcher.loaded.extra_ram)?;
    let vp_count = launcher.layout.vp_count;
    let mut text = String::new();
    files.verify_unchanged()?;
    launcher.bind(notes.lines(), |bound, seen| {
        let summary = hypervisor.launch(bound, vp_count, &memory);
        files.verify_unchanged()?;
        let summary = summary?;
        timings.stage("launch");
        text = summary.to_string();
        let mut json = seen.json(&timings);
        json["launch"] = launched_json(&summary);
        write_report(report.as_deref(), &json)
    })?;
    Ok(text)
}
