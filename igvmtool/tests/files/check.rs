// SPDX-License-Identifier: MIT
//! `check`: codes, loaders with known outcomes, explanations.

use crate::build::*;
use crate::corpus::{ovmf_image, samples};
use crate::program::{Folder, igvmtool, ok, run};
use igvmtool::portability::{ask, loader};
use launch_plan::*;
use std::borrow::Cow;
use vm_loaders::igvm::{EncodeOptions, File, FormatVersion, Severity, encode};
use vm_loaders::ovmf;

/// A file with a known outcome: the fact, the file, the loader, whether it loads, and the rule named.
struct Known(&'static str, Vec<u8>, &'static str, bool, &'static str);

fn plain(isolation: Isolation) -> Vec<u8> {
    v1(builder(Shape::of(isolation)))
}

fn with(isolation: Isolation, change: impl FnOnce(&mut PlanBuilder<'static>)) -> Vec<u8> {
    let mut plan = builder(Shape::of(isolation));
    change(&mut plan);
    v1(plan)
}

fn parameters(isolation: Isolation, parameters: &'static [ParameterKind]) -> Vec<u8> {
    v1(builder(Shape {
        parameters,
        ..Shape::of(isolation)
    }))
}

fn vps(isolation: Isolation, vps: u32) -> Vec<u8> {
    v1(builder(Shape {
        vps,
        ..Shape::of(isolation)
    }))
}

fn large(isolation: Isolation) -> Vec<u8> {
    v1(builder(Shape {
        large: true,
        ..Shape::of(isolation)
    }))
}

/// The SNP sample with a byte of its save area set.
fn save_area_byte(at: usize, value: u8) -> Vec<u8> {
    let plan = builder(Shape::of(Isolation::Snp)).finish();
    let mut other = PlanBuilder::new(plan.facts.clone());
    for step in plan.into_steps() {
        match step.kind {
            StepKind::Import(import) => other.import(import, HERE).unwrap(),
            StepKind::VpContext(mut context) => {
                if let VpState::Vmsa(page) = &mut context.state {
                    let mut bytes = page.to_vec();
                    bytes[at] = value;
                    *page = Cow::Owned(bytes);
                }
                other.vp_context(*context, HERE).unwrap();
            }
            _ => {}
        }
    }
    v1(other)
}

fn vmsa_at(gpa: u64) -> Vec<u8> {
    let mut plan = PlanBuilder::new(PlatformFacts {
        policy: Some(0x3_0000),
        ..PlatformFacts::new(Isolation::Snp, Arch::X64)
    });
    plan.import(page(0x1000, PageKind::Measured, Some(data(1, 1))), HERE)
        .unwrap();
    let state = VpState::Vmsa(save_area(Isolation::Snp).into());
    plan.vp_context(VpContext { vp: 0, gpa, state }, HERE).unwrap();
    v1(plan)
}

fn policy(policy: u64) -> Vec<u8> {
    with(Isolation::Snp, |plan| plan.plan_mut().facts.policy = Some(policy))
}

/// An OVMF-shaped image for one platform, without parameters in its tables.
fn ovmf(isolation: Isolation, vps: u32) -> Vec<u8> {
    let image = ovmf_image();
    let plan = ovmf::plan(&image, &ovmf::WrapOptions::new(isolation, vps)).unwrap();
    file(&[plan], FormatVersion::V1)
}

fn version_string() -> Vec<u8> {
    let options = EncodeOptions {
        format: FormatVersion::V1,
        version_string: Some("1.0".to_owned()),
    };
    encode(&[builder(Shape::of(Isolation::Native)).finish()], &options)
        .unwrap()
        .to_vec()
}

/// The first header's type gets the optional bit, in a copy of it behind the others.
fn optional() -> Vec<u8> {
    let bytes = plain(Isolation::Snp);
    let file = File::read(&bytes).unwrap();
    let mut edit = vm_loaders::igvm::Edit::new(&file);
    let end = file.headers().len() as u32;
    edit.insert(end, vm_loaders::igvm::NewHeader::raw(0x8000_03F0, &[0; 8]))
        .unwrap();
    edit.finish().unwrap().to_vec()
}

fn qemu() -> Vec<Known> {
    use ParameterKind as Kind;
    let (snp, es, sev, native) = (
        Isolation::Snp,
        Isolation::SevEs,
        Isolation::Sev,
        Isolation::Native,
    );
    vec![
        Known(
            "native with memory map and vp count",
            plain(native),
            "qemu-11",
            true,
            "",
        ),
        Known("ovmf for sev-snp", ovmf(snp, 2), "qemu-11", true, ""),
        Known(
            "sev-es with one vmsa at kvm's address",
            plain(es),
            "qemu-11",
            true,
            "",
        ),
        Known(
            "vp context on plain sev is fatal",
            plain(sev),
            "qemu-11",
            false,
            "qemu-sev-context",
        ),
        Known(
            "ovmf for plain sev has no context",
            ovmf(sev, 1),
            "qemu-11",
            true,
            "",
        ),
        Known(
            "error ranges have no handler",
            with(native, |p| p.error_range(0x50_0000, 0x1000, HERE).unwrap()),
            "qemu-11",
            false,
            "qemu-unknown-header",
        ),
        Known(
            "srat has no handler",
            parameters(native, &[Kind::Srat]),
            "qemu-11",
            false,
            "qemu-unknown-header",
        ),
        Known(
            "command line is pending",
            parameters(native, &[Kind::CommandLine]),
            "qemu-11",
            false,
            "qemu-unknown-header",
        ),
        Known(
            "madt has a handler",
            parameters(native, &[Kind::Madt]),
            "qemu-11",
            true,
            "",
        ),
        Known(
            "device tree has a handler",
            parameters(native, &[Kind::DeviceTree]),
            "qemu-11",
            true,
            "",
        ),
        Known(
            "environment info has a handler",
            parameters(snp, &[Kind::EnvironmentInfo]),
            "qemu-11",
            true,
            "",
        ),
        Known(
            "native context for an ap",
            vps(native, 2),
            "qemu-11",
            false,
            "qemu-native-ap",
        ),
        Known(
            "vmsa elsewhere",
            vmsa_at(0x80_0000),
            "qemu-11",
            false,
            "qemu-vmsa-address",
        ),
        Known(
            "vmsa with cpl",
            save_area_byte(x86defs::vmsa::offset::CPL, 3),
            "qemu-11",
            false,
            "qemu-vmsa-field",
        ),
        Known(
            "vmsa without snp active",
            save_area_byte(x86defs::vmsa::offset::SEV_FEATURES, 0),
            "qemu-11",
            false,
            "qemu-vmsa-active",
        ),
        Known(
            "tdx is not started",
            plain(Isolation::Tdx),
            "qemu-11",
            false,
            "platform",
        ),
        Known(
            "vsm is not started",
            plain(Isolation::Vsm),
            "qemu-11",
            false,
            "platform",
        ),
        Known(
            "initial data is ignored",
            with(native, |p| {
                p.import(area(0x30_0000, &[], b"x".to_vec()), HERE).unwrap();
            }),
            "qemu-11",
            true,
            "qemu-initial-data",
        ),
        Known(
            "2 MiB data is cut",
            large(native),
            "qemu-11",
            true,
            "qemu-large-data",
        ),
        Known(
            "version string breaks the crate",
            version_string(),
            "qemu-11",
            false,
            "crate-version-string",
        ),
        Known(
            "optional headers break the crate",
            optional(),
            "qemu-11",
            false,
            "crate-optional",
        ),
    ]
}

fn others() -> Vec<Known> {
    use ParameterKind as Kind;
    let (snp, native, vsm) = (Isolation::Snp, Isolation::Native, Isolation::Vsm);
    vec![
        Known("upstream openvmm starts vsm", plain(vsm), "openvmm", true, ""),
        Known(
            "native is not selectable",
            plain(native),
            "openvmm",
            false,
            "platform",
        ),
        Known(
            "one vmsa exactly",
            vps(snp, 2),
            "openvmm",
            false,
            "openvmm-one-vmsa",
        ),
        Known("one vmsa is fine", plain(snp), "openvmm", true, ""),
        Known(
            "tdx is unsupported",
            plain(Isolation::Tdx),
            "openvmm",
            false,
            "platform",
        ),
        Known(
            "2 MiB pages assert",
            large(vsm),
            "openvmm",
            false,
            "openvmm-large-pages",
        ),
        Known(
            "all parameters are given",
            parameters(vsm, &ParameterKind::ALL),
            "openvmm",
            true,
            "",
        ),
        Known(
            "snp with memory map",
            plain(snp),
            "cloud-hypervisor",
            true,
            "cloud-zero-pages",
        ),
        Known(
            "environment info panics",
            parameters(snp, &[Kind::EnvironmentInfo]),
            "cloud-hypervisor",
            false,
            "cloud-parameter",
        ),
        Known(
            "native context panics",
            plain(native),
            "cloud-hypervisor",
            false,
            "cloud-native-context",
        ),
        Known(
            "firmware below 4 GiB without snp",
            ovmf(native, 1),
            "cloud-hypervisor",
            false,
            "cloud-firmware-address",
        ),
        Known(
            "error range panics",
            with(snp, |p| p.error_range(0x50_0000, 0x1000, HERE).unwrap()),
            "cloud-hypervisor",
            false,
            "cloud-directive",
        ),
        Known(
            "the first platform decides",
            file(
                &[
                    builder(Shape::of(native)).finish(),
                    builder(Shape::of(snp)).finish(),
                ],
                FormatVersion::V1,
            ),
            "cloud-hypervisor",
            false,
            "cloud-first-platform",
        ),
        Known(
            "policy with migration agent",
            policy(0x7_0000),
            "kvm-snp",
            false,
            "kvm-migration-agent",
        ),
        Known("usual policy", policy(0x3_0000), "kvm-snp", true, ""),
        Known(
            "cr2 does not reach the vmsa",
            save_area_byte(0x240, 1),
            "kvm-snp",
            true,
            "kvm-vmsa-field",
        ),
        Known(
            "vmsa elsewhere is measured at kvm's place",
            vmsa_at(0x80_0000),
            "kvm-snp",
            true,
            "kvm-vmsa-address",
        ),
        Known(
            "native context in version 1",
            plain(native),
            "spec",
            false,
            "spec-native-v1",
        ),
        Known(
            "native context in version 2",
            file(&[builder(Shape::of(native)).finish()], FormatVersion::V2),
            "spec",
            true,
            "",
        ),
        Known(
            "one context per file",
            vps(Isolation::SevEs, 2),
            "spec",
            false,
            "spec-one-context",
        ),
    ]
}

#[test]
fn loaders_take_and_refuse_what_they_are_known_to() {
    let all: Vec<Known> = qemu().into_iter().chain(others()).collect();
    assert!(all.len() >= 25);
    for Known(fact, bytes, name, loads, rule) in all {
        let file = File::read(&bytes).unwrap();
        let answer = ask(loader(name).unwrap(), &file, &file.check());
        let found: Vec<_> = answer
            .findings
            .iter()
            .chain(answer.platforms.iter().flat_map(|platform| &platform.findings))
            .map(|finding| finding.rule)
            .collect();
        assert_eq!(answer.loads, loads, "{fact}: {answer:#?}");
        assert!(rule.is_empty() || found.contains(&rule), "{fact}: {found:?}");
    }
}

#[test]
fn an_id_block_of_another_digest_is_refused_by_kvm() {
    let sample = samples()
        .into_iter()
        .find(|sample| sample.name == "snp-id-block")
        .unwrap();
    let file = File::read(&sample.bytes).unwrap();
    let answer = ask(loader("kvm-snp").unwrap(), &file, &file.check());
    assert!(!answer.loads);
    assert_eq!(answer.platforms[0].findings[0].rule, "kvm-id-block-digest");
}

#[test]
fn samples_have_no_errors() {
    for sample in samples() {
        let file = File::read(&sample.bytes).unwrap();
        let errors: Vec<_> = file
            .check()
            .into_iter()
            .filter(|problem| problem.severity() == Severity::Error)
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?}", sample.name);
    }
}

#[test]
fn codes_and_rules_are_explained() {
    for id in ["checksum", "qemu-unknown-header"] {
        let shown = ok(&["check", "--explain", id]);
        assert!(shown.starts_with(id) && shown.contains("  example  "), "{shown}");
    }
    let unknown = igvmtool(&["check", "--explain", "nonsense"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn all_problems_come_at_once_with_codes_and_places() {
    let folder = Folder::new();
    // Two pages at one place, a policy without its bit, one byte too many.
    let mut bytes = policy(0x1_0000);
    let at = bytes
        .windows(8)
        .rposition(|window| window == 0x11_0000_u64.to_le_bytes())
        .unwrap();
    bytes[at..at + 8].copy_from_slice(&0x10_0000_u64.to_le_bytes());
    bytes.push(0);
    let path = folder.write("bad", bytes);
    let (code, shown) = run(&["check", &path, "--for", "qemu-11"]);
    assert_eq!(code, 1);
    for wanted in [
        "[total-size]",
        "[checksum]",
        "[policy-must-be-one]",
        "[gpa-overlap]",
        "qemu-11: does not load",
        "[crate-structure]",
    ] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    let (code, json) = run(&["check", "--json", "--for", "kvm-snp", &path]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["schema"].as_u64()), (1, Some(1)));
    assert_eq!(json["loaders"][0]["loader"], "kvm-snp");
    assert!(json["problems"].as_array().unwrap().len() >= 4);
}
