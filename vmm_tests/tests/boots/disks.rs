// SPDX-License-Identifier: MIT
//! Debian's cloud kernel with disks: written, read back and compared with the image on the host.

use crate::guests::Linux;
use guest_images::debian::VIRTIO_PCI;
use std::path::Path;
use vmm_tests::files::TestFile;
use vmm_tests::{Backend, Vm, VmBuilder, programs, skip};

pub(crate) const MIB: usize = 1 << 20;

/// Not a multiple of any block size's pattern.
pub(crate) fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    (0..len / 4).flat_map(|_| next().to_le_bytes()).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let file = TestFile::new("hashed", bytes);
    let path = file.path().to_str().expect("a plain path");
    let output = programs::run(Path::new("/bin/busybox"), ["sha256sum", path]);
    let text = String::from_utf8(output.stdout).expect("text");
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn direct(linux: &Linux) -> VmBuilder {
    Vm::builder(Backend::Soft)
        .args(["-m", "256M", "-c", "console=ttyS0 quiet panic=-1"])
        .args(["-k".as_ref(), linux.kernel.as_os_str()])
        .args(["-r".as_ref(), linux.initramfs.path().as_os_str()])
}

#[test]
fn a_virtio_disk_is_read_written_and_discarded_and_a_read_only_one_is_not_written() {
    const NAME: &str = "a_virtio_disk_is_read_written_and_discarded_and_a_read_only_one_is_not_written";
    let script = "sha256sum /dev/vda\nsha256sum /dev/vdb\n\
                  dd if=/dev/vdb of=/dev/vda bs=64k seek=16 conv=fsync,notrunc 2>/dev/null && echo wrote\n\
                  blkdiscard -o 0 -l 65536 /dev/vda && echo discarded\n\
                  dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=fsync 2>&1 | grep -c 'dd:'\n\
                  echo size=$(cat /sys/block/vda/size) ro=$(cat /sys/block/vda/ro)$(cat /sys/block/vdb/ro) \
                  serial=$(cat /sys/block/vda/serial)\n\
                  grep -c virtio /proc/interrupts\npoweroff -f\n";
    let modules = [&VIRTIO_PCI[..], &["virtio_blk"]].concat();
    let linux = match Linux::with_modules(&modules, script) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let (a, b) = (pattern(4 * MIB, 1), pattern(MIB, 2));
    let (vda, vdb) = (TestFile::new("vda", &a), TestFile::new("vdb", &b));
    let read_only = format!("file:[{}],ro", vdb.path().display());
    let ended = direct(&linux)
        .args(["--disk".as_ref(), vda.path().as_os_str()])
        .args(["--virtio-blk", &read_only])
        .run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    for expected in [
        format!("{}  /dev/vda", sha256(&a)),
        format!("{}  /dev/vdb", sha256(&b)),
        "wrote".to_owned(),
        "discarded".to_owned(),
        "size=8192 ro=01 serial=".to_owned(),
    ] {
        assert!(ended.stdout.contains(&expected), "{expected}\n{}", ended.stdout);
    }
    let now = std::fs::read(vda.path()).unwrap();
    assert!(now[..65536].iter().all(|&byte| byte == 0), "the discarded range");
    assert!(now[65536..MIB] == a[65536..MIB], "what was left alone");
    assert!(now[MIB..2 * MIB] == b, "what the guest copied");
    assert!(now[2 * MIB..] == a[2 * MIB..], "what was left alone");
    assert!(std::fs::read(vdb.path()).unwrap() == b, "the read-only disk");
}

