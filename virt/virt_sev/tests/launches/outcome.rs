// SPDX-License-Identifier: MIT
//! What a launch leaves: digest, policy, page states, notes.

use crate::rig::{RAM, launch, model, plan};
use launch_digest::{Options, measure};
use virt_sev::Platform;

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
