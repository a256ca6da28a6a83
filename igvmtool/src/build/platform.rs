// SPDX-License-Identifier: MIT
//! Which platform a guest with isolation none is written for (uefi-launch 7.4).
//!
//! VSM_ISOLATION is what OpenVMM boots when not isolated and what image plans are made for; NATIVE is
//! plain x86 state, which carries fewer registers.

use launch_plan::{
    Arch, Isolation, LaunchPlan, NativeContext, PlanBuilder, PlatformFacts, StepKind, VpContext, VpState,
};
use x86defs::X86State;

/// `--platform`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum PlatformChoice {
    /// VSM_ISOLATION.
    Vsm,
    /// NATIVE.
    Native,
}

/// The plan for the platform that was chosen; without a choice, for the one that it was made for.
pub(super) fn apply(plan: LaunchPlan<'_>, choice: Option<PlatformChoice>) -> Result<LaunchPlan<'_>, String> {
    let is = plan.facts.isolation;
    match choice {
        None => Ok(plan),
        Some(PlatformChoice::Vsm) if is == Isolation::Native => Err(
            "platform vsm has no register for what this image hands over; use --platform native".to_owned(),
        ),
        Some(PlatformChoice::Vsm) => Ok(plan),
        Some(PlatformChoice::Native) if plan.facts.arch != Arch::X64 => {
            Err("platform native exists on x64 only".to_owned())
        }
        Some(PlatformChoice::Native) if !plan.relocatable.is_empty() => {
            Err("platform native cannot be relocatable; use --platform vsm".to_owned())
        }
        Some(PlatformChoice::Native) if is == Isolation::Native => Ok(plan),
        Some(PlatformChoice::Native) => native(plan),
    }
}

fn native(plan: LaunchPlan<'_>) -> Result<LaunchPlan<'_>, String> {
    let facts = PlatformFacts {
        isolation: Isolation::Native,
        ..plan.facts
    };
    let mut builder = PlanBuilder::new(facts);
    for step in plan.into_steps() {
        let origin = step.origin;
        let added = match step.kind {
            StepKind::Import(import) => builder.import(import, origin),
            StepKind::ErrorRange { gpa, len } => builder.error_range(gpa, len, origin),
            StepKind::ExpectMemory(expect) => builder.expect_memory(expect, origin),
            StepKind::VpContext(context) => {
                let context = VpContext {
                    state: native_state(&context.state)?,
                    ..*context
                };
                builder.vp_context(context, origin)
            }
        };
        added.map_err(|error| error.to_string())?;
    }
    Ok(builder.finish())
}

/// A register list as a native context, as far as it can say the same: MTRRs and PAT are left out (the
/// host's defaults equal what images ask for), the data segments must be one.
fn native_state(state: &VpState<'_>) -> Result<VpState<'static>, String> {
    let state: X86State = state
        .to_x86()
        .ok_or("the boot processor's state is not a register list")?;
    let data = state.ds;
    if [state.es, state.fs, state.ss]
        .iter()
        .any(|segment| *segment != data)
    {
        return Err(
            "a native context has one descriptor for DS, ES, FS and SS; use --platform vsm".to_owned(),
        );
    }
    Ok(VpState::Native(Box::new(NativeContext {
        gpr: state.gpr,
        rip: state.rip,
        rflags: state.rflags,
        idtr: state.idtr,
        gdtr: state.gdtr,
        cs: state.cs,
        data,
        gs_base: state.gs.base,
        cr0: state.cr0,
        cr3: state.cr3,
        cr4: state.cr4,
        efer: state.efer,
    })))
}
