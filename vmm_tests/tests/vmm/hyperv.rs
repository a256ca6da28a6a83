// SPDX-License-Identifier: MIT
//! The Hyper-V generation 2 machine, as a firmware that uses all of it sees it.

use crate::images::{Folder, arg};
use guest_images::secure_boot::{Identity, SHA256, X509, enrolled_store, signature_list};
use payloads::uefi_probe::{Write, hv_firmware_with};
use uuid::{Uuid, uuid};
use vmm_tests::{Vm, VmBuilder, files, on_every_backend};

/// Namespaces of the platform's keys and of images' databases.
const GLOBAL: Uuid = uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
const IMAGES: Uuid = uuid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f");
/// Kept, visible always, written with a signature and a time.
const SIGNED: u32 = 0x27;
const SECURITY_VIOLATION: u32 = 26;

const TWO_GIB: [&str; 4] = ["-m", "2GB", "-p", "1"];

/// The device sets of msvm-machine section 13: nothing but the board; disks on PCIe, whose
/// BARs have addresses or have none; a disk on VMBus; and all together.
struct Set {
    options: &'static [&'static str],
    /// Options that take a disk of their own, and what comes behind its path.
    disks: &'static [(&'static str, &'static str)],
    /// Checks that must be in the report, because a part that is not looked for would fail nothing.
    checks: &'static [&'static str],
}

const SETS: [Set; 5] = [
    Set {
        options: &["--no-vmbus"],
        disks: &[],
        checks: &["vmbus-absent", "no-aperture"],
    },
    Set {
        options: &["--no-vmbus", "--nvme-pci", "id=n"],
        disks: &[("--disk", ""), ("--disk", ",on=n")],
        checks: &[
            "vmbus-absent",
            "bars-are-placed",
            "virtio-blk-compare",
            "nvme-compare",
        ],
    },
    Set {
        options: &[],
        disks: &[("--disk", "")],
        checks: &["vmbus-unload", "scsi-compare", "no-aperture"],
    },
    Set {
        options: &["--no-vmbus", "--nvme-pci", "id=n", "--uefi-enumerate-pci"],
        disks: &[("--disk", ""), ("--disk", ",on=n")],
        checks: &["bars-are-not-placed", "virtio-blk-compare", "nvme-compare"],
    },
    Set {
        options: &["--nvme-pci", "id=n", "-p", "2"],
        disks: &[("--disk", ""), ("--virtio-blk", ""), ("--disk", ",on=n")],
        checks: &["scsi-compare", "virtio-blk-compare", "nvme-compare"],
    },
];

/// Boots the probe with every set: all answers are right, and every disk has what was written.
fn every_set(boot: &VmBuilder) {
    for set in &SETS {
        let folder = Folder::new();
        let mut vm = boot.clone().args(["-m", "2GB"]).args(set.options);
        let mut images = Vec::new();
        for (number, (option, behind)) in set.disks.iter().enumerate() {
            let image = folder.write(&format!("disk{number}"), vec![0; 1 << 20]);
            vm = vm.args([*option, &format!("{}{behind}", image.display())]);
            images.push(image);
        }
        let mut vm = vm.start();
        let report = vm.report();
        report.assert_all_ok();
        assert_eq!(report.payload, "hv_probe");
        for name in set.checks {
            assert!(
                report.checks.iter().any(|check| check.0 == *name),
                "{name} is not checked"
            );
        }
        assert_eq!(vm.wait_for_exit().code, 0);
        for image in images {
            let bytes = std::fs::read(&image).unwrap();
            // Block 8, as the probe counts.
            assert_eq!(bytes[0x1000..0x1008], *b"hv_probe", "{}", image.display());
        }
    }
}

on_every_backend! {
    fn every_answer_is_right_with_every_set_of_devices(backend) {
        let file = files::hv_probe();
        every_set(&Vm::builder(backend).uefi_igvm(file.path()));
    }

    fn a_file_that_is_found_to_be_this_firmware_gets_the_same_machine(backend) {
        let file = files::hv_probe();
        every_set(&Vm::builder(backend).typed_igvm("auto", file.path()));
    }

    fn direct_boot_has_the_same_machine(backend) {
        let firmware = files::hv_probe_firmware();
        every_set(&Vm::builder(backend).args(["--uefi", "--uefi-firmware", arg(firmware.path())]));
    }
}

