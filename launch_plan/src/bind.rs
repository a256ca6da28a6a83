// SPDX-License-Identifier: MIT
//! Binding: the host's finished values go into a plan's holes, and the boot processor's state becomes
//! registers.
//!
//! Always true: for a given VP count, binding never changes a measured byte (parameter areas are
//! unmeasured, and only non-isolated plans take a hand-over or register defaults); the plan itself is
//! not changed, so a reset binds it again. Every decision is a note. Not here: making the values
//! (`openvmm_core`, `vm_loaders`), writing guest memory.

mod hand_over;
mod runs;

use crate::plan::{
    Contents, ExpectMemory, Import, Isolation, LaunchPlan, Origin, PageKind, ParameterArea, ParameterKind,
    StepKind,
};
use crate::state_check::StateError;
use crate::vp::VpIndex;
pub use hand_over::{HandOver, HostRegisters};
use std::borrow::Cow;
use std::collections::BTreeMap;
use x86defs::X86State;

/// Upper bound of what one plan's parameter areas may take on the host, in bytes.
pub const MAX_PARAMETER_BYTES: u64 = 64 << 20;

/// What a host deposits in a plan.
#[derive(Debug, Clone, Default)]
pub struct HostValues<'h> {
    parameters: BTreeMap<ParameterKind, Cow<'h, [u8]>>,
    /// Configuration blob and R12, for a UEFI payload on a non-isolated plan.
    pub hand_over: Option<HandOver<'h>>,
    /// Register values that the image does not carry; applied to the boot processor only.
    pub registers: HostRegisters,
}

impl<'h> HostValues<'h> {
    /// Values for a guest with `vp_count` processors; the VP count parameter is set from it.
    pub fn new(vp_count: u32) -> Self {
        let mut values = Self::default();
        values.set(ParameterKind::VpCount, vp_count.to_le_bytes().to_vec());
        values
    }

    /// Sets the finished bytes of a parameter (terminators included), replacing what was set before.
    pub fn set(&mut self, kind: ParameterKind, bytes: impl Into<Cow<'h, [u8]>>) -> &mut Self {
        self.parameters.insert(kind, bytes.into());
        self
    }

    /// The bytes set for a parameter.
    pub fn get(&self, kind: ParameterKind) -> Option<&[u8]> {
        self.parameters.get(&kind).map(|bytes| &**bytes)
    }
}

/// Why a plan cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BindError {
    /// A value is larger than the room for it.
    #[error(
        "{origin}: {kind} of {bytes:#x} bytes at byte offset {byte_offset:#x} does not fit parameter area {area} of {area_len:#x} bytes at gpa {gpa:#x}"
    )]
    TooLarge {
        kind: ParameterKind,
        bytes: u64,
        byte_offset: u32,
        area: u32,
        area_len: u64,
        gpa: u64,
        origin: Origin,
    },
    /// Two values of one area overlap.
    #[error(
        "{origin}: {kind} at byte offset {byte_offset:#x} overlaps {other} of {other_bytes:#x} bytes at {other_offset:#x} in parameter area {area} at gpa {gpa:#x}"
    )]
    ValuesOverlap {
        kind: ParameterKind,
        byte_offset: u32,
        other: ParameterKind,
        other_offset: u32,
        other_bytes: u64,
        area: u32,
        gpa: u64,
        origin: Origin,
    },
    /// The areas together are too large for the host.
    #[error(
        "{origin}: parameter areas up to gpa {gpa:#x} need {bytes:#x} bytes of host memory; at most {MAX_PARAMETER_BYTES:#x} are allowed"
    )]
    AreasTooLarge { gpa: u64, bytes: u64, origin: Origin },
    /// A hand-over for a plan whose launch is isolated.
    #[error("{what}: a {isolation} plan takes no hand-over; its file brings its own parameter area")]
    HandOverIsolated {
        what: &'static str,
        isolation: Isolation,
    },
    /// A hand-over without a boot processor context to put R12 in.
    #[error("{what}: the image has no context for the boot processor, so nothing would start the firmware")]
    NoBootContext { what: &'static str },
    /// A hand-over address that is not page aligned, is empty or wraps.
    #[error("{what}: gpa {gpa:#x} of {len:#x} bytes is not a page-aligned range of memory")]
    HandOverRange { what: &'static str, gpa: u64, len: u64 },
    /// A hand-over over code or data.
    #[error(
        "{what}: gpa {gpa:#x} of {len:#x} bytes would overwrite {contents} at gpa {other_gpa:#x} of {other_len:#x} bytes from {other}; rebuild the image with that range free"
    )]
    HandOverOverlap {
        what: &'static str,
        gpa: u64,
        len: u64,
        contents: &'static str,
        other_gpa: u64,
        other_len: u64,
        other: Origin,
    },
    /// An initial state that no processor can have.
    #[error("{origin}: vp {vp} cannot start: {error}")]
    State {
        vp: VpIndex,
        origin: Origin,
        error: StateError,
    },
}

