// SPDX-License-Identifier: MIT
//! A plan as the sequence of things that a loader submits to be measured.
//!
//! Always true: the sequence depends on the plan, the rules and the VP count only. Pages are 4 KiB:
//! larger ones are expanded, as KVM does. Not here: hashing.

use crate::kvm_vmsa::{self, Vmsa, VmsaPage};
use crate::measure::MeasureError;
use crate::profile::{
    Areas, EmptyPages, ForeignVmsas, LargeEmptyPages, LegacyPages, Order, Profile, Rules, SharedPages,
    VmsaAddress, VmsaContents, Vmsas,
};
use launch_plan::{
    Import, Isolation, LaunchPlan, Origin, PageContents, PageKind, Step, StepKind, VbsRegister, VpContext,
    VpIndex, VpState,
};
use std::collections::HashMap;
use x86defs::paging::PAGE_SIZE;
use x86defs::vmsa::offset;

/// What kind of page is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageClass {
    /// Contents measured.
    Normal,
    /// Zeroed by the platform (SNP type ZERO).
    Zero,
    /// Only place and order measured.
    Unmeasured,
    /// SNP secrets page.
    Secrets,
    /// SNP CPUID page.
    Cpuid,
    /// Host-visible; measured only by VBS as an error range.
    ErrorRange,
}

/// Something submitted.
#[derive(Debug, Clone)]
pub enum Measured<'p> {
    /// One 4 KiB page.
    Page {
        /// Its address.
        gpa: u64,
        /// Its kind.
        class: PageClass,
        /// Its bytes, at most 4096, zero padded.
        data: &'p [u8],
    },
    /// A save area.
    Vmsa {
        /// The VP.
        vp: VpIndex,
        /// The address it is measured at.
        gpa: u64,
        /// Its contents.
        page: VmsaPage<'p>,
    },
    /// A VBS register.
    Register(&'p VbsRegister),
}

/// Something submitted and where it came from.
#[derive(Debug, Clone)]
pub struct Event<'p> {
    /// What.
    pub what: Measured<'p>,
    /// The step's origin.
    pub origin: Origin,
}

type Sink<'s, 'p> = dyn FnMut(Event<'p>) -> Result<(), MeasureError> + 's;

/// What is read, and how.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'p, 'a> {
    /// The plan.
    pub plan: &'p LaunchPlan<'a>,
    /// The plans of the same file's other platforms; only some tools look at them.
    pub others: &'p [LaunchPlan<'a>],
    /// VPs of the guest.
    pub vp_count: u32,
    /// How it is read.
    pub rules: Rules,
}

/// Calls `sink` for everything that `profile` submits for `plan` with `vp_count` VPs, in order. The plan
/// stands for a whole file: there are no other platforms.
pub fn submit<'p>(
    plan: &'p LaunchPlan<'_>,
    profile: Profile,
    vp_count: u32,
    sink: &mut Sink<'_, 'p>,
) -> Result<(), MeasureError> {
    let subject = Subject {
        plan,
        others: &[],
        vp_count,
        rules: profile.rules(),
    };
    submit_by_rules(&subject, sink)
}

/// Calls `sink` for everything that is submitted, in order.
pub fn submit_by_rules<'p>(subject: &Subject<'p, '_>, sink: &mut Sink<'_, 'p>) -> Result<(), MeasureError> {
    let isolation = subject.plan.facts.isolation;
    let mut walk = Walk {
        isolation,
        rules: subject.rules,
        foreign: foreign_contexts(subject),
    };
    let steps = subject.plan.steps();
    match subject.rules.order {
        Order::RunsHeldBack if isolation != Isolation::Vsm => walk.qemu_order(steps, sink)?,
        Order::Address => walk.address_order(steps, sink)?,
        _ => steps.iter().try_for_each(|step| walk.step(step, sink))?,
    }
    walk.foreign_before(u32::MAX, sink)?;
    match isolation {
        Isolation::SevEs | Isolation::Snp if subject.rules.vmsas == Vmsas::Last => vmsas_last(subject, sink),
        Isolation::Vsm => registers(subject.plan, sink),
        _ => Ok(()),
    }
}

