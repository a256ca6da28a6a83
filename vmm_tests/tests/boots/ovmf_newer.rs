// SPDX-License-Identifier: MIT
//! OVMF of newer Debian suites on the same machine: ECAM elsewhere, a flash of 4 MiB, and in sid's a memory
//! map, a processor count and a kernel that all come out of the IGVM file.

use crate::guests::{self, Linux};
use guest_images::debian;
use std::path::PathBuf;
use vmm_tests::files::TestFile;
use vmm_tests::{Backend, Vm, programs, skip};

const REPORT: &str = "echo nproc=$(nproc)\ndmesg | grep -o 'MMCONFIG at .* reserved'\npoweroff -f\n";

/// The image of a suite that `cargo xtask test` has unpacked.
fn image(suite: &str) -> Result<PathBuf, String> {
    let cache = std::env::var_os("OPENVMM_KERNEL").map(PathBuf::from);
    let beside = cache.as_deref().and_then(|boot| boot.parent());
    let root = beside.map_or_else(|| programs::repository().join("target/debian"), PathBuf::from);
    let image = root.join(suite).join("usr/share/ovmf/OVMF.fd");
    if image.is_file() {
        Ok(image)
    } else {
        Err(format!("no OVMF of {suite}; cargo xtask test fetches it"))
    }
}

/// The kernel through fw_cfg finds both processors, and ECAM where these versions put it.
fn boots_linux(suite: &str) -> Result<(), String> {
    let (ovmf, linux) = (image(suite)?, Linux::with(REPORT)?);
    let ended = Vm::builder(Backend::Soft)
        .args(["-m", "512M", "-p", "2", "-c", "console=ttyS0 quiet panic=-1"])
        .args(["--ovmf".as_ref(), ovmf.as_os_str()])
        .args(["-k".as_ref(), linux.kernel.as_os_str()])
        .args(["-r".as_ref(), linux.initramfs.path().as_os_str()])
        .run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    for expected in ["nproc=2", "MMCONFIG at [mem 0xe0000000-0xefffffff] reserved"] {
        assert!(ended.stdout.contains(expected), "{expected}\n{}", ended.stdout);
    }
    Ok(())
}

#[test]
fn ovmf_of_trixie_boots_linux() {
    if let Err(reason) = boots_linux("trixie") {
        skip("ovmf_of_trixie_boots_linux", &reason);
    }
}

#[test]
fn ovmf_of_sid_boots_linux() {
    if let Err(reason) = boots_linux("sid") {
        skip("ovmf_of_sid_boots_linux", &reason);
    }
}

/// A file of sid's OVMF with a unified kernel inside, made by virtfw's tools.
fn file_with_kernel() -> Result<TestFile, String> {
    let (ovmf, kernel) = (image("sid")?, guests::kernel()?);
    let [wrap, update] = ["igvm-wrap", "igvm-update"].map(programs::foreign);
    let (wrap, update) = (wrap?, update?);
    let uki = debian::initramfs(&kernel, &[], REPORT)
        .and_then(|initramfs| debian::uki(&kernel, &initramfs, "console=ttyS0 quiet panic=-1"))
        .map_err(|error| format!("{error:#}"))?;
    let uki = TestFile::new("kernel.efi", &uki);
    let wrapped = uki.beside("ovmf.igvm");
    let file = TestFile::new("both.igvm", &[]);
    let made = programs::run(
        &wrap,
        [
            "-i".as_ref(),
            ovmf.as_os_str(),
            "-o".as_ref(),
            wrapped.as_os_str(),
        ],
    );
    assert!(made.status.success(), "{made:?}");
    let input = ["-i".as_ref(), wrapped.as_os_str()];
    let kernel = ["-k".as_ref(), uki.path().as_os_str()];
    let output = ["-o".as_ref(), file.path().as_os_str()];
    let made = programs::run(&update, [input, kernel, output].concat());
    assert!(made.status.success(), "{made:?}");
    Ok(file)
}

#[test]
fn kernel_inside_an_igvm_file_of_sids_ovmf_boots_without_a_disk() {
    match file_with_kernel() {
        Ok(file) => {
            let vm = Vm::builder(Backend::Soft).typed_igvm("ovmf", file.path());
            let ended = vm.args(["-m", "1G", "-p", "3"]).run();
            assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
            assert!(ended.stdout.contains("nproc=3"), "{}", ended.stdout);
        }
        Err(reason) => skip(
            "kernel_inside_an_igvm_file_of_sids_ovmf_boots_without_a_disk",
            &reason,
        ),
    }
}