/// Pages with their final contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundImport<'p> {
    /// First guest physical byte address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
    /// One 2 MiB page.
    pub large: bool,
    /// How the pages become the guest's.
    pub kind: PageKind,
    /// Contents from the first byte, zero beyond them; `None` for all zeros.
    pub data: Option<&'p [u8]>,
    /// Where it came from.
    pub origin: Origin,
}

/// A plan without holes, ready to be applied.
#[derive(Debug)]
pub struct BoundPlan<'p> {
    plan: &'p LaunchPlan<'p>,
    /// Filled parameter areas by step index, ascending.
    filled: Vec<(usize, Vec<u8>)>,
    hand_over: Option<BoundHandOver>,
    states: Vec<(VpIndex, X86State)>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct BoundHandOver {
    what: &'static str,
    gpa: u64,
    blob: Vec<u8>,
}

impl<'a> LaunchPlan<'a> {
    /// Fills the holes with the host's values and decides the initial states. The plan stays as it is.
    pub fn bind<'p>(&'p self, host: &HostValues<'_>) -> Result<BoundPlan<'p>, BindError>
    where
        'a: 'p,
    {
        let mut notes = Vec::new();
        let filled = fill_areas(self, host, &mut notes)?;
        let hand_over = match &host.hand_over {
            Some(hand_over) => Some(hand_over::place(self, hand_over, &mut notes)?),
            None => None,
        };
        let states = hand_over::initial_states(self, host, &mut notes)?;
        Ok(BoundPlan {
            plan: self,
            filled,
            hand_over,
            states,
            notes,
        })
    }
}

impl BoundPlan<'_> {
    /// The plan that was bound.
    pub fn plan(&self) -> &LaunchPlan<'_> {
        self.plan
    }

    /// All pages in launch order; the hand-over, if any, is last and may lie over pages that a note names.
    pub fn imports(&self) -> impl Iterator<Item = BoundImport<'_>> {
        let mut filled = self.filled.iter().peekable();
        let planned = self
            .plan
            .steps
            .iter()
            .enumerate()
            .filter_map(move |(index, step)| {
                let StepKind::Import(import) = &step.kind else {
                    return None;
                };
                let data = match &import.contents {
                    Contents::Zero => None,
                    Contents::Bytes(bytes) => Some(&**bytes),
                    Contents::Parameters(area) => match filled.next_if(|(at, _)| *at == index) {
                        Some((_, bytes)) => Some(&bytes[..]),
                        None => Some(&*area.initial),
                    },
                };
                let &Import {
                    gpa,
                    len,
                    large,
                    kind,
                    ..
                } = import;
                let data = data.filter(|bytes| !bytes.is_empty());
                Some(BoundImport {
                    gpa,
                    len,
                    large,
                    kind,
                    data,
                    origin: step.origin,
                })
            });
        planned.chain(self.hand_over.iter().map(|hand_over| BoundImport {
            gpa: hand_over.gpa,
            len: hand_over::page_len(hand_over.blob.len()),
            large: false,
            kind: PageKind::Unmeasured,
            data: Some(&hand_over.blob),
            origin: Origin::Host(hand_over.what),
        }))
    }

    /// Error ranges as (gpa, length, origin), in launch order.
    pub fn error_ranges(&self) -> impl Iterator<Item = (u64, u64, Origin)> {
        self.plan.steps.iter().filter_map(|step| match step.kind {
            StepKind::ErrorRange { gpa, len } => Some((gpa, len, step.origin)),
            _ => None,
        })
    }

    /// RAM that must exist, in launch order.
    pub fn expected_memory(&self) -> impl Iterator<Item = (ExpectMemory, Origin)> {
        self.plan.steps.iter().filter_map(|step| match step.kind {
            StepKind::ExpectMemory(expect) => Some((expect, step.origin)),
            _ => None,
        })
    }

    /// A VP's initial registers; `None` when the plan gives it none, or in a form that the platform loads
    /// itself (VMSA, realm context).
    pub fn initial_state(&self, vp: VpIndex) -> Option<X86State> {
        self.states
            .iter()
            .find(|(index, _)| *index == vp)
            .map(|(_, state)| *state)
    }

    /// What was decided, one sentence each, in order.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

