// SPDX-License-Identifier: MIT
//! The Hyper-V generation 2 machine, as a firmware that uses all of it sees it.

use crate::images::arg;
use vmm_tests::{Vm, files, on_every_backend};

const TWO_GIB: [&str; 4] = ["-m", "2GB", "-p", "1"];

on_every_backend! {
    fn every_answer_to_the_hypervisor_interface_is_right(backend) {
        let file = files::hv_probe();
        let mut vm = Vm::builder(backend).uefi_igvm(file.path()).args(TWO_GIB).start();
        let report = vm.report();
        report.assert_all_ok();
        assert_eq!(report.payload, "hv_probe");
        assert_eq!(vm.wait_for_exit().code, 0);
    }

    fn direct_boot_has_the_same_hypervisor_interface(backend) {
        let firmware = files::hv_probe_firmware();
        let direct = Vm::builder(backend).args(["--uefi", "--uefi-firmware", arg(firmware.path())]);
        let mut vm = direct.args(TWO_GIB).start();
        vm.report().assert_all_ok();
        assert_eq!(vm.wait_for_exit().code, 0);
    }
}

/// Variables outlive the process that wrote them; the console's are there from the beginning.
#[test]
fn variables_are_in_their_file() {
    let file = files::hv_probe();
    let nvram = file.beside("nvram");
    for boots in ["0", "1", "2"] {
        let vm = Vm::builder(vmm_tests::Backend::Soft).uefi_igvm(file.path());
        let mut vm = vm.args(TWO_GIB).args(["--nvram", arg(&nvram)]).start();
        let report = vm.report();
        report.assert_all_ok();
        assert_eq!(report.info("boots-before"), boots);
        assert_eq!(report.info("con-out"), "0");
        let ended = vm.wait_for_exit();
        assert_eq!(ended.code, 0);
        for line in ["hv_probe logs an error", "Boot0007: no boot loader"] {
            let line = format!("firmware: {line}");
            assert!(ended.stderr.contains(&line), "{}", ended.stderr);
        }
    }
}

/// The whole report, times included, depends on nothing but the seed.
#[test]
fn deterministic_runs_of_the_probe_are_identical() {
    let file = files::hv_probe();
    let run = || {
        let mut vm = Vm::builder(vmm_tests::Backend::Soft)
            .uefi_igvm(file.path())
            .args(TWO_GIB)
            .args(["--deterministic=5"])
            .start();
        let report = vm.report();
        report.assert_all_ok();
        assert_eq!(vm.wait_for_exit().code, 0);
        (report.checks.clone(), report.infos.clone())
    };
    assert_eq!(run(), run());
}
