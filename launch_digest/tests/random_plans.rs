// SPDX-License-Identifier: MIT
//! 1,000 random plans of each platform, encoded: the digests of SEV-SNP, TDX and VBS in file order equal those that the
//! `igvm` crate computes from the same bytes.
//!
//! Left out are what that crate cannot read: 2 MiB pages with data are cut to 4 KiB (igvm-format section
//! 3), and VBS contexts of other VPs than the first.

use igvm::IgvmFile;
use igvm::measurement::{generate_snp_measurement, generate_tdx_measurement, generate_vbs_measurement};
use launch_digest::{Options, Profile, measure};
use launch_plan::{
    Arch, Contents, ExpectMemory, Import, Isolation, LaunchPlan, Origin, PageKind, ParameterArea,
    ParameterKind, ParameterSlot, PlanBuilder, PlatformFacts, VbsRegister, VbsRegisterName, VbsValue,
    VpContext, VpState,
};
use proptest::prelude::*;
use vm_loaders::igvm::{EncodeOptions, File, FormatVersion, encode};
use x86defs::vmsa::offset;
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister};

const HERE: Origin = Origin::Host("test");
/// Operations get their own 4 MiB each.
const SLOT: u64 = 4 << 20;

/// One step of a plan.
#[derive(Debug, Clone)]
enum Op {
    Page {
        kind: PageKind,
        data: Option<(u8, usize)>,
    },
    EmptyLarge,
    Pages {
        count: u64,
        bytes: usize,
    },
    Area {
        pages: u64,
        initial: bool,
        slots: Vec<ParameterKind>,
    },
    ErrorRange {
        pages: u64,
    },
    Memory {
        pages: u64,
    },
    Context {
        seed: u8,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        3 => Just(PageKind::Measured),
        2 => Just(PageKind::Unmeasured),
        1 => Just(PageKind::Shared),
        1 => Just(PageKind::Secrets),
        1 => Just(PageKind::Cpuid),
        1 => Just(PageKind::CpuidXf),
    ];
    let data = proptest::option::weighted(0.7, (any::<u8>(), 1usize..=4096));
    let kinds = proptest::sample::subsequence(ParameterKind::ALL.to_vec(), 0..4);
    prop_oneof![
        6 => (kind, data).prop_map(|(kind, data)| Op::Page { kind, data }),
        1 => Just(Op::EmptyLarge),
        2 => (1u64..4, 0usize..0x3000).prop_map(|(count, bytes)| Op::Pages { count, bytes }),
        2 => (1u64..4, any::<bool>(), kinds)
            .prop_map(|(pages, initial, slots)| Op::Area { pages, initial, slots }),
        1 => (1u64..3).prop_map(|pages| Op::ErrorRange { pages }),
        1 => (1u64..9).prop_map(|pages| Op::Memory { pages }),
        2 => any::<u8>().prop_map(|seed| Op::Context { seed }),
    ]
}

/// A plan of `ops`, at addresses that do not follow file order.
fn plan(isolation: Isolation, ops: &[Op], salt: u64) -> LaunchPlan<'static> {
    let mut builder = PlanBuilder::new(PlatformFacts {
        policy: (isolation == Isolation::Snp).then_some(0x3_0000),
        ..PlatformFacts::new(isolation, Arch::X64)
    });
    let mut vps = 0;
    for (number, op) in ops.iter().enumerate() {
        // An odd factor makes the slots a permutation of 0..64.
        let gpa = (number as u64 * (2 * salt + 1) % 64) * SLOT;
        add(&mut builder, op, gpa, number as u32, &mut vps);
    }
    builder.finish()
}

fn add(builder: &mut PlanBuilder<'static>, op: &Op, gpa: u64, number: u32, vps: &mut u32) {
    let isolation = builder.plan_mut().facts.isolation;
    let import = |len, kind, contents| Import {
        gpa,
        len,
        large: false,
        kind,
        contents,
    };
    let bytes = |seed: u8, len: usize| -> Contents<'static> {
        let fill = |at: usize| seed.wrapping_add(at as u8).wrapping_mul(31) | 1;
        Contents::Bytes((0..len).map(fill).collect::<Vec<u8>>().into())
    };
    let import = match op {
        Op::Page { kind, data } => {
            let special = matches!(kind, PageKind::Secrets | PageKind::Cpuid | PageKind::CpuidXf);
            let kind = if special && isolation != Isolation::Snp {
                PageKind::Measured
            } else {
                *kind
            };
            import(
                0x1000,
                kind,
                data.map_or(Contents::Zero, |(seed, len)| bytes(seed, len)),
            )
        }
        Op::EmptyLarge => Import {
            large: true,
            ..import(0x20_0000, PageKind::Measured, Contents::Zero)
        },
        Op::Pages { count, bytes: len } => {
            let len = (*len).min(*count as usize * 0x1000);
            import(count * 0x1000, PageKind::Measured, bytes(number as u8, len))
        }
        Op::Area {
            pages,
            initial,
            slots,
        } => {
            let slots = slots.iter().enumerate().map(|(n, kind)| ParameterSlot {
                kind: *kind,
                byte_offset: n as u32 * 0x100,
                origin: HERE,
            });
            let area = ParameterArea {
                index: number,
                initial: if *initial { vec![9; 77] } else { Vec::new() }.into(),
                slots: slots.collect(),
            };
            import(
                pages * 0x1000,
                PageKind::Unmeasured,
                Contents::Parameters(Box::new(area)),
            )
        }
        Op::ErrorRange { pages } => return builder.error_range(gpa, pages * 0x1000, HERE).unwrap(),
        Op::Memory { pages } => {
            let expect = ExpectMemory {
                gpa,
                len: pages * 0x1000,
                vtl2_protectable: false,
            };
            return builder.expect_memory(expect, HERE).unwrap();
        }
        Op::Context { seed } => return context(builder, isolation, *seed, vps),
    };
    builder.import(import, HERE).unwrap();
}

