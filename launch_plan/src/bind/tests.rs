// SPDX-License-Identifier: MIT
//! Tests of binding: parameters, hand-over, registers.

use super::*;
use crate::builder::PlanBuilder;
use crate::plan::{Arch, ParameterSlot, PlatformFacts};
use crate::vp::{NativeContext, VbsRegister, VbsRegisterName, VbsValue, VpContext, VpState};
use proptest::prelude::*;
use x86defs::state::gpr;
use x86defs::{SegmentAttributes, SegmentRegister};

const AREA: Origin = Origin::Header {
    index: 4,
    offset: 0x80,
};

fn slot(kind: ParameterKind, byte_offset: u32) -> ParameterSlot {
    ParameterSlot {
        kind,
        byte_offset,
        origin: Origin::Header {
            index: 5,
            offset: 0x98,
        },
    }
}

fn area(gpa: u64, len: u64, initial: &'static [u8], slots: Vec<ParameterSlot>) -> Import<'static> {
    let area = ParameterArea {
        index: 9,
        initial: Cow::Borrowed(initial),
        slots,
    };
    let contents = Contents::Parameters(Box::new(area));
    Import {
        gpa,
        len,
        large: false,
        kind: PageKind::Unmeasured,
        contents,
    }
}

fn plan_of(isolation: Isolation, imports: Vec<Import<'static>>) -> LaunchPlan<'static> {
    let mut plan = PlanBuilder::new(PlatformFacts::new(isolation, Arch::X64));
    for import in imports {
        plan.import(import, AREA).unwrap();
    }
    plan.finish()
}

fn with_context(imports: Vec<Import<'static>>, state: VpState<'static>) -> LaunchPlan<'static> {
    let mut plan = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::X64));
    for import in imports {
        plan.import(import, AREA).unwrap();
    }
    plan.vp_context(VpContext { vp: 0, gpa: 0, state }, AREA).unwrap();
    plan.finish()
}

fn blob_at(gpa: u64, bytes: usize) -> HostValues<'static> {
    let mut host = HostValues::new(1);
    host.hand_over = Some(HandOver {
        what: "config blob",
        gpa,
        blob: vec![0xB1; bytes].into(),
    });
    host
}

fn u64_register(name: VbsRegisterName, value: u64) -> VbsRegister {
    VbsRegister {
        vtl: 0,
        name,
        value: VbsValue::U64(value),
    }
}

#[test]
fn values_land_at_their_offsets_over_the_initial_bytes() {
    let slots = vec![
        slot(ParameterKind::VpCount, 4),
        slot(ParameterKind::CommandLine, 16),
    ];
    let plan = plan_of(Isolation::Native, vec![area(0x5000, 0x1000, &[7; 12], slots)]);
    let mut host = HostValues::new(3);
    host.set(ParameterKind::CommandLine, &b"hi\0"[..]);
    let bound = plan.bind(&host).unwrap();
    let import = bound.imports().next().unwrap();
    assert_eq!(
        (import.gpa, import.len, import.kind),
        (0x5000, 0x1000, PageKind::Unmeasured)
    );
    assert_eq!(
        import.data.unwrap(),
        [7, 7, 7, 7, 3, 0, 0, 0, 7, 7, 7, 7, 0, 0, 0, 0, b'h', b'i', 0]
    );
    assert!(bound.notes().is_empty());
}

#[test]
fn a_value_that_the_host_lacks_keeps_the_initial_bytes_and_is_noted() {
    let plan = plan_of(
        Isolation::Native,
        vec![area(0, 0x1000, &[7; 4], vec![slot(ParameterKind::Pptt, 0)])],
    );
    let host = HostValues::new(1);
    let bound = plan.bind(&host).unwrap();
    assert_eq!(bound.imports().next().unwrap().data, Some(&[7; 4][..]));
    assert_eq!(
        bound.notes(),
        ["header 5 at file offset 0x98: this host has no PPTT; its place keeps the file's bytes"]
    );
}

#[test]
fn a_value_too_large_for_its_area_names_kind_area_and_header() {
    let plan = plan_of(
        Isolation::Native,
        vec![area(0x5000, 0x1000, &[], vec![slot(ParameterKind::Madt, 0xFFF)])],
    );
    let mut host = HostValues::new(1);
    host.set(ParameterKind::Madt, vec![0; 2]);
    assert_eq!(
        plan.bind(&host).unwrap_err().to_string(),
        "header 5 at file offset 0x98: MADT of 0x2 bytes at byte offset 0xfff does not fit parameter area 9 of 0x1000 bytes at gpa 0x5000"
    );
}

