// SPDX-License-Identifier: MIT
//! When firmware goes no further, the log says why and where (msvm-machine section 14).

use crate::images::{Folder, arg};
use guest_protocol::uefi_image::stuck;
use payloads::uefi_probe::{silent_firmware, stuck_firmware};
use vmm_tests::{Backend, Vm, VmBuilder};

fn boot(folder: &Folder, image: &[u8]) -> VmBuilder {
    let firmware = folder.write("stuck.fd", image);
    Vm::builder(Backend::Soft).args(["--uefi", "--uefi-firmware", arg(&firmware), "-m", "128MB"])
}

/// Boots firmware that stops in this way, and waits for a line on stderr.
#[track_caller]
fn is_told(way: u32, options: &[&str], expected: &[&str]) {
    let folder = Folder::new();
    let vm = boot(&folder, &stuck_firmware(way)).args(options.iter().copied());
    let mut vm = vm.start();
    vm.wait_for("hv_stuck");
    for part in expected {
        vm.wait_for_err(part);
    }
}

#[test]
fn spinning_on_the_line_status_is_told_with_its_place() {
    let line = "the firmware spins on COM1's line status, which reads 0x60";
    is_told(
        stuck::LINE_STATUS,
        &[],
        &[line, "vp 0 is at SEC+", "last accesses:", "in 0x3fd 0x60, "],
    );
}

#[test]
fn waiting_by_the_reference_counter_is_told() {
    is_told(
        stuck::COUNTER,
        &[],
        &["the firmware waits by the reference counter", "rdmsr 0x40000020"],
    );
}

#[test]
fn endless_enumeration_of_names_is_told() {
    is_told(
        stuck::NAMES,
        &[],
        &["the enumeration of variable names does not end: 20000 names"],
    );
}

#[test]
fn variable_that_can_never_be_written_is_told() {
    is_told(
        stuck::FAILURE,
        &[],
        &["SetVariable has failed with EFI_WRITE_PROTECTED 1000 times in a row"],
    );
}

#[test]
fn messages_that_are_not_taken_are_told_with_what_waits() {
    is_told(
        stuck::MESSAGES,
        &[],
        &[
            "the guest takes no messages: vmbus' VersionResponse lies in slot 2 of vp 0 for ",
            "its own messages are refused with status 0x33",
            "--no-vmbus starts the vm without vmbus",
        ],
    );
}

#[test]
fn nothing_to_boot_is_told_with_what_to_do() {
    is_told(
        stuck::NO_BOOT,
        &[],
        &["nothing to boot: this vm has no disk; add --disk FILE"],
    );
    let folder = Folder::new();
    let disk = folder.write("empty.img", vec![0; 1 << 20]);
    let found = format!("nothing to boot on {} (scsi): ", disk.display());
    is_told(
        stuck::NO_BOOT,
        &["--disk", arg(&disk)],
        &[&found, "EFI system partition"],
    );
}

#[test]
fn power_off_instead_of_the_front_page_is_explained() {
    let folder = Folder::new();
    let ended = boot(&folder, &stuck_firmware(stuck::NO_BOOT_POWER_OFF)).run();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("nothing to boot: this vm has no disk"),
        "{}",
        ended.stderr
    );
}

#[test]
fn firmware_that_stops_itself_is_told_with_its_reason_and_its_place() {
    let folder = Folder::new();
    let ended = boot(&folder, &stuck_firmware(stuck::FAIL_FAST)).run();
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    for part in [
        "triple faulted",
        "the firmware has stopped itself: EFI_SECURITY_VIOLATION at line 1234 of its source",
        "vp 0 is at SEC+0x",
        "last accesses:",
    ] {
        assert!(ended.stderr.contains(part), "{part}\n{}", ended.stderr);
    }
}

/// Before the firmware has its own handlers any fault ends it.
#[test]
fn fault_that_nobody_takes_is_told_with_its_place() {
    let folder = Folder::new();
    let ended = boot(&folder, &stuck_firmware(stuck::FAULT)).run();
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    for part in ["triple faulted", "vp 0 is at SEC+0x"] {
        assert!(ended.stderr.contains(part), "{part}\n{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("has stopped itself"), "{}", ended.stderr);
}

#[test]
fn firmware_that_does_not_begin_is_told() {
    let folder = Folder::new();
    let mut vm = boot(&folder, &silent_firmware()).start();
    vm.wait_for_err("the firmware has touched no port and no register for ");
    vm.wait_for_err("it has not begun: its first stage finds no volume");
    vm.wait_for_err("vp 0 is at SEC+0x1200");
}

#[test]
fn little_memory_is_told_at_the_start() {
    let folder = Folder::new();
    let firmware = folder.write("stuck.fd", stuck_firmware(stuck::NO_BOOT_POWER_OFF));
    let ended = Vm::builder(Backend::Soft)
        .args(["--uefi", "--uefi-firmware", arg(&firmware), "-m", "48MB"])
        .run();
    assert!(
        ended.stderr.contains("-m 48 MB is little for this firmware"),
        "{}",
        ended.stderr
    );
}
