// SPDX-License-Identifier: MIT
//! Save areas byte by byte, and VP indexes of every shape.

use super::*;
use launch_plan::{Arch, PlanBuilder, PlatformFacts};
use x86defs::vmsa::{VMSA_FIELDS, field_at};
use x86defs::{cr4, efer};

const HOST: Builder = Builder {
    features: 1 << 5,
    legacy: false,
};

fn origin(vp: u32) -> Origin {
    Origin::Header {
        index: vp,
        offset: 0x100 * (vp + 1),
    }
}

/// A save area that KVM reproduces.
fn sound(platform: Platform) -> Vmsa {
    kvm_vmsa::reset_state(platform.isolation())
}

fn plan(platform: Platform, contexts: Vec<(u32, Vmsa)>) -> LaunchPlan<'static> {
    let mut builder = PlanBuilder::new(PlatformFacts::new(platform.isolation(), Arch::X64));
    for (vp, page) in contexts {
        let context = VpContext {
            vp,
            gpa: KVM_VMSA_GPA,
            state: VpState::Vmsa(page.to_vec().into()),
        };
        builder.vp_context(context, origin(vp)).unwrap();
    }
    builder.finish()
}

fn problems(platform: Platform, contexts: Vec<(u32, Vmsa)>, vp_count: u32) -> Vec<String> {
    decide(&plan(platform, contexts), platform, vp_count, HOST)
        .err()
        .unwrap_or_default()
}

const ENCRYPTED: [Platform; 2] = [Platform::SevEs, Platform::Snp];

#[test]
fn every_byte_outside_the_list_is_refused_by_its_fields_name_on_bsp_and_ap() {
    for platform in ENCRYPTED {
        for at in 0..VMSA_SIZE {
            let field = field_at(at).unwrap();
            if field.settable {
                continue;
            }
            for vp in 0..2 {
                let mut pages = vec![(0, sound(platform)), (1, sound(platform))];
                pages[vp as usize].1[at] ^= 0x40;
                let found = problems(platform, pages, 2);
                let [line] = &found[..] else {
                    panic!("{platform} {at:#x}: {found:?}")
                };
                let start = format!(
                    "{}: vp {vp}: field {} at {:#x} is ",
                    origin(vp),
                    field.name,
                    field.offset
                );
                assert!(line.starts_with(&start), "{at:#x}: {line}");
                assert!(
                    line.contains("a loader may not set this field") || field.name == "CPL",
                    "{line}"
                );
            }
        }
    }
}

/// QEMU's documented list (docs/system/igvm.rst), in its words where ours differ, and SEV_FEATURES.
#[test]
fn what_a_save_area_may_set_is_qemus_list_and_the_features() {
    let mut list: Vec<&str> =
        "RAX RCX RDX RBX RBP RSI RDI R8 R9 R10 R11 R12 R13 R14 R15 RSP RIP CS DS ES FS GS SS CR0 CR3 CR4 \
                               XCR0 EFER G_PAT GDTR IDTR LDTR TR DR6 DR7 RFLAGS X87_FCW MXCSR SEV_FEATURES"
            .split_whitespace()
            .collect();
    let mut settable: Vec<&str> = VMSA_FIELDS
        .iter()
        .filter(|field| field.settable)
        .map(|field| field.name)
        .collect();
    list.sort_unstable();
    settable.sort_unstable();
    assert_eq!(settable, list);
    let bytes: usize = VMSA_FIELDS.iter().map(|field| field.size).sum();
    assert_eq!(bytes, VMSA_SIZE, "every byte belongs to a field");
}

