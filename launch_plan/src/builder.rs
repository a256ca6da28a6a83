// SPDX-License-Identifier: MIT
//! Builds a plan step by step and refuses what could not be launched.
//!
//! Always true: a plan that [`PlanBuilder::finish`] returns keeps the rules in the crate's first
//! paragraph. Every refusal names the step's origin, and an overlap names both. Not here: whether RAM
//! exists where the plan wants it (the host's layout decides that).

use crate::plan::{
    Contents, ExpectMemory, Import, LaunchPlan, Origin, PageKind, ParameterKind, PlatformFacts, Step,
    StepKind,
};
use crate::ranges::RangeSet;
use crate::vp::{VbsRegisterName, VpContext, VpIndex, VpState};
use std::collections::{BTreeMap, BTreeSet};
use x86defs::paging::{LARGE_PAGE_SIZE, PAGE_SIZE};

/// Why a step was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PlanError {
    /// A range of no bytes.
    #[error("{origin}: the range at gpa {gpa:#x} is empty")]
    Empty { gpa: u64, origin: Origin },
    /// A range that passes the end of the address space.
    #[error("{origin}: the range at gpa {gpa:#x} of {len:#x} bytes passes the end of the address space")]
    Overflow { gpa: u64, len: u64, origin: Origin },
    /// Start or length not on a page boundary.
    #[error("{origin}: gpa {gpa:#x} and length {len:#x} must be multiples of {align:#x}")]
    Unaligned {
        gpa: u64,
        len: u64,
        align: u64,
        origin: Origin,
    },
    /// Two steps claim the same bytes.
    #[error(
        "{origin}: gpa {gpa:#x} of {len:#x} bytes overlaps gpa {other_gpa:#x} of {other_len:#x} bytes from {other}"
    )]
    Overlap {
        gpa: u64,
        len: u64,
        origin: Origin,
        other_gpa: u64,
        other_len: u64,
        other: Origin,
    },
    /// More bytes than the range holds.
    #[error("{origin}: {bytes:#x} bytes of contents do not fit the {len:#x} bytes at gpa {gpa:#x}")]
    ContentsTooLong {
        gpa: u64,
        len: u64,
        bytes: u64,
        origin: Origin,
    },
    /// A large page that is not one 2 MiB page.
    #[error("{origin}: a large page at gpa {gpa:#x} must be 0x200000 bytes, not {len:#x}")]
    LargePageLength { gpa: u64, len: u64, origin: Origin },
    /// Host values in a page whose contents are measured or special.
    #[error("{origin}: the parameter area at gpa {gpa:#x} must be unmeasured, not {kind}")]
    ParametersNotUnmeasured {
        gpa: u64,
        kind: PageKind,
        origin: Origin,
    },
    /// A value that starts behind its area.
    #[error(
        "{origin}: {kind} at byte offset {byte_offset:#x} starts outside its parameter area of {len:#x} bytes at gpa {gpa:#x}"
    )]
    ParameterOutsideArea {
        kind: ParameterKind,
        byte_offset: u32,
        gpa: u64,
        len: u64,
        origin: Origin,
    },
    /// Two contexts for one VP.
    #[error("{origin}: vp {vp} already has a context, from {other}")]
    DuplicateVp {
        vp: VpIndex,
        origin: Origin,
        other: Origin,
    },
    /// A register that stands twice in one list.
    #[error("{origin}: register {name:?} of vp {vp} vtl {vtl} is listed twice")]
    DuplicateRegister {
        vp: VpIndex,
        vtl: u8,
        name: VbsRegisterName,
        origin: Origin,
    },
    /// A register whose value has another shape, or an MTRR pair that does not exist.
    #[error("{origin}: register {name:?} of vp {vp} cannot hold that value")]
    RegisterShape {
        vp: VpIndex,
        name: VbsRegisterName,
        origin: Origin,
    },
}

/// Collects steps.
#[derive(Debug)]
pub struct PlanBuilder<'a> {
    plan: LaunchPlan<'a>,
    claimed: RangeSet,
    /// Every claimed range by its first byte: last byte and origin. Made when the first overlap has to be
    /// explained, since a sound image never needs it.
    owners: Option<BTreeMap<u64, (u64, Origin)>>,
    vps: BTreeMap<VpIndex, Origin>,
}

impl<'a> PlanBuilder<'a> {
    /// An empty plan for a platform.
    pub fn new(facts: PlatformFacts) -> Self {
        Self {
            plan: LaunchPlan {
                facts,
                endorsements: Default::default(),
                relocatable: Vec::new(),
                page_tables: None,
                source: None,
                steps: Vec::new(),
            },
            claimed: RangeSet::default(),
            owners: None,
            vps: BTreeMap::new(),
        }
    }

    /// Room for `steps` more steps.
    pub fn reserve(&mut self, steps: usize) {
        self.plan.steps.reserve(steps);
    }

