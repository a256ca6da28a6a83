// SPDX-License-Identifier: MIT
//! Random plans through the encoder and back, and what the encoder refuses.

use launch_plan::*;
use proptest::prelude::*;
use vm_loaders::igvm::{EncodeError, EncodeOptions, File, FormatVersion, Severity, encode};
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister};

const LARGE: u64 = 2 << 20;
const HERE: Origin = Origin::Host("test");

/// One step of a random plan.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Page {
        kind: u8,
        data: Option<u8>,
    },
    Large {
        shared: bool,
        data: bool,
    },
    Pages {
        count: u64,
        bytes: usize,
    },
    Area {
        pages: u64,
        initial: Option<u8>,
        slots: Vec<ParameterKind>,
    },
    ErrorRange {
        pages: u64,
    },
    Memory {
        pages: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let kinds = proptest::sample::subsequence(ParameterKind::ALL.to_vec(), 0..5);
    prop_oneof![
        4 => (0u8..6, any::<Option<u8>>()).prop_map(|(kind, data)| Op::Page { kind, data }),
        1 => any::<(bool, bool)>().prop_map(|(shared, data)| Op::Large { shared, data }),
        2 => (1u64..5, 0usize..0x4000).prop_map(|(count, bytes)| Op::Pages { count, bytes }),
        2 => (1u64..3, any::<Option<u8>>(), kinds)
            .prop_map(|(pages, initial, slots)| Op::Area { pages, initial, slots }),
        1 => (1u64..4).prop_map(|pages| Op::ErrorRange { pages }),
        1 => (1u64..9).prop_map(|pages| Op::Memory { pages }),
    ]
}

fn page_kind(isolation: Isolation, number: u8) -> PageKind {
    match number {
        0 => PageKind::Unmeasured,
        1 => PageKind::Shared,
        2 if isolation == Isolation::Snp => PageKind::Secrets,
        3 if isolation == Isolation::Snp => PageKind::Cpuid,
        4 if isolation == Isolation::Snp => PageKind::CpuidXf,
        _ => PageKind::Measured,
    }
}

/// Adds an operation at `gpa`; the slots of operations are 4 MiB apart.
fn apply(plan: &mut PlanBuilder<'static>, op: &Op, gpa: u64, number: usize) {
    let isolation = plan.plan_mut().facts.isolation;
    let bytes = |byte: u8, len: usize| Contents::Bytes(vec![byte | 1; len].into());
    let import = |len, kind, contents| Import {
        gpa,
        len,
        large: false,
        kind,
        contents,
    };
    let import = match op {
        Op::Page { kind, data } => {
            let contents = data.map_or(Contents::Zero, |byte| bytes(byte, 4096));
            import(4096, page_kind(isolation, *kind), contents)
        }
        Op::Large { shared, data } => {
            let contents = if *data {
                bytes(number as u8, LARGE as usize)
            } else {
                Contents::Zero
            };
            let kind = if *shared {
                PageKind::Shared
            } else {
                PageKind::Measured
            };
            Import {
                large: true,
                ..import(LARGE, kind, contents)
            }
        }
        Op::Pages { count, bytes: len } => {
            let len = (*len).min(*count as usize * 4096);
            import(count * 4096, PageKind::Measured, bytes(number as u8, len))
        }
        Op::Area {
            pages,
            initial,
            slots,
        } => {
            let slot = |(n, &kind): (usize, &ParameterKind)| ParameterSlot {
                kind,
                byte_offset: n as u32 * 0x100,
                origin: HERE,
            };
            let area = ParameterArea {
                index: number as u32,
                initial: initial.map_or(Vec::new(), |byte| vec![byte; 100]).into(),
                slots: slots.iter().enumerate().map(slot).collect(),
            };
            import(
                pages * 4096,
                PageKind::Unmeasured,
                Contents::Parameters(Box::new(area)),
            )
        }
        Op::ErrorRange { pages } => return plan.error_range(gpa, pages * 4096, HERE).unwrap(),
        Op::Memory { pages } => {
            let vtl2_protectable = plan.plan_mut().facts.highest_vtl == 2;
            let expect = ExpectMemory {
                gpa,
                len: pages * 4096,
                vtl2_protectable,
            };
            return plan.expect_memory(expect, HERE).unwrap();
        }
    };
    plan.import(import, HERE).unwrap();
}

