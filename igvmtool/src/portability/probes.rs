// SPDX-License-Identifier: MIT
//! What rules ask about a file or a plan that a list of header types cannot say.
//!
//! Always true: a probe gives the first place only; one is enough to decide. Not here: what follows from
//! it (`rules`).

use super::{Hit, Subject};
use launch_digest::{Options, measure, vmsa_issues};
use launch_plan::{
    Contents, Import, Isolation, LaunchPlan, Origin, PageKind, Step, StepKind, VpContext, VpState,
};
use vm_loaders::igvm::Header;
use x86defs::vmsa::{KVM_VMSA_GPA, offset};

fn hit(origin: Origin, text: impl Into<String>) -> Hit {
    let header = match origin {
        Origin::Header { index, .. } => Some(index),
        Origin::Host(_) => None,
    };
    Hit {
        header,
        text: text.into(),
    }
}

fn step(plan: &LaunchPlan<'_>, look: impl Fn(&Step<'_>) -> Option<String>) -> Option<Hit> {
    plan.steps()
        .iter()
        .find_map(|step| look(step).map(|text| hit(step.origin, text)))
}

fn import(plan: &LaunchPlan<'_>, look: impl Fn(&Import<'_>) -> Option<String>) -> Option<Hit> {
    step(plan, |step| match &step.kind {
        StepKind::Import(import) => look(import),
        _ => None,
    })
}

fn context(plan: &LaunchPlan<'_>, look: impl Fn(&VpContext<'_>) -> Option<String>) -> Option<Hit> {
    step(plan, |step| match &step.kind {
        StepKind::VpContext(context) => look(context),
        _ => None,
    })
}

/// Nothing behind the headers: the crate refuses such a file.
pub(super) fn no_data(subject: &Subject<'_, '_>) -> Option<Hit> {
    let empty = subject.file.data_start() >= subject.file.bytes().len() as u64;
    empty.then(|| Hit {
        header: None,
        text: "the file ends with its headers".to_owned(),
    })
}

/// A header with the optional bit.
pub(super) fn optional(subject: &Subject<'_, '_>) -> Option<Hit> {
    let index = subject.file.headers().iter().position(|raw| raw.is_optional())?;
    Some(Hit {
        header: u32::try_from(index).ok(),
        text: format!("optional header of type {:#x}", subject.file.headers()[index].typ),
    })
}