    /// The plan so far: facts, endorsements and relocation rules may be changed in place.
    pub fn plan_mut(&mut self) -> &mut LaunchPlan<'a> {
        &mut self.plan
    }

    /// Adds pages.
    pub fn import(&mut self, import: Import<'a>, origin: Origin) -> Result<(), PlanError> {
        let (gpa, len) = (import.gpa, import.len);
        let align = if import.large { LARGE_PAGE_SIZE } else { PAGE_SIZE };
        let last = last_byte(gpa, len, origin)?;
        if !gpa.is_multiple_of(align) || !len.is_multiple_of(align) {
            return Err(PlanError::Unaligned {
                gpa,
                len,
                align,
                origin,
            });
        }
        if import.large && len != LARGE_PAGE_SIZE {
            return Err(PlanError::LargePageLength { gpa, len, origin });
        }
        check_contents(&import, origin)?;
        self.claim(gpa, last, origin)?;
        self.plan.steps.push(Step {
            kind: StepKind::Import(import),
            origin,
        });
        Ok(())
    }

    /// Adds an error range: shared zero pages.
    pub fn error_range(&mut self, gpa: u64, len: u64, origin: Origin) -> Result<(), PlanError> {
        let last = last_byte(gpa, len, origin)?;
        if !gpa.is_multiple_of(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) {
            return Err(PlanError::Unaligned {
                gpa,
                len,
                align: PAGE_SIZE,
                origin,
            });
        }
        self.claim(gpa, last, origin)?;
        self.plan.steps.push(Step {
            kind: StepKind::ErrorRange { gpa, len },
            origin,
        });
        Ok(())
    }

    /// Adds RAM that must exist. Such ranges may overlap each other and imports.
    pub fn expect_memory(&mut self, expect: ExpectMemory, origin: Origin) -> Result<(), PlanError> {
        last_byte(expect.gpa, expect.len, origin)?;
        self.plan.steps.push(Step {
            kind: StepKind::ExpectMemory(expect),
            origin,
        });
        Ok(())
    }

    /// Adds a VP's initial state.
    pub fn vp_context(&mut self, context: VpContext<'a>, origin: Origin) -> Result<(), PlanError> {
        let vp = context.vp;
        if let VpState::Vbs(registers) = &context.state {
            let mut seen = BTreeSet::new();
            for register in registers {
                if !register.name.accepts(&register.value) {
                    return Err(PlanError::RegisterShape {
                        vp,
                        name: register.name,
                        origin,
                    });
                }
                if !seen.insert((register.vtl, register.name)) {
                    let (vtl, name) = (register.vtl, register.name);
                    return Err(PlanError::DuplicateRegister {
                        vp,
                        vtl,
                        name,
                        origin,
                    });
                }
            }
        }
        if let Some(&other) = self.vps.get(&vp) {
            return Err(PlanError::DuplicateVp { vp, origin, other });
        }
        self.vps.insert(vp, origin);
        self.plan.steps.push(Step {
            kind: StepKind::VpContext(Box::new(context)),
            origin,
        });
        Ok(())
    }

    /// The finished plan.
    pub fn finish(self) -> LaunchPlan<'a> {
        self.plan
    }

    fn claim(&mut self, gpa: u64, last: u64, origin: Origin) -> Result<(), PlanError> {
        if self.claimed.insert(gpa, last) {
            if let Some(owners) = &mut self.owners {
                owners.insert(gpa, (last, origin));
            }
            return Ok(());
        }
        let steps = &self.plan.steps;
        let owners = self.owners.get_or_insert_with(|| {
            let ranges = steps
                .iter()
                .filter_map(|step| Some((step.claimed_range()?, step.origin)));
            ranges
                .map(|((gpa, len), origin)| (gpa, (gpa + (len - 1), origin)))
                .collect()
        });
        // Claimed ranges are disjoint: the one that starts last before the end is one that overlaps.
        let owner = owners.range(..=last).next_back();
        let (&other_gpa, &(other_last, other)) = owner.unwrap_or((&gpa, &(last, origin)));
        Err(PlanError::Overlap {
            gpa,
            len: (last - gpa).saturating_add(1),
            origin,
            other_gpa,
            other_len: (other_last - other_gpa).saturating_add(1),
            other,
        })
    }
}

impl Step<'_> {
    /// The range that only this step may claim, as (gpa, length); `None` for steps that claim nothing.
    pub(crate) fn claimed_range(&self) -> Option<(u64, u64)> {
        match &self.kind {
            StepKind::Import(import) => Some((import.gpa, import.len)),
            StepKind::ErrorRange { gpa, len } => Some((*gpa, *len)),
            StepKind::VpContext(_) | StepKind::ExpectMemory(_) => None,
        }
    }
}

fn last_byte(gpa: u64, len: u64, origin: Origin) -> Result<u64, PlanError> {
    let span = len.checked_sub(1).ok_or(PlanError::Empty { gpa, origin })?;
    gpa.checked_add(span)
        .ok_or(PlanError::Overflow { gpa, len, origin })
}

fn check_contents(import: &Import<'_>, origin: Origin) -> Result<(), PlanError> {
    let (gpa, len) = (import.gpa, import.len);
    let initial = match &import.contents {
        Contents::Zero => return Ok(()),
        Contents::Bytes(bytes) => bytes,
        Contents::Parameters(area) => {
            if import.kind != PageKind::Unmeasured {
                return Err(PlanError::ParametersNotUnmeasured {
                    gpa,
                    kind: import.kind,
                    origin,
                });
            }
            if let Some(slot) = area.slots.iter().find(|s| u64::from(s.byte_offset) >= len) {
                let (kind, byte_offset) = (slot.kind, slot.byte_offset);
                let origin = slot.origin;
                return Err(PlanError::ParameterOutsideArea {
                    kind,
                    byte_offset,
                    gpa,
                    len,
                    origin,
                });
            }
            &area.initial
        }
    };
    let bytes = initial.len() as u64;
    if bytes > len {
        return Err(PlanError::ContentsTooLong {
            gpa,
            len,
            bytes,
            origin,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
