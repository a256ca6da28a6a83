// SPDX-License-Identifier: MIT
//! What KVM and the firmware refuse during a launch, in words that say what to do (`spec/sev.md` 5.5).

use crate::rig::{launch, launch_with, small_plan};
use kvm_model::{FakeHost, Fault, ModelSys};
use virt_sev::{Options, Platform};

fn on(host: FakeHost, platform: Platform, policy: Option<u64>) -> String {
    let model = ModelSys::new(host);
    let options = Options {
        policy,
        ..Options::default()
    };
    let message = launch_with(&model, (platform, options), &small_plan(platform, 1), 1).unwrap_err();
    assert_eq!((model.open_descriptors(), model.firmware_guests()), (0, 0));
    message
}

#[test]
fn limits_of_the_host_are_explained() {
    let pinned = FakeHost {
        pin_limit: Some(1 << 20),
        ..FakeHost::snp()
    };
    for platform in [Platform::Sev, Platform::SevEs] {
        let message = on(pinned.clone(), platform, None);
        assert!(
            message.starts_with("pinning guest memory: cannot pin 16 MiB: raise RLIMIT_MEMLOCK (now "),
            "{message}"
        );
    }
    let full = FakeHost {
        guest_limit: Some(0),
        ..FakeHost::snp()
    };
    for (platform, count) in [(Platform::Sev, 410), (Platform::SevEs, 99), (Platform::Snp, 99)] {
        let message = on(full.clone(), platform, None);
        let text = format!(
            "initialising the vm: all {count} {platform} ASIDs are in use, or a cgroup misc limit is reached"
        );
        assert!(message.starts_with(&text), "{message}");
    }
}

#[test]
fn policies_that_the_firmware_refuses_are_explained() {
    for policy in [
        // A firmware interface newer than any; no SMT on a host that has it.
        0x3_FF00, 0x2_0000,
    ] {
        let message = on(FakeHost::snp(), Platform::Snp, Some(policy));
        let text = format!(
            "starting the launch: firmware 1.55 refused policy {policy:#x}: its minimum version, or SMT"
        );
        assert!(message.starts_with(&text), "{message}");
    }
    let message = on(FakeHost::snp(), Platform::Snp, Some(0x23_0000));
    assert_eq!(
        message,
        "policy 0x230000 asks for bits 0x200000, the host allows 0x1bffff"
    );
    // Where KVM does not say which bits it takes, it refuses itself.
    let message = on(
        FakeHost::without_device_attributes(),
        Platform::Snp,
        Some(0x23_0000),
    );
    assert!(
        message.starts_with("starting the launch: kvm refused policy 0x230000"),
        "{message}"
    );
}

#[test]
fn verdicts_of_the_firmware_at_the_end_are_explained() {
    for (status, text) in [
        (
            0x0B,
            "finishing the launch: the firmware's launch digest is not the one of the id block (BAD_MEASUREMENT)",
        ),
        (
            0x0A,
            "finishing the launch: a signature of the id block does not verify (BAD_SIGNATURE)",
        ),
        (
            0x07,
            "finishing the launch: the id block was signed for another policy than 0x30000 (POLICY_FAILURE)",
        ),
    ] {
        let model = ModelSys::new(FakeHost::snp());
        model.inject("KVM_SEV_SNP_LAUNCH_FINISH", 0, Fault::Firmware(status));
        let message = launch(&model, Platform::Snp, &small_plan(Platform::Snp, 1), 1).unwrap_err();
        assert!(message.starts_with(text), "{message}");
    }
}
