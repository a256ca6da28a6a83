// SPDX-License-Identifier: MIT
//! `diff`: each kind of difference is one line, with what it does to the launch digest.

use crate::build::*;
use crate::corpus::{Sample, samples};
use crate::program::{Folder, run};
use igvmtool::compare::{Comparison, compare};
use launch_plan::*;
use std::borrow::Cow;
use vm_loaders::igvm::{File, FormatVersion};

fn compared(a: &[u8], b: &[u8]) -> Comparison {
    compare(&File::read(a).unwrap(), &File::read(b).unwrap())
}

fn lines(a: &[u8], b: &[u8]) -> Vec<String> {
    compared(a, b)
        .differences
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The SNP sample with its steps changed.
fn changed(isolation: Isolation, change: impl FnOnce(&mut Vec<Step<'static>>)) -> (Vec<u8>, Vec<u8>) {
    let base = builder(Shape::of(isolation)).finish();
    let before = file(std::slice::from_ref(&base), FormatVersion::V1);
    let (facts, endorsements) = (base.facts.clone(), base.endorsements.clone());
    let mut steps = base.into_steps();
    change(&mut steps);
    let mut plan = PlanBuilder::new(facts);
    plan.plan_mut().endorsements = endorsements;
    for step in steps {
        match step.kind {
            StepKind::Import(import) => plan.import(import, HERE).unwrap(),
            StepKind::VpContext(context) => plan.vp_context(*context, HERE).unwrap(),
            StepKind::ErrorRange { gpa, len } => plan.error_range(gpa, len, HERE).unwrap(),
            StepKind::ExpectMemory(expect) => plan.expect_memory(expect, HERE).unwrap(),
        }
    }
    (before, v1(plan))
}

fn import<'s>(steps: &'s mut [Step<'static>], wanted: u64) -> &'s mut Import<'static> {
    let found = steps.iter_mut().find_map(|step| match &mut step.kind {
        StepKind::Import(import) if import.gpa == wanted => Some(import),
        _ => None,
    });
    found.unwrap()
}

fn flip(import: &mut Import<'static>, at: usize) {
    if let Contents::Bytes(bytes) = &mut import.contents {
        bytes.to_mut()[at] ^= 1;
    }
}

#[test]
fn no_file_differs_from_itself() {
    for Sample { name, bytes } in samples() {
        let comparison = compared(&bytes, &bytes.clone());
        assert!(comparison.equal && comparison.first_byte.is_none(), "{name}");
    }
}

#[test]
fn one_byte_is_one_line_and_changes_the_digest() {
    let (a, b) = changed(Isolation::Snp, |steps| flip(import(steps, 0x10_0000), 0x1005));
    assert_eq!(
        lines(&a, &b),
        ["snp: page 0x101000: 1 byte differs: 0x41 becomes 0x40 at gpa 0x101005; changes the launch digest"]
    );
}

#[test]
fn one_unmeasured_byte_changes_no_digest() {
    let (a, b) = changed(Isolation::Snp, |steps| flip(import(steps, 0x11_0000), 5));
    assert_eq!(
        lines(&a, &b),
        [
            "snp: page 0x110000: 1 byte differs: 0x61 becomes 0x60 at gpa 0x110005; no effect on the launch digest"
        ]
    );
}

/// Changes the save area of the SNP sample.
fn save_area_byte(at: usize, value: u8) -> Vec<String> {
    let (a, b) = changed(Isolation::Snp, |steps| {
        for step in steps {
            if let StepKind::VpContext(context) = &mut step.kind
                && let VpState::Vmsa(page) = &mut context.state
            {
                let mut bytes = page.to_vec();
                bytes[at] = value;
                *page = Cow::Owned(bytes);
            }
        }
    });
    lines(&a, &b)
}

#[test]
fn one_register_is_one_line() {
    assert_eq!(
        save_area_byte(x86defs::vmsa::offset::RIP, 0xE0),
        ["snp: vp 0 rip: 0xfff0 becomes 0xffe0; changes the launch digest"]
    );
    // CR2 is measured where the file's own save area is, which KVM does not use.
    assert_eq!(
        save_area_byte(0x240, 1),
        [
            "snp: vp 0 cr2: 0 becomes 0x1; no effect on kvm's launch digest, but on the readings file-order, igvmmeasure, igvmmeasure-native-zero"
        ]
    );
}

#[test]
fn one_native_and_one_vbs_register_are_one_line_each() {
    let (a, b) = changed(Isolation::Native, |steps| {
        for step in steps {
            if let StepKind::VpContext(context) = &mut step.kind
                && let VpState::Native(native) = &mut context.state
            {
                native.gpr[6] = 7;
            }
        }
    });
    assert_eq!(
        lines(&a, &b),
        ["native: vp 0 rsi: 0x0 becomes 0x7; the platform has no launch digest"]
    );
    let (a, b) = changed(Isolation::Vsm, |steps| {
        for step in steps {
            if let StepKind::VpContext(context) = &mut step.kind
                && let VpState::Vbs(list) = &mut context.state
            {
                list[1].value = VbsValue::U64(0x31);
            }
        }
    });
    assert_eq!(
        lines(&a, &b),
        ["vsm: vp 0 cr0: 0x11 becomes 0x31; changes the launch digest"]
    );
}

#[test]
fn one_policy_bit_is_one_line() {
    let plan = |policy| {
        let mut plan = builder(Shape::of(Isolation::Snp));
        plan.plan_mut().facts.policy = Some(policy);
        v1(plan)
    };
    assert_eq!(
        lines(&plan(0x3_0000), &plan(0xB_0000)),
        ["snp: policy bit 19 debug: not allowed becomes allowed; no effect on the launch digest"]
    );
}

#[test]
fn the_order_of_two_pages_is_one_line() {
    let (a, b) = changed(Isolation::Snp, |steps| steps.swap(1, 2));
    assert_eq!(
        lines(&a, &b),
        ["snp: order: page 0x103000 and page 0x110000 change places; changes the launch digest"]
    );
    let (a, b) = changed(Isolation::Native, |steps| steps.swap(1, 2));
    assert_eq!(
        lines(&a, &b),
        ["native: order: page 0x103000 and page 0x110000 change places; the platform has no launch digest"]
    );
}

#[test]
fn version_1_against_version_2_is_one_line() {
    for isolation in [Isolation::Snp, Isolation::Vsm, Isolation::Tdx] {
        let plan = builder(Shape::of(isolation)).finish();
        let file = |format| file(std::slice::from_ref(&plan), format);
        assert_eq!(
            lines(&file(FormatVersion::V1), &file(FormatVersion::V2)),
            ["format version: 1 becomes 2; no effect on the launch digest"]
        );
    }
}

#[test]
fn another_mask_is_one_line_and_starts_the_same_guest() {
    let snp = builder(Shape::of(Isolation::Snp)).finish();
    let tdx = builder(Shape::of(Isolation::Tdx)).finish();
    let (a, b) = (
        file(&[snp.clone(), tdx.clone()], FormatVersion::V1),
        file(&[tdx, snp], FormatVersion::V1),
    );
    assert_eq!(
        lines(&a, &b),
        [
            "snp: mask: 0x1 becomes 0x2; no effect on the launch digest",
            "tdx: mask: 0x2 becomes 0x1; no effect on the launch digest",
        ]
    );
}

#[test]
fn page_kinds_sizes_and_stored_zeros_are_named() {
    let (a, b) = changed(Isolation::Snp, |steps| {
        import(steps, 0x10_0000).kind = PageKind::Unmeasured;
        import(steps, 0x10_3000).contents = Contents::Bytes(vec![0; 4096].into());
    });
    assert_eq!(
        lines(&a, &b),
        [
            "snp: 3 pages 0x100000..0x103000: measured becomes unmeasured; changes the launch digest",
            "snp: page 0x103000: a page without data becomes zeros stored in the file; no effect on kvm's launch digest, but on the readings igvmmeasure-native-zero, cloud-hypervisor",
        ]
    );
    let large = |large| {
        let mut plan = builder(Shape::of(Isolation::Snp));
        let contents = Contents::Bytes(data(200, 7).into());
        let import = Import {
            gpa: 4 << 20,
            len: 2 << 20,
            large,
            kind: PageKind::Measured,
            contents,
        };
        plan.import(import, HERE).unwrap();
        v1(plan)
    };
    let shown = lines(&large(true), &large(false));
    assert_eq!(
        shown,
        [
            "snp: 200 pages 0x400000..0x4c8000: a 2 MiB page becomes 4 KiB pages; no effect on the launch digest",
            "snp: 312 pages 0x4c8000..0x600000: zeros stored in the file become a page without data, a 2 MiB page becomes 4 KiB pages; no effect on kvm's launch digest, but on the readings igvmmeasure-native-zero, cloud-hypervisor",
        ]
    );
}

#[test]
fn parameters_contexts_and_ranges_of_one_file_are_named() {
    let shape = |parameters| Shape {
        parameters,
        ..Shape::of(Isolation::Native)
    };
    let a = v1(builder(shape(&[ParameterKind::MemoryMap])));
    let mut other = builder(Shape {
        vps: 2,
        ..shape(&[ParameterKind::VpCount])
    });
    other.error_range(0x50_0000, 0x1000, HERE).unwrap();
    let b = v1(other);
    assert_eq!(
        lines(&a, &b),
        [
            "native: parameter: memory map at gpa 0x200000 (0x200000 + 0x0), in the first file only; the platform has no launch digest",
            "native: parameter: VP count at gpa 0x200000 (0x200000 + 0x0), in the second file only; the platform has no launch digest",
            "native: error range 0x500000: 0x1000 bytes, in the second file only; the platform has no launch digest",
            "native: vp 1: has a context in the second file only; the platform has no launch digest",
        ]
    );
}

/// What the lines say about digests is what measuring the files says.
#[test]
fn effects_agree_with_the_digests_of_the_whole_files() {
    let all = samples();
    let mut compared_pairs = 0;
    for a in &all {
        for b in all.iter().filter(|b| b.name != a.name) {
            let (small, platforms) = (a.bytes.len() + b.bytes.len() < 0x4_0000, |sample: &Sample| {
                File::read(&sample.bytes).unwrap().platforms().len()
            });
            if !small || platforms(a) != 1 || platforms(b) != 1 {
                continue;
            }
            let comparison = compared(&a.bytes, &b.bytes);
            let Some(digests) = comparison.digests.first() else {
                continue;
            };
            compared_pairs += 1;
            let claimed = comparison
                .differences
                .iter()
                .any(|d| d.platform.is_some() && d.effect.changes_launch_digest == Some(true));
            assert_eq!(
                claimed,
                digests.first != digests.second,
                "{} against {}: {:#?}",
                a.name,
                b.name,
                comparison.differences
            );
        }
    }
    assert!(compared_pairs > 20, "{compared_pairs}");
}

#[test]
fn the_command_ends_with_1_for_a_difference_and_shows_bytes() {
    let folder = Folder::new();
    let (a, b) = changed(Isolation::Snp, |steps| flip(import(steps, 0x10_0000), 0x1005));
    let (a, b) = (folder.write("a", a), folder.write("b", b));
    assert_eq!(run(&["diff", &a, &a]), (0, String::new()));
    let (code, shown) = run(&["diff", "--bytes", &a, &b]);
    assert_eq!(code, 1);
    let wanted = "\n  - 0x101005: 41 41 41 41 41 41 41 41 41 41 41 41 41 41 41 41\n  + 0x101005: 40 41";
    assert!(shown.contains(wanted), "{shown}");
    assert!(shown.contains("snp: the launch digest "), "{shown}");
    let (code, json) = run(&["diff", "--json", &a, &b]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["schema"].as_u64()), (1, Some(1)));
    assert_eq!(json["differences"][0]["effect"]["changes_launch_digest"], true);
    assert_eq!(
        json["differences"][0]["hashes"]["first"].as_str().unwrap().len(),
        64
    );
}
