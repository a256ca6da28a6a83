// SPDX-License-Identifier: MIT
//! What a difference does to the launch digest, found by measuring: the differing steps alone, both ways.
//!
//! Always true: the answer comes from `launch_digest`, so there is no second list of what is measured. A
//! digest is a chain or one hash over everything, so a step that changes it alone changes it anywhere.
//! Not here: the digests of whole files (`super::compare`).

use launch_digest::{Options, Profile, measure};
use launch_plan::{Import, LaunchPlan, Origin, PlanBuilder, PlanError, PlatformFacts, VpContext};
use serde::Serialize;

/// The consequence of a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// Whether KVM's launch digest changes; `None` when the platform has none.
    pub changes_launch_digest: Option<bool>,
    /// The readings of other tools whose digest changes although KVM's does not.
    pub other_readings: Vec<&'static str>,
}

impl Effect {
    /// A difference outside everything that is measured.
    pub(super) fn outside(facts: Option<&PlatformFacts>) -> Self {
        let has = facts.is_none_or(|facts| digest(&empty(facts), Profile::Kvm).is_some());
        Self {
            changes_launch_digest: has.then_some(false),
            other_readings: Vec::new(),
        }
    }
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.changes_launch_digest {
            None => f.write_str("the platform has no launch digest"),
            Some(true) => f.write_str("changes the launch digest"),
            Some(false) if self.other_readings.is_empty() => f.write_str("no effect on the launch digest"),
            Some(false) => write!(
                f,
                "no effect on kvm's launch digest, but on the readings {}",
                self.other_readings.join(", ")
            ),
        }
    }
}

/// VPs of a small plan.
const MANY_VPS: u32 = 16;

/// A step of a small plan.
#[derive(Clone)]
pub(super) enum Piece<'a> {
    /// Pages.
    Import(Import<'a>),
    /// A context.
    Context(VpContext<'a>),
    /// The first page of an error range: all its pages are measured alike.
    ErrorRange(u64),
}

/// The effect of having `second` instead of `first`.
pub(super) fn effect(facts: &PlatformFacts, first: &[Piece<'_>], second: &[Piece<'_>]) -> Effect {
    let (Ok(first), Ok(second)) = (plan(facts, first), plan(facts, second)) else {
        return Effect::outside(Some(facts));
    };
    let differs = |profile| Some(digest(&first, profile)? != digest(&second, profile)?);
    let changes_launch_digest = differs(Profile::Kvm);
    let other_readings = match changes_launch_digest {
        Some(false) => Profile::ALL
            .into_iter()
            .filter(|&profile| differs(profile) == Some(true))
            .map(Profile::name)
            .collect(),
        _ => Vec::new(),
    };
    Effect {
        changes_launch_digest,
        other_readings,
    }
}

fn empty(facts: &PlatformFacts) -> LaunchPlan<'static> {
    PlanBuilder::new(facts.clone()).finish()
}

fn plan<'a>(facts: &PlatformFacts, pieces: &[Piece<'a>]) -> Result<LaunchPlan<'a>, PlanError> {
    const HERE: Origin = Origin::Host("compare");
    let mut builder = PlanBuilder::new(facts.clone());
    for (number, piece) in pieces.iter().enumerate() {
        match piece.clone() {
            Piece::Import(import) => builder.import(import, HERE)?,
            Piece::Context(mut context) => {
                // KVM measures a save area for every VP up to the last; a few show what many would.
                if context.vp > MANY_VPS {
                    context.vp = MANY_VPS + number as u32;
                }
                builder.vp_context(context, HERE)?;
            }
            Piece::ErrorRange(gpa) => builder.error_range(gpa, 4096, HERE)?,
        }
    }
    Ok(builder.finish())
}

/// The digest of a plan in bytes; `None` where there is none.
pub(super) fn digest(plan: &LaunchPlan<'_>, profile: Profile) -> Option<Vec<u8>> {
    let options = Options {
        profile,
        vp_count: None,
        trace: false,
    };
    measure(plan, &options)
        .ok()
        .map(|measurement| measurement.digest.0)
}
