// SPDX-License-Identifier: MIT
//! What a Hyper-V generation 2 machine has only when it is asked for it, driven by a guest: watchdogs,
//! generation id, battery, TPM.

use vmm_tests::{Backend, Report, Vm, VmBuilder, files, on_every_backend, programs, skip};

/// `hv_devices` in a machine with `options`; where that can be, with time that skips what nobody waits for.
fn devices(backend: Backend, options: &[&str]) -> (VmBuilder, files::TestFile) {
    let file = files::hv_devices();
    let deterministic: &[&str] = match backend {
        Backend::Soft => &["--deterministic"],
        Backend::Kvm => &[],
    };
    let vm = Vm::builder(backend)
        .uefi_igvm(file.path())
        .args(["-m", "256M"])
        .args(deterministic.iter().chain(options).copied());
    (vm, file)
}

on_every_backend! {
    fn a_starving_watchdog_resets_the_machine_and_says_so(backend) {
        let (vm, _file) = devices(backend, &["--guest-watchdog"]);
        let mut vm = vm.start();
        let report = vm.report();
        report.assert_all_ok();
        assert!(report.holds("guest-watchdog") && report.holds("generation-id-outlives-a-reset"));
        let ended = vm.wait_for_exit();
        assert_eq!(ended.code, 0);
        for line in ["firmware's watchdog has expired", "guest's watchdog has expired"] {
            assert!(ended.stderr.contains(line), "{line}\n{}", ended.stderr);
        }
    }

    fn a_battery_that_changes_is_an_event_for_the_guest(backend) {
        let (vm, _file) = devices(backend, &["--battery"]);
        let mut vm = vm.start();
        let mut text = vm.wait_for("waiting for a change");
        vm.send(b"\x11battery 40\n");
        vm.wait_for_err("the guest was told");
        text += &vm.wait_for("done: ");
        text += &vm.wait_for("\n");
        let report = Report::parse(&text).expect("a report");
        report.assert_all_ok();
        assert!(report.holds("battery-event"));
        assert_eq!(report.infos.last().unwrap().1, "state 1 rate 0xffffffff holds 2000 mains 0");
        assert_eq!(vm.wait_for_exit().code, 0);
    }
}

on_every_backend! {
    fn a_tpm_measures_and_forgets_when_the_machine_is_reset(backend) {
        const NAME: &str = "a_tpm_measures_and_forgets_when_the_machine_is_reset";
        let swtpm = match programs::Swtpm::start() {
            Ok(swtpm) => swtpm,
            Err(reason) => return skip(NAME, &reason),
        };
        let file = files::hv_devices();
        let vm = Vm::builder(backend).uefi_igvm(file.path()).args(["-m", "256M"]);
        let mut vm = vm.args(["--tpm".into(), swtpm.socket().into_os_string()]).start();
        // Once before the firmware's watchdog resets the machine, and once after.
        let report = vm.report();
        report.assert_all_ok();
        assert!(report.holds("tpm-pcr-is-fresh") && report.holds("tpm-pcr-extended"));
        assert!(vm.transcript().matches("probe: tpm-pcr-extended: ok").count() >= 2);
        assert_eq!(vm.wait_for_exit().code, 0);
    }
}
