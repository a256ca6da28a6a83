// SPDX-License-Identifier: MIT
//! VP contexts against the VPs of the launch, and save areas against what KVM will build from them.
//!
//! Always true: every problem of every context is found, not the first; what this module accepts, KVM
//! measures byte for byte as the file has it. KVM never takes a save area from a buffer: it builds each
//! from VP state (`spec/sev.md` 0 fact 1, 2.6).

use crate::platform::Platform;
use launch_digest::kvm_vmsa::{self, FieldIssue, Vmsa};
use launch_plan::{Isolation, LaunchPlan, Origin, VpContext, VpIndex, VpState};
use std::collections::BTreeMap;
use x86defs::vmsa::{KVM_VMSA_GPA, VMSA_SIZE, VmsaField, offset, sev_features};

/// What a launch does about processors.
#[derive(Debug, Clone, Default)]
pub(crate) struct Starts {
    /// The save area of each VP that the file describes, by VP; the others start in KVM's reset state.
    pub(crate) contexts: BTreeMap<VpIndex, Vmsa>,
    /// SEV features that the VM is made with, without the bit that KVM adds for SEV-SNP.
    pub(crate) features: u64,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

/// How the host builds save areas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Builder {
    /// SEV features that it offers.
    pub(crate) features: u64,
    /// KVM before 6.10, which leaves MXCSR and FCW zero (`spec/sev.md` 0 fact 5).
    pub(crate) legacy: bool,
}

/// Names of SEV_FEATURES bits (`spec/sev.md` 2.6).
const FEATURES: &[(u32, &str)] = &[
    (0, "SNP active"),
    (1, "virtual top of memory"),
    (2, "reflect VC"),
    (3, "restricted injection"),
    (4, "alternate injection"),
    (5, "debug swap"),
    (6, "prevent host IBS"),
    (7, "BTB isolation"),
    (8, "VMPL SSS"),
    (9, "secure TSC"),
    (10, "VMGEXIT parameter"),
    (12, "IBS virtualisation"),
    (14, "VMSA register protection"),
    (15, "SMT protection"),
    (16, "secure AVIC"),
    (21, "IBPB on entry"),
];

/// Decides how each of `vp_count` VPs starts; all problems, one line each, when it cannot.
pub(crate) fn decide(
    plan: &LaunchPlan<'_>,
    platform: Platform,
    vp_count: u32,
    builder: Builder,
) -> Result<Starts, Vec<String>> {
    let mut problems = check_indexes(plan, vp_count);
    let mut starts = Starts::default();
    if platform == Platform::Sev {
        // The directive table refuses contexts of plain SEV before this.
        return if problems.is_empty() {
            Ok(starts)
        } else {
            Err(problems)
        };
    }
    let mut features = BTreeMap::new();
    for (context, origin) in plan.vp_contexts() {
        let VpState::Vmsa(bytes) = &context.state else {
            problems.push(format!(
                "{origin}: vp {}: its context is not a save area",
                context.vp
            ));
            continue;
        };
        let page = padded(bytes);
        check_context(context, origin, &page, (platform, builder), &mut problems);
        features
            .entry(feature_bits(&page))
            .or_insert((context.vp, origin));
        starts.contexts.insert(context.vp, page);
    }
    match check_features(&features, builder) {
        Ok(features) => starts.features = features,
        Err(found) => problems.extend(found),
    }
    let without: Vec<_> = (0..vp_count)
        .filter(|vp| !starts.contexts.contains_key(vp))
        .collect();
    if let (Some(first), Some(last)) = (without.first(), without.last()) {
        let which = if first == last {
            format!("vp {first} has")
        } else {
            format!("vps {first} to {last} have")
        };
        let how = if builder.legacy {
            ", on this kernel (before 6.10) without MXCSR and FCW: igvmtool measure gives another digest"
        } else {
            ""
        };
        starts.warnings.push(format!(
            "{which} no context in the file; each starts in kvm's reset state, which is measured{how}"
        ));
    }
    if problems.is_empty() {
        Ok(starts)
    } else {
        Err(problems)
    }
}

/// More contexts than VPs, and gaps. (Two contexts for one VP are refused when the file is read.)
fn check_indexes(plan: &LaunchPlan<'_>, vp_count: u32) -> Vec<String> {
    let contexts: BTreeMap<VpIndex, Origin> = plan.vp_contexts().map(|(c, origin)| (c.vp, origin)).collect();
    let mut problems = Vec::new();
    for (vp, origin) in contexts.range(vp_count..) {
        problems.push(format!(
            "{origin}: the file has a context for vp {vp}, but the guest has {vp_count} virtual processors; -p {} fits it",
            u64::from(*vp) + 1
        ));
    }
    let inside: Vec<_> = contexts
        .range(..vp_count)
        .map(|(&vp, &origin)| (vp, origin))
        .collect();
    for (expected, (vp, origin)) in (0..).zip(&inside) {
        if *vp != expected {
            problems.push(format!(
                "{origin}: the file has a context for vp {vp} but none for vp {expected}; contexts must be for vps 0, \
                 1, 2 and so on without a gap"
            ));
            break;
        }
    }
    problems
}

