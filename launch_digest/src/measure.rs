// SPDX-License-Identifier: MIT
//! Computing a digest, with or without its steps.

use crate::events::{Event, Measured, PageClass, Subject, submit_by_rules};
use crate::fold::Fold;
use crate::kvm_vmsa::{self, FieldIssue};
use crate::profile::Profile;
use launch_plan::{Isolation, LaunchPlan, Origin, PageKind, VpContext, VpIndex, VpState};
use std::collections::BTreeMap;
use std::fmt;

/// Pages whose contents are hashed together: 8 MiB in flight.
const BATCH: usize = 2048;

/// A launch digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest(pub Vec<u8>);

impl fmt::Display for Digest {
    /// Lower-case hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// What to compute.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whose reading.
    pub profile: Profile,
    /// VPs of the guest; `None` for as many as the image has contexts, at least one.
    pub vp_count: Option<u32>,
    /// Keep the digest after each step.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::Kvm,
            vp_count: None,
            trace: false,
        }
    }
}

/// One step of a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceStep {
    /// What was submitted, for people.
    pub what: String,
    /// Where it came from.
    pub origin: Origin,
    /// The digest after it.
    pub digest: Digest,
}

/// A digest and what there is to say about it.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// The digest.
    pub digest: Digest,
    /// The profile it was computed for.
    pub profile: Profile,
    /// VPs that it covers.
    pub vp_count: u32,
    /// Steps, when asked for.
    pub trace: Vec<TraceStep>,
    /// What a user should know: fields that KVM rebuilds differently, VPs without a context.
    pub warnings: Vec<String>,
}

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The platform has none.
    #[error("{} has no launch digest that is known before the launch", .0.name())]
    NoDigest(Isolation),
    /// A page that the platform cannot take.
    #[error("{origin}: a {kind:?} page at gpa {gpa:#x} is not possible on {}; only sev-snp has it", isolation.name())]
    PageKind {
        /// The page's kind.
        kind: PageKind,
        /// The platform.
        isolation: Isolation,
        /// Its address.
        gpa: u64,
        /// Where it came from.
        origin: Origin,
    },
    /// More contexts than VPs.
    #[error("the image has a context for vp {vp}, but the guest has {count} virtual processors")]
    TooFewVps {
        /// The VP.
        vp: VpIndex,
        /// VPs of the guest.
        count: u32,
    },
}

/// Computes the launch digest of `plan`.
///
/// ```
/// use launch_digest::{Options, measure};
/// use launch_plan::{Arch, Contents, Import, Isolation, Origin, PageKind, PlanBuilder, PlatformFacts};
///
/// let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Sev, Arch::X64));
/// let import = Import {
///     gpa: 0x1000,
///     len: 0x1000,
///     large: false,
///     kind: PageKind::Measured,
///     contents: Contents::Zero,
/// };
/// builder.import(import, Origin::Host("example"))?;
/// let plan = builder.finish();
/// let digest = measure(&plan, &Options::default())?.digest;
/// // SEV: SHA-256 of the page.
/// assert_eq!(digest.to_string(), "ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn measure(plan: &LaunchPlan<'_>, options: &Options) -> Result<Measurement, MeasureError> {
    measure_among(plan, &[], options)
}

