// SPDX-License-Identifier: MIT
//! `machine_suite` drives every device of the OVMF machine by itself, and starts anew from the IGVM file.

use crate::images::{self, Folder};
use guest_protocol::flat::{CONSOLE_TEXT, MACHINE_FLASH_GPA, VSOCK_PORT};
use launch_plan::Isolation;
use payloads::plan::FlatPayload;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use vmm_tests::{Backend, Report, Vm, VmBuilder, on_every_backend, skip};

/// Bytes of each disk.
const DISK: usize = 1 << 20;
/// What is in the disks before.
const FILL: u8 = 0xEE;

/// A machine with disks and flash, for the devices that `devices` names.
fn machine(backend: Backend, folder: &Folder, devices: &str) -> VmBuilder {
    let file = folder.write(
        "machine.igvm",
        images::flat(FlatPayload::MachineSuite, Isolation::Native),
    );
    let [virtio, nvme] = ["virtio.img", "nvme.img"].map(|name| folder.write(name, vec![FILL; DISK]));
    Vm::builder(backend)
        .typed_igvm("ovmf", &file)
        .args(["-m", "3GB", "--test-exit", "-c", &format!("devices={devices}")])
        .args(["--vars".as_ref(), folder.path("vars").as_os_str()])
        .args(["--disk".as_ref(), virtio.as_os_str()])
        .args(["--nvme-pci", "id=n"])
        .args(["--disk", &format!("{},on=n", nvme.display())])
}

/// What is on the disks and in the flash afterwards.
fn check_files(folder: &Folder) {
    let read = |name: &str| std::fs::read(folder.path(name)).unwrap();
    for (name, first, len, factor) in [
        ("virtio.img", 8 * 512, 0x8000, 0x9E37_79B9_7F4A_7C15_u64),
        ("nvme.img", 8 * 512, 0x1000, 0xD1B5_4A32_D192_ED03),
    ] {
        let words = (0..len as u64).step_by(8);
        let pattern: Vec<u8> = words
            .flat_map(|at| at.wrapping_mul(factor).to_le_bytes())
            .collect();
        let bytes = read(name);
        assert!(bytes[first..first + len] == pattern, "{name}: what was written");
        let rest = bytes[..first].iter().chain(&bytes[first + len..]);
        assert!(rest.copied().all(|byte| byte == FILL), "{name}: what was not");
    }
    let vars = read("vars");
    assert_eq!(vars.len() as u64, (1 << 32) - MACHINE_FLASH_GPA - 0x1000);
    assert_eq!(
        (vars[0x1123], vars[0x1124], &vars[40..44]),
        (0x0A, 0xFF, &b"_FVH"[..])
    );
}

/// Both boots of the suite, which checked at least `least` things.
fn check_boots(vm: &mut Vm, least: usize) {
    let first = vm.report();
    first.assert_all_ok();
    assert!(first.checks.len() >= least, "{first:?}");
    vm.wait_for_err("the guest has reset the machine");
    let second = vm.report();
    second.assert_all_ok();
    for name in ["imported-page", "ram", "pciexbar", "pmbase", "flash"] {
        assert!(second.holds(name), "{name}: {second:?}");
    }
    let ended = vm.wait_for_exit();
    ended.assert_powered_off();
}

/// Sends back what the first program that connects sends.
fn echo(listener: UnixListener) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if stream.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
    })
}

on_every_backend! {
    fn every_device_of_the_ovmf_machine_works_and_a_reset_applies_the_file_again(backend) {
        let folder = Folder::new();
        let socket = folder.path("v");
        let echo = echo(UnixListener::bind(folder.path(&format!("v_{VSOCK_PORT}"))).unwrap());
        let console = folder.path("console");
        let mut vm = machine(backend, &folder, "fw_cfg,flash,blk,nvme,rng,console,vsock")
            .args(["--virtio-rng", "--virtio-console", &format!("file={}", console.display())])
            .args(["--virtio-vsock".as_ref(), socket.as_os_str()])
            .start();
        check_boots(&mut vm, 40);
        check_files(&folder);
        assert_eq!(std::fs::read_to_string(&console).unwrap(), CONSOLE_TEXT);
        echo.join().unwrap();
    }

    fn a_device_that_is_not_there_is_missed(backend) {
        let folder = Folder::new();
        let mut vm = machine(backend, &folder, "rng,piano").start();
        let failed = vm.report().failed();
        assert_eq!(
            failed,
            ["devices: rng,piano", "virtio-rng-gives-bytes: absent device is 0x4"]
        );
        assert_eq!(vm.wait_for_exit().code, 1);
    }
}

/// In a network namespace of its own, whose kernel answers.
fn gets_an_answer(name: &str, backend: Backend) {
    let unshared = Command::new("unshare").args(["--net", "true"]).status();
    if !Path::new("/dev/net/tun").exists() || !unshared.is_ok_and(|status| status.success()) {
        return skip(name, "no /dev/net/tun, or no right to make a network namespace");
    }
    let folder = Folder::new();
    let host = "(until ip addr add 192.168.77.1/24 dev vm0 2>/dev/null && ip link set vm0 up; do sleep 0.1; done) & \
                exec \"$@\"";
    let vm = machine(backend, &folder, "net,flash")
        .args(["--net", "tap:vm0"])
        .command();
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sh", "-c", host, "sh"])
        .arg(vm.get_program());
    let ended = command.args(vm.get_args()).stdin(Stdio::null()).output().unwrap();
    let console = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success(),
        "{console}\n{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert!(
        console.contains("case virtio-net-gets-an-answer-from-the-host: pass"),
        "{console}"
    );
    Report::parse(&console).unwrap().assert_all_ok();
}

on_every_backend! {
    fn the_network_device_gets_an_answer_from_the_host(backend) {
        gets_an_answer("the_network_device_gets_an_answer_from_the_host", backend);
    }
}