/// Signed by the key that may, the other, and the one that is not enrolled.
#[test]
fn secure_boot_takes_signed_variables_and_keys_of_a_template() {
    let [platform, exchange, stranger] = [(1, "platform"), (2, "exchange"), (3, "stranger")]
        .map(|(seed, text)| Identity::new(seed, text, None));
    let lists = [&platform, &exchange].map(|key| signature_list(X509, &[key.certificate()]));
    let empty = [
        &[0; 40][..],
        b"_FVH",
        &[0; 4],
        &[0x48, 0],
        &[0; 22],
        &store_header(),
        &[0xFF; 0x3000],
    ]
    .concat();
    let keys: [(Uuid, &str, &[u8]); 2] = [(GLOBAL, "PK", &lists[0]), (GLOBAL, "KEK", &lists[1])];
    let folder = Folder::new();
    let template = folder.write("template", enrolled_store(&empty, &keys).unwrap());
    let hashes = signature_list(SHA256, &[&[1; 32]]);
    // Signed by the platform key, by a stranger, changed behind the signature, by the exchange key.
    let good = exchange.write((IMAGES, "db"), SIGNED, 2, &hashes);
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    let own = platform.write((GLOBAL, "KEK"), SIGNED, 3, &lists[1]);
    let foreign = exchange.write((GLOBAL, "KEK"), SIGNED, 4, &lists[1]);
    let write = |status, vendor: Uuid, name, data: &[u8]| Write {
        status,
        attributes: SIGNED,
        vendor: vendor.to_bytes_le(),
        name,
        data: data.to_vec(),
    };
    let writes = [
        write(
            SECURITY_VIOLATION,
            IMAGES,
            "db",
            &stranger.write((IMAGES, "db"), SIGNED, 2, &hashes),
        ),
        write(SECURITY_VIOLATION, IMAGES, "db", &changed),
        write(0, IMAGES, "db", &good),
        write(SECURITY_VIOLATION, IMAGES, "db", &good),
        write(SECURITY_VIOLATION, GLOBAL, "KEK", &foreign),
        write(0, GLOBAL, "KEK", &own),
    ];
    let firmware = folder.write("signed.fd", hv_firmware_with(&writes));
    let nvram = folder.path("nvram");
    let vm = |options: &[&str]| {
        let vm = Vm::builder(vmm_tests::Backend::Soft).args(["--uefi", "--uefi-firmware", arg(&firmware)]);
        vm.args(TWO_GIB)
            .args(["--nvram", arg(&nvram)])
            .args(options.iter().copied())
    };
    let boot = |options: &[&str]| {
        let mut vm = vm(options).start();
        let report = vm.report();
        let mode = ["SecureBoot", "SetupMode"].map(|name| report.info(name).to_owned());
        (report, mode, vm.wait_for_exit())
    };
    let (report, mode, ended) = boot(&["--secure-boot", "--secure-boot-template", arg(&template)]);
    report.assert_all_ok();
    assert_eq!(
        report
            .checks
            .iter()
            .filter(|check| check.0 == "nvram-signed-write")
            .count(),
        writes.len()
    );
    assert_eq!(mode, ["1", "0"]);
    assert!(
        ended.stderr.contains("secure boot: the keys of"),
        "{}",
        ended.stderr
    );
    // The keys are in the file now; secure boot is off unless it is asked for, and the times have passed.
    let (report, mode, _) = boot(&[]);
    assert_eq!(mode, ["0", "0"]);
    let replayed = report
        .checks
        .iter()
        .filter(|check| check.0 == "nvram-signed-write" && !check.1);
    assert_eq!(replayed.count(), 2);
    let (_, mode, ended) = boot(&["--secure-boot", "--secure-boot-template", arg(&template)]);
    assert_eq!(mode, ["1", "0"]);
    assert!(
        ended.stderr.contains("the template is not used"),
        "{}",
        ended.stderr
    );
}

/// Without a platform key nothing can be checked, and the user is told how to have one.
#[test]
fn secure_boot_without_keys_stays_off_and_says_so() {
    let file = files::hv_probe();
    let mut vm = Vm::builder(vmm_tests::Backend::Soft)
        .uefi_igvm(file.path())
        .args(TWO_GIB)
        .args(["--secure-boot"])
        .start();
    let report = vm.report();
    report.assert_all_ok();
    assert_eq!((report.info("SecureBoot"), report.info("SetupMode")), ("0", "1"));
    let ended = vm.wait_for_exit();
    assert!(
        ended.stderr.contains("--secure-boot-template FILE gives it one"),
        "{}",
        ended.stderr
    );
}

/// EDK2's header of a store of authenticated variables.
fn store_header() -> Vec<u8> {
    let id = uuid!("aaf32c78-947b-439a-a180-2e144ec37792");
    [
        &id.to_bytes_le()[..],
        &0x3000_u32.to_le_bytes(),
        &[0x5A, 0xFE],
        &[0; 6],
    ]
    .concat()
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
    let folder = Folder::new();
    let run = || {
        let [scsi, virtio, nvme] =
            ["a", "b", "c"].map(|name| arg(&folder.write(name, vec![0; 1 << 20])).to_owned());
        let mut vm = Vm::builder(vmm_tests::Backend::Soft)
            .uefi_igvm(file.path())
            .args(TWO_GIB)
            .args(["--deterministic=5", "--nvme-pci", "id=n"])
            .args([
                "--disk",
                &scsi,
                "--virtio-blk",
                &virtio,
                "--disk",
                &format!("{nvme},on=n"),
            ])
            .start();
        let report = vm.report();
        report.assert_all_ok();
        assert_eq!(vm.wait_for_exit().code, 0);
        (report.checks.clone(), report.infos.clone())
    };
    assert_eq!(run(), run());
}