#[test]
fn all_fields_are_named_not_the_first() {
    let mut page = sound(Platform::Snp);
    for f in VMSA_FIELDS.iter().filter(|f| !f.settable) {
        page[f.offset + f.size - 1] = 1;
    }
    let found = problems(Platform::Snp, vec![(0, page)], 1);
    let expected = VMSA_FIELDS.iter().filter(|f| !f.settable).count();
    assert_eq!(found.len(), expected, "{found:#?}");
    assert!(found.iter().any(|line| line
        == "header 0 at file offset 0x100: vp 0: field CR2 at 0x240 is 0x100000000000000 in the file, kvm would measure \
            0x0 (must be zero: a loader may not set this field)"));
    assert!(
        found
            .iter()
            .any(|line| line.contains("field padding at 0x670 is 0x1 in byte 0xfff in the file"))
    );
}

#[test]
fn values_that_kvm_changes_are_refused_with_what_it_would_measure() {
    for (at, bytes, text) in [
        (
            offset::EFER,
            0u64,
            "field EFER at 0xd0 is 0x0 in the file, kvm would measure 0x1000",
        ),
        (
            offset::CR4,
            0,
            "field CR4 at 0x148 is 0x0 in the file, kvm would measure 0x40",
        ),
        (
            offset::CR0,
            0x6000_0010,
            "field CR0 at 0x158 is 0x60000010 in the file, kvm would measure 0x10",
        ),
        (
            offset::DR7,
            1,
            "field DR7 at 0x160 is 0x1 in the file, kvm would measure 0x400",
        ),
        (
            offset::RFLAGS,
            0,
            "field RFLAGS at 0x170 is 0x0 in the file, kvm would measure 0x2",
        ),
        (
            offset::XCR0,
            0,
            "field XCR0 at 0x3e8 is 0x0 in the file, kvm would measure 0x1",
        ),
        (
            offset::GDTR,
            1,
            "field GDTR at 0x60 is 0x1:0x0:0x0:0x0 in the file, kvm would measure 0x0:0x0:0x0:0x0",
        ),
        (
            offset::ES,
            0xF093_0000,
            "field ES at 0x0 is 0x0:0xf093:0x0:0x0 in the file, kvm would measure 0x0:0x93:0x0:0x0",
        ),
    ] {
        let mut page = sound(Platform::Snp);
        page[at..at + 8].copy_from_slice(&bytes.to_le_bytes());
        let found = problems(Platform::Snp, vec![(0, page)], 1);
        assert!(found.len() == 1 && found[0].contains(text), "{found:?}");
    }
}

#[test]
fn every_settable_register_may_be_set() {
    let mut page = sound(Platform::SevEs);
    for at in [
        offset::RAX,
        offset::RCX,
        offset::RSP,
        offset::RIP,
        offset::CR3,
        offset::PAT,
        offset::R8 + 56,
    ] {
        page[at] = 0x42;
    }
    let controls = efer::SVME | efer::LME | efer::LMA;
    page[offset::EFER..offset::EFER + 8].copy_from_slice(&controls.to_le_bytes());
    let four = cr4::MCE | cr4::PAE;
    page[offset::CR4..offset::CR4 + 8].copy_from_slice(&four.to_le_bytes());
    let starts = decide(
        &plan(Platform::SevEs, vec![(0, page.clone())]),
        Platform::SevEs,
        1,
        HOST,
    )
    .unwrap();
    assert_eq!(starts.contexts[&0], page);
    assert!(starts.warnings.is_empty());
}

