// SPDX-License-Identifier: MIT
//! The calls of a launch are those of `spec/sev.md` 1.5, in that order.

use crate::rig::{launch, model, plan};
use virt_sev::Platform;

/// Calls that set up a VP; their order among each other is KVM's business.
const VP: &[&str] = &[
    "KVM_SET_CPUID2",
    "KVM_GET_SREGS",
    "KVM_SET_SREGS",
    "KVM_SET_REGS",
    "KVM_SET_DEBUGREGS",
    "KVM_SET_XCRS",
    "KVM_SET_MSRS",
    "KVM_SET_XSAVE",
    "KVM_GET_REGS",
    "KVM_GET_SUPPORTED_CPUID",
];

/// The launch's calls from the VM on, without questions and VP setup, repeated neighbours once.
fn transcript(platform: Platform) -> Vec<&'static str> {
    let model = model();
    launch(&model, platform, &plan(platform, 2), 2).unwrap();
    let calls = model.transcript();
    let from = calls
        .iter()
        .position(|call| call.name == "KVM_CREATE_VM")
        .unwrap();
    let mut names: Vec<&'static str> = calls[from..]
        .iter()
        .map(|call| call.name)
        .filter(|name| !VP.contains(name) && !name.starts_with("close") && !name.contains("map"))
        .collect();
    names.dedup();
    names
}

/// `/dev/sev` is opened before the VM is made, and closed after everything else was done.
#[test]
fn dev_sev_stays_open_from_before_the_vm_to_the_end() {
    for platform in Platform::ALL {
        let model = model();
        launch(&model, platform, &plan(platform, 2), 2).unwrap();
        let calls = model.transcript();
        let at = |name: &str| calls.iter().position(|call| call.name == name);
        let finish = match platform {
            Platform::Snp => "KVM_SEV_SNP_LAUNCH_FINISH",
            _ => "KVM_SEV_LAUNCH_FINISH",
        };
        let (opened, made, done) = (at("open /dev/sev"), at("KVM_CREATE_VM"), at(finish));
        assert!(
            opened.is_some() && opened < made && made < done,
            "{platform}: {calls:?}"
        );
        let between = &calls[opened.unwrap()..done.unwrap()];
        assert!(
            between.iter().all(|call| !call.name.starts_with("close")),
            "{platform}: {calls:?}"
        );
    }
}

/// CPUID first: a CR3 with the C-bit is legal only then. All of it before the first page.
#[test]
fn every_vp_gets_cpuid_before_its_registers_and_everything_before_the_pages() {
    for platform in Platform::ALL {
        let model = model();
        launch(&model, platform, &plan(platform, 3), 3).unwrap();
        let names: Vec<_> = model.transcript().iter().map(|call| call.name).collect();
        let first = |wanted: &str| names.iter().position(|name| *name == wanted).unwrap();
        let pages = match platform {
            Platform::Snp => first("KVM_SEV_SNP_LAUNCH_UPDATE"),
            _ => first("KVM_SEV_LAUNCH_UPDATE_DATA"),
        };
        let of_vp: Vec<_> = names[first("KVM_CREATE_VCPU")..pages]
            .iter()
            .filter(|name| **name == "KVM_CREATE_VCPU" || VP.contains(name))
            .copied()
            .collect();
        // Plain SEV has no contexts, so its VPs keep KVM's reset state.
        let mut one = vec!["KVM_CREATE_VCPU", "KVM_SET_CPUID2"];
        if platform != Platform::Sev {
            one.extend([
                "KVM_GET_SREGS",
                "KVM_SET_SREGS",
                "KVM_SET_REGS",
                "KVM_SET_DEBUGREGS",
                "KVM_SET_XCRS",
                "KVM_SET_MSRS",
                "KVM_SET_XSAVE",
                "KVM_GET_REGS",
                "KVM_GET_SREGS",
            ]);
        }
        assert_eq!(of_vp, one.repeat(3), "{platform}");
        assert!(
            names[pages..].iter().all(|name| *name != "KVM_SET_SREGS"),
            "{platform}"
        );
    }
}

/// What SEV and SEV-ES have in common: everything up to the pages, and the end.
const BEGINNING: [&str; 7] = [
    "KVM_CREATE_VM",
    "KVM_SEV_INIT2",
    "KVM_SEV_LAUNCH_START",
    "KVM_SET_USER_MEMORY_REGION",
    "KVM_MEMORY_ENCRYPT_REG_REGION",
    "KVM_CREATE_VCPU",
    "KVM_SEV_LAUNCH_UPDATE_DATA",
];
const END: [&str; 2] = ["KVM_SEV_LAUNCH_MEASURE", "KVM_SEV_LAUNCH_FINISH"];

#[test]
fn sev_follows_the_required_order() {
    assert_eq!(transcript(Platform::Sev), [&BEGINNING[..], &END].concat());
}

#[test]
fn sev_es_seals_the_save_areas_behind_the_pages() {
    let seal = ["KVM_SEV_LAUNCH_UPDATE_VMSA"];
    assert_eq!(
        transcript(Platform::SevEs),
        [&BEGINNING[..], &seal, &END].concat()
    );
}

#[test]
fn snp_makes_each_run_private_before_it_is_added() {
    let mut expected = vec![
        "KVM_CREATE_VM",
        "KVM_ENABLE_CAP",
        "KVM_SEV_INIT2",
        "KVM_CREATE_GUEST_MEMFD",
        "KVM_SET_USER_MEMORY_REGION2",
        "KVM_SEV_SNP_LAUNCH_START",
        "KVM_CREATE_VCPU",
    ];
    // Data and zeros, parameters, 512 and 88 pages, secrets, cpuid (refused once, then corrected).
    for _ in 0..6 {
        expected.extend(["KVM_SET_MEMORY_ATTRIBUTES", "KVM_SEV_SNP_LAUNCH_UPDATE"]);
    }
    expected.extend(["KVM_SET_MEMORY_ATTRIBUTES", "KVM_SEV_SNP_LAUNCH_FINISH"]);
    assert_eq!(transcript(Platform::Snp), expected);
}