fn fill_areas(
    plan: &LaunchPlan<'_>,
    host: &HostValues<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<(usize, Vec<u8>)>, BindError> {
    let mut filled = Vec::new();
    let mut total = 0u64;
    for (index, step) in plan.steps.iter().enumerate() {
        let StepKind::Import(import) = &step.kind else {
            continue;
        };
        let Contents::Parameters(area) = &import.contents else {
            continue;
        };
        let deposits = deposits(import, area, host, notes)?;
        let Some(last) = deposits.last() else { continue };
        let bytes = (last.end).max(area.initial.len() as u64);
        total = total.saturating_add(bytes);
        if total > MAX_PARAMETER_BYTES {
            return Err(BindError::AreasTooLarge {
                gpa: import.gpa,
                bytes: total,
                origin: step.origin,
            });
        }
        let mut contents = vec![0; bytes as usize];
        contents[..area.initial.len()].copy_from_slice(&area.initial);
        for deposit in &deposits {
            contents[deposit.start as usize..deposit.end as usize].copy_from_slice(deposit.bytes);
        }
        filled.push((index, contents));
    }
    Ok(filled)
}

/// One value at its place in an area; `end <= MAX_PARAMETER_BYTES` is checked by the caller.
struct Deposit<'h> {
    kind: ParameterKind,
    start: u64,
    end: u64,
    bytes: &'h [u8],
}

/// The deposits of an area in address order, checked against its size and against each other.
fn deposits<'h>(
    import: &Import<'_>,
    area: &ParameterArea<'_>,
    host: &'h HostValues<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<Deposit<'h>>, BindError> {
    let mut deposits: Vec<(Deposit<'h>, Origin)> = Vec::new();
    for slot in &area.slots {
        let (kind, byte_offset) = (slot.kind, slot.byte_offset);
        let Some(bytes) = host.get(kind) else {
            notes.push(format!(
                "{}: this host has no {kind}; its place keeps the file's bytes",
                slot.origin
            ));
            continue;
        };
        let start = u64::from(byte_offset);
        let end = start + bytes.len() as u64;
        if end > import.len {
            return Err(BindError::TooLarge {
                kind,
                bytes: bytes.len() as u64,
                byte_offset,
                area: area.index,
                area_len: import.len,
                gpa: import.gpa,
                origin: slot.origin,
            });
        }
        deposits.push((
            Deposit {
                kind,
                start,
                end,
                bytes,
            },
            slot.origin,
        ));
    }
    deposits.sort_by_key(|(deposit, _)| deposit.start);
    for pair in deposits.windows(2) {
        let ((first, _), (second, origin)) = (&pair[0], &pair[1]);
        if second.start < first.end {
            return Err(BindError::ValuesOverlap {
                kind: second.kind,
                byte_offset: second.start as u32,
                other: first.kind,
                other_offset: first.start as u32,
                other_bytes: first.bytes.len() as u64,
                area: area.index,
                gpa: import.gpa,
                origin: *origin,
            });
        }
    }
    Ok(deposits.into_iter().map(|(deposit, _)| deposit).collect())
}

#[cfg(test)]
mod tests;
