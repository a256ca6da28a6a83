// SPDX-License-Identifier: MIT
use super::*;
use guest_protocol::igvm_probe as contract;
use launch_plan::{HostValues, Isolation, ParameterKind};
use vm_loaders::igvm::{EncodeOptions, File, encode};

fn all() -> Vec<launch_plan::LaunchPlan<'static>> {
    let mut plans = Vec::new();
    for isolation in [Isolation::Native, Isolation::Vsm] {
        plans.push(igvm_probe_plan(IgvmProbeOptions::new(isolation)).unwrap());
        for payload in [
            FlatPayload::TestSuite,
            FlatPayload::Spin,
            FlatPayload::TripleFault,
            FlatPayload::UnhandledInstruction,
            FlatPayload::FirstByte,
            FlatPayload::MachineSuite,
        ] {
            plans.push(flat_plan(payload, isolation).unwrap());
        }
    }
    let entry32 = IgvmProbeOptions {
        entry32: true,
        ..IgvmProbeOptions::new(Isolation::Native)
    };
    plans.push(igvm_probe_plan(entry32).unwrap());
    let relocatable = IgvmProbeOptions {
        relocatable: true,
        ..IgvmProbeOptions::new(Isolation::Vsm)
    };
    plans.push(igvm_probe_plan(relocatable).unwrap());
    plans
}

#[test]
fn every_plan_survives_a_file() {
    for plan in all() {
        let isolation = plan.facts.isolation;
        let plans = [plan];
        let bytes = encode(&plans, &EncodeOptions::default()).unwrap().to_vec();
        let read = File::read(&bytes).unwrap().plan(isolation).unwrap();
        assert_eq!(read, plans[0]);
    }
}

#[test]
fn every_initial_state_can_start() {
    for plan in all() {
        let bound = plan.bind(&HostValues::new(2)).unwrap();
        assert!(bound.initial_state(0).is_some());
    }
}

#[test]
fn the_probe_asks_for_every_parameter() {
    let plan = igvm_probe_plan(IgvmProbeOptions::new(Isolation::Native)).unwrap();
    let mut kinds: Vec<_> = plan
        .steps()
        .iter()
        .filter_map(|step| match &step.kind {
            launch_plan::StepKind::Import(import) => Some(&import.contents),
            _ => None,
        })
        .filter_map(|contents| match contents {
            Contents::Parameters(area) => Some(area.slots.iter().map(|slot| slot.kind)),
            _ => None,
        })
        .flatten()
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ParameterKind::ALL);
}

#[test]
fn the_probe_fits_its_room() {
    let len = crate::IGVM_PROBE.len() as u64;
    assert!(len <= contract::IMAGE_ROOM, "{len:#x}");
    assert_eq!(contract::ENTRY64, crate::ENTRY64_OFFSET);
}
