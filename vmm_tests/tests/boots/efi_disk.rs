// SPDX-License-Identifier: MIT
//! EFI applications on the disk that `cargo xtask guest-disk` makes, started by Debian's OVMF; with secure boot, only
//! those that a key of ours has signed.

use crate::guests;
use guest_images::esp_disk;
use guest_images::secure_boot::{Identity, X509, enrolled_store, signature_list};
use uuid::{Uuid, uuid};
use vmm_tests::files::TestFile;
use vmm_tests::{Backend, Vm, VmBuilder, skip};

const GLOBAL: Uuid = uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
const IMAGES: Uuid = uuid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f");
const GREETING: &str = "efi_hello: started by firmware";

fn disk(program: &[u8]) -> TestFile {
    TestFile::new(
        "esp.img",
        &esp_disk(&[("EFI/BOOT/BOOTX64.EFI", program)]).unwrap(),
    )
}

fn machine(firmware: &std::path::Path, disk: &TestFile) -> VmBuilder {
    Vm::builder(Backend::Soft).args(["-m", "512M", "--ovmf"]).args([
        firmware.as_os_str(),
        "--disk".as_ref(),
        disk.path().as_os_str(),
    ])
}

#[test]
fn firmware_starts_the_application_of_guest_disk() {
    let ovmf = match guests::ovmf() {
        Ok(ovmf) => ovmf,
        Err(reason) => return skip("firmware_starts_the_application_of_guest_disk", &reason),
    };
    let disk = disk(&payloads::efi_hello());
    let mut vm = machine(ovmf, &disk).start();
    vm.wait_for(GREETING);
    let ended = vm.wait_for_exit();
    ended.assert_powered_off();
}

#[test]
fn secure_boot_starts_what_an_enrolled_key_has_signed_and_nothing_else() {
    let [code, store] = match guests::ovmf_in_parts() {
        Ok(parts) => parts,
        Err(reason) => {
            return skip(
                "secure_boot_starts_what_an_enrolled_key_has_signed_and_nothing_else",
                &reason,
            );
        }
    };
    let [platform, images, stranger] = [(11, "platform"), (12, "images"), (13, "stranger")]
        .map(|(seed, text)| Identity::new(seed, text, None));
    let [pk, db] = [&platform, &images].map(|key| signature_list(X509, &[key.certificate()]));
    let keys: [(Uuid, &str, &[u8]); 3] = [(GLOBAL, "PK", &pk), (GLOBAL, "KEK", &pk), (IMAGES, "db", &db)];
    let empty = std::fs::read(store).unwrap();
    let store = enrolled_store(&empty, &keys).unwrap();
    let hello = payloads::efi_hello();
    let boot = |program: &[u8]| {
        let vars = TestFile::new("vars", &store);
        let disk = disk(program);
        let vm = machine(code, &disk).args(["--vars".as_ref(), vars.path().as_os_str()]);
        (vm.start(), vars, disk)
    };
    let (mut vm, _vars, _disk) = boot(&images.sign_program(&hello).unwrap());
    vm.wait_for(GREETING);
    assert_eq!(vm.wait_for_exit().code, 0);
    let mut changed = images.sign_program(&hello).unwrap();
    // A byte of its text, which the signature covers.
    *changed[..hello.len()]
        .iter_mut()
        .rev()
        .find(|byte| **byte != 0)
        .unwrap() ^= 1;
    for refused in [hello.clone(), stranger.sign_program(&hello).unwrap(), changed] {
        let (mut vm, _vars, _disk) = boot(&refused);
        let text = vm.wait_for("Access Denied");
        assert!(!text.contains(GREETING), "{text}");
    }
}
