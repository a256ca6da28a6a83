// SPDX-License-Identifier: MIT
//! A plan as the sequence of things that a loader submits to be measured.
//!
//! Always true: the sequence depends on the plan, the profile and the VP count only. Pages are 4 KiB:
//! larger ones are expanded, as KVM does. Not here: hashing.

use crate::kvm_vmsa::{self, VmsaPage};
use crate::measure::MeasureError;
use launch_plan::{
    Import, Isolation, LaunchPlan, Origin, PageContents, PageKind, Step, StepKind, VbsRegister, VpContext,
    VpIndex, VpState,
};
use x86defs::paging::PAGE_SIZE;

/// Whose reading of a file a digest follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// What a launch through KVM gives: pages in file order, VMSAs last at KVM's fixed address, one for
    /// each VP in creation order, as KVM rebuilds them.
    Kvm,
    /// File order, file addresses: the `igvm` crate, igvmfilegen, Hyper-V.
    FileOrder,
    /// COCONUT's igvmmeasure: only the first page of a parameter area, shared pages measured.
    IgvmMeasure,
    /// The same with `--native-zero`: pages without data are ZERO pages.
    IgvmMeasureNativeZero,
    /// QEMU 10.2: runs of pages are held back while parameter inserts go out at once; VMSAs last.
    Qemu,
    /// Cloud Hypervisor on KVM: pages without data are ZERO pages, VMSAs last.
    CloudHypervisor,
}

impl Profile {
    /// Every profile, in the order of listings.
    pub const ALL: [Self; 6] = [
        Self::Kvm,
        Self::FileOrder,
        Self::IgvmMeasure,
        Self::IgvmMeasureNativeZero,
        Self::Qemu,
        Self::CloudHypervisor,
    ];

    /// The name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::FileOrder => "file-order",
            Self::IgvmMeasure => "igvmmeasure",
            Self::IgvmMeasureNativeZero => "igvmmeasure-native-zero",
            Self::Qemu => "qemu",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }

    /// The profile called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Whether VMSAs follow every page and are rebuilt by KVM.
    const fn kvm_vmsas(self) -> bool {
        matches!(self, Self::Kvm | Self::Qemu | Self::CloudHypervisor)
    }

    const fn is_igvmmeasure(self) -> bool {
        matches!(self, Self::IgvmMeasure | Self::IgvmMeasureNativeZero)
    }

    const fn native_zero(self) -> bool {
        matches!(self, Self::IgvmMeasureNativeZero | Self::CloudHypervisor)
    }
}

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

/// Calls `sink` for everything that `profile` submits for `plan` with `vp_count` VPs, in order.
pub fn submit<'p>(
    plan: &'p LaunchPlan<'_>,
    profile: Profile,
    vp_count: u32,
    sink: &mut Sink<'_, 'p>,
) -> Result<(), MeasureError> {
    let walk = Walk {
        isolation: plan.facts.isolation,
        profile,
    };
    if profile == Profile::Qemu && plan.facts.isolation != Isolation::Vsm {
        walk.qemu_order(plan.steps(), sink)?;
    } else {
        for step in plan.steps() {
            walk.step(step, sink)?;
        }
    }
    match plan.facts.isolation {
        Isolation::SevEs | Isolation::Snp if profile.kvm_vmsas() => kvm_vmsas(plan, vp_count, sink),
        Isolation::Vsm => registers(plan, sink),
        _ => Ok(()),
    }
}

struct Walk {
    isolation: Isolation,
    profile: Profile,
}

impl Walk {
    fn step<'p>(&self, step: &'p Step<'_>, sink: &mut Sink<'_, 'p>) -> Result<(), MeasureError> {
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
            StepKind::VpContext(context) if !self.profile.kvm_vmsas() => {
                self.vmsa_in_place(context, step.origin, sink)
            }
            _ => Ok(()),
        }
    }

    fn vmsa_in_place<'p>(
        &self,
        context: &'p VpContext<'_>,
        origin: Origin,
        sink: &mut Sink<'_, 'p>,
    ) -> Result<(), MeasureError> {
        match (&context.state, self.isolation) {
            (VpState::Vmsa(page), Isolation::Snp | Isolation::SevEs) => {
                let what = Measured::Vmsa {
                    vp: context.vp,
                    gpa: context.gpa,
                    page: VmsaPage::Borrowed(page),
                };
                sink(Event { what, origin })
            }
            _ => Ok(()),
        }
    }

    fn import<'p>(
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
            let one_record = self.profile == Profile::FileOrder && data.is_empty();
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

    /// What this profile makes of a page; `None` when it submits nothing.
    fn classify<'p>(&self, kind: PageKind, contents: &PageContents<'p, '_>) -> Option<(PageClass, &'p [u8])> {
        let legacy_sev = matches!(self.isolation, Isolation::Sev | Isolation::SevEs);
        let data = match contents {
            PageContents::Bytes(bytes) => *bytes,
            PageContents::Zero => &[],
            PageContents::Parameters(_, page) => {
                let skipped = legacy_sev || (self.profile.is_igvmmeasure() && *page > 0);
                return (!skipped).then_some((PageClass::Unmeasured, &[]));
            }
        };
        let has_data = matches!(contents, PageContents::Bytes(_));
        match kind {
            PageKind::Shared if self.profile.is_igvmmeasure() => Some((self.normal(has_data), data)),
            PageKind::Shared => None,
            // igvmmeasure adds nothing for SEV zero pages and hashes unmeasured ones (sev.md 2.9, g9).
            PageKind::Measured if legacy_sev && self.profile.is_igvmmeasure() && !has_data => None,
            PageKind::Unmeasured if legacy_sev && self.profile.is_igvmmeasure() && has_data => {
                Some((PageClass::Normal, data))
            }
            PageKind::Measured => Some((self.normal(has_data), data)),
            PageKind::Unmeasured if legacy_sev => None,
            PageKind::Unmeasured => Some((PageClass::Unmeasured, data)),
            PageKind::Secrets => Some((PageClass::Secrets, data)),
            PageKind::Cpuid | PageKind::CpuidXf => Some((PageClass::Cpuid, data)),
        }
    }

    fn normal(&self, has_data: bool) -> PageClass {
        if self.isolation == Isolation::Snp && self.profile.native_zero() && !has_data {
            PageClass::Zero
        } else {
            PageClass::Normal
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
    fn qemu_order<'p>(&self, steps: &'p [Step<'_>], sink: &mut Sink<'_, 'p>) -> Result<(), MeasureError> {
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

/// KVM measures one VMSA for each VP in creation order, after every page, at one fixed address.
fn kvm_vmsas<'p>(
    plan: &'p LaunchPlan<'_>,
    vp_count: u32,
    sink: &mut Sink<'_, 'p>,
) -> Result<(), MeasureError> {
    for vp in 0..vp_count {
        let context = plan.vp_contexts().find(|(c, _)| c.vp == vp);
        let (page, origin) = match context {
            Some((
                VpContext {
                    state: VpState::Vmsa(page),
                    ..
                },
                origin,
            )) => (page.as_ref(), origin),
            _ => (&[][..], Origin::Host("kvm reset state")),
        };
        let image = if page.is_empty() {
            kvm_vmsa::reset_state(plan.facts.isolation)
        } else {
            kvm_vmsa::kvm_image(page, plan.facts.isolation).page
        };
        let what = Measured::Vmsa {
            vp,
            gpa: x86defs::vmsa::KVM_VMSA_GPA,
            page: VmsaPage::Owned(image),
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
