// SPDX-License-Identifier: MIT
//! `igvm_probe` and `test_suite`: IGVM's own parameters, pages and registers, relocation, exit codes.

use crate::images::{self, Folder};
use launch_plan::Isolation;
use payloads::plan::{FlatPayload, IgvmProbeOptions};
use std::path::Path;
use vmm_tests::{Report, Vm, VmBuilder, files, on_every_backend, programs, skip};

const SMALL: [&str; 2] = ["-m", "256MB"];

fn probe(isolation: Isolation) -> IgvmProbeOptions {
    IgvmProbeOptions::new(isolation)
}

/// Boots the probe with the bare form of `--igvm` and gives its report.
#[track_caller]
fn probed(base: &VmBuilder, options: IgvmProbeOptions) -> Report {
    let folder = Folder::new();
    let file = folder.write("igvm_probe.igvm", images::igvm_probe(options));
    let mut vm = base.clone().igvm(&file).start();
    let report = vm.report();
    report.assert_all_ok();
    assert_eq!(vm.wait_for_exit().code, 0);
    report
}

on_every_backend! {
    fn every_parameter_page_and_register_is_right_natively(backend) {
        for processors in ["1", "2"] {
            let base = Vm::builder(backend).args(SMALL).args(["-p", processors, "-c", "one", "-c", "two=2"]);
            let report = probed(&base, probe(Isolation::Native));
            assert_eq!(report.info("command-line"), "one two=2");
        }
    }

    fn every_parameter_page_and_register_is_right_by_a_vbs_list(backend) {
        for processors in ["1", "2"] {
            let base = Vm::builder(backend).args(SMALL).args(["-p", processors]);
            probed(&base, probe(Isolation::Vsm));
        }
    }

    fn protected_mode_entry_works(backend) {
        let base = Vm::builder(backend).args(SMALL);
        probed(&base, IgvmProbeOptions { entry32: true, ..probe(Isolation::Native) });
    }

    fn relocatable_file_boots_at_two_bases(backend) {
        let options = IgvmProbeOptions { relocatable: true, ..probe(Isolation::Vsm) };
        for (relocation, base) in [
            (None, "0x400000"),
            (Some("disable"), "0x400000"),
            (Some("absolute=0x8000000"), "0x8000000"),
            (Some("absolute=50331648"), "0x3000000"),
        ] {
            let option = relocation.map(|text| ["--igvm-vtl2-relocation-type", text]);
            let builder = Vm::builder(backend).args(SMALL).args(option.into_iter().flatten());
            let report = probed(&builder, options);
            assert_eq!(report.info("base"), base, "{relocation:?}");
        }
    }

    fn test_suite_passes_and_ends_with_exit_code_0(backend) {
        for isolation in [Isolation::Native, Isolation::Vsm] {
            let folder = Folder::new();
            let file = folder.write("suite.igvm", images::flat(FlatPayload::TestSuite, isolation));
            let mut vm = Vm::builder(backend).typed_igvm("test", &file).args(SMALL).start();
            let report = vm.report();
            report.assert_all_ok();
            assert!(report.checks.len() > 10, "{report:?}");
            assert_eq!(vm.wait_for_exit().code, 0);
        }
    }

    fn failing_case_is_reported_and_gives_exit_code_1(backend) {
        let folder = Folder::new();
        let file = folder.write("suite.igvm", images::flat(FlatPayload::TestSuite, Isolation::Vsm));
        let base = Vm::builder(backend).typed_igvm("test", &file).args(SMALL);
        let passing = base.clone().start().report();
        let name = &passing.checks[1].0;
        let mut vm = base.args(["-c".to_owned(), format!("fail={name}")]).start();
        let report = vm.report();
        assert_eq!(report.failed().len(), 1, "{report:?}");
        assert!(report.failed()[0].starts_with(&format!("{name}: ")), "{report:?}");
        assert_eq!(vm.wait_for_exit().code, 1);
    }

    fn crash_of_a_flat_payload_is_reported(backend) {
        let folder = Folder::new();
        let file = folder.write("crash.igvm", images::flat(FlatPayload::TripleFault, Isolation::Vsm));
        let ended = Vm::builder(backend).igvm(&file).args(SMALL).run();
        assert_eq!(ended.code, 3, "{}", ended.stderr);
        assert!(ended.stderr.contains("triple fault"), "{}", ended.stderr);
    }

    fn test_suite_built_from_the_shipped_manifest_runs(backend) {
        for platform in ["vsm", "native"] {
            let file = files::build("test-suite.json", &[("test_suite", payloads::TEST_SUITE)], &["--platform", platform]);
            let mut vm = Vm::builder(backend).typed_igvm("test", file.path()).args(SMALL).start();
            vm.report().assert_all_ok();
            assert_eq!(vm.wait_for_exit().code, 0);
        }
    }
}

