// SPDX-License-Identifier: MIT
//! Launches that succeed, and what they are refused for: processors, save areas, memory, policies.

use super::{PLATFORMS, field, files, launched, measured, on_model, on_model_with, refused};
use launch_plan::Isolation;
use vmm_tests::files::TestFile;
use vmm_tests::{Vm, programs, skip};
use x86defs::vmsa::{VMSA_FIELDS, offset};

const ENCRYPTED: [Isolation; 2] = [Isolation::SevEs, Isolation::Snp];

/// A launch whose digest is what `igvmtool measure` says, and what the model has computed.
#[track_caller]
fn launches_as_measured(isolation: Isolation, file: &std::path::Path, vps: u32) -> String {
    let name = isolation.name();
    let ended = launched(&on_model(name, file).args(["-p", &vps.to_string()]));
    let digest = measured(file, name, vps);
    assert_eq!(field(&ended.stdout, "digest"), digest, "{name}");
    assert_eq!(field(&ended.stdout, "digest of the platform"), digest, "{name}");
    ended.stdout
}

#[test]
fn ovmf_is_launched_on_every_platform_with_the_digest_that_measure_prints() {
    let Some(file) = files::wrapped_ovmf(&["native", "sev", "sev-es", "sev-snp"], 2) else {
        return skip(
            "ovmf_is_launched_on_every_platform_with_the_digest_that_measure_prints",
            "OVMF.fd is not installed",
        );
    };
    for isolation in PLATFORMS {
        let text = launches_as_measured(isolation, file.path(), 2);
        let policy = match isolation {
            Isolation::Sev => "0x1",
            Isolation::SevEs => "0x5",
            _ => "0x30000",
        };
        assert_eq!(field(&text, "policy"), policy);
        assert!(text.contains("does not run"), "{text}");
        assert!(text.contains("memory 0x"), "{text}");
    }
}

#[test]
fn four_processors_are_launched_with_four_contexts() {
    let file = files::guest(&PLATFORMS, 4);
    for isolation in PLATFORMS {
        launches_as_measured(isolation, file.path(), 4);
    }
}

#[test]
fn processors_without_a_context_start_in_reset_state_with_a_warning() {
    for isolation in ENCRYPTED {
        let file = files::guest(&[isolation], 1);
        let text = launches_as_measured(isolation, file.path(), 3);
        assert!(
            text.contains("note: vps 1 to 2 have no context in the file; each starts in kvm's reset state, which is measured"),
            "{text}"
        );
    }
}

#[test]
fn contexts_are_held_against_the_number_of_processors() {
    for isolation in ENCRYPTED {
        let area = || files::save_area(isolation);
        let more = files::with_contexts(isolation, vec![(0, area()), (1, area()), (2, area())]);
        let message = refused(&on_model(isolation.name(), more.path()).args(["-p", "2"]));
        assert!(
            message.contains("a context for vp 2, but the guest has 2 virtual processors; -p 3 fits it"),
            "{message}"
        );
        let gap = files::with_contexts(isolation, vec![(0, area()), (2, area())]);
        let message = refused(&on_model(isolation.name(), gap.path()).args(["-p", "4"]));
        assert!(
            message.contains("a context for vp 2 but none for vp 1"),
            "{message}"
        );
        let twice = files::with_contexts(isolation, vec![(0, area()), (1, area())]);
        let twice = files::second_context_for_the_first_vp(twice.path());
        let message = refused(&on_model(isolation.name(), twice.path()).args(["-p", "2"]));
        assert!(message.contains("vp 0 already has a context"), "{message}");
    }
}

#[test]
fn every_field_outside_the_list_is_refused_by_its_name_for_bsp_and_ap() {
    for isolation in ENCRYPTED {
        let mut area = files::save_area(isolation);
        for field in VMSA_FIELDS.iter().filter(|field| !field.settable) {
            area[field.offset] = 0x40;
        }
        for vp in 0..2 {
            let mut areas = vec![(0, files::save_area(isolation)), (1, files::save_area(isolation))];
            areas[vp].1 = area.clone();
            let file = files::with_contexts(isolation, areas);
            let message = refused(&on_model(isolation.name(), file.path()).args(["-p", "2"]));
            for field in VMSA_FIELDS.iter().filter(|field| !field.settable) {
                let text = format!("vp {vp}: field {} at {:#x} is ", field.name, field.offset);
                assert!(message.contains(&text), "{text}: {message}");
            }
        }
    }
}

#[test]
fn features_that_kvm_does_not_offer_are_named() {
    let mut area = files::save_area(Isolation::Snp);
    area[offset::SEV_FEATURES] |= 1 << 3 | 1 << 7;
    let file = files::with_contexts(Isolation::Snp, vec![(0, area)]);
    let message = refused(&on_model("snp", file.path()));
    assert!(
        message.contains("asks for restricted injection, BTB isolation; kvm on this host offers "),
        "{message}"
    );
}

#[test]
fn absent_required_memory_is_refused_with_the_gap_and_present_memory_is_private() {
    let file = files::with_required_memory(0x300_0000, 0x200_0000);
    let message = refused(&on_model("snp", file.path()));
    assert!(
        message.contains("requires memory at 0x3000000..0x5000000, but there is none at 0x4000000..0x5000000; -m 80M fits it"),
        "{message}"
    );
    let ended = launched(&on_model_with("80M", "snp", file.path()));
    assert_eq!(field(&ended.stdout, "digest"), measured(file.path(), "snp", 1));
    let line = ended
        .stdout
        .lines()
        .find(|line| line.starts_with("memory 0x0000000003000000..0x0000000005000000"));
    assert!(
        line.is_some_and(|line| line.contains("private")),
        "{}",
        ended.stdout
    );
}