/// The first header that `look` has something to say about.
fn header(subject: &Subject<'_, '_>, look: impl Fn(Header<'_>) -> Option<String>) -> Option<Hit> {
    let headers = subject.file.headers().iter().enumerate();
    headers
        .filter_map(|(index, raw)| Some((index, subject.file.decode(raw).ok()?)))
        .find_map(|(index, header)| {
            Some(Hit {
                header: u32::try_from(index).ok(),
                text: look(header)?,
            })
        })
}

/// A relocatable region for anything but VSM_ISOLATION.
pub(super) fn relocation_beyond_vsm(subject: &Subject<'_, '_>) -> Option<Hit> {
    header(subject, |header| {
        let Header::RelocatableRegion(region) = header else {
            return None;
        };
        let other = subject.platforms.iter().find(|platform| {
            platform.mask & region.compatibility_mask != 0 && platform.isolation != Isolation::Vsm
        })?;
        Some(format!("relocatable region of platform {}", other.isolation))
    })
}

/// A native or CCA context of 232 or 80 bytes that is not followed by a whole page of file.
pub(super) fn unpadded_context(subject: &Subject<'_, '_>) -> Option<Hit> {
    header(subject, |header| {
        let Header::VpContext(context) = header else {
            return None;
        };
        let vbs = subject
            .platforms
            .iter()
            .any(|p| p.isolation == Isolation::Vsm && p.mask & context.compatibility_mask != 0);
        let short = !vbs && subject.file.data(context.file_offset, 4096).is_none();
        short.then(|| "the context is not padded to 4 KiB".to_owned())
    })
}

/// The first platform header is not SEV_SNP.
pub(super) fn snp_not_first(subject: &Subject<'_, '_>) -> Option<Hit> {
    let first = subject.platforms.first()?;
    (first.isolation != Isolation::Snp).then(|| Hit {
        header: Some(first.header),
        text: format!("the first platform is {}", first.isolation),
    })
}

/// More platforms than one although none is SEV-SNP: the filter lets all directives through.
pub(super) fn unfiltered(subject: &Subject<'_, '_>) -> Option<Hit> {
    (subject.platforms.len() > 1).then(|| Hit {
        header: subject.platforms.get(1).map(|platform| platform.header),
        text: format!("the file has {} platforms", subject.platforms.len()),
    })
}

/// A 2 MiB page with data.
pub(super) fn large_data(plan: &LaunchPlan<'_>) -> Option<Hit> {
    import(plan, |import| {
        let data = matches!(import.contents, Contents::Bytes(_));
        (import.large && data).then(|| format!("2 MiB page with data at gpa {:#x}", import.gpa))
    })
}

/// A 2 MiB page.
pub(super) fn large(plan: &LaunchPlan<'_>) -> Option<Hit> {
    import(plan, |import| {
        import
            .large
            .then(|| format!("2 MiB page at gpa {:#x}", import.gpa))
    })
}

/// A shared page.
pub(super) fn shared(plan: &LaunchPlan<'_>) -> Option<Hit> {
    import(plan, |import| {
        (import.kind == PageKind::Shared).then(|| format!("shared page at gpa {:#x}", import.gpa))
    })
}

/// A secrets or CPUID page.
pub(super) fn snp_page(plan: &LaunchPlan<'_>) -> Option<Hit> {
    import(plan, |import| {
        let special = matches!(
            import.kind,
            PageKind::Secrets | PageKind::Cpuid | PageKind::CpuidXf
        );
        special.then(|| format!("{} page at gpa {:#x}", import.kind, import.gpa))
    })
}

/// A page of type CPUID_XF.
pub(super) fn cpuid_xf(plan: &LaunchPlan<'_>) -> Option<Hit> {
    import(plan, |import| {
        (import.kind == PageKind::CpuidXf).then(|| format!("cpuid-xf page at gpa {:#x}", import.gpa))
    })
}

/// A measured page without data.
pub(super) fn zero_page(plan: &LaunchPlan<'_>) -> Option<Hit> {
    import(plan, |import| {
        let zero = import.kind == PageKind::Measured && matches!(import.contents, Contents::Zero);
        zero.then(|| format!("page without data at gpa {:#x}", import.gpa))
    })
}

/// A parameter area that begins with bytes of the file.
pub(super) fn initial_data(plan: &LaunchPlan<'_>) -> Option<Hit> {
    import(plan, |import| match &import.contents {
        Contents::Parameters(area) if area.initial.iter().any(|&byte| byte != 0) => {
            Some(format!("parameter area {} has initial data", area.index))
        }
        _ => None,
    })
}

/// Pages just below 4 GiB, where small guests have no RAM.
pub(super) fn below_4_gib(plan: &LaunchPlan<'_>) -> Option<Hit> {
    import(plan, |import| {
        let last = import.gpa.checked_add(import.len)? - 1;
        (0xFF00_0000..1 << 32)
            .contains(&last)
            .then(|| format!("page at gpa {:#x}", import.gpa))
    })
}

/// Any context.
pub(super) fn any_context(plan: &LaunchPlan<'_>) -> Option<Hit> {
    context(plan, |context| Some(format!("context of vp {}", context.vp)))
}

/// A context of a VP other than the first.
pub(super) fn ap_context(plan: &LaunchPlan<'_>) -> Option<Hit> {
    context(plan, |context| {
        (context.vp != 0).then(|| format!("context of vp {}", context.vp))
    })
}

/// A second context.
pub(super) fn second_context(plan: &LaunchPlan<'_>) -> Option<Hit> {
    let (second, origin) = plan.vp_contexts().nth(1)?;
    Some(hit(origin, format!("second context, of vp {}", second.vp)))
}

/// No context, or none for VP 0.
pub(super) fn no_bsp_context(plan: &LaunchPlan<'_>) -> Option<Hit> {
    let none = !plan.vp_contexts().any(|(context, _)| context.vp == 0);
    none.then(|| Hit {
        header: None,
        text: "there is no context for vp 0".to_owned(),
    })
}

/// A save area elsewhere than where KVM puts it.
pub(super) fn vmsa_address(plan: &LaunchPlan<'_>) -> Option<Hit> {
    context(plan, |context| {
        let vmsa = matches!(context.state, VpState::Vmsa(_));
        (vmsa && context.gpa != KVM_VMSA_GPA)
            .then(|| format!("vmsa of vp {} at gpa {:#x}", context.vp, context.gpa))
    })
}

/// A save area whose SNP_ACTIVE bit does not fit the platform.
pub(super) fn snp_active(plan: &LaunchPlan<'_>) -> Option<Hit> {
    let wanted = plan.facts.isolation == Isolation::Snp;
    context(plan, |context| {
        let VpState::Vmsa(page) = &context.state else {
            return None;
        };
        let active = page.get(offset::SEV_FEATURES).is_some_and(|byte| byte & 1 != 0);
        (active != wanted).then(|| format!("vmsa of vp {} with snp active {}", context.vp, u8::from(active)))
    })
}

/// A save area field that may not be set or that KVM builds otherwise.
pub(super) fn vmsa_field(plan: &LaunchPlan<'_>) -> Option<Hit> {
    context(plan, |context| {
        let VpState::Vmsa(page) = &context.state else {
            return None;
        };
        let issue = vmsa_issues(page, plan.facts.isolation).into_iter().next()?;
        Some(format!("vmsa of vp {}: {issue}", context.vp))
    })
}

/// A save area field outside of what a file may set.
pub(super) fn vmsa_foreign_field(plan: &LaunchPlan<'_>) -> Option<Hit> {
    context(plan, |context| {
        let VpState::Vmsa(page) = &context.state else {
            return None;
        };
        let field = x86defs::vmsa::VMSA_FIELDS.iter().find(|field| {
            let bytes = page.get(field.offset..field.offset + field.size);
            !field.settable && bytes.is_some_and(|bytes| bytes.iter().any(|&byte| byte != 0))
        })?;
        Some(format!("vmsa of vp {} sets {}", context.vp, field.name))
    })
}

/// Pages behind the first save area.
pub(super) fn vmsa_before_pages(plan: &LaunchPlan<'_>) -> Option<Hit> {
    let steps = plan.steps();
    let first = steps
        .iter()
        .position(|step| matches!(step.kind, StepKind::VpContext(_)))?;
    let page = steps[first..]
        .iter()
        .any(|step| matches!(step.kind, StepKind::Import(_)));
    page.then(|| hit(steps[first].origin, "pages follow the vp context"))
}

/// A page run that a parameter insert interrupts.
pub(super) fn insert_between_pages(plan: &LaunchPlan<'_>) -> Option<Hit> {
    let mut pages = false;
    for step in plan.steps() {
        match &step.kind {
            StepKind::Import(import) if !matches!(import.contents, Contents::Parameters(_)) => pages = true,
            StepKind::Import(_) if pages => {
                return Some(hit(step.origin, "a parameter insert follows pages"));
            }
            _ => {}
        }
    }
    None
}

/// A policy with the migration agent bit.
pub(super) fn migration_agent(plan: &LaunchPlan<'_>) -> Option<Hit> {
    policy_bit(plan, 18, true)
}

/// A policy without the bit that must be one, or no policy.
pub(super) fn must_be_one(plan: &LaunchPlan<'_>) -> Option<Hit> {
    policy_bit(plan, 17, false)
}

fn policy_bit(plan: &LaunchPlan<'_>, bit: u32, bad: bool) -> Option<Hit> {
    let policy = plan.facts.policy?;
    ((policy >> bit & 1 == 1) == bad).then(|| Hit {
        header: None,
        text: format!("policy {policy:#x}"),
    })
}

/// No policy at all.
pub(super) fn no_policy(plan: &LaunchPlan<'_>) -> Option<Hit> {
    plan.facts.policy.is_none().then(|| Hit {
        header: None,
        text: "there is no guest policy".to_owned(),
    })
}

/// An ID block that expects another digest than KVM will measure.
pub(super) fn id_block_digest(plan: &LaunchPlan<'_>) -> Option<Hit> {
    let block = plan.endorsements.id_block.as_ref()?;
    let measured = measure(plan, &Options::default()).ok()?.digest;
    (measured.0 != block.launch_digest).then(|| Hit {
        header: None,
        text: format!("the id block expects another digest than {measured}"),
    })
}

/// A parameter beside a device tree.
pub(super) fn parameters_beside_device_tree(plan: &LaunchPlan<'_>) -> Option<Hit> {
    use launch_plan::ParameterKind as Kind;
    let kinds = |wanted: fn(&Kind) -> bool| {
        plan.steps().iter().any(|step| match &step.kind {
            StepKind::Import(import) => match &import.contents {
                Contents::Parameters(area) => area.slots.iter().any(|slot| wanted(&slot.kind)),
                _ => false,
            },
            _ => false,
        })
    };
    let both = kinds(|kind| *kind == Kind::DeviceTree) && kinds(|kind| *kind != Kind::DeviceTree);
    both.then(|| Hit {
        header: None,
        text: "a device tree and other parameters".to_owned(),
    })
}

/// A native context in a version 1 file.
pub(super) fn native_context_v1(subject: &Subject<'_, '_>) -> Option<Hit> {
    let native = subject
        .platforms
        .iter()
        .find(|p| p.isolation == Isolation::Native)?;
    let v1 = subject.file.fixed_header().version == vm_loaders::igvm::FormatVersion::V1;
    let index = subject.file.headers().iter().position(|raw| {
        matches!(subject.file.decode(raw), Ok(Header::VpContext(c)) if c.compatibility_mask & native.mask != 0)
    })?;
    v1.then(|| Hit {
        header: u32::try_from(index).ok(),
        text: "native context in a version 1 file".to_owned(),
    })
}

/// Relocation that OpenVMM cannot do: not one VTL2 region.
pub(super) fn relocation_not_vtl2(plan: &LaunchPlan<'_>) -> Option<Hit> {
    let plain = plan.relocatable.iter().any(|region| !region.is_vtl2) || plan.relocatable.len() > 1;
    plain.then(|| Hit {
        header: None,
        text: format!("{} relocatable regions, not one of vtl 2", plan.relocatable.len()),
    })
}
