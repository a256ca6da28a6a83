// SPDX-License-Identifier: MIT
//! Every call of a launch fails once, in every way: a clear error, nothing left open, no panic
//! (`spec/sev.md` 4.10).

use crate::rig::{launch, model, small_plan};
use kvm_model::Fault;
use virt_sev::Platform;

/// What each call is told to answer.
const FAULTS: [Fault; 6] = [
    Fault::Errno(libc::EINVAL),
    Fault::Errno(libc::ENOMEM),
    Fault::Errno(libc::EAGAIN),
    Fault::Firmware(0x13),
    Fault::Partial(1),
    Fault::PspDead,
];

/// The launch with `fault` at the `nth` call of `name`; whether it succeeded all the same.
fn with_fault(platform: Platform, name: &'static str, nth: usize, fault: Fault) -> bool {
    let model = model();
    model.inject(name, nth, fault);
    let plan = small_plan(platform, 2);
    let outcome = launch(&model, platform, &plan, 2);
    let at = format!("{platform}: {fault:?} at call {nth} of {name}");
    assert_eq!(model.unmet_faults(), 0, "{at}: was not met");
    assert_eq!(model.open_descriptors(), 0, "{at}: descriptors are left");
    assert_eq!(model.live_mappings(), 0, "{at}: mappings are left");
    assert_eq!(model.firmware_guests(), 0, "{at}: the firmware keeps a guest");
    assert_eq!(model.assigned_pages(), 0, "{at}: pages are not given back");
    match outcome {
        Ok(summary) => {
            // A repeated or partial update must not change what is measured.
            assert_eq!(summary.platform_digest, Some(summary.digest), "{at}");
            true
        }
        Err(message) => {
            assert!(
                message.len() > 20 && !message.contains("panicked"),
                "{at}: {message}"
            );
            false
        }
    }
}

fn every_point(platform: Platform) {
    let reference = model();
    launch(&reference, platform, &small_plan(platform, 2), 2).unwrap();
    let points: Vec<_> = reference
        .transcript()
        .into_iter()
        .filter(|call| !call.name.starts_with("close") && !call.name.starts_with("unmap"))
        .map(|call| (call.name, call.nth))
        .collect();
    assert!(points.len() > 20, "{points:?}");
    let mut survived = 0;
    for (name, nth) in &points {
        for fault in FAULTS {
            survived += usize::from(with_fault(platform, name, *nth, fault));
        }
    }
    println!(
        "{platform}: {} points, {} faults, {survived} survived",
        points.len(),
        points.len() * FAULTS.len()
    );
    assert!(
        survived < points.len() * 3,
        "most faults end the launch: {survived}"
    );
}

#[test]
fn every_call_of_a_sev_launch_may_fail() {
    every_point(Platform::Sev);
}

#[test]
fn every_call_of_a_sev_es_launch_may_fail() {
    every_point(Platform::SevEs);
}

#[test]
fn every_call_of_an_snp_launch_may_fail() {
    every_point(Platform::Snp);
}