/// Save areas of other platforms, by the index of their headers, last first.
fn foreign_contexts<'p>(subject: &Subject<'p, '_>) -> Vec<(u32, &'p VpContext<'p>, Origin)> {
    let takes_part = matches!(subject.plan.facts.isolation, Isolation::Snp | Isolation::SevEs);
    if subject.rules.foreign == ForeignVmsas::Skipped || !takes_part {
        return Vec::new();
    }
    let contexts = subject.others.iter().flat_map(LaunchPlan::vp_contexts);
    let mut found: Vec<_> = contexts
        .filter_map(|(context, origin)| match origin {
            Origin::Header { index, .. } => Some((index, context, origin)),
            Origin::Host(_) => None,
        })
        .collect();
    found.sort_by_key(|(index, ..)| std::cmp::Reverse(*index));
    found
}

struct Walk<'p> {
    isolation: Isolation,
    rules: Rules,
    foreign: Vec<(u32, &'p VpContext<'p>, Origin)>,
}

impl<'p> Walk<'p> {
    fn step(&mut self, step: &'p Step<'_>, sink: &mut Sink<'_, 'p>) -> Result<(), MeasureError> {
        if let Origin::Header { index, .. } = step.origin {
            self.foreign_before(index, sink)?;
        }
        match &step.kind {
            StepKind::Import(import) => self.import(import, step.origin, sink),
            StepKind::ErrorRange { gpa, len } if self.isolation == Isolation::Vsm => (0..len / PAGE_SIZE)
                .try_for_each(|page| {
                    let gpa = gpa + page * PAGE_SIZE;
                    sink(Event {
                        what: page_event(gpa, PageClass::ErrorRange, &[]),
                        origin: step.origin,
                    })
                }),
            StepKind::VpContext(context) if self.rules.vmsas == Vmsas::InPlace => {
                self.vmsa_in_place(context, step.origin, sink)
            }
            _ => Ok(()),
        }
    }

    /// Submits the other platforms' save areas that stand before header `index`.
    fn foreign_before(&mut self, index: u32, sink: &mut Sink<'_, 'p>) -> Result<(), MeasureError> {
        while let Some((at, context, origin)) = self.foreign.last().copied() {
            if at >= index {
                break;
            }
            self.foreign.pop();
            self.vmsa_in_place(context, origin, sink)?;
        }
        Ok(())
    }

    fn vmsa_in_place(
        &self,
        context: &'p VpContext<'_>,
        origin: Origin,
        sink: &mut Sink<'_, 'p>,
    ) -> Result<(), MeasureError> {
        match (&context.state, self.isolation) {
            (VpState::Vmsa(page), Isolation::Snp | Isolation::SevEs) => {
                let what = Measured::Vmsa {
                    vp: context.vp,
                    gpa: vmsa_gpa(self.rules.address, context.gpa),
                    page: save_area(page, self.rules.contents, self.isolation),
                };
                sink(Event { what, origin })
            }
            _ => Ok(()),
        }
    }

    fn import(
        &self,
        import: &'p Import<'_>,
        origin: Origin,
        sink: &mut Sink<'_, 'p>,
    ) -> Result<(), MeasureError> {
        for page in import.pages() {
            let Some((class, data)) = self.classify(page.kind, &page.contents) else {
                continue;
            };
            if !self.platform_takes(class) {
                return Err(MeasureError::PageKind {
                    kind: page.kind,
                    isolation: self.isolation,
                    gpa: page.gpa,
                    origin,
                });
            }
            // The igvm crate counts an empty 2 MiB page as one record (sev.md 2.9, file g11).
            let one_record = self.rules.large == LargeEmptyPages::OneRecord && data.is_empty();
            let count = if one_record { 1 } else { page.size / PAGE_SIZE };
            for i in 0..count {
                let start = ((i * PAGE_SIZE) as usize).min(data.len());
                let end = (start + PAGE_SIZE as usize).min(data.len());
                let what = page_event(page.gpa + i * PAGE_SIZE, class, &data[start..end]);
                sink(Event { what, origin })?;
            }
        }
        Ok(())
    }

