// SPDX-License-Identifier: MIT
//! `boot_probe` in its three forms: bzImage, ELF with a PVH note, and an IGVM file of a kernel.

use crate::images::{Folder, arg};
use guest_protocol::Fnv1a;
use payloads::boot_probe;
use vmm_tests::{Report, Vm, VmBuilder, files, on_every_backend};

/// Not a multiple of the page size, and no repeating pages.
fn initrd() -> Vec<u8> {
    (0..70_001_u32).map(|n| (n ^ (n >> 8)) as u8).collect()
}

#[track_caller]
fn booted(builder: VmBuilder, way: &str, command_line: &str) -> Report {
    let mut vm = builder.start();
    let report = vm.report();
    report.assert_all_ok();
    assert!(report.info("entry").starts_with(way), "{}", report.info("entry"));
    assert_eq!(report.info("command-line"), command_line);
    let ended = vm.wait_for_exit();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    report
}

#[track_caller]
fn assert_initrd(report: &Report) {
    let bytes = initrd();
    let expected = format!("{} bytes hash {:016x} at ", bytes.len(), Fnv1a::of(&bytes));
    assert!(
        report.info("initrd").starts_with(&expected),
        "{}",
        report.info("initrd")
    );
}

on_every_backend! {
    fn bzimage_gets_its_zero_page_initrd_and_tables(backend) {
        let folder = Folder::new();
        let kernel = folder.write("bzImage", boot_probe::bz_image());
        let initrd = folder.write("initrd", initrd());
        for processors in ["1", "2"] {
            let base = Vm::builder(backend).args(["-m", "256MB", "-p", processors, "-k", arg(&kernel)]);
            let report = booted(base.clone(), "linux-64", "");
            assert_eq!(report.info("initrd"), "none");
            let full = base.args(["-r", arg(&initrd), "-c", "console=ttyS0 a=b"]);
            assert_initrd(&booted(full, "linux-64", "console=ttyS0 a=b"));
        }
    }

    fn pvh_kernel_gets_its_start_info_module_and_tables(backend) {
        let folder = Folder::new();
        let kernel = folder.write("vmlinux", boot_probe::ELF);
        let initrd = folder.write("initrd", initrd());
        let base = Vm::builder(backend).args(["-m", "256MB", "-p", "2", "-k", arg(&kernel)]);
        let full = base.args(["-r", arg(&initrd), "-c", "quiet"]);
        assert_initrd(&booted(full, "pvh", "quiet"));
    }

    fn igvm_file_of_a_kernel_boots_with_its_own_or_the_hosts_command_line(backend) {
        let kernel = boot_probe::bz_image();
        let file = files::build("linux-x64.json", &[("linux_kernel", &kernel), ("linux_initrd", &initrd())], &[]);
        let base = Vm::builder(backend).typed_igvm("linux", file.path()).args(["-m", "512MB"]);
        assert_initrd(&booted(base.clone(), "linux-64", "console=ttyS0"));
        assert_initrd(&booted(base.args(["-c", "other"]), "linux-64", "other"));
    }

    fn kernel_that_resets_boots_twice(backend) {
        let folder = Folder::new();
        let kernel = folder.write("bzImage", boot_probe::bz_image());
        let mut vm = Vm::builder(backend).args(["-m", "256MB", "-k", arg(&kernel), "-c", "probe=reset"]).start();
        for boot in ["1", "2"] {
            let report = vm.report();
            report.assert_all_ok();
            assert_eq!(report.info("boot"), boot);
        }
        assert_eq!(vm.wait_for_exit().code, 0);
    }
}

#[test]
fn auto_takes_a_kernel_for_linux() {
    let kernel = boot_probe::bz_image();
    let resources: &[(&str, &[u8])] = &[("linux_kernel", &kernel), ("linux_initrd", &[1])];
    let file = files::build("linux-x64.json", resources, &[]);
    let vm = Vm::without_backend()
        .typed_igvm("auto", file.path())
        .args(["-m", "512MB", "--dry-run"]);
    let ended = vm.run();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        ended.stdout.contains("type=auto decided type=linux ("),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("machine linux"), "{}", ended.stdout);
}

#[test]
fn smaller_machine_than_the_image_was_built_for_is_refused() {
    let kernel = boot_probe::bz_image();
    let resources: &[(&str, &[u8])] = &[("linux_kernel", &kernel), ("linux_initrd", &[1])];
    let file = files::build("linux-x64.json", resources, &[]);
    let vm = Vm::without_backend()
        .typed_igvm("linux", file.path())
        .args(["-m", "256MB", "--dry-run"]);
    let ended = vm.run();
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.trim_end().ends_with("-m 512M fits it"),
        "{}",
        ended.stderr
    );
}
