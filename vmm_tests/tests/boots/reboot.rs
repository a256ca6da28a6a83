// SPDX-License-Identifier: MIT
//! Debian's kernel restarts the machine: on request and after a panic, and comes up again each time.

use crate::guests::Linux;
use vmm_tests::{Backend, Vm, skip};

/// Does what is typed. Opening the port drops what came before, so the line is asked for.
const OBEY: &str = "echo ready\nread order\n\
                    case $order in\nreboot) reboot -f ;;\npanic) echo c > /proc/sysrq-trigger ;;\n\
                    off) poweroff -f ;;\nesac\necho unknown order\n";

fn machine(linux: &Linux, processors: &str) -> Vm {
    Vm::builder(Backend::Soft)
        .args(["-m", "512M", "-p", processors])
        .args(["-c", "console=ttyS0 panic=-1"])
        .args(["-k".as_ref(), linux.kernel.as_os_str()])
        .args(["-r".as_ref(), linux.initramfs.path().as_os_str()])
        .start()
}

fn restarts_and_powers_off(name: &str, processors: &str) {
    let linux = match Linux::with(OBEY) {
        Ok(linux) => linux,
        Err(reason) => return skip(name, &reason),
    };
    let mut vm = machine(&linux, processors);
    for (order, answer) in [
        ("reboot", "reboot: machine restart"),
        ("panic", "Kernel panic - not syncing: sysrq triggered crash"),
    ] {
        vm.wait_for("Linux version");
        vm.wait_for("ready");
        vm.send(format!("{order}\n").as_bytes());
        vm.wait_for(answer);
        vm.wait_for_err("the guest has reset the machine");
    }
    vm.wait_for("ready");
    vm.send(b"off\n");
    let ended = vm.wait_for_exit();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(
        ended.stdout.matches("Linux version").count(),
        3,
        "{}",
        ended.stdout
    );
}

#[test]
fn one_processor_restarts_on_request_and_after_a_panic() {
    restarts_and_powers_off("one_processor_restarts_on_request_and_after_a_panic", "1");
}

#[test]
fn two_processors_restart_on_request_and_after_a_panic() {
    restarts_and_powers_off("two_processors_restart_on_request_and_after_a_panic", "2");
}