fn native() -> NativeContext {
    let segment = |attributes, limit| SegmentRegister {
        selector: 8,
        attributes: SegmentAttributes(attributes),
        limit,
        base: 0x1000,
    };
    let mut context = NativeContext {
        rip: 0x10_0000,
        rflags: 0x202,
        cr0: 0x8000_0011,
        cr3: 0x2000,
        cr4: 0x20,
        efer: 0x500,
        cs: segment(0xA09B, 0xFFFF_FFFF),
        data: segment(0xC093, 0xFFFF_FFFF),
        gs_base: 0x1234_5000,
        gdtr: TableRegister {
            base: 0x3000,
            limit: 31,
        },
        idtr: TableRegister {
            base: 0x4000,
            limit: 255,
        },
        ..Default::default()
    };
    context.gpr = std::array::from_fn(|n| n as u64 * 0x1111);
    context
}

/// Contexts that fit a platform, one per form.
fn contexts(facts: &PlatformFacts) -> Vec<VpContext<'static>> {
    let (vtl, x64) = (facts.highest_vtl, facts.arch == Arch::X64);
    let context = |vp, gpa, state| VpContext { vp, gpa, state };
    match facts.isolation {
        Isolation::Tdx => vec![],
        Isolation::Native | Isolation::Sev => vec![
            context(0, 0, VpState::Native(Box::new(native()))),
            context(3, 0, VpState::Native(Box::new(native()))),
        ],
        Isolation::Vsm if x64 => {
            use VbsRegisterName as Name;
            let register = |name, value| VbsRegister { vtl, name, value };
            let list = vec![
                register(Name::Rip, VbsValue::U64(0x6E_0000)),
                register(
                    Name::Tr,
                    VbsValue::Segment(SegmentRegister {
                        selector: 0x18,
                        attributes: SegmentAttributes(0x8B),
                        limit: 0x67,
                        base: 0x1000,
                    }),
                ),
                register(
                    Name::Gdtr,
                    VbsValue::Table(TableRegister {
                        base: 0x70_6000,
                        limit: 31,
                    }),
                ),
                register(Name::MtrrPhysMask(4), VbsValue::U64(0x800)),
                register(Name::MtrrFix4kF8000, VbsValue::U64(0x0606_0606_0606_0606)),
                register(Name::R12, VbsValue::U64(0)),
            ];
            vec![context(0, 0, VpState::Vbs(list))]
        }
        Isolation::Vsm => {
            let list = vec![
                Aarch64Register {
                    vtl,
                    name: 0x20022,
                    value: 0x1000,
                },
                Aarch64Register {
                    vtl,
                    name: 0x40005,
                    value: 0x82_0000,
                },
            ];
            vec![context(0, 0, VpState::Aarch64Vbs(list))]
        }
        Isolation::Snp | Isolation::SevEs => {
            let mut vmsa = vec![7; 4096];
            vmsa[0x3B0] = u8::from(facts.isolation == Isolation::Snp);
            let state = VpState::Vmsa(vmsa.into());
            vec![
                context(0, 0xFFFF_FFFF_F000, state.clone()),
                context(1, 0xFFFF_FFFF_F000, state),
            ]
        }
        Isolation::Cca => vec![context(0, 0, VpState::Cca(vec![9; 80].into()))],
    }
}

fn facts(isolation: Isolation, arch: Arch) -> PlatformFacts {
    let mut facts = PlatformFacts::new(isolation, arch);
    facts.policy = match isolation {
        Isolation::Snp => Some(0x3_0000),
        Isolation::Sev => Some(1),
        Isolation::SevEs => Some(5),
        Isolation::Tdx => Some(2),
        _ => None,
    };
    match isolation {
        Isolation::Snp | Isolation::Tdx => facts.shared_gpa_boundary = 1 << 46,
        Isolation::Vsm => facts.highest_vtl = 2,
        Isolation::Cca => {
            let policy = CcaPolicy {
                required_zeroes: 1,
                required_ones: 2,
                hash_algorithm: 1,
                lfa_policy: 1,
            };
            facts.cca_policy = Some(policy);
        }
        _ => {}
    }
    facts
}

