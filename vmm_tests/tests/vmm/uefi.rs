// SPDX-License-Identifier: MIT
//! UEFI firmware in an IGVM file and directly: the same machine, the same blob, the same start.

use crate::images::{self, Folder, arg};
use launch_plan::{Isolation, StepKind, VbsRegister, VbsRegisterName, VbsValue, VpState};
use serde_json::Value;
use vm_loaders::igvm::File;
use vmm_tests::{Backend, Vm, files, on_every_backend};

const TWO_GIB_ONE_VP: [&str; 4] = ["-m", "2GB", "-p", "1"];
/// Structure types of the blob (uefi-launch 3.3).
const ENTROPY: u32 = 0x04;
const BIOS_GUID: u32 = 0x05;

on_every_backend! {
    fn igvm_boots_and_every_promise_of_the_firmware_interface_holds(backend) {
        let file = files::uefi_probe();
        let mut vm = Vm::builder(backend).uefi_igvm(file.path()).args(TWO_GIB_ONE_VP).start();
        let report = vm.report();
        report.assert_all_ok();
        assert_eq!(report.payload, "uefi_probe");
        assert_eq!(report.info("r12"), "0x709000");
        assert_eq!(report.info("memory"), "0x0+0x80000000 flags 0");
        let ended = vm.wait_for_exit();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(ended.stderr.contains("r12 0x709000 added"), "{}", ended.stderr);
    }

    fn native_file_boots_as_well(backend) {
        let firmware = payloads::uefi_probe::firmware();
        let options = ["--guest", "none", "--platform", "native"];
        let file = files::build("uefi-x64.json", &[("uefi", &firmware)], &options);
        let mut vm = Vm::builder(backend).uefi_igvm(file.path()).args(TWO_GIB_ONE_VP).start();
        vm.report().assert_all_ok();
        assert_eq!(vm.wait_for_exit().code, 0);
    }

    fn second_processor_starts(backend) {
        let file = files::uefi_probe();
        let mut vm = Vm::builder(backend).uefi_igvm(file.path()).args(["-m", "2GB", "-p", "2"]).start();
        let report = vm.report();
        report.assert_all_ok();
        let started = report.checks.iter().find(|check| check.0 == "ap-count").unwrap();
        assert_eq!(started.2, "1 of 1");
        assert_eq!(vm.wait_for_exit().code, 0);
    }

    fn both_ways_to_boot_give_the_guest_the_same_blob_and_state(backend) {
        let (file, firmware) = (files::uefi_probe(), files::uefi_probe_firmware());
        let packed = Vm::builder(backend).uefi_igvm(file.path());
        let direct = Vm::builder(backend).args(["--uefi", "--uefi-firmware", arg(firmware.path())]);
        let [packed, direct] = [packed, direct].map(|boot| {
            let report = file.beside("report.json");
            let mut vm = boot.args(TWO_GIB_ONE_VP).args(["--report", arg(&report)]).start();
            vm.report().assert_all_ok();
            assert_eq!(vm.wait_for_exit().code, 0);
            let report = std::fs::read_to_string(&report).unwrap();
            serde_json::from_str::<Value>(&report).unwrap()
        });
        assert_eq!(blob(&packed, &[ENTROPY, BIOS_GUID]), blob(&direct, &[ENTROPY, BIOS_GUID]));
        assert_ne!(blob(&packed, &[BIOS_GUID]), blob(&direct, &[BIOS_GUID]), "entropy must be fresh");
        assert_eq!(packed["registers"], direct["registers"]);
        assert_eq!(packed["ram"], direct["ram"]);
        assert_eq!(packed["hand_over"]["gpa"], 0x70_9000);
        let registers = packed["registers"].as_array().unwrap();
        assert_eq!(registers.len(), 1);
    }

    fn guest_reset_boots_again_with_other_entropy_and_the_same_guid(backend) {
        let file = files::uefi_probe();
        let reset_once = "--default-boot-always-attempt";
        let mut vm = Vm::builder(backend).uefi_igvm(file.path()).args(TWO_GIB_ONE_VP).args([reset_once]).start();
        let (first, second) = (vm.report(), vm.report());
        assert_eq!(vm.wait_for_exit().code, 0);
        first.assert_all_ok();
        second.assert_all_ok();
        assert_eq!((first.info("boot"), second.info("boot")), ("1", "2"));
        assert_eq!(first.info("guid"), second.info("guid"));
        let entropy = |report: &vmm_tests::Report| {
            report.checks.iter().find(|check| check.0 == "entropy").unwrap().2.clone()
        };
        assert_ne!(entropy(&first), entropy(&second));
    }

    fn r12_of_the_file_is_kept(backend) {
        let file = files::uefi_probe();
        let bytes = std::fs::read(file.path()).unwrap();
        let with_r12 = file.beside("r12.igvm");
        std::fs::write(&with_r12, with_register(&bytes, VbsRegisterName::R12, 0x12_3000)).unwrap();
        let mut vm = Vm::builder(backend).uefi_igvm(&with_r12).args(TWO_GIB_ONE_VP).start();
        let report = vm.report();
        assert_eq!(report.info("r12"), "0x123000");
        let ended = vm.wait_for_exit();
        assert!(!ended.stderr.contains("r12 0x709000 added"), "{}", ended.stderr);
    }

    fn switches_reach_the_firmware_in_both_forms(backend) {
        let (file, firmware) = (files::uefi_probe(), files::uefi_probe_firmware());
        let switches = [
            "--disable-frontpage", "--uefi-enable-memory-protections", "--uefi-force-dma-bounce",
            "--uefi-console-mode", "com2", "--no-vmbus",
        ];
        let packed = Vm::builder(backend).uefi_igvm(file.path());
        let direct = Vm::builder(backend).args(["--uefi", "--uefi-firmware", arg(firmware.path())]);
        let [packed, direct] = [packed, direct].map(|boot| {
            let mut vm = boot.args(TWO_GIB_ONE_VP).args(switches).start();
            vm.report().info("flags").to_owned()
        });
        assert_eq!(packed, direct);
        // Serial, hibernate layout, COM2, no frontpage, protections, MTRRs, no VMBus, resources, bounce.
        let expected: u64 = 1 | 1 << 6 | 2 << 7 | 1 << 14 | 1 << 21 | 1 << 28 | 1 << 30 | 1 << 31 | 1 << 32;
        assert_eq!(packed, format!("{expected:#x}"));
    }
}

