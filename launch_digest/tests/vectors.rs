// SPDX-License-Identifier: MIT
//! Digests of small IGVM files against what other tools and KVM's source give (`data/`, each file made
//! with the `igvm` crate, expected values in `igvm-digests.json`).

use launch_digest::{Digest, Options, Profile, measure};
use launch_plan::{
    Arch, Contents, Import, Isolation, LaunchPlan, Origin, PageKind, PlanBuilder, PlatformFacts, VpContext,
    VpState,
};
use serde_json::Value;
use std::path::PathBuf;
use vm_loaders::igvm::File;

const ORIGIN: Origin = Origin::Host("test");

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn isolation(name: &str) -> Isolation {
    match name {
        "snp" => Isolation::Snp,
        "tdx" => Isolation::Tdx,
        "vbs" => Isolation::Vsm,
        "seves" => Isolation::SevEs,
        other => panic!("unknown platform {other}"),
    }
}

fn profile(name: &str) -> Profile {
    match name {
        "crate" => Profile::FileOrder,
        "igvmmeasure-nz" => Profile::IgvmMeasureNativeZero,
        other => Profile::from_name(other).unwrap_or_else(|| panic!("unknown profile {other}")),
    }
}

#[test]
fn every_vector_file_has_its_digest_under_every_profile() {
    let text = std::fs::read_to_string(data("igvm-digests.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (file_name, digests) in all.as_object().unwrap() {
        let bytes = std::fs::read(data(file_name)).unwrap();
        let file = File::read(&bytes).unwrap();
        for (key, expected) in digests.as_object().unwrap() {
            let (tool, platform) = key.split_once(':').unwrap();
            let plan = file.plan(isolation(platform)).unwrap();
            let options = Options {
                profile: profile(tool),
                ..Options::default()
            };
            let got = measure(&plan, &options).unwrap().digest.to_string();
            count += 1;
            if got != expected.as_str().unwrap() {
                wrong.push(format!("{file_name} {key}: {got}"));
            }
        }
    }
    assert_eq!(count, 26);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn page(gpa: u64, kind: PageKind, contents: Contents<'_>) -> Import<'_> {
    Import {
        gpa,
        len: 0x1000,
        large: false,
        kind,
        contents,
    }
}

/// The record chain P1-P6 of the vectors' README; P2 is a ZERO page, which only a native-zero profile has.
#[test]
fn the_snp_record_chain_equals_the_published_steps() {
    let vmsa = std::fs::read(data("snp-bsp-epycv4.bin")).unwrap();
    let mut b = PlanBuilder::new(PlatformFacts {
        policy: Some(0x30000),
        ..PlatformFacts::new(Isolation::Snp, Arch::X64)
    });
    let zeros = [0; 4096];
    b.import(
        page(0x1000, PageKind::Measured, Contents::borrowed(&zeros)),
        ORIGIN,
    )
    .unwrap();
    b.import(page(0x2000, PageKind::Measured, Contents::Zero), ORIGIN)
        .unwrap();
    b.import(page(0x3000, PageKind::Unmeasured, Contents::Zero), ORIGIN)
        .unwrap();
    b.import(page(0x4000, PageKind::Secrets, Contents::Zero), ORIGIN)
        .unwrap();
    b.import(page(0x5000, PageKind::Cpuid, Contents::Zero), ORIGIN)
        .unwrap();
    let context = VpContext {
        vp: 0,
        gpa: 0xFFFF_FFFF_F000,
        state: VpState::Vmsa((&vmsa[..]).into()),
    };
    b.vp_context(context, ORIGIN).unwrap();
    let plan = b.finish();
    let options = Options {
        profile: Profile::IgvmMeasureNativeZero,
        trace: true,
        ..Options::default()
    };
    let steps: Vec<String> = measure(&plan, &options)
        .unwrap()
        .trace
        .iter()
        .map(|s| s.digest.to_string())
        .collect();
    let expected = [
        "e6e4d78904d9d6b33c0cbfd121998fd2d11744dae606b3aee35e2a45d6869b60b35c63928a9232bef72d6be386f48ec6",
        "8233fbe1ec826b22907aa9397de357831970a96a08e3783a274d6349194edde812a85313b0916402f33d069e71e1248d",
        "e38aa6d01be592105dece52b841baab5f074b7680817c0db474561fc74b5aa89826cef755d515e57daaabe1f220f70d6",
        "4ab99c5fb84fc4720a053aee17fc63d5ca6ba07716d1f97e2e899de0aa4610d5cfc20f60f19b161b1a7b6e8f245a4f6f",
        "adf702781cc8401038504a836700bf30b87124cea93ef7e2174454dd11b1b9b6d05e1d8e7f8b46ba81813eb777f3236c",
        "47f0778b1d92227de6842bed9fec449ab465cbde34d2a4b4a2ac3d56f12d6f71c737bbb2a5b0ee82421b441ed981ecc8",
    ];
    assert_eq!(steps, expected);
}

fn plan_of_pages(isolation: Isolation, bytes: &[u8]) -> LaunchPlan<'_> {
    let mut b = PlanBuilder::new(PlatformFacts {
        policy: Some(0x30000),
        ..PlatformFacts::new(isolation, Arch::X64)
    });
    for (i, chunk) in bytes.chunks(4096).enumerate() {
        let contents = if chunk.iter().all(|b| *b == 0) {
            Contents::Zero
        } else {
            Contents::borrowed(chunk)
        };
        b.import(
            page(0x10_0000 + 0x1000 * i as u64, PageKind::Measured, contents),
            ORIGIN,
        )
        .unwrap();
    }
    b.finish()
}

#[test]
fn batches_and_threads_do_not_change_a_digest() {
    let bytes: Vec<u8> = (0..9_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for isolation in [Isolation::Snp, Isolation::Tdx, Isolation::Vsm, Isolation::Sev] {
        let plan = plan_of_pages(isolation, &bytes);
        let options = |trace| Options {
            trace,
            vp_count: Some(1),
            profile: Profile::FileOrder,
        };
        let fast = measure(&plan, &options(false)).unwrap();
        let slow = measure(&plan, &options(true)).unwrap();
        assert_eq!(fast.digest, slow.digest, "{isolation:?}");
        assert_eq!(slow.trace.last().unwrap().digest, slow.digest);
    }
}

#[test]
fn a_vp_without_a_context_is_measured_in_kvms_reset_state_with_a_warning() {
    let plan = plan_of_pages(Isolation::Snp, &[1; 4096]);
    let with = |n| {
        measure(
            &plan,
            &Options {
                vp_count: Some(n),
                ..Options::default()
            },
        )
        .unwrap()
    };
    let (one, two) = (with(1), with(2));
    assert_ne!(one.digest, two.digest);
    let warning = "vps 0 to 1 have no context in the image and start in kvm's reset state, which is measured";
    assert_eq!(two.warnings, [warning]);
    assert_eq!(one.digest.0.len(), 48);
}

#[test]
fn platforms_without_a_digest_say_so() {
    let plan = plan_of_pages(Isolation::Native, &[1; 4096]);
    let error = measure(&plan, &Options::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        "native has no launch digest that is known before the launch"
    );
    assert_eq!(Digest(vec![0xAB, 1]).to_string(), "ab01");
}