#[test]
fn a_memory_map_that_runs_into_the_vp_count_is_refused() {
    let slots = vec![
        slot(ParameterKind::VpCount, 192),
        slot(ParameterKind::MemoryMap, 0),
    ];
    let plan = plan_of(Isolation::Native, vec![area(0, 0x1000, &[], slots)]);
    let mut host = HostValues::new(1);
    host.set(ParameterKind::MemoryMap, vec![0; 192]);
    assert!(plan.bind(&host).is_ok());
    host.set(ParameterKind::MemoryMap, vec![0; 216]);
    let error = plan.bind(&host).unwrap_err().to_string();
    assert!(
        error.contains("VP count at byte offset 0xc0 overlaps memory map of 0xd8 bytes at 0x0"),
        "{error}"
    );
}

#[test]
fn huge_areas_cost_no_host_memory_until_a_far_value_asks_for_it() {
    let huge = || area(0, 1 << 40, &[], vec![slot(ParameterKind::VpCount, 0)]);
    let plan = plan_of(Isolation::Native, vec![huge()]);
    assert_eq!(
        plan.bind(&HostValues::new(1))
            .unwrap()
            .imports()
            .next()
            .unwrap()
            .data
            .unwrap()
            .len(),
        4
    );
    let far = area(0, 1 << 40, &[], vec![slot(ParameterKind::VpCount, 1 << 30)]);
    let plan = plan_of(Isolation::Native, vec![far]);
    assert!(matches!(
        plan.bind(&HostValues::new(1)),
        Err(BindError::AreasTooLarge { .. })
    ));
}

#[test]
fn the_hand_over_comes_last_and_r12_points_to_it() {
    let plan = with_context(vec![], VpState::Vbs(vec![u64_register(VbsRegisterName::R8, 1)]));
    let host = blob_at(0x70_9000, 0x1001);
    let bound = plan.bind(&host).unwrap();
    let last = bound.imports().last().unwrap();
    assert_eq!(
        (last.gpa, last.len, last.data.unwrap().len()),
        (0x70_9000, 0x2000, 0x1001)
    );
    assert_eq!(last.origin, Origin::Host("config blob"));
    let state = bound.initial_state(0).unwrap();
    assert_eq!((state.gpr[gpr::R12], state.gpr[gpr::R8]), (0x70_9000, 1));
    assert_eq!(bound.notes(), ["r12 0x709000 added: the config blob"]);
    assert_eq!(bound.initial_state(1), None);
}

#[test]
fn r12_of_the_image_is_kept_even_when_it_is_zero_in_a_list() {
    let list = VpState::Vbs(vec![u64_register(VbsRegisterName::R12, 0)]);
    let mut native = NativeContext {
        cs: X86State::reset().cs,
        ..Default::default()
    };
    native.gpr[gpr::R12] = 5;
    for (state, r12) in [(list, 0), (VpState::Native(Box::new(native)), 5)] {
        let plan = with_context(vec![], state);
        let host = blob_at(0x1000, 1);
        let bound = plan.bind(&host).unwrap();
        assert_eq!(bound.initial_state(0).unwrap().gpr[gpr::R12], r12);
        assert_eq!(bound.notes(), [format!("r12 {r12:#x} kept from the image")]);
    }
    native.gpr[gpr::R12] = 0;
    let plan = with_context(vec![], VpState::Native(Box::new(native)));
    assert_eq!(
        plan.bind(&blob_at(0x1000, 1))
            .unwrap()
            .initial_state(0)
            .unwrap()
            .gpr[gpr::R12],
        0x1000
    );
}

