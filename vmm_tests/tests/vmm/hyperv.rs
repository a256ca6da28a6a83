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