fn endorse(plan: &mut LaunchPlan<'static>) {
    let corim = Corim {
        document: vec![0xD9; 33].into(),
        signature: Some(vec![0xD2; 7].into()),
    };
    plan.endorsements.corim = Some(corim);
    let signature = IdSignature {
        r: [1; 72],
        s: [2; 72],
    };
    let key = IdKey {
        curve: 2,
        qx: [3; 72],
        qy: [4; 72],
    };
    match plan.facts.isolation {
        Isolation::Snp => {
            plan.endorsements.id_block = Some(Box::new(IdBlock {
                author_key_enabled: 1,
                launch_digest: [5; 48],
                family_id: [6; 16],
                image_id: [7; 16],
                version: 1,
                guest_svn: 8,
                id_key_algorithm: 1,
                author_key_algorithm: 1,
                id_signature: signature,
                id_key: key,
                author_signature: signature,
                author_key: key,
            }));
        }
        Isolation::Vsm => {
            plan.endorsements.vbs_measurement = Some(Box::new(VbsMeasurement {
                version: 1,
                product_id: 2,
                module_id: 3,
                security_version: 4,
                policy_flags: 5,
                digest_algorithm: 1,
                signing_algorithm: 1,
                digest: [6; 64],
                signature: [7; 256],
                public_key: [8; 512],
            }));
        }
        _ => {}
    }
}

pub(crate) fn build(isolation: Isolation, arch: Arch, ops: &[Op], endorsed: bool) -> LaunchPlan<'static> {
    let facts = facts(isolation, arch);
    let contexts = contexts(&facts);
    let mut plan = PlanBuilder::new(facts);
    for (number, op) in ops.iter().enumerate() {
        // Every other step goes down from the top, so that plans are not in address order.
        let slot = if number % 2 == 0 { number } else { 1000 - number } as u64;
        apply(&mut plan, op, slot * 2 * LARGE, number);
    }
    for context in contexts {
        plan.vp_context(context, HERE).unwrap();
    }
    let mut plan = plan.finish();
    if endorsed {
        endorse(&mut plan);
    }
    plan
}

pub(crate) const X64: [Isolation; 6] = [
    Isolation::Native,
    Isolation::Vsm,
    Isolation::Sev,
    Isolation::SevEs,
    Isolation::Snp,
    Isolation::Tdx,
];

pub(crate) fn plans() -> impl Strategy<Value = Vec<LaunchPlan<'static>>> {
    let ops = || proptest::collection::vec(op(), 0..12);
    let x64 = (
        proptest::sample::subsequence(X64.to_vec(), 1..=6),
        ops(),
        any::<bool>(),
    );
    let aarch64 = (
        proptest::sample::subsequence(vec![Isolation::Vsm, Isolation::Cca], 1..=2),
        ops(),
        any::<bool>(),
    );
    let build_all = |arch| {
        move |(platforms, ops, endorsed): (Vec<Isolation>, Vec<Op>, bool)| {
            platforms
                .into_iter()
                .map(|isolation| build(isolation, arch, &ops, endorsed))
                .collect()
        }
    };
    prop_oneof![3 => x64.prop_map(build_all(Arch::X64)), 1 => aarch64.prop_map(build_all(Arch::Aarch64))]
}