    /// What these rules make of a page; `None` when nothing is submitted.
    fn classify(&self, kind: PageKind, contents: &PageContents<'p, '_>) -> Option<(PageClass, &'p [u8])> {
        let legacy_sev = matches!(self.isolation, Isolation::Sev | Isolation::SevEs);
        let only_data = legacy_sev && self.rules.legacy == LegacyPages::WithData;
        let data = match contents {
            PageContents::Bytes(bytes) => *bytes,
            PageContents::Zero => &[],
            PageContents::Parameters(_, page) => {
                let skipped = match self.rules.areas {
                    Areas::AllPages => false,
                    Areas::FirstPage => *page > 0,
                    Areas::Skipped => true,
                };
                return (!skipped && !legacy_sev).then_some((PageClass::Unmeasured, &[]));
            }
        };
        let has_data = matches!(contents, PageContents::Bytes(_));
        let normal = || Some((self.normal(has_data)?, data));
        match kind {
            PageKind::Shared if self.rules.shared == SharedPages::Measured => normal(),
            PageKind::Shared => None,
            PageKind::Measured if only_data && !has_data => None,
            PageKind::Unmeasured if only_data && has_data => Some((PageClass::Normal, data)),
            PageKind::Measured => normal(),
            PageKind::Unmeasured if legacy_sev => None,
            PageKind::Unmeasured => Some((PageClass::Unmeasured, data)),
            PageKind::Secrets => Some((PageClass::Secrets, data)),
            PageKind::Cpuid | PageKind::CpuidXf => Some((PageClass::Cpuid, data)),
        }
    }

    fn normal(&self, has_data: bool) -> Option<PageClass> {
        match self.rules.empty {
            _ if has_data => Some(PageClass::Normal),
            EmptyPages::Skipped => None,
            EmptyPages::Zero if self.isolation == Isolation::Snp => Some(PageClass::Zero),
            EmptyPages::Zero | EmptyPages::Normal => Some(PageClass::Normal),
        }
    }

    fn platform_takes(&self, class: PageClass) -> bool {
        match class {
            PageClass::Secrets | PageClass::Cpuid => self.isolation == Isolation::Snp,
            _ => true,
        }
    }

    /// QEMU 10.2 (backends/igvm.c, read): pages with adjacent addresses, equal attributes and adjacent
    /// headers form a run that goes out when the next page breaks it or at the end; a parameter insert
    /// goes out at once and so overtakes the run before it.
    fn qemu_order(&mut self, steps: &'p [Step<'_>], sink: &mut Sink<'_, 'p>) -> Result<(), MeasureError> {
        let mut held: &[Step<'_>] = &[];
        for (i, step) in steps.iter().enumerate() {
            let StepKind::Import(import) = &step.kind else {
                continue;
            };
            if matches!(import.contents, launch_plan::Contents::Parameters(_)) {
                self.step(step, sink)?;
                continue;
            }
            if held.last().is_some_and(|last| extends_run(last, step)) {
                held = &steps[i - held.len()..=i];
                continue;
            }
            held.iter().try_for_each(|s| self.step(s, sink))?;
            held = std::slice::from_ref(step);
        }
        held.iter().try_for_each(|s| self.step(s, sink))
    }

    /// Steps by the address of their first page.
    fn address_order(&mut self, steps: &'p [Step<'_>], sink: &mut Sink<'_, 'p>) -> Result<(), MeasureError> {
        let mut sorted: Vec<&'p Step<'_>> = steps.iter().collect();
        sorted.sort_by_key(|step| match &step.kind {
            StepKind::Import(import) => import.gpa,
            StepKind::ErrorRange { gpa, .. } => *gpa,
            StepKind::VpContext(context) => context.gpa,
            StepKind::ExpectMemory(_) => 0,
        });
        sorted.into_iter().try_for_each(|step| self.step(step, sink))
    }
}

/// Whether QEMU joins `next` to a run that ends with `last`.
fn extends_run(last: &Step<'_>, next: &Step<'_>) -> bool {
    let (StepKind::Import(a), StepKind::Import(b)) = (&last.kind, &next.kind) else {
        return false;
    };
    let adjacent_headers = match (last.origin, next.origin) {
        (Origin::Header { index: x, .. }, Origin::Header { index: y, .. }) => x.checked_add(1) == Some(y),
        _ => false,
    };
    let empty = |i: &Import<'_>| matches!(i.contents, launch_plan::Contents::Zero);
    adjacent_headers
        && a.gpa.checked_add(a.len) == Some(b.gpa)
        && (a.kind, a.large, empty(a)) == (b.kind, b.large, empty(b))
}

