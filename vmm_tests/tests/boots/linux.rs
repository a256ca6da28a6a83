// SPDX-License-Identifier: MIT
//! Debian's cloud kernel with an initial RAM file system of ours, from `-k` or an IGVM file to power off.

use crate::guests::Linux;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use vmm_tests::{Backend, Vm, VmBuilder, files, programs, skip};

/// Prints what the test compares, then powers off through ACPI.
const REPORT: &str = "echo nproc=$(nproc)\necho cmdline=$(cat /proc/cmdline)\nsha256sum /bin/busybox\n\
                      echo clock=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)\n\
                      poweroff -f\n";

/// `linux` booted directly on the software CPU with `cmdline` behind the console's name.
fn direct(linux: &Linux, cmdline: &str) -> VmBuilder {
    on(Vm::builder(Backend::Soft), linux, cmdline)
}

fn on(vm: VmBuilder, linux: &Linux, cmdline: &str) -> VmBuilder {
    vm.args(["-m", "512M", "-c", format!("console=ttyS0 {cmdline}").as_str()])
        .args(["-k".as_ref(), linux.kernel.as_os_str()])
        .args(["-r".as_ref(), linux.initramfs.path().as_os_str()])
}

/// What the guest's user space printed, kernel messages taken out.
fn script_lines(console: &str) -> Vec<&str> {
    let lines = console.lines().map(|line| line.trim_end_matches('\r'));
    lines
        .skip_while(|line| !line.contains("Run /init as init process"))
        .skip(1)
        .filter(|line| !line.starts_with('['))
        .collect()
}

fn sha256_of_busybox() -> String {
    let hash = programs::run(Path::new("/bin/busybox"), ["sha256sum", "/bin/busybox"]);
    String::from_utf8(hash.stdout).unwrap().trim_end().to_owned()
}

/// Runs a guest with the script [`REPORT`] to its end.
#[track_caller]
fn reports(vm: &VmBuilder, processors: u32, cmdline: &str) -> String {
    let ended = vm.run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    let (nproc, cmdline) = (format!("nproc={processors}"), format!("cmdline={cmdline}"));
    let lines = script_lines(&ended.stdout);
    assert_eq!(
        lines.get(..3),
        Some(&[nproc.as_str(), &cmdline, &sha256_of_busybox()][..]),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stderr.contains("the guest has powered off"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stdout.contains("unchecked MSR access"), "{}", ended.stdout);
    ended.stdout
}

#[test]
fn one_processor_reaches_user_space_and_powers_off() {
    match Linux::with(REPORT) {
        Ok(linux) => {
            let console = reports(&direct(&linux, "panic=-1"), 1, "console=ttyS0 panic=-1");
            assert!(console.contains("Power down"), "{console}");
        }
        Err(reason) => skip("one_processor_reaches_user_space_and_powers_off", &reason),
    }
}

#[test]
fn two_processors_reach_user_space_and_power_off() {
    match Linux::with(REPORT) {
        Ok(linux) => {
            let vm = direct(&linux, "panic=-1").args(["-p", "2"]);
            reports(&vm, 2, "console=ttyS0 panic=-1");
        }
        Err(reason) => skip("two_processors_reach_user_space_and_power_off", &reason),
    }
}

#[test]
fn igvm_file_reaches_user_space_like_the_direct_boot() {
    let linux = match Linux::with(REPORT) {
        Ok(linux) => linux,
        Err(reason) => return skip("igvm_file_reaches_user_space_like_the_direct_boot", &reason),
    };
    let [kernel, initrd] =
        [linux.kernel.as_path(), linux.initramfs.path()].map(|p| std::fs::read(p).unwrap());
    let resources: &[(&str, &[u8])] = &[("linux_kernel", &kernel), ("linux_initrd", &initrd)];
    let file = files::build("linux-x64.json", resources, &[]);
    let vm = Vm::builder(Backend::Soft).typed_igvm("linux", file.path());
    reports(&vm.args(["-m", "512M"]), 1, "console=ttyS0");
}

#[test]
fn typed_lines_reach_a_shell_by_interrupt() {
    let script = "echo ready\nwhile read line; do echo \"got <$line>\"; [ \"$line\" = off ] && grep ttyS0 /proc/interrupts && poweroff -f; done\n";
    let linux = match Linux::with(script) {
        Ok(linux) => linux,
        Err(reason) => return skip("typed_lines_reach_a_shell_by_interrupt", &reason),
    };
    let mut vm = direct(&linux, "quiet").start();
    // Opening the port drops what came before.
    vm.wait_for("ready");
    for line in [
        "one two three",
        "0123456789abcdefghijklmnopqrstuvwxyz0123456789",
        "off",
    ] {
        vm.send(format!("{line}\n").as_bytes());
        vm.wait_for(&format!("got <{line}>"));
    }
    let interrupts = vm.wait_for("ttyS0");
    let count: u64 = interrupts.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(count > 10, "{interrupts}");
    assert_eq!(vm.wait_for_exit().code, 0);
}

/// Runs `command` where /dev/kvm is /dev/null, in a mount namespace of its own.
fn without_kvm(command: &Command) -> Output {
    let mut hidden = Command::new("unshare");
    let script = "mount --bind /dev/null /dev/kvm && exec \"$@\"";
    hidden
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(command.get_program());
    hidden.args(command.get_args()).stdin(Stdio::null());
    hidden.output().expect("unshare of util-linux")
}

#[test]
fn auto_boots_on_the_software_cpu_where_there_is_no_kvm() {
    const NAME: &str = "auto_boots_on_the_software_cpu_where_there_is_no_kvm";
    let linux = match Linux::with(REPORT) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    if !Path::new("/dev/kvm").exists() {
        return skip(
            NAME,
            "there is no /dev/kvm to hide; every other test shows it already",
        );
    }
    if !without_kvm(&Command::new("true")).status.success() {
        return skip(NAME, "mount namespaces need root");
    }
    let vm = on(Vm::without_backend(), &linux, "").args(["--hypervisor", "auto"]);
    let ended = without_kvm(&vm.command());
    let (console, messages) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    assert_eq!(ended.status.code(), Some(0), "{console}\n{messages}");
    let choice = messages
        .lines()
        .find(|line| line.contains("hypervisor soft: "))
        .unwrap_or(&messages);
    assert!(choice.contains("not kvm: "), "{choice}");
    assert!(console.contains("nproc=1"), "{console}");
}
