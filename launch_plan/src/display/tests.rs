// SPDX-License-Identifier: MIT
//! Golden text of a plan that has every kind of step.

use super::*;
use crate::builder::PlanBuilder;
use crate::endorse::{Corim, VbsMeasurement};
use crate::plan::{
    Arch, ExpectMemory, Import, Isolation, PageKind, ParameterKind, ParameterSlot, PlatformFacts,
};
use crate::vp::{NativeContext, VbsRegister, VbsRegisterName, VbsValue};
use std::borrow::Cow;

fn header(index: u32) -> Origin {
    Origin::Header {
        index,
        offset: index * 32,
    }
}

#[test]
fn sizes_use_the_largest_exact_unit() {
    let texts = [0, 17, 1024, 4096, 6 << 20, (1 << 30) + 1, 2 << 40].map(size_text);
    assert_eq!(
        texts,
        [
            "0 bytes",
            "17 bytes",
            "1 KiB",
            "4 KiB",
            "6 MiB",
            "1073741825 bytes",
            "2 TiB"
        ]
    );
}

#[test]
fn a_plan_with_every_kind_of_step_prints_as_golden() {
    let mut facts = PlatformFacts::new(Isolation::Snp, Arch::X64);
    facts.policy = Some(0x30000);
    facts.shared_gpa_boundary = 1 << 46;
    let mut plan = PlanBuilder::new(facts);
    let expect = ExpectMemory {
        gpa: 0,
        len: 0x70_9000,
        vtl2_protectable: true,
    };
    plan.expect_memory(expect, header(1)).unwrap();
    let page = |gpa, kind, contents| Import {
        gpa,
        len: 0x1000,
        large: false,
        kind,
        contents,
    };
    for n in 0..3u32 {
        let contents = Contents::borrowed(&[1, 2, 3]);
        plan.import(
            page(0x10_0000 + u64::from(n) * 0x1000, PageKind::Measured, contents),
            header(2 + n),
        )
        .unwrap();
    }
    plan.import(page(0x10_3000, PageKind::Measured, Contents::Zero), header(5))
        .unwrap();
    plan.import(page(0x10_4000, PageKind::Secrets, Contents::Zero), header(6))
        .unwrap();
    let slots = [(ParameterKind::MemoryMap, 0), (ParameterKind::VpCount, 0xC0)].map(|(kind, byte_offset)| {
        ParameterSlot {
            kind,
            byte_offset,
            origin: header(7),
        }
    });
    let area = ParameterArea {
        index: 1,
        initial: Cow::Borrowed(&[0; 32]),
        slots: slots.to_vec(),
    };
    plan.import(
        page(
            0x20_0000,
            PageKind::Unmeasured,
            Contents::Parameters(Box::new(area)),
        ),
        header(9),
    )
    .unwrap();
    let large = Import {
        len: 2 << 20,
        large: true,
        ..page(4 << 20, PageKind::Shared, Contents::Zero)
    };
    plan.import(large, header(10)).unwrap();
    plan.error_range(0xF_F000, 0x1000, header(11)).unwrap();
    plan.vp_context(
        VpContext {
            vp: 0,
            gpa: 0xFFFF_FFFF_F000,
            state: VpState::Vmsa(vec![0; 4096].into()),
        },
        header(12),
    )
    .unwrap();
    let rip = VbsRegister {
        vtl: 0,
        name: VbsRegisterName::Rip,
        value: VbsValue::U64(0x6E_0000),
    };
    plan.vp_context(
        VpContext {
            vp: 1,
            gpa: 0,
            state: VpState::Vbs(vec![rip]),
        },
        Origin::Host("loader"),
    )
    .unwrap();
    let native = NativeContext {
        rip: 0x1000,
        ..Default::default()
    };
    plan.vp_context(
        VpContext {
            vp: 2,
            gpa: 0,
            state: VpState::Native(Box::new(native)),
        },
        header(13),
    )
    .unwrap();
    let golden = "\
platform snp, x64, highest vtl 0, shared gpa boundary 0x400000000000, policy 0x30000
expect ram   0x0000000000000000..0x0000000000709000 7204 KiB  vtl2 protectable  [header 1]
import       0x0000000000100000..0x0000000000103000 12 KiB    measured   data  [headers 2-4]
import       0x0000000000103000..0x0000000000104000 4 KiB     measured   zero  [header 5]
import       0x0000000000104000..0x0000000000105000 4 KiB     secrets    zero  [header 6]
import       0x0000000000200000..0x0000000000201000 4 KiB     unmeasured parameters area 1, 32 bytes initial: memory map at 0x0, VP count at 0xc0  [header 9]
import       0x0000000000400000..0x0000000000600000 2 MiB     shared     zero, 2 MiB pages  [header 10]
error range  0x00000000000ff000..0x0000000000100000 4 KiB      [header 11]
vp context   vp 0, vmsa of 4 KiB at gpa 0xfffffffff000  [header 12]
vp context   vp 1, 1 registers, rip 0x6e0000  [loader]
vp context   vp 2, native, rip 0x1000  [header 13]
";
    assert_eq!(plan.finish().to_string(), golden);
}

#[test]
fn endorsements_print_one_line_each() {
    let mut plan = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::X64)).finish();
    let corim = Corim {
        document: vec![0; 2048].into(),
        signature: None,
    };
    plan.endorsements.corim = Some(corim.clone());
    plan.endorsements.vbs_measurement = Some(Box::new(VbsMeasurement {
        version: 1,
        product_id: 2,
        module_id: 3,
        security_version: 4,
        policy_flags: 5,
        digest_algorithm: 1,
        signing_algorithm: 1,
        digest: [0; 64],
        signature: [0; 256],
        public_key: [0; 512],
    }));
    let golden = "\
platform vsm, x64, highest vtl 0
endorsed by  vbs measurement, security version 4
endorsed by  corim of 2 KiB, unsigned
";
    assert_eq!(plan.to_string(), golden);
    plan.endorsements.corim = Some(Corim {
        signature: Some(vec![1].into()),
        ..corim
    });
    assert!(plan.to_string().ends_with("corim of 2 KiB, signed\n"));
}