#[test]
fn deterministic_runs_are_the_same_byte_for_byte() {
    let file = files::uefi_probe();
    let run = |seed: &str| {
        let deterministic = format!("--deterministic={seed}");
        let vm = Vm::builder(Backend::Soft)
            .uefi_igvm(file.path())
            .args(TWO_GIB_ONE_VP)
            .args([deterministic]);
        let ended = vm.run();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.stdout
    };
    let first = run("7");
    assert_eq!(first, run("7"));
    assert_ne!(first, run("8"));
}

#[test]
fn firmware_variables_of_the_environment_serve_direct_boots_only() {
    let (file, firmware) = (files::uefi_probe(), files::uefi_probe_firmware());
    let direct = Vm::without_backend().args(["--uefi", "--dry-run"]);
    let without = direct.run();
    assert_eq!(without.code, 2);
    let with = direct.environment("OPENVMM_UEFI_FIRMWARE", firmware.path()).run();
    assert_eq!(with.code, 0, "{}", with.stderr);
    let packed = Vm::without_backend().uefi_igvm(file.path()).args(["--dry-run"]);
    let misled = packed.environment("OPENVMM_UEFI_FIRMWARE", "/nowhere").run();
    assert_eq!(misled.code, 0, "{}", misled.stderr);
}

#[test]
fn dry_run_prints_the_bound_plan_and_the_decisions() {
    let file = files::uefi_probe();
    let ended = Vm::without_backend()
        .uefi_igvm(file.path())
        .args(TWO_GIB_ONE_VP)
        .args(["--dry-run"])
        .run();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for part in [
        "decisions\n",
        "r12 0x709000 added",
        "machine hyper-v generation 2, 1 vps, ram 0x0..0x80000000\n",
        "platform vsm, x64, highest vtl 0\n",
        "import       0x0000000000100000..0x0000000000707000 6172 KiB  measured   data",
        "config blob at 0x709000: ",
    ] {
        assert!(
            ended.stdout.contains(part),
            "{part:?} is not in\n{}",
            ended.stdout
        );
    }
}

