// SPDX-License-Identifier: MIT
//! From a load mode to a launch plan: opening, deciding, planning.
//!
//! Always true: everything that was decided and not said on the command line is a note; a confidential
//! request never becomes something weaker. The plan borrows from the opened files, which stay mapped for
//! as long as the VM may be reset. Not here: interpreting files (`vm_loaders`), values that the host adds
//! ([`crate::host_values`]).

mod files;
mod notes;
mod platform;
mod relocation;

pub(crate) use files::Files;
pub(crate) use notes::Notes;

use crate::fit::{self, OutsideRam};
use crate::variables;
use anyhow::{Context, bail};
use launch_plan::{Isolation, LaunchPlan, StepKind};
use openvmm_defs::{
    Config, GpaRange, IgvmPayload, IsolationRequest, LoadMode, Machine, MemoryLayout, UefiSettings, Vtl2Base,
};
use std::path::Path;
use vm_loaders::detect::{self, PayloadKind};
use vm_loaders::igvm::{File, MappedFile, support};
use vm_loaders::linux::{self, LinuxInputs};
use vm_loaders::ovmf::{self, VariableStore, WrapOptions};
use vm_loaders::uefi;

const NO_VTL2: &str = "OpenHCL runs in vtl2, which is not available on this hypervisor; boot the vtl0 payload itself, \
                       for example with --igvm type=uefi,path=FILE";

/// What the host prepares besides the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Only what the image's own parameter areas ask for.
    Parameters,
    /// The UEFI configuration blob and R12 as well.
    Uefi(UefiSettings),
}

/// What was decided before a layout exists.
pub(crate) struct Decision<'f> {
    pub(crate) machine: Machine,
    pub(crate) payload: Payload,
    /// The plan at the file's addresses; `None` when it depends on the layout (direct Linux).
    plan: Option<LaunchPlan<'f>>,
}

/// A plan, and the memory that it needs beyond the layout's RAM.
#[derive(Clone)]
pub(crate) struct Loaded<'f> {
    pub(crate) plan: LaunchPlan<'f>,
    /// RAM of their own for pages outside the layout's RAM.
    pub(crate) extra_ram: Vec<GpaRange>,
    /// Ranges whose contents survive resets.
    pub(crate) error_ranges: Vec<GpaRange>,
    /// Where the firmware's variables are, when a file keeps them; no page of the plan lies there.
    pub(crate) variables: Option<VariableStore>,
}

/// Decides what the opened files are and which machine they get.
pub(crate) fn decide<'f>(
    config: &Config,
    files: &'f Files,
    notes: &mut Notes,
) -> anyhow::Result<Decision<'f>> {
    if config.isolation != IsolationRequest::None && !matches!(config.load, LoadMode::Igvm { .. }) {
        // The command line refuses this with its own words; a worker driven otherwise must not fall back.
        bail!(
            "{:?} isolation was asked for, and only igvm files are launched isolated",
            config.isolation
        );
    }
    match (&config.load, files) {
        (LoadMode::Igvm { payload, .. }, Files::Igvm(mapped)) => {
            decide_igvm(config, payload, mapped.bytes(), notes).with_context(|| files.name())
        }
        (LoadMode::Uefi { settings, .. }, Files::Uefi(mapped)) => {
            let plan = uefi::plan(mapped.bytes(), uefi::ConfigType::None).with_context(|| files.name())?;
            Ok(Decision {
                machine: config.machine,
                payload: Payload::Uefi(settings.clone()),
                plan: Some(plan),
            })
        }
        (LoadMode::Linux { .. }, _) => Ok(Decision {
            machine: config.machine,
            payload: Payload::Parameters,
            plan: None,
        }),
        (LoadMode::Ovmf { .. }, Files::Ovmf { firmware, .. }) => {
            // As on a PC: entered at the reset vector, the end of the image mirrored below 1 MiB.
            let options = WrapOptions {
                mirror: true,
                ..WrapOptions::new(Isolation::Native, config.processors)
            };
            let plan = ovmf::plan(firmware.bytes(), &options).with_context(|| files.name())?;
            Ok(Decision {
                machine: config.machine,
                payload: Payload::Parameters,
                plan: Some(plan),
            })
        }
        _ => bail!("the opened files do not belong to this load mode"),
    }
}