#[test]
fn nvme_namespaces_on_a_named_root_complex_are_read_written_and_trimmed() {
    const NAME: &str = "nvme_namespaces_on_a_named_root_complex_are_read_written_and_trimmed";
    let script = "sha256sum /dev/nvme0n1\nsha256sum /dev/nvme0n2\n\
                  dd if=/dev/nvme0n2 of=/dev/nvme0n1 bs=64k seek=16 conv=fsync,notrunc 2>/dev/null && echo wrote\n\
                  blkdiscard -o 0 -l 65536 /dev/nvme0n1 && echo discarded\n\
                  echo ro=$(cat /sys/block/nvme0n1/ro)$(cat /sys/block/nvme0n2/ro) \
                  where=$(readlink /sys/block/nvme0n1/device/device | sed 's,.*/,,')\n\
                  grep -c nvme0q /proc/interrupts\npoweroff -f\n";
    let linux = match Linux::with(script) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let (a, b) = (pattern(4 * MIB, 3), pattern(MIB, 4));
    let (first, second) = (TestFile::new("first", &a), TestFile::new("second", &b));
    let ended = direct(&linux)
        .args(["--pcie-root-complex", "rc0,end_bus=3"])
        .args(["--pcie-root-complex", "rc1,segment=1,end_bus=7,low_mmio=16M"])
        .args(["--nvme-pci", "id=n,rc=rc1"])
        .args(["--disk", &format!("{},on=n", first.path().display())])
        .args(["--disk", &format!("{},ro,on=n", second.path().display())])
        .run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    for expected in [
        format!("{}  /dev/nvme0n1", sha256(&a)),
        format!("{}  /dev/nvme0n2", sha256(&b)),
        "wrote".to_owned(),
        "discarded".to_owned(),
        "ro=01 where=0001:00:00.0".to_owned(),
    ] {
        assert!(ended.stdout.contains(&expected), "{expected}\n{}", ended.stdout);
    }
    let now = std::fs::read(first.path()).unwrap();
    assert!(
        now[..65536].iter().all(|&byte| byte == 0),
        "the deallocated range"
    );
    assert!(now[MIB..2 * MIB] == b, "what the guest copied");
    assert!(now[2 * MIB..] == a[2 * MIB..], "what was left alone");
    assert!(
        std::fs::read(second.path()).unwrap() == b,
        "the read-only namespace"
    );
}

#[test]
fn a_qcow2_image_of_qemu_holds_what_the_guest_wrote() {
    const NAME: &str = "a_qcow2_image_of_qemu_holds_what_the_guest_wrote";
    let script = "sha256sum /dev/vda\n\
                  dd if=/dev/vda of=/dev/vda bs=64k count=16 seek=32 conv=fsync,notrunc 2>/dev/null && echo wrote\n\
                  poweroff -f\n";
    let modules = [&VIRTIO_PCI[..], &["virtio_blk"]].concat();
    let linux = match Linux::with_modules(&modules, script) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let qemu_img = |args: &[&str]| std::process::Command::new("qemu-img").args(args).output();
    if let Err(error) = qemu_img(&["--version"]) {
        return skip(NAME, &format!("qemu-img: {error}; apt-get install qemu-utils"));
    }
    let mut bytes = pattern(4 * MIB, 5);
    let (raw, image) = (TestFile::new("raw", &bytes), TestFile::new("image.qcow2", &[]));
    let (raw, image) = (raw.path().to_str().unwrap(), image.path().to_str().unwrap());
    let made = qemu_img(&["convert", "-f", "raw", "-O", "qcow2", raw, image]).unwrap();
    assert!(made.status.success(), "{made:?}");
    let ended = direct(&linux)
        .args(["--disk", &format!("{image},format=qcow2")])
        .run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    let hash = format!("{}  /dev/vda", sha256(&bytes));
    assert!(
        ended.stdout.contains(&hash) && ended.stdout.contains("wrote"),
        "{}",
        ended.stdout
    );
    assert!(qemu_img(&["check", image]).unwrap().status.success());
    assert!(
        qemu_img(&["convert", "-f", "qcow2", "-O", "raw", image, raw])
            .unwrap()
            .status
            .success()
    );
    bytes.copy_within(0..MIB, 2 * MIB);
    assert!(std::fs::read(raw).unwrap() == bytes);
}
