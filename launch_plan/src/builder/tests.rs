// SPDX-License-Identifier: MIT
//! Tests of the plan builder: each refusal, and what equality means.

use super::*;
use crate::plan::{Arch, Isolation, ParameterArea, ParameterSlot};
use crate::vp::{VbsRegister, VbsValue};
use std::borrow::Cow;
use x86defs::SegmentRegister;

const HERE: Origin = Origin::Host("test");
const THERE: Origin = Origin::Header {
    index: 7,
    offset: 0x120,
};

fn builder() -> PlanBuilder<'static> {
    PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::X64))
}

fn page(gpa: u64) -> Import<'static> {
    Import {
        gpa,
        len: 0x1000,
        large: false,
        kind: PageKind::Measured,
        contents: Contents::Zero,
    }
}

fn area(slots: Vec<ParameterSlot>) -> Contents<'static> {
    Contents::Parameters(Box::new(ParameterArea {
        index: 3,
        initial: Cow::Borrowed(&[]),
        slots,
    }))
}

#[test]
fn overlap_names_both_origins_and_ranges() {
    let mut plan = builder();
    plan.import(
        Import {
            len: 0x3000,
            ..page(0x10_0000)
        },
        THERE,
    )
    .unwrap();
    let error = plan.error_range(0x10_2000, 0x2000, HERE).unwrap_err();
    assert_eq!(
        error.to_string(),
        "test: gpa 0x102000 of 0x2000 bytes overlaps gpa 0x100000 of 0x3000 bytes from header 7 at file offset 0x120"
    );
    assert_eq!(plan.finish().steps().len(), 1);
}

#[test]
fn ranges_that_cannot_exist_are_refused() {
    let mut plan = builder();
    assert!(matches!(
        plan.import(Import { len: 0, ..page(0) }, HERE),
        Err(PlanError::Empty { .. })
    ));
    assert!(matches!(
        plan.import(page(0x800), HERE),
        Err(PlanError::Unaligned { align: 0x1000, .. })
    ));
    let wraps = Import {
        len: 0x2000,
        ..page(u64::MAX - 0xFFF)
    };
    assert!(matches!(
        plan.import(wraps, HERE),
        Err(PlanError::Overflow { .. })
    ));
    assert_eq!(plan.import(page(u64::MAX - 0xFFF), HERE), Ok(()));
    let expect = ExpectMemory {
        gpa: 1,
        len: u64::MAX,
        vtl2_protectable: false,
    };
    assert_eq!(plan.expect_memory(expect, HERE), Ok(()));
    let expect = ExpectMemory { gpa: 2, ..expect };
    assert!(matches!(
        plan.expect_memory(expect, HERE),
        Err(PlanError::Overflow { .. })
    ));
}

#[test]
fn large_pages_are_two_mebibytes_and_aligned() {
    let mut plan = builder();
    let large = Import {
        len: 2 << 20,
        large: true,
        ..page(2 << 20)
    };
    assert!(matches!(
        plan.import(
            Import {
                gpa: 0x1000,
                ..large.clone()
            },
            HERE
        ),
        Err(PlanError::Unaligned { align: 0x20_0000, .. })
    ));
    assert!(matches!(
        plan.import(
            Import {
                len: 4 << 20,
                ..large.clone()
            },
            HERE
        ),
        Err(PlanError::LargePageLength { .. })
    ));
    assert_eq!(plan.import(large, HERE), Ok(()));
}

#[test]
fn contents_must_fit_their_range() {
    let mut plan = builder();
    let long = Import {
        contents: Contents::Bytes(Cow::Owned(vec![1; 0x1001])),
        ..page(0)
    };
    assert!(matches!(
        plan.import(long, HERE),
        Err(PlanError::ContentsTooLong { bytes: 0x1001, .. })
    ));
}

#[test]
fn parameter_areas_are_unmeasured_and_hold_their_slots() {
    let mut plan = builder();
    let measured = Import {
        contents: area(vec![]),
        ..page(0)
    };
    assert!(matches!(
        plan.import(measured, HERE),
        Err(PlanError::ParametersNotUnmeasured { .. })
    ));
    let slot = ParameterSlot {
        kind: ParameterKind::Madt,
        byte_offset: 0x1000,
        origin: THERE,
    };
    let outside = Import {
        kind: PageKind::Unmeasured,
        contents: area(vec![slot]),
        ..page(0)
    };
    assert_eq!(
        plan.import(outside, HERE).unwrap_err().to_string(),
        "header 7 at file offset 0x120: MADT at byte offset 0x1000 starts outside its parameter area of 0x1000 bytes at gpa 0x0"
    );
}

#[test]
fn a_vp_has_one_context_and_a_register_one_place() {
    let mut plan = builder();
    let context = |registers| VpContext {
        vp: 0,
        gpa: 0,
        state: VpState::Vbs(registers),
    };
    let rip = VbsRegister {
        vtl: 0,
        name: VbsRegisterName::Rip,
        value: VbsValue::U64(1),
    };
    let shape = VbsRegister {
        value: VbsValue::Segment(SegmentRegister::default()),
        ..rip
    };
    let pair = VbsRegister {
        name: VbsRegisterName::MtrrPhysMask(8),
        ..rip
    };
    for bad in [shape, pair] {
        assert!(matches!(
            plan.vp_context(context(vec![bad]), HERE),
            Err(PlanError::RegisterShape { .. })
        ));
    }
    assert!(matches!(
        plan.vp_context(context(vec![rip, rip]), HERE),
        Err(PlanError::DuplicateRegister { .. })
    ));
    plan.vp_context(context(vec![rip]), THERE).unwrap();
    assert_eq!(
        plan.vp_context(context(vec![rip]), HERE),
        Err(PlanError::DuplicateVp {
            vp: 0,
            origin: HERE,
            other: THERE
        })
    );
}

#[test]
fn plans_are_equal_when_they_start_the_same_guest() {
    let build = |chunks: &[usize], origin| {
        let mut plan = builder();
        let data: &'static [u8] = &[5; 0x3000];
        let mut at = 0;
        for &chunk in chunks {
            let contents = Contents::borrowed(&data[at..at + chunk]);
            plan.import(
                Import {
                    len: chunk as u64,
                    contents,
                    ..page(at as u64)
                },
                origin,
            )
            .unwrap();
            at += chunk;
        }
        plan.finish()
    };
    assert_eq!(build(&[0x3000], HERE), build(&[0x1000, 0x2000], THERE));
    assert_ne!(build(&[0x3000], HERE), build(&[0x1000, 0x1000], HERE));
}