/// A save area for SNP, a register list for VBS, nothing for TDX.
fn context(builder: &mut PlanBuilder<'static>, isolation: Isolation, seed: u8, vps: &mut u32) {
    let state = match isolation {
        Isolation::Snp => {
            let mut page: Vec<u8> = (0..4096u32).map(|at| (at as u8).wrapping_mul(seed)).collect();
            page[0x670..].fill(0);
            page[offset::SEV_FEATURES] |= 1;
            VpState::Vmsa(page.into())
        }
        Isolation::Vsm if *vps == 0 => VpState::Vbs(registers(seed)),
        _ => return,
    };
    let context = VpContext {
        vp: *vps,
        gpa: if isolation == Isolation::Snp {
            0xFFFF_FFFF_F000
        } else {
            0
        },
        state,
    };
    *vps += 1;
    builder.vp_context(context, HERE).unwrap();
}

fn registers(seed: u8) -> Vec<VbsRegister> {
    use VbsRegisterName as Name;
    let table = VbsValue::Table(TableRegister {
        base: 0x1000 * u64::from(seed),
        limit: seed.into(),
    });
    let segment = VbsValue::Segment(SegmentRegister {
        selector: 0x10,
        attributes: SegmentAttributes(0xC093),
        limit: 0xFFFF_FFFF,
        base: seed.into(),
    });
    let value = VbsValue::U64(0x0101_0101_0101_0101 * u64::from(seed));
    let list = [
        (Name::Gdtr, table),
        (Name::Ds, segment),
        (Name::Tr, segment),
        (Name::Rip, value),
        (Name::R12, value),
        (Name::MtrrFix64k00000, value),
    ];
    let count = 1 + usize::from(seed) % list.len();
    let register = |(name, value)| VbsRegister { vtl: 0, name, value };
    list.into_iter().take(count).map(register).collect()
}

/// The judge's digest of the file for the platform with compatibility mask 1.
fn judged(bytes: &[u8], isolation: Isolation) -> Vec<u8> {
    let judge = IgvmFile::new_from_binary(bytes, None).unwrap();
    let (init, directives) = (judge.initializations(), judge.directives());
    match isolation {
        Isolation::Snp => generate_snp_measurement(init, directives, 1).unwrap().to_vec(),
        Isolation::Tdx => generate_tdx_measurement(directives, 1).unwrap().to_vec(),
        _ => generate_vbs_measurement(directives, 1).unwrap().to_vec(),
    }
}

fn operations() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), 1..24)
}

/// One plan: its own digest, that of the file, and the judge's of the file.
fn compare(isolation: Isolation, ops: &[Op], salt: u64) -> Result<(), TestCaseError> {
    let plan = plan(isolation, ops, salt);
    let options = EncodeOptions {
        format: FormatVersion::V1,
        version_string: None,
    };
    let bytes = encode(std::slice::from_ref(&plan), &options).unwrap().to_vec();
    let options = Options {
        profile: Profile::FileOrder,
        ..Options::default()
    };
    let ours = measure(&plan, &options).unwrap().digest;
    let file = File::read(&bytes).unwrap();
    let read = measure(&file.plan(isolation).unwrap(), &options).unwrap().digest;
    prop_assert_eq!(&ours, &read, "the file has another digest than its plan");
    prop_assert_eq!(ours.0, judged(&bytes, isolation));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn snp_digests_in_file_order_equal_the_igvm_crates(ops in operations(), salt in 0u64..32) {
        compare(Isolation::Snp, &ops, salt)?;
    }

    #[test]
    fn tdx_digests_in_file_order_equal_the_igvm_crates(ops in operations(), salt in 0u64..32) {
        compare(Isolation::Tdx, &ops, salt)?;
    }

    #[test]
    fn vbs_digests_in_file_order_equal_the_igvm_crates(ops in operations(), salt in 0u64..32) {
        compare(Isolation::Vsm, &ops, salt)?;
    }
}
