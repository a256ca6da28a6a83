// SPDX-License-Identifier: MIT
//! What the host adds beside parameters: the UEFI hand-over (a blob and R12) and register defaults.
//!
//! Always true: a hand-over lies last, over nothing but zero pages and parameter areas; R12 is the
//! image's when the image gives it. Not here: what the blob says (`vm_loaders::uefi`).

use super::{BindError, BoundHandOver, HostValues};
use crate::plan::{Contents, Isolation, LaunchPlan, PageKind, StepKind};
use crate::state_check::check_state;
use crate::vp::{VbsRegisterName, VpContext, VpIndex, VpState};
use std::borrow::Cow;
use x86defs::X86State;
use x86defs::paging::PAGE_SIZE;
use x86defs::state::{VARIABLE_MTRRS, gpr};

/// A blob for the firmware and where it lies; R12 of the boot processor points to it.
#[derive(Debug, Clone)]
pub struct HandOver<'h> {
    /// What it is, for messages ("config blob").
    pub what: &'static str,
    /// Guest physical byte address, page aligned.
    pub gpa: u64,
    /// The bytes; the rest of the last page is zero.
    pub blob: Cow<'h, [u8]>,
}

/// Boot processor registers for which the host has values. Only variable MTRRs replace the image's; the
/// others apply when the image does not carry the register.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostRegisters {
    /// Page attribute table.
    pub pat: Option<u64>,
    /// MTRR default type.
    pub mtrr_def_type: Option<u64>,
    /// Fixed MTRRs in the order of [`x86defs::state::Mtrrs::fixed`].
    pub fixed_mtrrs: [Option<u64>; 11],
    /// Variable MTRR pairs (base, mask), computed from the memory layout: always the host's.
    pub variable_mtrrs: Option<[(u64, u64); VARIABLE_MTRRS]>,
}

/// A blob's length in whole pages.
pub(super) fn page_len(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(PAGE_SIZE)
}

/// Checks where the blob lies and keeps it.
pub(super) fn place(
    plan: &LaunchPlan<'_>,
    hand_over: &HandOver<'_>,
    notes: &mut Vec<String>,
) -> Result<BoundHandOver, BindError> {
    let (what, gpa, len) = (hand_over.what, hand_over.gpa, page_len(hand_over.blob.len()));
    let isolation = plan.facts.isolation;
    if !matches!(isolation, Isolation::Native | Isolation::Vsm) {
        return Err(BindError::HandOverIsolated { what, isolation });
    }
    let has_boot_context = plan
        .vp_contexts()
        .any(|(c, _)| c.vp == 0 && matches!(c.state, VpState::Native(_) | VpState::Vbs(_)));
    if !has_boot_context {
        return Err(BindError::NoBootContext { what });
    }
    let last = len.checked_sub(1).and_then(|span| gpa.checked_add(span));
    let (Some(last), true) = (last, gpa.is_multiple_of(PAGE_SIZE)) else {
        return Err(BindError::HandOverRange { what, gpa, len });
    };
    for step in &plan.steps {
        let Some((other_gpa, other_len)) = step.claimed_range() else {
            continue;
        };
        if other_gpa > last || gpa > other_gpa + (other_len - 1) {
            continue;
        }
        let (contents, allowed) = what_lies_there(&step.kind);
        let other = step.origin;
        if !allowed {
            return Err(BindError::HandOverOverlap {
                what,
                gpa,
                len,
                contents,
                other_gpa,
                other_len,
                other,
            });
        }
        notes.push(format!(
            "{what} at gpa {gpa:#x} overwrites {contents} at gpa {other_gpa:#x} of {other_len:#x} bytes from {other}"
        ));
    }
    Ok(BoundHandOver {
        what,
        gpa,
        blob: hand_over.blob.to_vec(),
    })
}

/// What a step puts in its pages, and whether a hand-over may replace it.
fn what_lies_there(kind: &StepKind<'_>) -> (&'static str, bool) {
    let StepKind::Import(import) = kind else {
        return ("an error range", false);
    };
    match (&import.contents, import.kind) {
        (_, PageKind::Secrets | PageKind::Cpuid | PageKind::CpuidXf) => ("a special page", false),
        (Contents::Zero, _) => ("zero pages", true),
        (Contents::Parameters(_), _) => ("a parameter area", true),
        (Contents::Bytes(_), _) => ("imported code or data", false),
    }
}

/// Register states of all VPs that have one.
pub(super) fn initial_states(
    plan: &LaunchPlan<'_>,
    host: &HostValues<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<(VpIndex, X86State)>, BindError> {
    let mut states = Vec::new();
    let plain = matches!(plan.facts.isolation, Isolation::Native | Isolation::Vsm);
    for (context, origin) in plan.vp_contexts() {
        let vp = context.vp;
        let Some(mut state) = context.state.to_x86() else {
            continue;
        };
        if vp == 0 && plain {
            apply_host(context, host, &mut state, notes);
        }
        check_state(&state).map_err(|error| BindError::State { vp, origin, error })?;
        states.push((vp, state));
    }
    Ok(states)
}

fn apply_host(context: &VpContext<'_>, host: &HostValues<'_>, state: &mut X86State, notes: &mut Vec<String>) {
    if let Some(hand_over) = &host.hand_over {
        if context.state.gives_r12() {
            notes.push(format!("r12 {:#x} kept from the image", state.gpr[gpr::R12]));
        } else {
            state.gpr[gpr::R12] = hand_over.gpa;
            notes.push(format!("r12 {:#x} added: the {}", hand_over.gpa, hand_over.what));
        }
    }
    let registers = &host.registers;
    if let Some(pat) = registers
        .pat
        .filter(|_| !context.state.names(VbsRegisterName::Pat))
    {
        state.pat = pat;
    }
    if let Some(def_type) = registers
        .mtrr_def_type
        .filter(|_| !context.state.names(VbsRegisterName::MtrrDefType))
    {
        state.mtrr.def_type = def_type;
    }
    for (index, value) in registers.fixed_mtrrs.iter().enumerate() {
        if let Some(value) = value.filter(|_| !names_fixed_mtrr(&context.state, index)) {
            state.mtrr.fixed[index] = value;
        }
    }
    if let Some(variable) = registers.variable_mtrrs {
        if state.mtrr.variable != [(0, 0); VARIABLE_MTRRS] && state.mtrr.variable != variable {
            notes.push("the image's variable mtrrs are replaced by this machine's".to_owned());
        }
        state.mtrr.variable = variable;
    }
}

fn names_fixed_mtrr(state: &VpState<'_>, index: usize) -> bool {
    matches!(state, VpState::Vbs(list) if list.iter().any(|r| r.name.fixed_mtrr_index() == Some(index)))
}