#[test]
fn line_that_build_igvm_prints_runs_as_printed() {
    let folder = Folder::new();
    let xtask = ["xtask", "build-igvm", "x64"];
    let built = vmm_tests::programs::run("cargo".as_ref(), xtask);
    let printed = String::from_utf8(built.stdout).unwrap();
    assert!(
        built.status.success(),
        "{printed}\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let line = printed.lines().last().unwrap();
    assert!(
        line.contains("openvmm --igvm type=uefi,path=./out/build-igvm/debug/uefi-x64.bin -m 2GB -p 1"),
        "{line}"
    );
    let script = folder.write("line.sh", format!("{line} </dev/null\n"));
    let ran = vmm_tests::programs::run("sh".as_ref(), [arg(&script)]);
    let report = vmm_tests::Report::parse(&String::from_utf8_lossy(&ran.stdout)).unwrap();
    report.assert_all_ok();
    assert_eq!(ran.status.code(), Some(0));
}

#[test]
fn build_igvm_takes_other_manifests_and_firmware() {
    let folder = Folder::new();
    let manifest = folder.write(
        "custom-for-test.json",
        include_str!("../../../manifests/uefi-x64.json"),
    );
    let firmware = folder.write("other.fd", payloads::uefi_probe::firmware());
    let build = [
        "xtask",
        "build-igvm",
        "x64",
        "--override-manifest",
        arg(&manifest),
        "--firmware",
        arg(&firmware),
    ];
    let built = vmm_tests::programs::run("cargo".as_ref(), build);
    let printed = String::from_utf8(built.stdout).unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let file = "out/build-igvm/debug/custom-for-test.bin";
    assert!(
        printed.contains(&format!("--igvm type=uefi,path=./{file} ")),
        "{printed}"
    );
    let file = vmm_tests::programs::repository().join(file);
    let same = std::fs::read(files::uefi_probe().path()).unwrap();
    assert!(
        std::fs::read(&file).unwrap() == same,
        "the same inputs gave another file"
    );
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_file(file.with_extension("bin.map")).unwrap();
}

/// The blob that a report lists, without the payloads of the structures `without`.
fn blob(report: &Value, without: &[u32]) -> Vec<u8> {
    let hex = report["hand_over"]["bytes"].as_str().unwrap();
    let mut blob: Vec<u8> = hex
        .split(' ')
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect();
    let mut at = 0;
    let mut seen = 0;
    while at < blob.len() {
        let word = |at: usize| u32::from_le_bytes(blob[at..at + 4].try_into().unwrap());
        let (kind, len) = (word(at), word(at + 4) as usize);
        if without.contains(&kind) {
            blob[at + 8..at + len].fill(0);
            seen += 1;
        }
        at += len;
    }
    assert_eq!(seen, without.len());
    blob
}

/// The file with one more register of the boot processor.
fn with_register(bytes: &[u8], name: VbsRegisterName, value: u64) -> Vec<u8> {
    let file = File::read(bytes).unwrap();
    let plan = file.plan(Isolation::Vsm).unwrap();
    let mut builder = launch_plan::PlanBuilder::new(plan.facts.clone());
    for step in plan.into_steps() {
        match step.kind {
            StepKind::Import(import) => builder.import(import, step.origin).unwrap(),
            StepKind::ExpectMemory(expect) => builder.expect_memory(expect, step.origin).unwrap(),
            StepKind::ErrorRange { gpa, len } => builder.error_range(gpa, len, step.origin).unwrap(),
            StepKind::VpContext(mut context) => {
                let VpState::Vbs(registers) = &mut context.state else {
                    panic!("not a register list")
                };
                registers.push(VbsRegister {
                    vtl: 0,
                    name,
                    value: VbsValue::U64(value),
                });
                builder.vp_context(*context, step.origin).unwrap();
            }
        }
    }
    images::igvm(&[builder.finish()])
}
