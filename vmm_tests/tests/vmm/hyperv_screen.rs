// SPDX-License-Identifier: MIT
//! Screen and keyboard of the Hyper-V machine under firmware, from guest memory to a VNC client and back.

use crate::images::{Folder, arg};
use guest_protocol::screen::{HEIGHT, WIDTH, pixel};
use vmm_tests::{Backend, Report, Viewer, Vm, VmBuilder, files, on_every_backend};

/// X11 symbols.
const UP: u32 = 0xFF52;
const ENTER: u32 = 0xFF0D;

/// Waits until the guest has drawn picture `number`, and compares it pixel by pixel with what arrives.
#[track_caller]
fn shows(vm: &mut Vm, viewer: &mut Viewer, number: u32) {
    vm.wait_for(&format!("info: screen: {number}"));
    let picture = viewer.picture();
    assert_eq!(picture.len() as u32, WIDTH * HEIGHT);
    for (row, y) in picture.chunks_exact(WIDTH as usize).zip(0..) {
        for (&seen, x) in row.iter().zip(0..) {
            let drawn = pixel(number, x, y);
            assert_eq!(
                seen, drawn,
                "picture {number} at {x}, {y}: {seen:#08x}, drawn {drawn:#08x}"
            );
        }
    }
}

/// Boots the probe with a screen and disks on every bus; types what it asks for.
fn types_and_looks(boot: &VmBuilder, resets: bool) {
    let folder = Folder::new();
    let [scsi, virtio] = ["scsi", "virtio"].map(|name| folder.write(name, vec![0; 1 << 20]));
    let vm = boot.clone().args(["-m", "2GB", "--gfx", "--vnc-port", "0"]);
    let vm = vm.args(["--disk".into(), scsi.into_os_string()]);
    let mut vm = vm.args(["--virtio-blk".into(), virtio.into_os_string()]).start();
    let mut viewer = Viewer::connect(&Viewer::address(&mut vm));
    assert_eq!(viewer.size(), (WIDTH as usize, HEIGHT as usize));
    shows(&mut vm, &mut viewer, 1);
    if resets {
        // The client stays; picture and keyboard begin anew.
        vm.send(b"\x11reset\n");
        shows(&mut vm, &mut viewer, 1);
    }
    viewer.press('a'.into());
    viewer.press(UP);
    viewer.press(ENTER);
    for key in ["1e down", "1e up", "e0 48 down", "e0 48 up", "1c down", "1c up"] {
        vm.wait_for(&format!("info: key: {key}"));
    }
    // Firmware draws without a word, and what it has started draws when VMBus is gone.
    for number in [2, 3] {
        shows(&mut vm, &mut viewer, number);
        viewer.press(ENTER);
    }
    let ended = vm.wait_for_exit();
    assert_eq!(ended.code, 0);
    let report = Report::parse(&ended.stdout).expect("a report");
    report.assert_all_ok();
    for check in ["frame-buffer-clear-of-bars", "scsi-compare", "virtio-blk-compare"] {
        assert!(report.holds(check), "{check}");
    }
}

on_every_backend! {
    fn a_vnc_client_sees_what_firmware_draws_and_firmware_gets_its_keys(backend) {
        let file = files::hv_probe();
        // Drawing takes long where ring 0 is emulated; once is enough.
        let resets = backend == Backend::Soft;
        types_and_looks(&Vm::builder(backend).uefi_igvm(file.path()), resets);
    }
}

#[test]
fn direct_boot_has_the_same_screen_and_keyboard() {
    let firmware = files::hv_probe_firmware();
    let vm = Vm::builder(Backend::Soft);
    types_and_looks(
        &vm.args(["--uefi", "--uefi-firmware", arg(firmware.path())]),
        false,
    );
}
