// SPDX-License-Identifier: MIT
//! Every cell of the directive table is a launch.

use super::{on_model, refused};
use crate::images;
use launch_plan::{
    Arch, Contents, ExpectMemory, IdBlock, IdKey, IdSignature, Import, Isolation, LaunchPlan, NativeContext,
    Origin, PageKind, ParameterArea, ParameterSlot, PlanBuilder, PlatformFacts, VbsMeasurement, VbsRegister,
    VbsRegisterName, VbsValue, VpContext, VpState,
};
use std::path::Path;
use vm_loaders::igvm::support::{COLUMNS, Directive, TABLE, Verdict};
use vm_loaders::ovmf::{ResetVp, reset_save_area};
use vmm_tests::files::TestFile;
use vmm_tests::{Backend, Vm, VmBuilder};
use x86defs::vmsa::KVM_VMSA_GPA;
use x86defs::{SegmentAttributes, SegmentRegister, cr0};

const HERE: Origin = Origin::Host("test");
/// The page with the reset vector.
const TOP: u64 = 0xFFFF_F000;

/// `xor eax, eax; out 0xF4, eax; hlt` at the reset vector, for 16-bit or 32-bit code.
fn code(bits: u32) -> Vec<u8> {
    let mut page = vec![0; 0x1000];
    let prefix: &[u8] = if bits == 16 { &[0x66] } else { &[] };
    let code = [prefix, &[0x31, 0xC0], prefix, &[0xE7, 0xF4, 0xF4]].concat();
    page[0xFF0..0xFF0 + code.len()].copy_from_slice(&code);
    page
}

fn import(builder: &mut PlanBuilder<'static>, import: Import<'static>) {
    builder.import(import, HERE).unwrap();
}

fn page(gpa: u64, kind: PageKind, contents: Contents<'static>) -> Import<'static> {
    Import {
        gpa,
        len: 0x1000,
        large: false,
        kind,
        contents,
    }
}

/// A plan whose guest ends at once, with the directive of a row beside it.
fn plan(directive: Directive, platform: Isolation) -> LaunchPlan<'static> {
    let mut facts = PlatformFacts::new(platform, Arch::X64);
    facts.policy = match platform {
        Isolation::Sev => Some(1),
        Isolation::SevEs => Some(5),
        Isolation::Snp => Some(0x3_0000),
        _ => None,
    };
    let mut b = PlanBuilder::new(facts);
    let flat = directive == Directive::VpContext && platform == Isolation::Native;
    let entry = Contents::Bytes(code(if flat { 32 } else { 16 }).into());
    import(&mut b, page(TOP, PageKind::Measured, entry));
    add(&mut b, directive, platform);
    b.finish()
}

fn add(b: &mut PlanBuilder<'static>, directive: Directive, platform: Isolation) {
    let special = |kind| page(0x20_0000, kind, Contents::Zero);
    match directive {
        Directive::NormalPage => {
            import(b, page(0x20_0000, PageKind::Measured, Contents::Zero));
            import(
                b,
                page(
                    0x20_1000,
                    PageKind::Unmeasured,
                    Contents::Bytes(vec![7; 9].into()),
                ),
            );
        }
        Directive::LargePage => {
            let large = Import {
                len: 0x20_0000,
                large: true,
                ..special(PageKind::Measured)
            };
            import(b, large);
        }
        Directive::SharedPage => {
            import(
                b,
                page(0x20_0000, PageKind::Shared, Contents::Bytes(vec![7; 9].into())),
            );
        }
        Directive::SecretsPage => import(b, special(PageKind::Secrets)),
        Directive::CpuidPage => import(b, special(PageKind::Cpuid)),
        Directive::CpuidXfPage => import(b, special(PageKind::CpuidXf)),
        Directive::ParameterArea => import(b, parameters(Vec::new())),
        Directive::Parameter(kind) => {
            let slot = ParameterSlot {
                kind,
                byte_offset: 0,
                origin: HERE,
            };
            import(b, parameters(vec![slot]));
        }
        Directive::VpContext => b.vp_context(context(platform), HERE).unwrap(),
        Directive::RequiredMemory => {
            let expect = ExpectMemory {
                gpa: 0x20_0000,
                len: 0x10_0000,
                vtl2_protectable: false,
            };
            b.expect_memory(expect, HERE).unwrap();
        }
        Directive::ErrorRange => b.error_range(0x20_0000, 0x2000, HERE).unwrap(),
        Directive::SnpIdBlock => b.plan_mut().endorsements.id_block = Some(Box::new(id_block())),
        Directive::VbsMeasurement => {
            b.plan_mut().endorsements.vbs_measurement = Some(Box::new(vbs_measurement()));
        }
    }
}

fn parameters(slots: Vec<ParameterSlot>) -> Import<'static> {
    let area = ParameterArea {
        index: 0,
        initial: Default::default(),
        slots,
    };
    Import {
        len: 0x1_0000,
        ..page(
            0x20_0000,
            PageKind::Unmeasured,
            Contents::Parameters(Box::new(area)),
        )
    }
}

