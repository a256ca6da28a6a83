// SPDX-License-Identifier: MIT
//! What a launch leaves: digest, policy, page states, notes.

use crate::rig::{RAM, launch, model, plan, small_plan};
use launch_digest::{Options, kvm_vmsa, measure};
use launch_plan::{Isolation, Origin, PlanBuilder, VpContext, VpState};
use virt_sev::Platform;
use x86defs::vmsa::{KVM_VMSA_GPA, offset, sev_features};

#[test]
fn the_firmwares_digest_is_the_one_that_measure_predicts() {
    for platform in Platform::ALL {
        let plan = plan(platform, 2);
        let summary = launch(&model(), platform, &plan, 2).unwrap();
        let options = Options {
            vp_count: Some(2),
            ..Options::default()
        };
        let predicted = measure(&plan, &options).unwrap().digest.0;
        assert_eq!(summary.digest, predicted, "{platform}");
        assert_eq!(summary.platform_digest, Some(predicted), "{platform}");
        assert_eq!(summary.policy, virt_sev::policy::usual(platform));
        assert!(summary.stopped.contains("does not run"));
    }
}

#[test]
fn snp_pages_end_private_shared_or_the_guests() {
    let summary = launch(&model(), Platform::Snp, &plan(Platform::Snp, 1), 1).unwrap();
    let state = |gpa: u64| {
        let range = summary
            .memory
            .iter()
            .find(|r| r.gpa <= gpa && gpa < r.gpa + r.len);
        range.map_or("none", |r| &*r.state).to_owned()
    };
    for gpa in [0x1000, 0x5000, 0x8000, 0xB000, 0xC000, 0x10_0000, 0x35_7000] {
        assert_eq!(state(gpa), "guest-valid", "{gpa:#x}");
    }
    assert_eq!(state(0xA000), "shared");
    assert_eq!(state(0x80_0000), "private, not assigned", "required memory");
    assert_eq!(state(0x90_0000), "shared");
    assert_eq!(summary.memory.iter().map(|r| r.len).sum::<u64>(), RAM);
}

#[test]
fn the_hosts_cpuid_page_is_corrected_by_the_firmware_and_that_is_noted() {
    let summary = launch(&model(), Platform::Snp, &plan(Platform::Snp, 1), 1).unwrap();
    for note in summary
        .notes
        .iter()
        .filter(|note| note.starts_with("cpuid page: leaf "))
    {
        assert!(note.contains("firmware accepts "), "{note}");
    }
}

#[test]
fn processors_without_a_context_get_the_features_of_the_others() {
    let mut builder = PlanBuilder::new(small_plan(Platform::Snp, 0).facts);
    let mut page = kvm_vmsa::reset_state(Isolation::Snp);
    page[offset::SEV_FEATURES] |= sev_features::DEBUG_SWAP as u8;
    let context = VpContext {
        vp: 0,
        gpa: KVM_VMSA_GPA,
        state: VpState::Vmsa(page.to_vec().into()),
    };
    builder.vp_context(context, Origin::Host("test")).unwrap();
    let plan = builder.finish();
    let summary = launch(&model(), Platform::Snp, &plan, 3).unwrap();
    assert_eq!(summary.platform_digest, Some(summary.digest));
}