#[test]
fn contexts_are_held_against_the_number_of_vps() {
    for platform in ENCRYPTED {
        let contexts = |vps: &[u32]| vps.iter().map(|&vp| (vp, sound(platform))).collect::<Vec<_>>();
        assert_eq!(problems(platform, contexts(&[0, 1, 2, 3]), 4), [""; 0]);
        let starts = decide(&plan(platform, contexts(&[0])), platform, 3, HOST).unwrap();
        assert_eq!(
            starts.warnings,
            ["vps 1 to 2 have no context in the file; each starts in kvm's reset state, which is measured"]
        );
        assert_eq!(
            problems(platform, contexts(&[0, 1, 2]), 2),
            [
                "header 2 at file offset 0x300: the file has a context for vp 2, but the guest has 2 virtual processors; \
              -p 3 fits it"
            ]
        );
        assert_eq!(
            problems(platform, contexts(&[0, 2]), 4),
            [
                "header 2 at file offset 0x300: the file has a context for vp 2 but none for vp 1; contexts must be for vps \
              0, 1, 2 and so on without a gap"
            ]
        );
        assert_eq!(
            problems(platform, contexts(&[1]), 2).len(),
            1,
            "no context for the boot processor"
        );
        let none = decide(&plan(platform, Vec::new()), platform, 1, HOST).unwrap();
        assert!(
            none.warnings[0].starts_with("vp 0 has no context"),
            "{:?}",
            none.warnings
        );
    }
}

#[test]
fn save_area_elsewhere_is_refused() {
    let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Snp, Arch::X64));
    let context = VpContext {
        vp: 0,
        gpa: 0x4000,
        state: VpState::Vmsa(sound(Platform::Snp).to_vec().into()),
    };
    builder.vp_context(context, origin(0)).unwrap();
    let found = decide(&builder.finish(), Platform::Snp, 1, HOST).unwrap_err();
    assert_eq!(
        found,
        [
            "header 0 at file offset 0x100: vp 0: its save area is at gpa 0x4000; kvm measures every save area at \
          0xfffffffff000"
        ]
    );
}

#[test]
fn features_are_those_of_the_host_and_the_same_for_all_vps() {
    let with = |features: u64| {
        let mut page = sound(Platform::Snp);
        page[offset::SEV_FEATURES..offset::SEV_FEATURES + 8].copy_from_slice(&(features | 1).to_le_bytes());
        page
    };
    let starts = decide(
        &plan(Platform::Snp, vec![(0, with(1 << 5))]),
        Platform::Snp,
        1,
        HOST,
    )
    .unwrap();
    assert_eq!(starts.features, 1 << 5, "without the bit that kvm adds");
    assert_eq!(
        problems(Platform::Snp, vec![(0, with(1 << 3 | 1 << 7 | 1 << 40))], 1),
        [
            "header 0 at file offset 0x100: vp 0: the file's save area asks for restricted injection, BTB isolation, \
          feature bits 0x10000000000; kvm on this host offers debug swap"
        ]
    );
    let found = problems(Platform::Snp, vec![(0, with(0)), (1, with(1 << 5))], 2);
    assert_eq!(
        found,
        [
            "header 1 at file offset 0x200: vp 1 has SEV_FEATURES 0x20 and vp 0 has 0x0; kvm has one set of features for \
          all processors"
        ]
    );
    let bare = Builder {
        features: 0,
        legacy: false,
    };
    let found = decide(
        &plan(Platform::Snp, vec![(0, with(1 << 5))]),
        Platform::Snp,
        1,
        bare,
    )
    .unwrap_err();
    assert!(
        found[0].ends_with("asks for debug swap; kvm on this host offers none"),
        "{found:?}"
    );
}

#[test]
fn older_kernels_measure_no_fpu_state() {
    let old = Builder {
        features: 0,
        legacy: true,
    };
    let found = decide(
        &plan(Platform::SevEs, vec![(0, sound(Platform::SevEs))]),
        Platform::SevEs,
        1,
        old,
    )
    .unwrap_err();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("field MXCSR at 0x408 is 0x1f80 in the file, kvm would measure 0x0"),
        "{found:?}"
    );
    assert!(
        found[1].contains("field X87_FCW at 0x410 is 0x37f in the file, kvm would measure 0x0"),
        "{found:?}"
    );
    let mut page = sound(Platform::SevEs);
    page[offset::MXCSR..offset::FCW + 2].fill(0);
    assert!(decide(&plan(Platform::SevEs, vec![(0, page)]), Platform::SevEs, 1, old).is_ok());
}
