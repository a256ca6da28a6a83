// SPDX-License-Identifier: MIT
//! `virtio_probe` drives a virtio block device by itself.

use crate::images::{self, Folder};
use launch_plan::Isolation;
use payloads::plan::FlatPayload;
use vmm_tests::{Vm, on_every_backend};

/// Where the implicit root complex of the plain machine has its configuration space.
const ECAM: &str = "ecam=0xfaa00000";
const LEN: usize = 1 << 20;

on_every_backend! {
    fn a_payload_writes_a_disk_and_reads_it_back_by_interrupt(backend) {
        let folder = Folder::new();
        let file = folder.write("probe.igvm", images::flat(FlatPayload::VirtioProbe, Isolation::Native));
        let disk = folder.write("disk.img", vec![0xEE; LEN]);
        let mut vm = Vm::builder(backend)
            .typed_igvm("test", &file)
            .args(["-m", "256MB", "-c", ECAM, "--disk"])
            .args([disk.as_os_str()])
            .start();
        vm.report().assert_all_ok();
        let ended = vm.wait_for_exit();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        // Errors are the guest's doing, and said once.
        assert_eq!(ended.stderr.matches("the guest gets an I/O error").count(), 1, "{}", ended.stderr);
        let bytes = std::fs::read(&disk).unwrap();
        let pattern = |at: u64| at.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ at;
        let expected: Vec<u8> = (0..0x1_0000).step_by(8).flat_map(|at| pattern(at).to_le_bytes()).collect();
        assert!(bytes[16 * 512..16 * 512 + 0x1_0000] == expected, "what was written");
        assert!(bytes[..16 * 512].iter().all(|&byte| byte == 0xEE), "what was not");
    }
}

#[test]
fn a_deterministic_disk_gives_the_same_run_twice() {
    let run = || {
        let folder = Folder::new();
        let file = folder.write(
            "probe.igvm",
            images::flat(FlatPayload::VirtioProbe, Isolation::Native),
        );
        let disk = folder.write("disk.img", vec![0; LEN]);
        let vm = Vm::without_backend()
            .typed_igvm("test", &file)
            .args([
                "-m",
                "256MB",
                "--deterministic=7",
                "-c",
                ECAM,
                "-c",
                "bench=40",
                "--virtio-rng",
                "--disk",
            ])
            .args([disk.as_os_str()]);
        let ended = vm.run();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.stdout
    };
    // Times are in it.
    let first = run();
    assert!(first.contains("random-read-4k-ns"), "{first}");
    assert_eq!(first, run());
}
