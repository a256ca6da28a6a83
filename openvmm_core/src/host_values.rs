// SPDX-License-Identifier: MIT
//! Everything that the host contributes to a launch, as finished bytes.
//!
//! Always true: called for each launch, so entropy is fresh after a reset while the GUID stays; a random
//! source that fails is an error, at start and at reset. Not here: the formats (`vm_loaders`), where the
//! bytes go (`bind`).

use crate::entropy::EntropySource;
use crate::fit;
use crate::load::{Loaded, Payload};
use anyhow::Context;
use launch_plan::{Contents, HostValues, StepKind};
use openvmm_defs::{Config, GpaRange, LoadMode, Machine, MemoryLayout, SerialBackend, UefiSettings};
use vm_loaders::params::{self, ParamInputs};
use vm_loaders::uefi::config::{self, BlobInputs};
use vm_loaders::{acpi, linux, uefi};
use x86defs::paging::PAGE_SIZE;

/// What stays the same over all launches of a VM.
pub(crate) struct HostFacts<'v> {
    pub(crate) config: &'v Config,
    pub(crate) layout: &'v MemoryLayout,
    pub(crate) payload: &'v Payload,
    /// The image, whose error ranges the memory map must not give away.
    pub(crate) loaded: &'v Loaded<'v>,
}

/// Collects the values for one launch.
pub(crate) fn collect(
    facts: &HostFacts<'_>,
    entropy: &mut EntropySource,
) -> anyhow::Result<HostValues<'static>> {
    let mut values = parameters(facts)?;
    if let Payload::Uefi(settings) = facts.payload {
        let blob = blob(facts, settings, entropy).context("uefi config blob")?;
        let hand_over = uefi::hand_over(blob);
        let len = (hand_over.blob.len() as u64).next_multiple_of(PAGE_SIZE);
        fit::check_ram(facts.layout, GpaRange::new(hand_over.gpa, len)).context("uefi config blob")?;
        values.hand_over = Some(hand_over);
        values.registers = uefi::host_registers(facts.layout);
    } else if facts.layout.machine == Machine::Linux {
        values.registers = linux::host_registers(facts.layout);
    }
    Ok(values)
}

/// The values of all parameters; none are made for an image that has no place for them.
fn parameters(facts: &HostFacts<'_>) -> anyhow::Result<HostValues<'static>> {
    let plan = &facts.loaded.plan;
    let asks = plan.steps().iter().any(|step| {
        matches!(&step.kind, StepKind::Import(import) if matches!(import.contents, Contents::Parameters(_)))
    });
    if !asks {
        return Ok(HostValues::new(facts.layout.vp_count));
    }
    let cmdline = match &facts.config.load {
        LoadMode::Igvm { cmdline, .. } if !cmdline.is_empty() => Some(&cmdline[..]),
        _ => None,
    };
    let com = facts
        .config
        .com
        .each_ref()
        .map(|backend| *backend != SerialBackend::None);
    let inputs = ParamInputs {
        plan,
        layout: facts.layout,
        cmdline,
        com,
        vmbus: facts.config.vmbus.is_some(),
    };
    Ok(params::host_values(&inputs)?)
}

fn blob(
    facts: &HostFacts<'_>,
    settings: &UefiSettings,
    source: &mut EntropySource,
) -> anyhow::Result<Vec<u8>> {
    let mut entropy = [0; 64];
    source.fill(&mut entropy)?;
    let inputs = BlobInputs {
        layout: facts.layout,
        settings,
        bios_guid: facts.config.bios_guid,
        entropy: &entropy,
        acpi_tables: &acpi::uefi_tables(facts.layout),
    };
    Ok(config::build(&inputs)?)
}
