// SPDX-License-Identifier: MIT
//! Digests of Debian's OVMF against other programs: published ones, `sev-snp-measure` (PyPI) and the `sev`
//! crate (`sev_judge`, a program of its own).
//!
//! They submit ZERO pages where an IGVM file has pages without data, which is the cloud-hypervisor
//! profile's reading; everything else is as a launch through KVM.

use launch_digest::{Options, Profile, measure};
use launch_plan::Isolation;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use vm_loaders::ovmf::WrapOptions;

const OVMF: &str = "/usr/share/ovmf/OVMF.fd";
/// CPUID signatures of QEMU's processor models.
const EPYC_V4: u32 = 0x0080_0F12;
const EPYC_MILAN: u32 = 0x00A0_0F11;

/// Debian's image, or `None` and a line that says that the test is skipped.
fn image(test: &str) -> Option<Vec<u8>> {
    let image = std::fs::read(OVMF);
    if image.is_err() {
        println!("skipped: {test}: Debian's package ovmf is not installed");
    }
    image.ok()
}

fn digest(image: &[u8], isolation: Isolation, vps: u32, signature: u32) -> String {
    let options = WrapOptions {
        signature,
        ..WrapOptions::new(isolation, vps)
    };
    let plan = vm_loaders::ovmf::plan(image, &options).unwrap();
    let options = Options {
        profile: Profile::CloudHypervisor,
        ..Options::default()
    };
    measure(&plan, &options).unwrap().digest.to_string()
}

#[test]
fn debians_ovmf_has_the_published_digests() {
    const NAME: &str = "debians_ovmf_has_the_published_digests";
    let Some(image) = image(NAME) else { return };
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ovmf-digests.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(vectors).unwrap()).unwrap();
    let vector = |id: &str| {
        let found = all.as_array().unwrap().iter().find(|v| v["id"] == id).unwrap();
        let signature = if found["vcpu_type"] == "EPYC-Milan" {
            EPYC_MILAN
        } else {
            EPYC_V4
        };
        (found["expect"].as_str().unwrap(), signature)
    };
    if digest(&image, Isolation::Sev, 1, 0) != vector("V01").0 {
        println!("skipped: {NAME}: the installed OVMF.fd is another version than the vectors'");
        return;
    }
    for (id, isolation, vps) in [
        ("V03", Isolation::SevEs, 1),
        ("V04", Isolation::SevEs, 4),
        ("V06", Isolation::Snp, 1),
        ("V07", Isolation::Snp, 4),
    ] {
        let (expected, signature) = vector(id);
        assert_eq!(digest(&image, isolation, vps, signature), expected, "{id}");
    }
}

/// A program where `cargo xtask test` puts it, or in the path; `None` and a line that says so otherwise.
fn program(name: &str, test: &str) -> Option<PathBuf> {
    let tools = std::env::var_os("OPENVMM_TOOLS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = tools.into_iter().chain(std::env::split_paths(&path));
    let mut programs = folders.map(|folder| folder.join(name));
    let found = programs.find(|program| program.is_file());
    if found.is_none() {
        println!("skipped: {test}: {name} is not installed; cargo xtask test installs it");
    }
    found
}

fn judged(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const MODES: [(&str, Isolation); 3] = [
    ("sev", Isolation::Sev),
    ("seves", Isolation::SevEs),
    ("snp", Isolation::Snp),
];

#[test]
fn sev_snp_measure_gives_the_same_digests() {
    const NAME: &str = "sev_snp_measure_gives_the_same_digests";
    let (Some(image), Some(program)) = (image(NAME), program("sev-snp-measure", NAME)) else {
        return;
    };
    for (mode, isolation) in MODES {
        for (vps, signature) in [(1, EPYC_V4), (2, EPYC_MILAN), (7, 0x0060_0F99)] {
            let (count, number) = (vps.to_string(), format!("{signature:#x}"));
            let args = [
                "--mode",
                mode,
                "--ovmf",
                OVMF,
                "--vcpus",
                &count,
                "--vcpu-sig",
                &number,
            ];
            let ours = digest(&image, isolation, vps, signature);
            assert_eq!(ours, judged(&program, &args), "{args:?}");
        }
    }
}

#[test]
fn the_sev_crate_gives_the_same_digests() {
    const NAME: &str = "the_sev_crate_gives_the_same_digests";
    let (Some(image), Some(program)) = (image(NAME), program("sev-judge", NAME)) else {
        return;
    };
    for (mode, isolation) in MODES {
        for (vps, cpu, signature) in [("1", "EPYC-v4", EPYC_V4), ("3", "EPYC-Milan", EPYC_MILAN)] {
            let args = [mode, OVMF, vps, cpu];
            let ours = digest(&image, isolation, vps.parse().unwrap(), signature);
            assert_eq!(ours, judged(&program, &args), "{args:?}");
        }
    }
}