/// Computes the launch digest of `plan`, which stands in one file with `others`: some tools measure those
/// platforms' save areas, too.
pub fn measure_among(
    plan: &LaunchPlan<'_>,
    others: &[LaunchPlan<'_>],
    options: &Options,
) -> Result<Measurement, MeasureError> {
    let vp_count = needed_vps(plan, options.vp_count)?;
    let subject = Subject {
        plan,
        others,
        vp_count,
        rules: options.profile.rules(),
    };
    let mut trace = Vec::new();
    let digest = if options.trace {
        traced(&subject, &mut trace)?
    } else {
        measure_by_rules(&subject)?
    };
    let warnings = warnings(plan, options.profile, vp_count);
    Ok(Measurement {
        digest,
        profile: options.profile,
        vp_count,
        trace,
        warnings,
    })
}

/// Computes the launch digest of what is read by rules, which need not be those of a profile.
pub fn measure_by_rules(subject: &Subject<'_, '_>) -> Result<Digest, MeasureError> {
    let mut fold = fold(subject, BATCH)?;
    submit_by_rules(subject, &mut |event| {
        fold.push(event);
        Ok(())
    })?;
    Ok(Digest(fold.value()))
}

/// The same step by step.
fn traced(subject: &Subject<'_, '_>, trace: &mut Vec<TraceStep>) -> Result<Digest, MeasureError> {
    let mut fold = fold(subject, 1)?;
    submit_by_rules(subject, &mut |event| {
        let (what, origin) = (describe(&event), event.origin);
        fold.push(event);
        let digest = Digest(fold.value());
        trace.push(TraceStep { what, origin, digest });
        Ok(())
    })?;
    Ok(Digest(fold.value()))
}

fn fold<'p>(subject: &Subject<'p, '_>, batch: usize) -> Result<Fold<'p>, MeasureError> {
    let isolation = subject.plan.facts.isolation;
    Fold::new(isolation, batch).ok_or(MeasureError::NoDigest(isolation))
}

/// The VP count to measure for, checked against the contexts.
pub(crate) fn needed_vps(plan: &LaunchPlan<'_>, asked: Option<u32>) -> Result<u32, MeasureError> {
    let highest = plan.vp_contexts().map(|(c, _)| c.vp).max();
    let needed = highest.map_or(1, |v| v.saturating_add(1));
    match (asked, highest) {
        (Some(count), Some(vp)) if vp >= count => Err(MeasureError::TooFewVps { vp, count }),
        _ => Ok(asked.unwrap_or(needed)),
    }
}

pub(crate) fn describe(event: &Event<'_>) -> String {
    match &event.what {
        Measured::Page { gpa, class, data } => {
            let class = match class {
                PageClass::Normal if data.is_empty() => "normal (zeros)",
                PageClass::Normal => "normal",
                PageClass::Zero => "zero",
                PageClass::Unmeasured => "unmeasured",
                PageClass::Secrets => "secrets",
                PageClass::Cpuid => "cpuid",
                PageClass::ErrorRange => "error range",
            };
            format!("page {gpa:#x} {class}")
        }
        Measured::Vmsa { vp, gpa, .. } => format!("vmsa of vp {vp} at {gpa:#x}"),
        Measured::Register(r) => format!("register {:?} of vtl {}", r.name, r.vtl),
    }
}

fn warnings(plan: &LaunchPlan<'_>, profile: Profile, vp_count: u32) -> Vec<String> {
    if !matches!(plan.facts.isolation, Isolation::SevEs | Isolation::Snp) || profile == Profile::FileOrder {
        return Vec::new();
    }
    let contexts: BTreeMap<VpIndex, (&VpContext<'_>, Origin)> = plan
        .vp_contexts()
        .map(|(context, origin)| (context.vp, (context, origin)))
        .collect();
    let mut out = Vec::new();
    let mut next = 0;
    for (&vp, &(context, origin)) in contexts.range(..vp_count) {
        out.extend(without_context(next, vp));
        next = vp + 1;
        let VpState::Vmsa(page) = &context.state else {
            continue;
        };
        for issue in vmsa_issues(page, plan.facts.isolation) {
            out.push(format!("{origin}: vp {vp}: kvm cannot keep {issue}"));
        }
    }
    out.extend(without_context(next, vp_count));
    out
}

/// What there is to say about VPs `first..end` without a context, in one line however many they are.
fn without_context(first: VpIndex, end: VpIndex) -> Option<String> {
    let last = end.checked_sub(1).filter(|last| *last >= first)?;
    Some(if first == last {
        format!("vp {first} has no context in the image and starts in kvm's reset state, which is measured")
    } else {
        format!(
            "vps {first} to {last} have no context in the image and start in kvm's reset state, which is measured"
        )
    })
}

/// Everything about a save area that keeps KVM from launching it as the file has it.
pub fn vmsa_issues(page: &[u8], isolation: Isolation) -> Vec<FieldIssue> {
    kvm_vmsa::kvm_image(page, isolation).differences
}