#[test]
fn policies_are_the_files_unless_said_otherwise() {
    let file = files::guest(&[Isolation::Snp], 1);
    let ended = launched(&on_model("snp,policy=0xb0000", file.path()));
    assert_eq!(field(&ended.stdout, "policy"), "0xb0000");
    assert!(
        ended.stdout.contains("not the file's 0x30000"),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stdout.contains("lets the host debug the guest"),
        "{}",
        ended.stdout
    );
    let message = refused(&on_model("snp,policy=0x70000", file.path()));
    assert!(message.contains("allows a migration agent (bit 18)"), "{message}");
    let without = files::without_policy();
    let message = refused(&on_model("snp", without.path()));
    assert!(
        message.contains("the file has no guest policy for SEV-SNP"),
        "{message}"
    );
    launched(&on_model("snp,policy=0x30000", without.path()));
}

#[test]
fn values_given_for_comparison_are_compared() {
    let file = files::guest(&[Isolation::Snp], 1);
    launched(&on_model("snp,cbitpos=51,reduced-phys-bits=1", file.path()));
    let message = refused(&on_model("snp,cbitpos=47", file.path()));
    assert!(
        message.contains("cbitpos=47 is not this host's: its C-bit is bit 51"),
        "{message}"
    );
    let message = refused(&on_model("snp,reduced-phys-bits=20", file.path()));
    assert!(
        message.contains("reduced-phys-bits=20 is more than this host's"),
        "{message}"
    );
}

#[test]
fn a_changed_byte_or_gpa_changes_the_digest_of_the_launch() {
    let digest = |file: &TestFile| {
        let ended = launched(&on_model("snp", file.path()));
        let digest = field(&ended.stdout, "digest of the platform").to_owned();
        assert_eq!(digest, measured(file.path(), "snp", 1));
        digest
    };
    let good = files::pages(&[(0x10_0000, 1), (0x20_0000, 2)]);
    let expected = digest(&good);
    let report = good.beside("report.bin");
    std::fs::write(&report, files::report(&expected, 0x3_0000)).unwrap();
    assert_eq!(
        verified(&good, &["--report", report.to_str().unwrap()]),
        (0, good_line(&good))
    );
    // A byte of the second range; its address; the order of both. Each range has two pages.
    for (pages, step) in [
        (
            [(0x10_0000, 1), (0x20_0000, 3)],
            "step 2: page 0x200000 normal (header",
        ),
        (
            [(0x10_0000, 1), (0x20_1000, 2)],
            "step 2: page 0x201000 normal (header",
        ),
        (
            [(0x20_0000, 2), (0x10_0000, 1)],
            "step 0: page 0x200000 normal (header",
        ),
    ] {
        let tampered = files::pages(&pages);
        assert_ne!(digest(&tampered), expected, "{pages:x?}");
        let known = ["--against", good.path().to_str().unwrap()];
        let with_report = [&["--report", report.to_str().unwrap()], &known[..]].concat();
        for options in [&known[..], &with_report] {
            let (code, text) = verified(&tampered, options);
            assert_eq!(code, 1, "{text}");
            assert!(text.contains(&format!("first difference: {step}")), "{text}");
        }
    }
}

/// `igvmtool verify FILE OPTIONS`: exit code and output.
fn verified(file: &TestFile, options: &[&str]) -> (i32, String) {
    let args = [&["verify", file.path().to_str().unwrap()], options].concat();
    let out = programs::run_igvmtool(&args);
    (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
}

/// What `verify` says of a file that matches.
fn good_line(file: &TestFile) -> String {
    format!("{}: matches\n", file.path().display())
}

#[test]
fn one_file_of_five_platforms_is_launched_as_each_of_them() {
    let name = "one_file_of_five_platforms_is_launched_as_each_of_them";
    let Some(file) = files::wrapped_ovmf(&["native", "sev", "sev-es", "sev-snp", "tdx"], 4) else {
        return skip(name, "OVMF.fd is not installed");
    };
    for isolation in PLATFORMS {
        launches_as_measured(isolation, file.path(), 4);
    }
    // Native runs to its shell in `boots`, which takes longer.
    let shown = Vm::without_backend()
        .typed_igvm("ovmf", file.path())
        .args(["--dry-run", "-m", "64M", "-p", "4"])
        .run();
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(
        shown.stdout.contains("platform native of the file taken"),
        "{shown:?}"
    );
    let tdx = on_model("tdx", file.path()).run();
    assert_eq!(tdx.code, 2);
    assert!(tdx.stderr.contains("--isolation tdx is measure only"), "{tdx:?}");
    assert_eq!(measured(file.path(), "tdx", 4).len(), 96);
}

#[test]
fn the_report_holds_digest_policy_and_page_states() {
    let file = files::guest(&[Isolation::Snp], 1);
    let report = file.beside("report.json");
    let ended = launched(&on_model("snp", file.path()).args(["--report", report.to_str().unwrap()]));
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let launch = &json["launch"];
    assert_eq!(launch["digest"], field(&ended.stdout, "digest"));
    assert_eq!(launch["platform_digest"], launch["digest"]);
    assert_eq!(launch["policy"], 0x3_0000);
    let states = launch["memory"].as_array().unwrap();
    assert!(
        states
            .iter()
            .any(|range| range["gpa"] == 0x10_0000 && range["state"] == "guest-valid"),
        "{states:?}"
    );
}