#[test]
fn the_hand_over_may_cover_zero_and_parameter_pages_but_not_data() {
    let zero = Import {
        contents: Contents::Zero,
        kind: PageKind::Measured,
        ..area(0x2000, 0x1000, &[], vec![])
    };
    let parameters = area(0x1000, 0x1000, &[], vec![]);
    let plan = with_context(vec![parameters.clone(), zero], VpState::Vbs(vec![]));
    let host = blob_at(0x1000, 0x2000);
    let bound = plan.bind(&host).unwrap();
    assert_eq!(
        bound.notes()[0],
        "config blob at gpa 0x1000 overwrites a parameter area at gpa 0x1000 of 0x1000 bytes from header 4 at file offset 0x80"
    );
    assert!(bound.notes()[1].contains("overwrites zero pages at gpa 0x2000"));
    let data = Import {
        contents: Contents::borrowed(&[1]),
        ..parameters
    };
    let plan = with_context(vec![data], VpState::Vbs(vec![]));
    let error = plan.bind(&host).unwrap_err().to_string();
    assert!(
        error.contains("would overwrite imported code or data at gpa 0x1000"),
        "{error}"
    );
    assert!(
        error.ends_with("rebuild the image with that range free"),
        "{error}"
    );
}

#[test]
fn a_hand_over_needs_a_plain_plan_a_boot_context_and_a_possible_range() {
    let host = blob_at(0x1000, 1);
    let isolated = plan_of(Isolation::Snp, vec![]);
    assert!(matches!(
        isolated.bind(&host),
        Err(BindError::HandOverIsolated { .. })
    ));
    let contextless = plan_of(Isolation::Vsm, vec![]);
    assert!(matches!(
        contextless.bind(&host),
        Err(BindError::NoBootContext { .. })
    ));
    let plan = with_context(vec![], VpState::Vbs(vec![]));
    for (gpa, bytes) in [(0x1001, 1), (0x1000, 0), (u64::MAX - 0xFFF, 0x1001)] {
        assert!(
            matches!(
                plan.bind(&blob_at(gpa, bytes)),
                Err(BindError::HandOverRange { .. })
            ),
            "{gpa:#x}"
        );
    }
}

#[test]
fn host_registers_fill_what_the_image_leaves_out() {
    use VbsRegisterName as Name;
    let list = vec![
        u64_register(Name::MtrrFix4kE0000, 0x0505_0505_0505_0505),
        u64_register(Name::MtrrPhysMask(1), 0x800),
    ];
    let plan = with_context(vec![], VpState::Vbs(list));
    let mut host = HostValues::new(1);
    host.registers = HostRegisters {
        pat: Some(0x0606_0606_0606_0606),
        mtrr_def_type: Some(0xC00),
        fixed_mtrrs: [Some(0x0606_0606_0606_0606); 11],
        variable_mtrrs: Some([(6, 0x800); VARIABLE]),
    };
    const VARIABLE: usize = x86defs::state::VARIABLE_MTRRS;
    let bound = plan.bind(&host).unwrap();
    let state = bound.initial_state(0).unwrap();
    assert_eq!((state.pat, state.mtrr.def_type), (0x0606_0606_0606_0606, 0xC00));
    assert_eq!(state.mtrr.fixed[7], 0x0505_0505_0505_0505);
    assert_eq!(state.mtrr.fixed[8], 0x0606_0606_0606_0606);
    assert_eq!(state.mtrr.variable, [(6, 0x800); VARIABLE]);
    assert_eq!(
        bound.notes(),
        ["the image's variable mtrrs are replaced by this machine's"]
    );
}

#[test]
fn an_impossible_state_names_the_vp_and_the_rule() {
    let plan = with_context(
        vec![],
        VpState::Vbs(vec![u64_register(VbsRegisterName::Cr0, 0x8000_0000)]),
    );
    assert_eq!(
        plan.bind(&HostValues::new(1)).unwrap_err().to_string(),
        "header 4 at file offset 0x80: vp 0 cannot start: cr0 0x80000000 has paging without protected mode (PG needs PE)"
    );
}

#[test]
fn a_native_context_is_applied_whole() {
    let segment = |selector| SegmentRegister {
        selector,
        attributes: SegmentAttributes(0xC093),
        limit: 0xFFFF_FFFF,
        base: 0,
    };
    let native = NativeContext {
        cs: SegmentRegister {
            attributes: SegmentAttributes(0xA09B),
            ..segment(8)
        },
        data: segment(16),
        gs_base: 0x7000,
        cr0: 0x8000_0001,
        cr4: 0x20,
        efer: 0x500,
        rip: 0x10_0000,
        ..Default::default()
    };
    let plan = with_context(vec![], VpState::Native(Box::new(native)));
    let state = plan.bind(&HostValues::new(1)).unwrap().initial_state(0).unwrap();
    assert_eq!(
        (state.rflags, state.gs.base, state.gs.selector, state.fs.base),
        (2, 0x7000, 16, 0)
    );
    assert_eq!((state.ss, state.rip, state.efer), (segment(16), 0x10_0000, 0x500));
}

