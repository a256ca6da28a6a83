// SPDX-License-Identifier: MIT
//! Everything that a launch decides before its first call.
//!
//! Always true: a [`Decision`] that exists is one that KVM and the firmware have no known reason to refuse,
//! and its digest is the one that the platform will compute.

use crate::contexts::{self, Builder, Starts};
use crate::endorsed::{self, Endorsed};
use crate::host::{Interface, Offer};
use crate::options::Options;
use crate::pages::{self, Run};
use crate::platform::Platform;
use crate::policy::{self, PolicyError};
use launch_digest::profile::VmsaContents;
use launch_digest::{MeasureError, Profile, Subject, measure_by_rules};
use launch_plan::{BoundPlan, LaunchPlan, PageKind, VpState};
use x86defs::cr0;
use x86defs::vmsa::offset;

/// Why a plan is not launched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(crate) enum Refused {
    #[error("{0} file on a {1} launch")]
    Platform(launch_plan::Isolation, Platform),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Measure(#[from] MeasureError),
    #[error("{}", .0.join("\n  "))]
    Contexts(Vec<String>),
    #[error("{0}")]
    IdBlock(String),
    #[error("{0}")]
    Host(String),
}

/// A range of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) gpa: u64,
    pub(crate) len: u64,
}

/// A decided launch.
#[derive(Debug)]
pub(crate) struct Decision<'p> {
    pub(crate) policy: u64,
    pub(crate) starts: Starts,
    pub(crate) runs: Vec<Run<'p>>,
    pub(crate) digest: Vec<u8>,
    pub(crate) endorsed: Option<Endorsed>,
    /// Required memory: private, not submitted.
    pub(crate) required: Vec<Range>,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
}

/// Decides the launch of `bound`.
pub(crate) fn decide<'p>(
    bound: &'p BoundPlan<'_>,
    (platform, offer): (Platform, &Offer),
    vp_count: u32,
    options: &Options,
) -> Result<Decision<'p>, Refused> {
    let plan = bound.plan();
    if plan.facts.isolation != platform.isolation() {
        return Err(Refused::Platform(plan.facts.isolation, platform));
    }
    check_host(offer, options)?;
    let policy = policy::decide(platform, plan.facts.policy, options.policy, offer.policy_bits)?;
    let builder = Builder {
        features: offer.features,
        legacy: offer.interface == Interface::Legacy,
    };
    let starts = contexts::decide(plan, platform, vp_count, builder).map_err(Refused::Contexts)?;
    check_addresses(bound, offer)?;
    let digest = predicted(plan, builder, vp_count)?;
    let endorsed = match platform {
        Platform::Snp => endorsed::check(plan, policy, &digest, vp_count).map_err(Refused::IdBlock)?,
        _ => None,
    };
    let required = bound
        .expected_memory()
        .map(|(expect, _)| page_range(expect.gpa, expect.len));
    Ok(Decision {
        notes: notes(plan, platform, policy, &starts),
        runs: pages::runs(bound, vp_count)?,
        required: required.collect(),
        policy,
        starts,
        digest,
        endorsed,
    })
}

/// The digest that the platform will compute.
fn predicted(plan: &LaunchPlan<'_>, builder: Builder, vp_count: u32) -> Result<Vec<u8>, MeasureError> {
    let mut rules = Profile::Kvm.rules();
    if builder.legacy {
        rules.contents = VmsaContents::KvmWithoutFpu;
    }
    let subject = Subject {
        plan,
        others: &[],
        vp_count,
        rules,
    };
    Ok(measure_by_rules(&subject)?.0)
}

/// Values that the user gave for comparison.
fn check_host(offer: &Offer, options: &Options) -> Result<(), Refused> {
    if let Some(bit) = options.cbitpos.filter(|&bit| bit != offer.c_bit) {
        return Err(Refused::Host(format!(
            "cbitpos={bit} is not this host's: its C-bit is bit {}; drop the option, it is never needed",
            offer.c_bit
        )));
    }
    // QEMU's users write 1 whatever the host says, and a guest takes any value up to the host's.
    let most = offer.reduced_bits.max(1);
    if let Some(bits) = options
        .reduced_phys_bits
        .filter(|bits| !(1..=most).contains(bits))
    {
        return Err(Refused::Host(format!(
            "reduced-phys-bits={bits} is more than this host's {}; drop the option, it is never needed",
            offer.reduced_bits
        )));
    }
    Ok(())
}

/// Pages must lie below the C-bit, and page tables must have been made for it.
fn check_addresses(bound: &BoundPlan<'_>, offer: &Offer) -> Result<(), Refused> {
    for import in bound.imports() {
        if import.gpa.saturating_add(import.len) > 1 << offer.c_bit {
            return Err(Refused::Host(format!(
                "{}: pages at gpa {:#x} are not below the C-bit, which is bit {} on this host",
                import.origin, import.gpa, offer.c_bit
            )));
        }
    }
    for (context, origin) in bound.plan().vp_contexts() {
        let VpState::Vmsa(page) = &context.state else {
            continue;
        };
        let word = |at: usize| page.get(at..at + 8).map_or(0, contexts::read);
        let high = word(offset::CR3) >> 40 << 40;
        if word(offset::CR0) & cr0::PG != 0 && high & !(1 << offer.c_bit) != 0 {
            return Err(Refused::Host(format!(
                "{origin}: vp {}: cr3 {:#x} was made for another C-bit; this host's is bit {}, and the guest would crash at \
                 once; build the file for it",
                context.vp,
                word(offset::CR3),
                offer.c_bit
            )));
        }
    }
    Ok(())
}

fn notes(plan: &LaunchPlan<'_>, platform: Platform, policy: u64, starts: &Starts) -> Vec<String> {
    let mut notes = starts.warnings.clone();
    if policy::allows_debug(platform, policy) {
        notes.push(format!(
            "policy {policy:#x} lets the host debug the guest, which then has no secrets"
        ));
    }
    match plan.facts.policy {
        Some(file) if file != policy => {
            notes.push(format!(
                "policy {policy:#x} as --isolation says, not the file's {file:#x}"
            ));
        }
        _ => {}
    }
    let shared = plan.steps().iter().filter_map(|step| match &step.kind {
        launch_plan::StepKind::Import(import) if import.kind == PageKind::Shared => Some(import.len),
        _ => None,
    });
    let shared: u64 = shared.sum();
    if shared != 0 {
        notes.push(format!(
            "{} of the file's pages stay visible to the host and are not measured",
            launch_plan::size_text(shared)
        ));
    }
    notes
}

/// Whole pages around a range.
fn page_range(gpa: u64, len: u64) -> Range {
    let mask = x86defs::paging::PAGE_SIZE - 1;
    let start = gpa & !mask;
    let end = gpa
        .saturating_add(len)
        .checked_next_multiple_of(mask + 1)
        .unwrap_or(!mask);
    Range {
        gpa: start,
        len: end - start,
    }
}
