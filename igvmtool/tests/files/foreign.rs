// SPDX-License-Identifier: MIT
//! Digests of other tools: the program explains every published one from the digest alone, for each row of
//! sev.md 2.9 that has a digest. (The search itself is tested in `launch_digest`.)

use crate::build::*;
use crate::program::{Folder, run, text};
use launch_digest::{Digest, Options, Profile, measure_among};
use launch_plan::*;
use std::path::Path;
use vm_loaders::igvm::{File, FormatVersion};

/// Exit code and answer of `measure --against`.
fn against(path: &str, platform: Isolation, digest: &str) -> (i32, String) {
    run(&[
        "measure",
        path,
        "--platform",
        platform.name(),
        "--against",
        digest,
    ])
}

#[test]
fn every_published_digest_is_explained_in_a_sentence() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch_digest/tests/data");
    let all = std::fs::read_to_string(data.join("igvm-digests.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    let mut foreign = 0;
    for (file, digests) in all.as_object().unwrap() {
        let digests = digests.as_object().unwrap();
        for (key, digest) in digests {
            let (tool, platform) = key.split_once(':').unwrap();
            let isolation = match platform {
                "snp" => Isolation::Snp,
                "seves" => Isolation::SevEs,
                "tdx" => Isolation::Tdx,
                _ => Isolation::Vsm,
            };
            let kvm = digests.get(&format!("kvm:{platform}")).unwrap_or(digest);
            let path = data.join(file);
            let (code, shown) = against(text(&path), isolation, digest.as_str().unwrap());
            if kvm == digest {
                let sentence = format!("{isolation}: it is what a launch through kvm gives\n");
                assert_eq!((code, shown), (0, sentence), "{file} {key}");
                continue;
            }
            foreign += 1;
            assert_eq!(code, 1, "{file} {key}: {shown}");
            let name = match tool {
                "crate" => "file-order",
                "igvmmeasure-nz" => "igvmmeasure-native-zero",
                name => name,
            };
            let (reasons, rest) = shown.split_once(", as ").unwrap();
            assert!(reasons.contains(" when "), "{file} {key}: {shown}");
            assert!(rest.contains(name), "{file} {key}: {shown}");
            assert!(rest.contains("; the first difference from a launch through kvm is step "));
        }
    }
    assert!(foreign >= 10, "{foreign}");
}

/// A row without a published vector: the file, whose reading, and the reason in the sentence.
struct Row(&'static str, Vec<LaunchPlan<'static>>, Profile, &'static str);

fn plan(isolation: Isolation, imports: Vec<Import<'static>>, vmsa_gpa: u64) -> LaunchPlan<'static> {
    let mut plan = PlanBuilder::new(PlatformFacts {
        policy: Some(if isolation == Isolation::Snp { 0x3_0000 } else { 5 }),
        ..PlatformFacts::new(isolation, Arch::X64)
    });
    plan.import(page(0x1000, PageKind::Measured, Some(data(1, 1))), HERE)
        .unwrap();
    for import in imports {
        plan.import(import, HERE).unwrap();
    }
    let state = VpState::Vmsa(save_area(isolation).into());
    let context = VpContext {
        vp: 0,
        gpa: vmsa_gpa,
        state,
    };
    plan.vp_context(context, HERE).unwrap();
    plan.finish()
}

#[test]
fn rows_without_a_published_vector_are_explained_too() {
    const KVM: u64 = x86defs::vmsa::KVM_VMSA_GPA;
    let large = Import {
        len: 2 << 20,
        large: true,
        ..page(2 << 20, PageKind::Measured, None)
    };
    let zeros = || vec![page(0x2000, PageKind::Measured, None)];
    let snp = |imports| plan(Isolation::Snp, imports, KVM);
    let rows = [
        Row(
            "a shared page",
            vec![snp(vec![page(0x2000, PageKind::Shared, Some(data(1, 2)))])],
            Profile::IgvmMeasure,
            "shared pages are measured",
        ),
        Row(
            "a context of another platform",
            vec![snp(Vec::new()), plan(Isolation::SevEs, Vec::new(), KVM)],
            Profile::IgvmMeasure,
            "save areas of other platforms are measured too",
        ),
        Row(
            "an empty 2 MiB page",
            vec![snp(vec![large])],
            Profile::FileOrder,
            "a 2 MiB page without data is one record",
        ),
        Row(
            "a save area at another address",
            vec![plan(Isolation::Snp, Vec::new(), 0x80_A000)],
            Profile::FileOrder,
            "save areas are measured at the file's addresses",
        ),
        Row(
            "zero pages",
            vec![snp(zeros())],
            Profile::CloudHypervisor,
            "pages without data are ZERO pages",
        ),
        Row(
            "a zero page of SEV-ES",
            vec![plan(Isolation::SevEs, zeros(), KVM)],
            Profile::IgvmMeasure,
            "pages without data are left out",
        ),
        Row(
            "an unmeasured page with data of SEV-ES",
            vec![plan(
                Isolation::SevEs,
                vec![page(0x2000, PageKind::Unmeasured, Some(data(1, 2)))],
                KVM,
            )],
            Profile::IgvmMeasure,
            "unmeasured pages with data are hashed",
        ),
    ];
    let folder = Folder::new();
    for Row(name, plans, profile, reason) in rows {
        let bytes = file(&plans, FormatVersion::V1);
        let read = File::read(&bytes).unwrap();
        let isolation = plans[0].facts.isolation;
        let others: Vec<_> = plans[1..]
            .iter()
            .map(|plan| read.plan(plan.facts.isolation).unwrap())
            .collect();
        let options = Options {
            profile,
            ..Options::default()
        };
        let plan = read.plan(isolation).unwrap();
        let Digest(digest) = measure_among(&plan, &others, &options).unwrap().digest;
        let path = folder.write("row.igvm", &bytes);
        let (code, shown) = against(&path, isolation, &Digest(digest).to_string());
        assert_eq!(code, 1, "{name}: {shown}");
        assert!(shown.contains(reason), "{name}: {shown}");
        let (_, whose) = shown.split_once(", as ").unwrap();
        assert!(whose.contains(profile.name()), "{name}: {shown}");
    }
}