fn context(platform: Isolation) -> VpContext<'static> {
    let segment = |selector, attributes| SegmentRegister {
        selector,
        attributes: SegmentAttributes(attributes),
        limit: 0xFFFF_FFFF,
        base: 0,
    };
    let (gpa, state) = match platform {
        Isolation::Native | Isolation::Sev => {
            let native = NativeContext {
                rip: 0xFFFF_FFF0,
                rflags: 2,
                cs: segment(8, 0xC09B),
                data: segment(16, 0xC093),
                cr0: cr0::PE | cr0::ET,
                ..NativeContext::default()
            };
            (0, VpState::Native(Box::new(native)))
        }
        Isolation::Vsm => {
            let rip = VbsRegister {
                vtl: 0,
                name: VbsRegisterName::Rip,
                value: VbsValue::U64(0xFFF0),
            };
            (0, VpState::Vbs(vec![rip]))
        }
        encrypted => {
            let vp = ResetVp {
                entry: 0xFFFF_FFF0,
                signature: 0x600,
            };
            (KVM_VMSA_GPA, VpState::Vmsa(reset_save_area(encrypted, vp).into()))
        }
    };
    VpContext { vp: 0, gpa, state }
}

/// Signed by nobody; files that are launched are signed by `igvmtool sign`.
fn id_block() -> IdBlock {
    let signature = IdSignature {
        r: [0; 72],
        s: [0; 72],
    };
    let key = IdKey {
        curve: 2,
        qx: [0; 72],
        qy: [0; 72],
    };
    IdBlock {
        author_key_enabled: 0,
        launch_digest: [0; 48],
        family_id: [0; 16],
        image_id: [0; 16],
        version: 1,
        guest_svn: 1,
        id_key_algorithm: 1,
        author_key_algorithm: 0,
        id_signature: signature,
        id_key: key,
        author_signature: signature,
        author_key: key,
    }
}

fn vbs_measurement() -> VbsMeasurement {
    VbsMeasurement {
        version: 1,
        product_id: 1,
        module_id: 1,
        security_version: 1,
        policy_flags: 0,
        digest_algorithm: 1,
        signing_algorithm: 1,
        digest: [0; 64],
        signature: [0; 256],
        public_key: [0; 512],
    }
}

fn vm(platform: Isolation, file: &Path) -> VmBuilder {
    match platform {
        Isolation::Native | Isolation::Vsm => Vm::builder(Backend::Soft)
            .typed_igvm("test", file)
            .args(["-m", "64M", "--com1", "none"]),
        isolated => on_model(isolated.name(), file),
    }
}

fn launches(platform: Isolation) {
    for row in TABLE {
        let column = COLUMNS.iter().position(|&column| column == platform).unwrap();
        let mut plan = plan(row.directive, platform);
        if row.directive == Directive::SnpIdBlock && platform == Isolation::Snp {
            plan.endorsements.id_block = None;
        }
        let mut file = TestFile::new("cell.igvm", &images::igvm(&[plan]));
        if row.directive == Directive::SnpIdBlock && platform == Isolation::Snp {
            file = super::endorsed::sign(file.path(), &[]);
        }
        let vm = vm(platform, file.path());
        match row.verdicts[column] {
            Verdict::Allowed | Verdict::Extension(_) => {
                let ended = vm.run();
                assert_eq!(ended.code, 0, "{} on {platform}: {ended:?}", row.name);
            }
            Verdict::Refused(why) => {
                let message = refused(&vm);
                let endorsement = matches!(row.directive, Directive::SnpIdBlock | Directive::VbsMeasurement);
                if endorsement {
                    // Refused where the file is read.
                    assert!(message.contains(&format!("for platform {platform}")), "{message}");
                } else {
                    let text = format!("{} cannot be launched on {platform}: {why}", row.name);
                    assert!(message.contains(&text), "{message}");
                }
                assert!(message.contains("file offset 0x"), "{message}");
                if row.directive == Directive::VpContext {
                    // Valid in a file all the same: only the launch is refused.
                    let checked =
                        vmm_tests::programs::run_igvmtool(["check".as_ref(), file.path().as_os_str()]);
                    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
                }
            }
        }
    }
}

#[test]
fn every_cell_of_native_is_what_the_launch_does() {
    launches(Isolation::Native);
}

#[test]
fn every_cell_of_vsm_is_what_the_launch_does() {
    launches(Isolation::Vsm);
}

#[test]
fn every_cell_of_sev_is_what_the_launch_does() {
    launches(Isolation::Sev);
}

#[test]
fn every_cell_of_sev_es_is_what_the_launch_does() {
    launches(Isolation::SevEs);
}

#[test]
fn every_cell_of_snp_is_what_the_launch_does() {
    launches(Isolation::Snp);
}
