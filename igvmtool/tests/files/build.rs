// SPDX-License-Identifier: MIT
//! Plans and files for the corpus, each a few pages.

use launch_plan::*;
use vm_loaders::igvm::{EncodeOptions, FormatVersion, encode};
use x86defs::vmsa::{KVM_VMSA_GPA, ResetState, reset_page};
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister};

pub(crate) const HERE: Origin = Origin::Host("test");

/// One page, or as many as the contents need.
pub(crate) fn page(gpa: u64, kind: PageKind, bytes: Option<Vec<u8>>) -> Import<'static> {
    let len = bytes
        .as_ref()
        .map_or(4096, |bytes| bytes.len().max(1).next_multiple_of(4096));
    Import {
        gpa,
        len: len as u64,
        large: false,
        kind,
        contents: bytes.map_or(Contents::Zero, |bytes| Contents::Bytes(bytes.into())),
    }
}

/// Pages of data that differ from each other.
pub(crate) fn data(pages: u8, seed: u8) -> Vec<u8> {
    (0..pages)
        .flat_map(|page| {
            let mut bytes = vec![seed.wrapping_add(page) | 1; 4096];
            bytes[..2].copy_from_slice(&[0xEB, 0xFE]);
            bytes
        })
        .collect()
}

/// What a test may change of a plan.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) isolation: Isolation,
    pub(crate) arch: Arch,
    pub(crate) parameters: &'static [ParameterKind],
    pub(crate) large: bool,
    pub(crate) vps: u32,
}

impl Shape {
    pub(crate) fn of(isolation: Isolation) -> Self {
        let arch = if isolation == Isolation::Cca {
            Arch::Aarch64
        } else {
            Arch::X64
        };
        Self {
            isolation,
            arch,
            parameters: &[ParameterKind::MemoryMap, ParameterKind::VpCount],
            large: false,
            vps: 1,
        }
    }
}

fn facts(shape: Shape) -> PlatformFacts {
    let mut facts = PlatformFacts::new(shape.isolation, shape.arch);
    facts.policy = match shape.isolation {
        Isolation::Snp => Some(0x3_0000),
        Isolation::SevEs => Some(5),
        Isolation::Sev => Some(1),
        Isolation::Tdx => Some(0),
        _ => None,
    };
    if shape.isolation == Isolation::Cca {
        facts.cca_policy = Some(CcaPolicy {
            required_zeroes: 1,
            required_ones: 0,
            hash_algorithm: 0,
            lfa_policy: 0,
        });
    }
    facts
}

/// A plan with data, zero, unmeasured and shared pages, a parameter area, and what its platform has.
pub(crate) fn builder(shape: Shape) -> PlanBuilder<'static> {
    let mut plan = PlanBuilder::new(facts(shape));
    let mut add = |import| plan.import(import, HERE).unwrap();
    add(page(0x10_0000, PageKind::Measured, Some(data(3, 0x40))));
    add(page(0x10_3000, PageKind::Measured, None));
    add(page(0x11_0000, PageKind::Unmeasured, Some(data(1, 0x60))));
    if shape.isolation == Isolation::Snp {
        add(page(0x12_0000, PageKind::Secrets, None));
        add(page(0x12_1000, PageKind::Cpuid, None));
    }
    if shape.large {
        let contents = Contents::Bytes(data(200, 7).into());
        add(Import {
            gpa: 4 << 20,
            len: 2 << 20,
            large: true,
            kind: PageKind::Measured,
            contents,
        });
    }
    if !shape.parameters.is_empty() {
        add(area(0x20_0000, shape.parameters, Vec::new()));
    }
    for vp in 0..shape.vps {
        if let Some(context) = context(shape, vp) {
            plan.vp_context(context, HERE).unwrap();
        }
    }
    plan
}

pub(crate) fn area(gpa: u64, kinds: &[ParameterKind], initial: Vec<u8>) -> Import<'static> {
    let slots = kinds.iter().enumerate().map(|(index, &kind)| ParameterSlot {
        kind,
        byte_offset: index as u32 * 0x200,
        origin: HERE,
    });
    let area = ParameterArea {
        index: 0,
        initial: initial.into(),
        slots: slots.collect(),
    };
    Import {
        len: 0x2000,
        contents: Contents::Parameters(Box::new(area)),
        ..page(gpa, PageKind::Unmeasured, None)
    }
}

/// 64-bit code and data segments over all memory.
pub(crate) fn flat(selector: u16, attributes: u32) -> SegmentRegister {
    SegmentRegister {
        selector,
        attributes: SegmentAttributes(attributes),
        limit: u32::MAX,
        base: 0,
    }
}

pub(crate) fn native() -> NativeContext {
    NativeContext {
        rip: 0x10_0000,
        rflags: 2,
        cr0: 0x11,
        cs: flat(8, 0xC09B),
        data: flat(16, 0xC093),
        gdtr: TableRegister {
            base: 0x10_1000,
            limit: 23,
        },
        ..Default::default()
    }
}

/// A save area in reset state that KVM can keep.
pub(crate) fn save_area(isolation: Isolation) -> Vec<u8> {
    let reset = ResetState {
        entry: 0xFFFF_FFF0,
        rdx: 0x600,
        code: 0x9B,
        data: 0x93,
        task: 0x8B,
        features: u64::from(isolation == Isolation::Snp),
    };
    reset_page(&reset).to_vec()
}

fn context(shape: Shape, vp: u32) -> Option<VpContext<'static>> {
    let (gpa, state) = match shape.isolation {
        Isolation::Tdx => return None,
        Isolation::Native | Isolation::Sev => (0, VpState::Native(Box::new(native()))),
        Isolation::SevEs | Isolation::Snp => (KVM_VMSA_GPA, VpState::Vmsa(save_area(shape.isolation).into())),
        Isolation::Cca => (
            0,
            VpState::Cca([0x10_0000_u64; 10].map(u64::to_le_bytes).concat().into()),
        ),
        Isolation::Vsm if vp > 0 => return None,
        Isolation::Vsm if shape.arch == Arch::Aarch64 => {
            let pc = Aarch64Register {
                vtl: 0,
                name: 0x0002_0022,
                value: 0x10_0000,
            };
            (0, VpState::Aarch64Vbs(vec![pc]))
        }
        Isolation::Vsm => (0, VpState::Vbs(vbs())),
    };
    Some(VpContext { vp, gpa, state })
}

pub(crate) fn vbs() -> Vec<VbsRegister> {
    use VbsRegisterName as Name;
    let register = |name, value| VbsRegister { vtl: 0, name, value };
    vec![
        register(Name::Rip, VbsValue::U64(0x10_0000)),
        register(Name::Cr0, VbsValue::U64(0x11)),
        register(Name::Cs, VbsValue::Segment(flat(8, 0xC09B))),
        register(Name::R12, VbsValue::U64(0)),
    ]
}

/// Plans as a file.
pub(crate) fn file(plans: &[LaunchPlan<'_>], format: FormatVersion) -> Vec<u8> {
    let options = EncodeOptions {
        format,
        version_string: None,
    };
    encode(plans, &options).unwrap().to_vec()
}

/// A version 1 file of one plan.
pub(crate) fn v1(plan: PlanBuilder<'_>) -> Vec<u8> {
    file(&[plan.finish()], FormatVersion::V1)
}
