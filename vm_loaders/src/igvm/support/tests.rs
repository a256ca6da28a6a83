// SPDX-License-Identifier: MIT
//! The table itself. That every cell is what a launch does is shown by `vmm_tests` (`isolation`).

use super::*;
use launch_plan::{Arch, PlanBuilder, PlatformFacts, VpContext, VpState};

const HERE: Origin = Origin::Header {
    index: 7,
    offset: 0x1C8,
};

/// The row of a directive's header type.
fn of_header(typ: u32) -> Option<Directive> {
    let name = match crate::igvm::type_name(typ)? {
        "PARAMETER_AREA" => "PARAMETER_INSERT",
        name => name,
    };
    TABLE.iter().find(|row| row.name == name).map(|row| row.directive)
}

#[test]
fn every_directive_header_has_one_row() {
    for typ in (0x301..=0x313).filter(|&typ| typ != 0x306) {
        assert!(of_header(typ).is_some(), "{typ:#x}");
    }
    assert_eq!(of_header(0x306), None);
    for (i, row) in TABLE.iter().enumerate() {
        let twin = TABLE[i + 1..]
            .iter()
            .find(|other| other.directive == row.directive || other.name == row.name);
        assert!(twin.is_none(), "{row:?}");
    }
    for kind in ParameterKind::ALL {
        assert!(
            verdict(Directive::Parameter(kind), Isolation::Snp).is_some(),
            "{kind}"
        );
    }
}

#[test]
fn refusal_names_directive_platform_and_offset() {
    let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Sev, Arch::X64));
    let context = VpContext {
        vp: 0,
        gpa: 0,
        state: VpState::Native(Box::default()),
    };
    builder.vp_context(context, HERE).unwrap();
    let error = check_support(&builder.finish()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("header 7 at file offset 0x1c8: VP_CONTEXT cannot be launched on sev: "),
        "{error}"
    );
}

#[test]
fn special_pages_are_for_snp_only() {
    for platform in COLUMNS {
        for kind in [PageKind::Secrets, PageKind::Cpuid, PageKind::CpuidXf] {
            let mut builder = PlanBuilder::new(PlatformFacts::new(platform, Arch::X64));
            let import = Import {
                gpa: 0x1000,
                len: 0x1000,
                large: false,
                kind,
                contents: Contents::Zero,
            };
            builder.import(import, HERE).unwrap();
            let checked = check_support(&builder.finish());
            assert_eq!(checked.is_ok(), platform == Isolation::Snp, "{platform} {kind}");
        }
    }
}
