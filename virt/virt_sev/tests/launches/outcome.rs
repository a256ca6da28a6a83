// SPDX-License-Identifier: MIT
//! What a launch leaves: digest, policy, page states, notes.

use crate::rig::{RAM, launch, launch_by, launch_with, model, plan, small_plan};
use kvm_model::{FakeHost, ModelSys};
use kvm_sys::Sys;
use launch_digest::{Options, kvm_vmsa, measure};
use launch_plan::{Contents, Import, Isolation, Origin, PageKind, PlanBuilder, VpContext, VpState};
use std::sync::Arc;
use virt_sev::{Platform, Sev};
use x86defs::vmsa::{KVM_VMSA_GPA, offset, sev_features};
use x86defs::{cr0, cr4, efer};

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

/// As on hardware: the same backend, which does not know that its host is a model.
#[test]
fn a_host_that_is_no_model_is_told_that_the_guest_does_not_run() {
    for platform in Platform::ALL {
        let model = model();
        let sys: Arc<dyn Sys> = model.clone();
        let facts = virt_sev::model::facts(&model.host());
        let sev = Sev::open(&sys, &facts, platform, Default::default()).unwrap();
        let summary = launch_by(&sev, &small_plan(platform, 1), 1).unwrap();
        assert_eq!(summary.digest, model.launches().last().unwrap().digest);
        assert_eq!(
            summary.platform_digest, None,
            "a security processor does not tell"
        );
        assert_eq!(
            summary.stopped,
            format!(
                "the guest is launched and does not run: this program does not run {platform} guests on hardware yet, so it \
                 ends here and the guest with it"
            )
        );
        drop(sev);
        assert_eq!((model.open_descriptors(), model.firmware_guests()), (0, 0));
    }
}

#[test]
fn host_data_reaches_the_firmware_as_it_was_given() {
    let (model, host_data) = (model(), std::array::from_fn(|at| at as u8));
    let options = virt_sev::Options {
        host_data: Some(host_data),
        ..Default::default()
    };
    launch_with(&model, (Platform::Snp, options), &small_plan(Platform::Snp, 1), 1).unwrap();
    assert_eq!(model.launches().last().unwrap().host_data, host_data);
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

/// A model whose KVM offers SGX (leaf 7 EBX bit 2), which its processor does not have.
fn model_that_offers_too_much() -> Arc<ModelSys> {
    let mut host = FakeHost::snp();
    let seven = host.cpuid.iter_mut().find(|leaf| leaf.function == 7);
    seven.unwrap().ebx |= 1 << 2;
    ModelSys::new(host)
}

#[test]
fn a_cpuid_page_of_ours_is_submitted_again_as_the_firmware_corrects_it() {
    let plan = small_plan(Platform::Snp, 1);
    let summary = launch(&model_that_offers_too_much(), Platform::Snp, &plan, 1).unwrap();
    let corrections: Vec<_> = summary
        .notes
        .iter()
        .filter(|n| n.starts_with("cpuid page: "))
        .collect();
    assert_eq!(
        corrections,
        ["cpuid page: leaf 0x7.0 ebx is 0x219c97ad, firmware accepts 0x219c97a9"]
    );
    assert_eq!(
        summary.platform_digest,
        Some(summary.digest),
        "its contents are not measured"
    );
    let plain = launch(&model(), Platform::Snp, &plan, 1).unwrap();
    assert!(
        plain.notes.iter().all(|n| !n.starts_with("cpuid page: ")),
        "{:?}",
        plain.notes
    );
}

#[test]
fn a_cpuid_page_of_the_file_is_refused_with_every_line() {
    let mut page = vec![0; 16 + 2 * 48];
    page[0] = 2;
    page[16] = 7;
    page[16 + 24 + 4] = 1 << 2;
    page[64] = 1;
    page[64 + 24 + 8 + 3] = 1;
    let mut builder = PlanBuilder::new(small_plan(Platform::Snp, 0).facts);
    let import = Import {
        gpa: 0x5000,
        len: 0x1000,
        large: false,
        kind: PageKind::Cpuid,
        contents: Contents::Bytes(page.into()),
    };
    builder.import(import, Origin::Host("test")).unwrap();
    let message = launch(&model(), Platform::Snp, &builder.finish(), 1).unwrap_err();
    for line in [
        "test: the firmware refused the cpuid page at gpa 0x5000",
        "cpuid page: leaf 0x7.0 ebx is 0x4, firmware accepts 0x",
        "cpuid page: leaf 0x1.0 ecx is 0x1000000, firmware accepts 0x",
    ] {
        assert!(message.contains(line), "{message}");
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

#[test]
fn pages_and_page_tables_must_fit_the_hosts_c_bit() {
    let mut builder = PlanBuilder::new(small_plan(Platform::Snp, 0).facts);
    let import = Import {
        gpa: 1 << 51,
        len: 0x1000,
        large: false,
        kind: PageKind::Measured,
        contents: Contents::Zero,
    };
    builder.import(import, Origin::Host("test")).unwrap();
    let message = launch(&model(), Platform::Snp, &builder.finish(), 1).unwrap_err();
    assert_eq!(
        message,
        "test: pages at gpa 0x8000000000000 are not below the C-bit, which is bit 51 on this host"
    );
    for (c_bit, fits) in [(51, true), (47, false)] {
        let mut page = kvm_vmsa::reset_state(Isolation::Snp);
        let mut put = |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(offset::CR0, cr0::PE | cr0::PG | cr0::ET);
        put(offset::CR4, cr4::PAE | cr4::MCE);
        put(offset::EFER, efer::SVME | efer::LME | efer::LMA);
        put(offset::CR3, 1 << c_bit | 0x10_0000);
        let mut builder = PlanBuilder::new(small_plan(Platform::Snp, 0).facts);
        let context = VpContext {
            vp: 0,
            gpa: KVM_VMSA_GPA,
            state: VpState::Vmsa(page.to_vec().into()),
        };
        builder.vp_context(context, Origin::Host("test")).unwrap();
        let outcome = launch(&model(), Platform::Snp, &builder.finish(), 1);
        match outcome {
            Ok(summary) => {
                assert!(fits);
                assert_eq!(summary.platform_digest, Some(summary.digest));
            }
            Err(message) => {
                let text = "test: vp 0: cr3 0x800000100000 was made for another C-bit; this host's is bit 51";
                assert!(!fits && message.starts_with(text), "{message}");
            }
        }
    }
}
