// SPDX-License-Identifier: MIT
//! Every modelled host, every platform: a launch, or that host's own message (`spec/sev.md` 5.5, 5.6).

use crate::host_answers::ANSWERS;
use crate::rig::{launch, small_plan};
use kvm_model::{FakeHost, ModelSys};
use launch_digest::kvm_vmsa;
use launch_plan::{Isolation, LaunchPlan, PlanBuilder, StepKind, VpState};
use std::collections::BTreeSet;
use virt_sev::Platform;

#[test]
fn every_host_launches_what_it_can_and_says_why_not_otherwise() {
    let modelled: BTreeSet<_> = FakeHost::all().into_iter().map(|host| host.name).collect();
    let listed: BTreeSet<_> = ANSWERS.iter().map(|row| row.0).collect();
    assert_eq!(modelled, listed);
    for (name, says) in ANSWERS {
        for (platform, wanted) in Platform::ALL.into_iter().zip(says) {
            let model = ModelSys::new(FakeHost::by_name(name).unwrap());
            let outcome = launch(&model, platform, &small_plan(platform, 1), 1);
            assert_eq!(model.open_descriptors(), 0, "{platform} on {name}");
            match outcome {
                Ok(summary) => {
                    assert!(wanted.is_empty(), "{platform} on {name} was launched");
                    assert_eq!(
                        summary.platform_digest,
                        Some(summary.digest),
                        "{platform} on {name}"
                    );
                }
                Err(message) => {
                    assert!(
                        !wanted.is_empty() && message.contains(wanted),
                        "{platform} on {name}: {message}"
                    );
                }
            }
        }
    }
}

/// A SEV-ES plan whose save areas have no FPU state, which is all that the older interface can measure.
fn plan_without_fpu(contexts: u32) -> LaunchPlan<'static> {
    let plan = small_plan(Platform::SevEs, contexts);
    let mut builder = PlanBuilder::new(plan.facts.clone());
    for step in plan.into_steps() {
        match step.kind {
            StepKind::Import(import) => builder.import(import, step.origin).unwrap(),
            StepKind::VpContext(mut context) => {
                let mut page = kvm_vmsa::reset_state(Isolation::SevEs);
                kvm_vmsa::clear_fpu(&mut page);
                context.state = VpState::Vmsa(page.to_vec().into());
                builder.vp_context(*context, step.origin).unwrap();
            }
            StepKind::ExpectMemory(_) | StepKind::ErrorRange { .. } => {}
        }
    }
    builder.finish()
}

#[test]
fn the_older_interface_launches_sev_es_without_fpu_state() {
    // As many contexts as processors; none at all; fewer.
    for (contexts, vps) in [(1, 1), (0, 1), (1, 3)] {
        let model = ModelSys::new(FakeHost::linux_6_9());
        let summary = launch(&model, Platform::SevEs, &plan_without_fpu(contexts), vps).unwrap();
        assert_eq!(
            summary.platform_digest,
            Some(summary.digest),
            "{contexts} contexts, {vps} vps"
        );
        let noted = summary
            .notes
            .iter()
            .any(|note| note.contains("without MXCSR and FCW"));
        assert_eq!(noted, contexts != vps, "{:?}", summary.notes);
        let names: Vec<_> = model.transcript().iter().map(|call| call.name).collect();
        assert!(
            names.contains(&"KVM_SEV_ES_INIT") && !names.contains(&"KVM_SEV_INIT2"),
            "{names:?}"
        );
    }
}
