// SPDX-License-Identifier: MIT
//! Each row of sev.md 2.9 is explained from the foreign digest alone: on the published vectors where there
//! is one, on small plans otherwise.

use launch_digest::{Digest, Options, Profile, explain, measure, measure_among, profile_digests};
use launch_plan::{
    Arch, Contents, Import, Isolation, LaunchPlan, Origin, PageKind, ParameterArea, PlanBuilder,
    PlatformFacts, VpContext, VpState,
};
use serde_json::Value;
use std::path::PathBuf;
use vm_loaders::igvm::{EncodeOptions, File, encode};
use vm_loaders::ovmf::{ResetVp, reset_save_area};

const HERE: Origin = Origin::Host("test");

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn unhex(text: &str) -> Digest {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    Digest((0..text.len()).step_by(2).map(byte).collect())
}

/// The published digest of a vector under a key of `igvm-digests.json`.
fn vector(file: &str, key: &str) -> Digest {
    let all: Value =
        serde_json::from_str(&std::fs::read_to_string(data("igvm-digests.json")).unwrap()).unwrap();
    unhex(all[file][key].as_str().unwrap())
}

/// The sentence for a foreign digest of a platform of a file.
fn sentence(bytes: &[u8], isolation: Isolation, digest: &Digest) -> String {
    let file = File::read(bytes).unwrap();
    let plan = file.plan(isolation).unwrap();
    let others: Vec<_> = file
        .platforms()
        .iter()
        .filter(|platform| platform.isolation != isolation)
        .map(|platform| file.plan(platform.isolation).unwrap())
        .collect();
    match explain(&plan, &others, digest, None).unwrap() {
        Some(found) => found.to_string(),
        None => "nothing".to_owned(),
    }
}

fn on_vector(file: &str, key: &str, isolation: Isolation) -> String {
    let bytes = std::fs::read(data(file)).unwrap();
    sentence(&bytes, isolation, &vector(file, key))
}

#[test]
fn rows_with_a_vector_are_explained() {
    for (file, key, isolation, reason) in [
        (
            "g2-snp-area2p.igvm",
            "igvmmeasure:snp",
            Isolation::Snp,
            "only the first page of each parameter area is measured, as igvmmeasure reads it",
        ),
        (
            "g4-snp-vmsa-first.igvm",
            "crate:snp",
            Isolation::Snp,
            "save areas are measured where they stand in the file, as file-order and igvmmeasure read it",
        ),
        (
            "g1-snp-all-kinds.igvm",
            "igvmmeasure-nz:snp",
            Isolation::Snp,
            "pages without data are ZERO pages, as igvmmeasure-native-zero and cloud-hypervisor read it",
        ),
        (
            "g1-snp-all-kinds.igvm",
            "qemu:snp",
            Isolation::Snp,
            "parameter areas overtake the run of pages before them, as qemu reads it",
        ),
        (
            "g9-seves.igvm",
            "igvmmeasure:seves",
            Isolation::SevEs,
            "pages without data are left out and unmeasured pages with data are hashed, as igvmmeasure",
        ),
        (
            "g2-snp-area2p.igvm",
            "igvmmeasure-nz:snp",
            Isolation::Snp,
            "pages without data are ZERO pages and only the first page of each parameter area is measured, as igvmmeasure-native-zero reads it",
        ),
    ] {
        let text = on_vector(file, key, isolation);
        assert!(text.contains(reason), "{file} {key}: {text}");
        assert!(
            text.contains("; the first difference from a launch through kvm is step "),
            "{text}"
        );
    }
    let text = on_vector("g4-snp-vmsa-first.igvm", "kvm:snp", Isolation::Snp);
    assert_eq!(text, "it is what a launch through kvm gives");
    let text = on_vector("g6-tdx.igvm", "crate:tdx", Isolation::Tdx);
    assert_eq!(text, "it is what a launch through kvm gives");
}

fn import(gpa: u64, pages: u64, kind: PageKind, contents: Contents<'static>) -> Import<'static> {
    Import {
        gpa,
        len: 0x1000 * pages,
        large: pages == 512,
        kind,
        contents,
    }
}

fn bytes(fill: u8) -> Contents<'static> {
    Contents::Bytes(vec![fill; 0x1000].into())
}