fn options(plans: &[LaunchPlan<'_>], v2: bool) -> EncodeOptions {
    let format = if v2 || plans[0].facts.arch == Arch::Aarch64 {
        FormatVersion::V2
    } else {
        FormatVersion::V1
    };
    EncodeOptions {
        format,
        version_string: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_survive_encoding_and_files_survive_reading(plans in plans(), v2 in any::<bool>()) {
        let encoded = encode(&plans, &options(&plans, v2)).unwrap();
        let bytes = encoded.to_vec();
        prop_assert_eq!(encoded.len(), bytes.len() as u64);
        let mut streamed = Vec::new();
        encoded.write_to(&mut streamed).unwrap();
        prop_assert!(streamed == bytes);

        let file = File::read(&bytes).unwrap();
        let problems: Vec<_> =
            file.check().into_iter().filter(|p| p.severity() > Severity::Note).collect();
        prop_assert_eq!(problems, vec![]);
        let mut written = Vec::new();
        file.write(&mut written).unwrap();
        prop_assert!(written == bytes);
        for plan in &plans {
            prop_assert_eq!(&file.plan(plan.facts.isolation).unwrap(), plan);
        }
        let large = plans[0].steps().iter().any(|s| matches!(&s.kind, StepKind::Import(i) if i.large));
        let judged = igvm::IgvmFile::new_from_binary(&bytes, None);
        prop_assert!(judged.is_ok(), "large pages {}: {:?}", large, judged.err());
    }
}

#[test]
fn encoding_again_gives_the_same_bytes() {
    let ops = [
        Op::Page {
            kind: 5,
            data: Some(3),
        },
        Op::Area {
            pages: 1,
            initial: Some(1),
            slots: vec![],
        },
    ];
    let plans = [
        build(Isolation::Native, Arch::X64, &ops, false),
        build(Isolation::Snp, Arch::X64, &ops, true),
    ];
    let first = encode(&plans, &EncodeOptions::default()).unwrap().to_vec();
    let file = File::read(&first).unwrap();
    let again = [
        file.plan(Isolation::Native).unwrap(),
        file.plan(Isolation::Snp).unwrap(),
    ];
    assert!(encode(&again, &EncodeOptions::default()).unwrap().to_vec() == first);
}

#[test]
fn data_of_several_platforms_is_stored_once() {
    let ops = [Op::Pages {
        count: 4,
        bytes: 0x4000,
    }];
    let one = [build(Isolation::Tdx, Arch::X64, &ops, false)];
    let single = encode(&one, &EncodeOptions::default()).unwrap().len();
    let [tdx] = one;
    let both = [tdx, build(Isolation::Sev, Arch::X64, &[ops[0].clone()], false)];
    let double = encode(&both, &EncodeOptions::default()).unwrap().len();
    // One platform has four equal pages four times; two platforms share one copy of that page.
    assert!(double < single, "{double} {single}");
}

#[test]
fn a_version_string_is_written_and_read() {
    let plans = [build(Isolation::Tdx, Arch::X64, &[], false)];
    let options = EncodeOptions {
        version_string: Some("probe 1.0".to_owned()),
        ..Default::default()
    };
    let bytes = encode(&plans, &options).unwrap().to_vec();
    let file = File::read(&bytes).unwrap();
    assert_eq!(file.plan(Isolation::Tdx).unwrap(), plans[0]);
    let header = file.headers().iter().find(|header| header.typ == 0x107).unwrap();
    assert_eq!(file.content(header), b"probe 1.0");
}

#[test]
fn what_has_no_file_is_refused_by_name() {
    let of = |isolation, arch| build(isolation, arch, &[], false);
    let default = EncodeOptions::default();
    assert_eq!(encode(&[], &default).unwrap_err(), EncodeError::NoPlans);
    let twice = [of(Isolation::Tdx, Arch::X64), of(Isolation::Tdx, Arch::X64)];
    assert_eq!(
        encode(&twice, &default).unwrap_err(),
        EncodeError::DuplicatePlatform(Isolation::Tdx)
    );
    let cca = [of(Isolation::Cca, Arch::Aarch64)];
    assert_eq!(encode(&cca, &default).unwrap_err(), EncodeError::NeedsVersion2);
    let mixed = [of(Isolation::Tdx, Arch::X64), of(Isolation::Cca, Arch::Aarch64)];
    assert_eq!(
        encode(&mixed, &default).unwrap_err(),
        EncodeError::MixedArchitectures
    );

    let wrong = |isolation, vp, state| {
        let mut plan = PlanBuilder::new(PlatformFacts::new(isolation, Arch::X64));
        plan.vp_context(VpContext { vp, gpa: 0, state }, HERE).unwrap();
        encode(&[plan.finish()], &EncodeOptions::default()).unwrap_err()
    };
    let vmsa = VpState::Vmsa(vec![0; 4096].into());
    let isolation = Isolation::Native;
    assert_eq!(
        wrong(isolation, 0, vmsa.clone()),
        EncodeError::ContextForm { vp: 0, isolation }
    );
    assert_eq!(
        wrong(Isolation::Snp, 0x1_0000, vmsa),
        EncodeError::VpIndex(0x1_0000)
    );

    let mut plan = PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64));
    let expect = ExpectMemory {
        gpa: 0,
        len: 1 << 32,
        vtl2_protectable: false,
    };
    plan.expect_memory(expect, HERE).unwrap();
    let error = encode(&[plan.finish()], &default).unwrap_err();
    assert_eq!(
        error.to_string(),
        "required memory of 0x100000000 bytes at gpa 0x0 does not fit the 32-bit size field of its header"
    );
}

#[test]
fn a_file_beyond_four_gibibytes_is_refused_without_being_made() {
    static PAGE: [u8; 4096] = [1; 4096];
    let mut plan = PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64));
    // A 2 MiB page with one page of data is 2 MiB in the file.
    for number in 0..2049u64 {
        let contents = Contents::borrowed(&PAGE);
        let kind = PageKind::Measured;
        plan.import(
            Import {
                gpa: number * LARGE,
                len: LARGE,
                large: true,
                kind,
                contents,
            },
            HERE,
        )
        .unwrap();
    }
    let error = encode(&[plan.finish()], &EncodeOptions::default()).unwrap_err();
    assert!(matches!(error, EncodeError::FileTooLarge(bytes) if bytes > 1 << 32));
}
