// SPDX-License-Identifier: MIT
//! `--igvm type=uefi --isolation snp`: the file's own parameter area and registers, no configuration blob.

use super::{files, launched, refused};
use launch_plan::Isolation;
use std::path::Path;
use vmm_tests::{Vm, VmBuilder};

fn uefi(file: &Path, isolation: &str) -> VmBuilder {
    Vm::without_backend()
        .uefi_igvm(file)
        .args(["--isolation", isolation, "--sev-model", "-m", "256M"])
}

#[test]
fn microsofts_manifest_is_refused_on_snp_for_exactly_what_kvm_cannot_honour() {
    let firmware = payloads::uefi_probe::firmware();
    let file = vmm_tests::files::build("uefi-x64.json", &[("uefi", &firmware)], &[]);
    let message = refused(&uefi(file.path(), "snp"));
    for refusal in [
        "vp 0: its save area is at gpa 0x763000; kvm measures every save area at 0xfffffffff000",
        "vp 0: field VIRTUAL_TOM at 0x3c8 is 0x8000000000 in the file, kvm would measure 0x0",
        "vp 0: the file's save area asks for virtual top of memory, restricted injection; kvm on this host offers debug swap",
    ] {
        assert!(message.contains(refusal), "{message}");
    }
    assert_eq!(message.trim().lines().count(), 3, "{message}");
}

#[test]
fn typed_uefi_file_keeps_its_parameters_and_gets_no_blob() {
    let file = files::guest(&[Isolation::Snp], 1);
    let ended = launched(&uefi(file.path(), "snp"));
    assert!(
        ended.stderr.contains(
            "the firmware takes the parameter area and R12 of the file; no configuration blob is written"
        ),
        "{}",
        ended.stderr
    );
    // 0x709000 is where the blob of a guest without isolation is.
    let range = "memory 0x0000000000202000..0x0000000010000000 shared";
    assert!(ended.stdout.contains(range), "{}", ended.stdout);
}

#[test]
fn settings_of_the_blob_are_refused() {
    let file = files::guest(&[Isolation::Snp], 1);
    let ended = uefi(file.path(), "snp").args(["--uefi-debug"]).run();
    assert_eq!(ended.code, 2);
    assert!(
        ended
            .stderr
            .contains("--uefi-debug is a setting of the configuration blob"),
        "{ended:?}"
    );
}