/// Pages, then a context for each entry point.
fn plan(isolation: Isolation, imports: Vec<Import<'static>>, entries: &[u32]) -> LaunchPlan<'static> {
    let mut builder = PlanBuilder::new(PlatformFacts {
        policy: Some(if isolation == Isolation::Snp { 0x3_0000 } else { 5 }),
        ..PlatformFacts::new(isolation, Arch::X64)
    });
    for import in imports {
        builder.import(import, HERE).unwrap();
    }
    for (vp, entry) in entries.iter().enumerate() {
        let reset = ResetVp {
            entry: *entry,
            signature: 0x600,
        };
        let context = VpContext {
            vp: vp as u32,
            gpa: 0xFFFF_FFFF_F000,
            state: VpState::Vmsa(reset_save_area(isolation, reset).into()),
        };
        builder.vp_context(context, HERE).unwrap();
    }
    builder.finish()
}

fn digest(plan: &LaunchPlan<'_>, profile: Profile, vp_count: Option<u32>) -> Digest {
    let options = Options {
        profile,
        vp_count,
        trace: false,
    };
    measure(plan, &options).unwrap().digest
}

fn told(plan: &LaunchPlan<'_>, digest: &Digest) -> String {
    let found = explain(plan, &[], digest, None).unwrap();
    found.map_or_else(|| "nothing".to_owned(), |found| found.to_string())
}

#[test]
fn shared_pages_and_empty_large_pages_are_explained() {
    let imports = vec![
        import(0x1000, 1, PageKind::Measured, bytes(1)),
        import(0x2000, 1, PageKind::Shared, bytes(2)),
        import(0x20_0000, 512, PageKind::Measured, Contents::Zero),
    ];
    let plan = plan(Isolation::Snp, imports, &[0xFFFF_FFF0]);
    let text = told(&plan, &digest(&plan, Profile::IgvmMeasure, None));
    assert!(
        text.contains("shared pages are measured, as igvmmeasure reads it"),
        "{text}"
    );
    let text = told(&plan, &digest(&plan, Profile::FileOrder, None));
    assert!(
        text.contains("a 2 MiB page without data is one record, as file-order reads it"),
        "{text}"
    );
}

#[test]
fn save_areas_of_another_platform_are_explained() {
    let pages = || vec![import(0x1000, 1, PageKind::Measured, bytes(1))];
    let plans = [
        plan(Isolation::Snp, pages(), &[0xFFFF_FFF0]),
        plan(Isolation::SevEs, pages(), &[0x80_B004]),
    ];
    let file = encode(&plans, &EncodeOptions::default()).unwrap().to_vec();
    let read = File::read(&file).unwrap();
    let snp = read.plan(Isolation::Snp).unwrap();
    let others = [read.plan(Isolation::SevEs).unwrap()];
    let options = Options {
        profile: Profile::IgvmMeasure,
        ..Options::default()
    };
    let foreign = measure_among(&snp, &others, &options).unwrap().digest;
    assert_ne!(foreign, measure(&snp, &options).unwrap().digest);
    let text = sentence(&file, Isolation::Snp, &foreign);
    assert!(
        text.contains("save areas of other platforms are measured too"),
        "{text}"
    );
    assert!(text.contains("as igvmmeasure"), "{text}");
}

#[test]
fn vp_counts_and_fields_of_save_areas_are_explained() {
    let imports = || vec![import(0x1000, 1, PageKind::Measured, bytes(1))];
    let snp = plan(Isolation::Snp, imports(), &[0xFFFF_FFF0, 0x80_B004]);
    let text = told(&snp, &digest(&snp, Profile::Kvm, Some(5)));
    assert!(text.contains("the guest has 5 vps instead of 2"), "{text}");
    let pages_only = plan(Isolation::Snp, imports(), &[]);
    let options = |profile| Options {
        profile,
        ..Options::default()
    };
    let without = measure(&pages_only, &options(Profile::FileOrder)).unwrap().digest;
    assert!(
        told(&snp, &without).contains("save areas are left out"),
        "{}",
        told(&snp, &without)
    );

    let signed = |signature| {
        let mut page = reset_save_area(
            Isolation::Snp,
            ResetVp {
                entry: 0xFFFF_FFF0,
                signature,
            },
        );
        page.truncate(4096);
        page
    };
    let one = |page: Vec<u8>| {
        let mut builder = PlanBuilder::new(PlatformFacts {
            policy: Some(0x3_0000),
            ..PlatformFacts::new(Isolation::Snp, Arch::X64)
        });
        builder
            .import(import(0x1000, 1, PageKind::Measured, bytes(1)), HERE)
            .unwrap();
        let context = VpContext {
            vp: 0,
            gpa: 0xFFFF_FFFF_F000,
            state: VpState::Vmsa(page.into()),
        };
        builder.vp_context(context, HERE).unwrap();
        builder.finish()
    };
    let (file, host) = (one(signed(0x600)), one(signed(0x00A0_0F11)));
    let text = told(&file, &digest(&host, Profile::Kvm, None));
    assert!(
        text.contains("processors have the signature 0xa00f11 in RDX"),
        "{text}"
    );
    let mut swapped = signed(0x600);
    swapped[0x3B0] |= 0x20;
    let text = told(&file, &digest(&one(swapped), Profile::FileOrder, None));
    assert!(
        text.contains("save areas have the bits 0x20 more in SEV_FEATURES"),
        "{text}"
    );
}

#[test]
fn a_missing_run_of_pages_and_another_order_are_explained() {
    let run = |gpa: u64, fill| {
        (0..3u64).map(move |page| import(gpa + 0x1000 * page, 1, PageKind::Measured, bytes(fill)))
    };
    let area = import(
        0x8000,
        1,
        PageKind::Unmeasured,
        Contents::Parameters(Box::new(ParameterArea {
            index: 0,
            initial: Vec::new().into(),
            slots: Vec::new(),
        })),
    );
    let all: Vec<_> = run(0x10_0000, 1)
        .chain(run(0x1000, 2))
        .chain([area.clone()])
        .collect();
    let whole = plan(Isolation::Snp, all, &[0xFFFF_FFF0]);
    let part = plan(
        Isolation::Snp,
        run(0x1000, 2).chain([area.clone()]).collect(),
        &[0xFFFF_FFF0],
    );
    let text = told(&whole, &digest(&part, Profile::Kvm, None));
    assert!(
        text.contains("the run of 3 pages from page 0x100000 normal (test) on is left out"),
        "{text}"
    );
    let no_area = plan(
        Isolation::Snp,
        run(0x10_0000, 1).chain(run(0x1000, 2)).collect(),
        &[0xFFFF_FFF0],
    );
    let text = told(&whole, &digest(&no_area, Profile::Kvm, None));
    assert!(text.contains("parameter areas are left out"), "{text}");
    let sorted: Vec<_> = run(0x1000, 2).chain([area]).chain(run(0x10_0000, 1)).collect();
    let text = told(
        &whole,
        &digest(&plan(Isolation::Snp, sorted, &[0xFFFF_FFF0]), Profile::Kvm, None),
    );
    assert!(text.contains("pages are sorted by address"), "{text}");
    assert_eq!(told(&whole, &Digest(vec![7; 48])), "nothing");
}

#[test]
fn other_platforms_are_explained_too() {
    let imports = || {
        vec![
            import(0x1000, 1, PageKind::Measured, bytes(1)),
            import(0x9000, 1, PageKind::Measured, bytes(2)),
            import(0x5000, 1, PageKind::Measured, bytes(3)),
        ]
    };
    for isolation in [Isolation::Sev, Isolation::Tdx, Isolation::Vsm] {
        let whole = plan(isolation, imports(), &[]);
        let mut fewer = imports();
        fewer.remove(1);
        let text = told(&whole, &digest(&plan(isolation, fewer, &[]), Profile::Kvm, None));
        assert!(
            text.contains("page 0x9000 normal (test) is left out"),
            "{isolation}: {text}"
        );
        let mut other = imports();
        other.swap(0, 1);
        let text = told(&whole, &digest(&plan(isolation, other, &[]), Profile::Kvm, None));
        assert!(
            text.contains("page 0x9000 normal (test) comes before page 0x1000 normal (test)"),
            "{text}"
        );
    }
}

#[test]
fn digests_of_all_profiles_at_once_are_those_of_each() {
    for name in [
        "g1-snp-all-kinds.igvm",
        "g2-snp-area2p.igvm",
        "g9-seves.igvm",
        "g12-multi.igvm",
    ] {
        let bytes = std::fs::read(data(name)).unwrap();
        let file = File::read(&bytes).unwrap();
        for platform in file.platforms() {
            let plan = file.plan(platform.isolation).unwrap();
            if plan.facts.isolation == Isolation::Native {
                continue;
            }
            for (profile, all) in profile_digests(&plan, &[], 2).unwrap() {
                assert_eq!(all, digest(&plan, profile, Some(2)), "{name} {}", profile.name());
            }
        }
    }
}