#[test]
fn runs_join_what_lies_side_by_side_and_nothing_else() {
    let source: &'static [u8] = (0..0x6000u32).map(|n| (n >> 8) as u8).collect::<Vec<_>>().leak();
    let page = |gpa, at: Option<usize>, len: usize| Import {
        kind: PageKind::Measured,
        contents: at.map_or(Contents::Zero, |at| Contents::borrowed(&source[at..at + len])),
        ..area(gpa, 0x1000, &[], vec![])
    };
    let imports = vec![
        page(0x1000, Some(0), 0x1000),
        page(0x2000, Some(0x1000), 0x1000),
        page(0x3000, Some(0x2000), 0x800), // short: ends its run
        page(0x4000, Some(0x2800), 0x1000),
        page(0x5000, Some(0x5000), 0x1000), // elsewhere in the source
        page(0x6000, None, 0),
        page(0x7000, None, 0),
        Import {
            kind: PageKind::Shared,
            ..page(0x8000, None, 0)
        },
        page(0xA000, None, 0),
    ];
    let mut plan = plan_of(Isolation::Native, imports);
    let host = HostValues::new(1);
    let separate = plan.bind(&host).unwrap().runs().count();
    plan.source = Some(source);
    let bound = plan.bind(&host).unwrap();
    let runs: Vec<_> = bound
        .runs()
        .map(|run| (run.gpa, run.len, run.data.map(<[u8]>::len)))
        .collect();
    let zero = |gpa, len| (gpa, len, None);
    assert_eq!(
        runs,
        [
            (0x1000, 0x3000, Some(0x2800)),
            (0x4000, 0x1000, Some(0x1000)),
            (0x5000, 0x1000, Some(0x1000)),
            zero(0x6000, 0x2000),
            zero(0x8000, 0x1000),
            zero(0xA000, 0x1000),
        ]
    );
    assert_eq!(separate, 8);
    let mut joined = vec![0; 0xB000];
    let mut single = joined.clone();
    for (imports, memory) in [
        (bound.runs().collect::<Vec<_>>(), &mut joined),
        (bound.imports().collect(), &mut single),
    ] {
        for import in imports {
            let data = import.data.unwrap_or(&[]);
            memory[import.gpa as usize..][..data.len()].copy_from_slice(data);
        }
    }
    assert!(joined == single);
}

proptest! {
    #[test]
    fn binding_never_changes_measured_contents(
        value in proptest::collection::vec(any::<u8>(), 0..64),
        vps in 1u32..9,
        initial in any::<[u8; 8]>(),
    ) {
        let data = Import {
            kind: PageKind::Measured,
            contents: Contents::Bytes(initial.to_vec().into()),
            ..area(0x8000, 0x1000, &[], vec![])
        };
        let zero = Import { contents: Contents::Zero, ..data.clone() };
        let slots = vec![slot(ParameterKind::VpCount, 0), slot(ParameterKind::MemoryMap, 8)];
        let plan = plan_of(
            Isolation::Snp,
            vec![data, area(0, 0x1000, &[1, 2], slots), Import { gpa: 0x9000, ..zero }],
        );
        let mut host = HostValues::new(vps);
        host.set(ParameterKind::MemoryMap, value);
        let bound = plan.bind(&host).unwrap();
        let unbound = plan.bind(&HostValues::default()).unwrap();
        let measured = |bound: &BoundPlan<'_>| -> Vec<(u64, Option<Vec<u8>>)> {
            bound
                .imports()
                .filter(|i| i.kind == PageKind::Measured)
                .map(|i| (i.gpa, i.data.map(<[u8]>::to_vec)))
                .collect()
        };
        prop_assert_eq!(measured(&bound), measured(&unbound));
        let order = |bound: &BoundPlan<'_>| bound.imports().map(|i| i.gpa).collect::<Vec<_>>();
        prop_assert_eq!(order(&bound), order(&unbound));
    }
}