#[test]
fn auto_decides_by_the_file_and_says_why() {
    let folder = Folder::new();
    let uefi = files::uefi_probe();
    let generic = folder.write("generic.igvm", images::igvm_probe(probe(Isolation::Vsm)));
    for (file, decided, machine) in [
        (
            uefi.path(),
            "uefi (a firmware volume at gpa 0x6e0000 in 6 MiB of pages at gpa 0x100000)",
            "machine hyper-v generation 2",
        ),
        (&generic, "generic", "machine plain"),
    ] {
        let ended = Vm::without_backend()
            .typed_igvm("auto", file)
            .args(SMALL)
            .args(["--dry-run"])
            .run();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let decision = ended
            .stdout
            .lines()
            .find(|line| line.contains("type=auto decided"));
        let decision = decision.unwrap_or_else(|| panic!("no decision in\n{}", ended.stdout));
        assert!(
            decision.contains(&format!("type=auto decided type={decided}")),
            "{decision}"
        );
        assert!(ended.stdout.contains(machine), "{}", ended.stdout);
    }
}

#[test]
fn auto_takes_ovmf_for_ovmf() {
    const OVMF: &str = "/usr/share/ovmf/OVMF.fd";
    if !Path::new(OVMF).exists() {
        return skip("auto_takes_ovmf_for_ovmf", "OVMF.fd is not installed");
    }
    let folder = Folder::new();
    let file = folder.path("ovmf.igvm");
    let made = programs::run_igvmtool(["wrap", OVMF, "--platform", "native", "-o", images::arg(&file)]);
    assert!(made.status.success(), "{made:?}");
    let vm = Vm::without_backend().typed_igvm("auto", &file).args(SMALL);
    let ended = vm.args(["--dry-run"]).run();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let decision = "type=auto decided type=ovmf (OVMF's footer guid at gpa 0xffffffd0)";
    assert!(ended.stdout.contains(decision), "{}", ended.stdout);
    assert!(ended.stdout.contains("machine ovmf"), "{}", ended.stdout);
}

#[test]
fn auto_takes_a_vtl2_file_for_openhcl_and_refuses_it() {
    let folder = Folder::new();
    let mut builder = images::builder(Isolation::Vsm);
    builder.plan_mut().facts.highest_vtl = 2;
    images::add_page(&mut builder, 0x10_0000, vec![0xF4]);
    let file = folder.write("vtl2.igvm", images::igvm(&[builder.finish()]));
    for kind in ["auto", "uefi", "openhcl"] {
        let ended = Vm::without_backend()
            .typed_igvm(kind, &file)
            .args(["--dry-run"])
            .run();
        let message = folder.strip(ended.stderr.trim_end());
        assert_eq!((ended.code, message.as_str()), (1, VTL2_REFUSED), "{kind}");
    }
}

const VTL2_REFUSED: &str = "openvmm: vtl2.igvm: no platform of the file can be launched without isolation, which takes \
                            native, or vsm at vtl 0 (vsm: it needs vtl2 (OpenHCL), which is not available on this \
                            hypervisor)";

#[test]
fn bases_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    let options = IgvmProbeOptions {
        relocatable: true,
        ..probe(Isolation::Vsm)
    };
    let movable = folder.write("movable.igvm", images::igvm_probe(options));
    let fixed = folder.write("fixed.igvm", images::igvm_probe(probe(Isolation::Vsm)));
    let mut wrong = Vec::new();
    for (file, base, message) in [
        (
            &movable,
            "absolute=0x8100000",
            "movable.igvm: base 0x8100000 is not possible: the region of 0x400000 bytes needs a multiple of 0x200000 from 0x200000 and an end up to 0x80000000",
        ),
        (
            &movable,
            "absolute=0x0",
            "movable.igvm: base 0x0 is not possible: the region of 0x400000 bytes needs a multiple of 0x200000 from 0x200000 and an end up to 0x80000000",
        ),
        (
            &movable,
            "absolute=0x7fe00000",
            "movable.igvm: base 0x7fe00000 is not possible: the region of 0x400000 bytes needs a multiple of 0x200000 from 0x200000 and an end up to 0x80000000",
        ),
        (
            &movable,
            "absolute=0xfe00000",
            "movable.igvm: header 4 at file offset 0xb0: the image requires memory at 0xfe00000..0x10200000, but there is none at 0x10000000..0x10200000; -m 258M fits it",
        ),
        (
            &fixed,
            "absolute=0x8000000",
            "fixed.igvm: the image has no relocatable region; load it at its own addresses",
        ),
    ] {
        let vm = Vm::without_backend().igvm(file).args(SMALL);
        let ended = vm.args(["--igvm-vtl2-relocation-type", base, "--dry-run"]).run();
        let got = (ended.code, folder.strip(ended.stderr.trim_end()));
        if got != (1, format!("openvmm: {message}")) {
            wrong.push(format!("{base}: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