fn decide_igvm<'f>(
    config: &Config,
    payload: &IgvmPayload,
    bytes: &'f [u8],
    notes: &mut Notes,
) -> anyhow::Result<Decision<'f>> {
    let file = File::read(bytes)?;
    let isolation = platform::choose(&file, config.isolation, notes)?;
    let plan = file.plan(isolation)?;
    support::check_support(&plan)?;
    let machine = config.machine;
    let (machine, payload) = match payload {
        IgvmPayload::Generic | IgvmPayload::Test | IgvmPayload::Linux | IgvmPayload::Ovmf => {
            (machine, Payload::Parameters)
        }
        IgvmPayload::Uefi(settings) => (machine, Payload::Uefi(settings.clone())),
        IgvmPayload::OpenHcl => bail!("type=openhcl: {NO_VTL2}"),
        IgvmPayload::Auto(settings) => auto(&plan, settings, notes)?,
    };
    if machine != Machine::HyperV && config.nvram.is_some() {
        bail!(
            "--nvram keeps the variables of Microsoft's UEFI, and this is the {} machine; drop --nvram",
            machine.name()
        );
    }
    if matches!(payload, Payload::Uefi(_)) && plan.vp_contexts().all(|(context, _)| context.vp != 0) {
        bail!("the file has no context for the boot processor, so nothing would start the firmware");
    }
    let payload = if isolation.is_confidential() && matches!(payload, Payload::Uefi(_)) {
        notes.add(
            "the firmware takes the parameter area and R12 of the file; no configuration blob is written",
        );
        Payload::Parameters
    } else {
        payload
    };
    Ok(Decision {
        machine,
        payload,
        plan: Some(plan),
    })
}

/// `type=auto`: what the file looks like.
fn auto(
    plan: &LaunchPlan<'_>,
    settings: &UefiSettings,
    notes: &mut Notes,
) -> anyhow::Result<(Machine, Payload)> {
    let found = detect::detect(plan)?;
    notes.add(format!("type=auto decided {found}"));
    Ok(match found.payload {
        PayloadKind::Uefi => (Machine::HyperV, Payload::Uefi(settings.clone())),
        PayloadKind::Linux => (Machine::Linux, Payload::Parameters),
        PayloadKind::Generic => (Machine::Plain, Payload::Parameters),
        PayloadKind::Ovmf => (Machine::Ovmf, Payload::Parameters),
        PayloadKind::OpenHcl => bail!("type=auto decided {found}: {NO_VTL2}"),
    })
}

/// Makes the plan final for `layout` and checks that its pages have memory.
pub(crate) fn plan<'f>(
    config: &'f Config,
    files: &'f Files,
    decision: Decision<'f>,
    layout: &MemoryLayout,
    notes: &mut Notes,
) -> anyhow::Result<Loaded<'f>> {
    let mut plan = match (decision.plan, &config.load, files) {
        (Some(plan), ..) => plan,
        (None, LoadMode::Linux { cmdline, .. }, Files::Linux { kernel, initrd }) => {
            let inputs = LinuxInputs {
                kernel: kernel.bytes(),
                initrd: initrd.as_ref().map(MappedFile::bytes),
                cmdline,
                layout,
                replaceable_cmdline: false,
            };
            linux::plan(&inputs).with_context(|| files.name())?
        }
        _ => bail!("the opened files do not belong to this load mode"),
    };
    if let LoadMode::Igvm { relocation, .. } = &config.load
        && *relocation != Vtl2Base::File
    {
        plan = relocation::apply(&plan, *relocation, layout, notes).with_context(|| files.name())?;
    }
    let variables = match &config.vars {
        Some(path) => {
            let (store, range) = find_variables(&plan, path, layout.machine).with_context(|| files.name())?;
            plan = plan.without_pages(range.gpa, range.len);
            Some(store)
        }
        None => None,
    };
    let extra_ram =
        fit::extra_ram(&plan, layout, outside_ram(layout.machine)).with_context(|| files.name())?;
    for range in &extra_ram {
        notes.add(format!(
            "pages at {range} are outside ram and get memory of their own, which no memory map lists"
        ));
    }
    let error_ranges = plan.steps().iter().filter_map(|step| match step.kind {
        StepKind::ErrorRange { gpa, len } => Some(GpaRange::new(gpa, len)),
        _ => None,
    });
    Ok(Loaded {
        extra_ram,
        error_ranges: error_ranges.collect(),
        variables,
        plan,
    })
}

/// The variable store of the plan's firmware, and the memory that the file at `path` takes for it.
fn find_variables(
    plan: &LaunchPlan<'_>,
    path: &Path,
    machine: Machine,
) -> anyhow::Result<(VariableStore, GpaRange)> {
    if machine != Machine::Ovmf {
        bail!(
            "--vars keeps the variables of OVMF, and this is the {} machine; drop --vars",
            machine.name()
        );
    }
    if plan.facts.isolation.is_confidential() {
        bail!("--vars would change the measured pages of an isolated guest; drop --vars");
    }
    let len = variables::file_len(path)?;
    let store = ovmf::variable_store(plan, len)?;
    let range = variables::range(&store, len)?;
    Ok((store, range))
}

fn outside_ram(machine: Machine) -> OutsideRam {
    match machine {
        Machine::Plain | Machine::Ovmf => OutsideRam::Allocate,
        Machine::HyperV | Machine::Linux => OutsideRam::Refuse,
    }
}

#[cfg(test)]
mod tests;