fn page_event(gpa: u64, class: PageClass, data: &[u8]) -> Measured<'_> {
    Measured::Page { gpa, class, data }
}

const fn vmsa_gpa(address: VmsaAddress, file: u64) -> u64 {
    match address {
        VmsaAddress::Kvm => x86defs::vmsa::KVM_VMSA_GPA,
        VmsaAddress::File => file,
    }
}

/// What is measured of a save area of the image.
fn save_area<'p>(page: &'p [u8], contents: VmsaContents, isolation: Isolation) -> VmsaPage<'p> {
    if contents == VmsaContents::File {
        return VmsaPage::Borrowed(page);
    }
    VmsaPage::Owned(adjusted(kvm_vmsa::kvm_image(page, isolation).page, contents))
}

/// A save area of KVM's as a kind of contents has it.
fn adjusted(mut image: Vmsa, contents: VmsaContents) -> Vmsa {
    match contents {
        VmsaContents::File | VmsaContents::Kvm => {}
        VmsaContents::KvmWithoutFpu => kvm_vmsa::clear_fpu(&mut image),
        VmsaContents::KvmWithSignature(signature) => {
            image[offset::RDX..offset::RDX + 8].copy_from_slice(&u64::from(signature).to_le_bytes());
        }
        VmsaContents::KvmWithFeatures(bits) => {
            let field = &mut image[offset::SEV_FEATURES..offset::SEV_FEATURES + 8];
            for (byte, more) in field.iter_mut().zip(bits.to_le_bytes()) {
                *byte |= more;
            }
        }
    }
    image
}

/// KVM has one set of SEV features for all VPs of a VM: that of the contexts.
fn vm_features(plan: &LaunchPlan<'_>) -> u64 {
    plan.vp_contexts()
        .find_map(|(context, _)| match &context.state {
            VpState::Vmsa(page) => Some(kvm_vmsa::features(page)),
            _ => None,
        })
        .unwrap_or(0)
}

/// One VMSA for each VP in creation order, after every page. VPs that no context describes start in KVM's
/// own reset state.
fn vmsas_last<'p>(subject: &Subject<'p, '_>, sink: &mut Sink<'_, 'p>) -> Result<(), MeasureError> {
    let isolation = subject.plan.facts.isolation;
    let contexts: HashMap<VpIndex, (&'p VpContext<'p>, Origin)> = subject
        .plan
        .vp_contexts()
        .map(|(context, origin)| (context.vp, (context, origin)))
        .collect();
    let features = vm_features(subject.plan);
    for vp in 0..subject.vp_count {
        let (page, gpa, origin) = match contexts.get(&vp).copied() {
            Some((
                VpContext {
                    state: VpState::Vmsa(page),
                    gpa,
                    ..
                },
                origin,
            )) => (save_area(page, subject.rules.contents, isolation), *gpa, origin),
            _ => (
                VmsaPage::Owned(adjusted(
                    kvm_vmsa::reset_state_with(isolation, features),
                    subject.rules.contents,
                )),
                x86defs::vmsa::KVM_VMSA_GPA,
                Origin::Host("kvm reset state"),
            ),
        };
        let what = Measured::Vmsa {
            vp,
            gpa: vmsa_gpa(subject.rules.address, gpa),
            page,
        };
        sink(Event { what, origin })?;
    }
    Ok(())
}

/// VBS measures registers after all pages, in file order.
fn registers<'p>(plan: &'p LaunchPlan<'_>, sink: &mut Sink<'_, 'p>) -> Result<(), MeasureError> {
    for (context, origin) in plan.vp_contexts() {
        if let VpState::Vbs(list) = &context.state {
            for register in list {
                sink(Event {
                    what: Measured::Register(register),
                    origin,
                })?;
            }
        }
    }
    Ok(())
}