fn check_context(
    context: &VpContext<'_>,
    origin: Origin,
    page: &Vmsa,
    (platform, builder): (Platform, Builder),
    problems: &mut Vec<String>,
) {
    let vp = context.vp;
    if context.gpa != KVM_VMSA_GPA {
        problems.push(format!(
            "{origin}: vp {vp}: its save area is at gpa {:#x}; kvm measures every save area at {KVM_VMSA_GPA:#x}",
            context.gpa
        ));
    }
    let expected = image(page, platform.isolation(), builder);
    let forbidden = kvm_vmsa::forbidden_fields(&page[..]);
    let changed = kvm_vmsa::kvm_image(&page[..], platform.isolation()).differences;
    let mut issues: BTreeMap<usize, FieldIssue> = BTreeMap::new();
    for issue in changed
        .into_iter()
        .chain(forbidden)
        .chain(legacy_issues(page, builder))
    {
        issues.insert(issue.field.offset, issue);
    }
    for issue in issues.values() {
        let field = issue.field;
        problems.push(format!(
            "{origin}: vp {vp}: field {} at {:#x} is {} in the file, kvm would measure {} ({})",
            field.name,
            field.offset,
            value(field, page),
            value(field, &expected),
            issue.reason
        ));
    }
}

/// The page that the host's KVM builds from a context.
fn image(page: &Vmsa, isolation: Isolation, builder: Builder) -> Vmsa {
    let mut image = kvm_vmsa::kvm_image(&page[..], isolation).page;
    if builder.legacy {
        kvm_vmsa::clear_fpu(&mut image);
    }
    image
}

fn legacy_issues(page: &Vmsa, builder: Builder) -> Vec<FieldIssue> {
    let issue = |at: usize| FieldIssue {
        field: x86defs::vmsa::field_at(at).unwrap_or(&x86defs::vmsa::VMSA_FIELDS[0]),
        reason: "this kernel's older interface (before 6.10) always measures zero",
    };
    let mut issues = Vec::new();
    if builder.legacy && page[offset::MXCSR..offset::MXCSR + 4] != [0; 4] {
        issues.push(issue(offset::MXCSR));
    }
    if builder.legacy && page[offset::FCW..offset::FCW + 2] != [0; 2] {
        issues.push(issue(offset::FCW));
    }
    issues
}

/// The features of the VM, which are those of every save area (KVM has one set for all VPs).
fn check_features(asked: &BTreeMap<u64, (VpIndex, Origin)>, builder: Builder) -> Result<u64, Vec<String>> {
    let mut problems = Vec::new();
    for (&features, (vp, origin)) in asked {
        let refused = features & !builder.features;
        if refused != 0 {
            let offered = match names(builder.features) {
                none if none.is_empty() => "none".to_owned(),
                some => some,
            };
            problems.push(format!(
                "{origin}: vp {vp}: the file's save area asks for {}; kvm on this host offers {offered}",
                names(refused)
            ));
        }
    }
    let mut all = asked.iter();
    if let (Some((first, (vp, _))), Some((other, (other_vp, origin)))) = (all.next(), all.next()) {
        problems.push(format!(
            "{origin}: vp {other_vp} has SEV_FEATURES {other:#x} and vp {vp} has {first:#x}; kvm has one set of features \
             for all processors"
        ));
    }
    match (problems.is_empty(), asked.keys().next()) {
        (true, features) => Ok(features.copied().unwrap_or(0)),
        (false, _) => Err(problems),
    }
}

fn names(features: u64) -> String {
    let known = FEATURES.iter().filter(|(bit, _)| features >> bit & 1 != 0);
    let mut names: Vec<String> = known.map(|(_, name)| (*name).to_owned()).collect();
    let unknown = FEATURES
        .iter()
        .fold(features, |rest, (bit, _)| rest & !(1 << bit));
    if unknown != 0 {
        names.push(format!("feature bits {unknown:#x}"));
    }
    names.join(", ")
}

/// A save area's features without the bit that KVM adds.
fn feature_bits(page: &Vmsa) -> u64 {
    read(&page[offset::SEV_FEATURES..offset::SEV_FEATURES + 8]) & !sev_features::SNP_ACTIVE
}

fn padded(bytes: &[u8]) -> Vmsa {
    let mut page: Vmsa = Box::new([0; VMSA_SIZE]);
    let len = bytes.len().min(VMSA_SIZE);
    page[..len].copy_from_slice(&bytes[..len]);
    page
}

/// Up to eight little-endian bytes.
pub(crate) fn read(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// A field's value, for messages.
fn value(field: &VmsaField, page: &Vmsa) -> String {
    let bytes = &page[field.offset..field.offset + field.size];
    match field.size {
        1..=8 => format!("{:#x}", read(bytes)),
        16 => format!(
            "{:#x}:{:#x}:{:#x}:{:#x}",
            read(&bytes[..2]),
            read(&bytes[2..4]),
            read(&bytes[4..8]),
            read(&bytes[8..])
        ),
        _ => match bytes.iter().position(|&byte| byte != 0) {
            Some(at) => format!("{:#x} in byte {:#x}", bytes[at], field.offset + at),
            None => "zero".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests;
