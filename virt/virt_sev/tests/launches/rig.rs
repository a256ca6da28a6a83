// SPDX-License-Identifier: MIT
//! A small guest for each platform, and one launch of it on a fresh model.

use guest_memory::GuestMemory;
use kvm_model::{FakeHost, ModelSys};
use launch_digest::kvm_vmsa;
use launch_plan::{
    Arch, Contents, ExpectMemory, HostValues, Import, LaunchPlan, Origin, PageKind, ParameterArea,
    ParameterKind, ParameterSlot, PlanBuilder, PlatformFacts, VpContext, VpState,
};
use std::sync::Arc;
use virt::{IsolatingHypervisor, LaunchSummary};
use virt_sev::{Options, Platform, Sev, policy};
use x86defs::vmsa::KVM_VMSA_GPA;

/// RAM of the guest.
pub(crate) const RAM: u64 = 16 << 20;

const HERE: Origin = Origin::Header {
    index: 3,
    offset: 0x90,
};

/// The same without its many pages.
pub(crate) fn small_plan(platform: Platform, vps: u32) -> LaunchPlan<'static> {
    plan_of(platform, vps, 0)
}

/// Data, zeros, parameters, shared pages, save areas, required memory, and for SEV-SNP its special pages.
pub(crate) fn plan(platform: Platform, vps: u32) -> LaunchPlan<'static> {
    plan_of(platform, vps, 600)
}

fn plan_of(platform: Platform, vps: u32, many: u64) -> LaunchPlan<'static> {
    let mut facts = PlatformFacts::new(platform.isolation(), Arch::X64);
    facts.policy = Some(policy::usual(platform));
    let mut b = PlanBuilder::new(facts);
    let mut pages = |gpa, pages: u64, kind, contents| {
        let import = Import {
            gpa,
            len: pages << 12,
            large: false,
            kind,
            contents,
        };
        b.import(import, HERE).unwrap();
    };
    pages(
        0x1000,
        3,
        PageKind::Measured,
        Contents::Bytes(vec![0x42; 0x2345].into()),
    );
    pages(0x4000, 2, PageKind::Measured, Contents::Zero);
    pages(
        0x8000,
        2,
        PageKind::Unmeasured,
        Contents::Parameters(Box::new(parameters())),
    );
    pages(
        0xA000,
        1,
        PageKind::Shared,
        Contents::Bytes(vec![0x55; 16].into()),
    );
    if many != 0 {
        let bytes = vec![0x11; 0x10_0000];
        pages(0x10_0000, many, PageKind::Measured, Contents::Bytes(bytes.into()));
    }
    if platform == Platform::Snp {
        pages(0xB000, 1, PageKind::Secrets, Contents::Zero);
        pages(0xC000, 1, PageKind::Cpuid, Contents::Zero);
    }
    if platform != Platform::Sev {
        for vp in 0..vps {
            let mut page = kvm_vmsa::reset_state(platform.isolation());
            page[x86defs::vmsa::offset::RAX] = 0x10 + vp as u8;
            let context = VpContext {
                vp,
                gpa: KVM_VMSA_GPA,
                state: VpState::Vmsa(page.to_vec().into()),
            };
            b.vp_context(context, HERE).unwrap();
        }
    }
    let expect = ExpectMemory {
        gpa: 0x80_0000,
        len: 0x10_0000,
        vtl2_protectable: false,
    };
    b.expect_memory(expect, HERE).unwrap();
    b.finish()
}

fn parameters() -> ParameterArea<'static> {
    let slot = ParameterSlot {
        kind: ParameterKind::VpCount,
        byte_offset: 0x1000,
        origin: HERE,
    };
    ParameterArea {
        index: 0,
        initial: Default::default(),
        slots: vec![slot],
    }
}

/// A launch of `plan` with `vps` VPs on `model`.
pub(crate) fn launch(
    model: &Arc<ModelSys>,
    platform: Platform,
    plan: &LaunchPlan<'_>,
    vps: u32,
) -> Result<LaunchSummary, String> {
    launch_with(model, (platform, Options::default()), plan, vps)
}

/// The same with options.
pub(crate) fn launch_with(
    model: &Arc<ModelSys>,
    (platform, options): (Platform, Options),
    plan: &LaunchPlan<'_>,
    vps: u32,
) -> Result<LaunchSummary, String> {
    let sev = Sev::on_model(model, platform, options).map_err(|e| e.to_string())?;
    launch_by(&sev, plan, vps)
}

/// The same by an open host.
pub(crate) fn launch_by(sev: &Sev, plan: &LaunchPlan<'_>, vps: u32) -> Result<LaunchSummary, String> {
    let memory = GuestMemory::allocate(&[(0, RAM)]).unwrap();
    let mut host = HostValues::new(vps);
    host.set(ParameterKind::VpCount, vps.to_le_bytes().to_vec());
    let bound = plan.bind(&host).unwrap();
    sev.launch(&bound, vps, &memory).map_err(|e| e.to_string())
}

/// A fresh model of the host that can do everything.
pub(crate) fn model() -> Arc<ModelSys> {
    ModelSys::new(FakeHost::snp())
}
