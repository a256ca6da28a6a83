// SPDX-License-Identifier: MIT
//! Disks on files of the test.

use super::*;
use guest_memory::GuestMemory;
use std::os::unix::fs::MetadataExt;

struct Bench {
    folder: tempfile::TempDir,
    memory: GuestMemory,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            memory: GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap(),
        }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn options(path: &Path, read_only: bool) -> DiskOptions {
    DiskOptions {
        path: path.to_owned(),
        read_only,
        format: None,
    }
}

#[test]
fn what_is_written_is_read_back_and_in_the_file() {
    let bench = Bench::new();
    let path = bench.file("a.img", &[0; 8192]);
    let disk = Disk::open(&options(&path, false)).unwrap();
    assert_eq!((disk.size(), disk.serial(), disk.read_only()), (8192, "a", false));
    let ram = bench.memory.dma();
    ram.write(0x1000, &[0xA5; 1024]).unwrap();
    disk.write(&ram, 1024, &[(0x1000, 1000), (0x13E8, 24)]).unwrap();
    disk.flush().unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[1024..2048], [0xA5; 1024]);
    disk.read(&ram, 512, &[(0x4000, 1024)]).unwrap();
    let mut back = [1; 1024];
    ram.read(0x4000, &mut back).unwrap();
    assert_eq!((back[511], back[512]), (0, 0xA5));
}

#[test]
fn zeroed_and_discarded_ranges_read_as_zeros() {
    let bench = Bench::new();
    let path = bench.file("z.img", &[7; 64 << 10]);
    let disk = Disk::open(&options(&path, false)).unwrap();
    disk.write_zeroes(512, 1024, false).unwrap();
    disk.write_zeroes(8192, 4096, true).unwrap();
    disk.discard(32768, 8192).unwrap();
    disk.discard(0, 0).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!((bytes[511], bytes[512], bytes[1535], bytes[1536]), (7, 0, 0, 7));
    assert_eq!(
        (bytes[8191], bytes[8192], bytes[12287], bytes[12288]),
        (7, 0, 0, 7)
    );
    assert_eq!(bytes.len(), 64 << 10, "the size stays");
    assert!(bytes[32768..40960].iter().all(|&b| b == 0 || b == 7));
}

#[test]
fn requests_outside_the_disk_or_not_in_sectors_are_refused() {
    let bench = Bench::new();
    let disk = Disk::open(&options(&bench.file("s", &[0; 4096]), false)).unwrap();
    let ram = bench.memory.dma();
    for (offset, len) in [
        (4096, 512),
        (3584, 1024),
        (u64::MAX - 511, 512),
        (1, 512),
        (0, 511),
    ] {
        let refused = disk.read(&ram, offset, &[(0, len)]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{offset:#x} {len}");
        assert!(disk.discard(offset, len.into()).is_err());
        assert!(disk.write_zeroes(offset, len.into(), true).is_err());
    }
    disk.read(&ram, 4096, &[]).unwrap();
}

#[test]
fn read_only_disks_refuse_writes_and_keep_their_bytes() {
    let bench = Bench::new();
    let path = bench.file("ro.img", &[3; 512]);
    let disk = Disk::open(&options(&path, true)).unwrap();
    let ram = bench.memory.dma();
    let refused = [
        disk.write(&ram, 0, &[(0, 512)]),
        disk.write_zeroes(0, 512, false),
        disk.discard(0, 512),
    ];
    assert!(
        refused
            .iter()
            .all(|r| r.as_ref().unwrap_err().kind() == io::ErrorKind::ReadOnlyFilesystem)
    );
    disk.flush().unwrap();
    disk.read(&ram, 0, &[(0, 512)]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), [3; 512]);
}

#[test]
fn a_writer_has_the_image_alone_and_readers_share_it() {
    let bench = Bench::new();
    let path = bench.file("l.img", &[0; 512]);
    let writer = Disk::open(&options(&path, false)).unwrap();
    let error = Disk::open(&options(&path, true)).unwrap_err().to_string();
    assert!(error.contains("is in use by another process"), "{error}");
    drop(writer);
    let _first = Disk::open(&options(&path, true)).unwrap();
    let _second = Disk::open(&options(&path, true)).unwrap();
    assert!(matches!(
        Disk::open(&options(&path, false)),
        Err(DiskError::Locked(_))
    ));
}

#[test]
fn what_is_no_disk_is_refused_with_the_way_out() {
    let bench = Bench::new();
    let message = |path: &Path, ro| Disk::open(&options(path, ro)).unwrap_err().to_string();
    assert!(
        message(&bench.folder.path().join("absent"), true)
            .ends_with("No such file or directory (os error 2)")
    );
    assert!(message(bench.folder.path(), true).ends_with("is neither a regular file nor a block device"));
    assert!(message(&bench.file("odd", &[0; 513]), false).contains("has 0x201 bytes"));
    assert!(message(&bench.file("empty", &[]), false).contains("has 0x0 bytes"));
}

#[test]
fn a_discard_gives_storage_back_where_the_file_system_can() {
    let bench = Bench::new();
    let path = bench.file("h.img", &[9; 1 << 20]);
    let disk = Disk::open(&options(&path, false)).unwrap();
    let before = std::fs::metadata(&path).unwrap().blocks();
    disk.discard(0, 1 << 20).unwrap();
    let after = std::fs::metadata(&path).unwrap().blocks();
    assert!(after <= before, "{after} {before}");
}

/// An image of `qemu-img`, or `None` with a line that says why not.
fn qemu_img(name: &str, args: &[&str]) -> Option<std::process::Output> {
    match std::process::Command::new("qemu-img").args(args).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: {name}: qemu-img: {error}; apt-get install qemu-utils");
            None
        }
    }
}

#[test]
fn qcow2_images_of_qemu_are_read_and_written_and_qemu_finds_them_sound() {
    let bench = Bench::new();
    let raw = bench.file(
        "source.img",
        &(0..1u32 << 20).map(|n| (n / 512 % 251) as u8).collect::<Vec<_>>(),
    );
    let path = bench.folder.path().join("image.qcow2");
    let (from, to) = (raw.to_str().unwrap(), path.to_str().unwrap());
    const NAME: &str = "qcow2_images_of_qemu_are_read_and_written_and_qemu_finds_them_sound";
    let convert = ["convert", "-f", "raw", "-O", "qcow2", "-c", from, to];
    let Some(made) = qemu_img(NAME, &convert) else {
        return;
    };
    assert!(made.status.success(), "{made:?}");
    let disk = Disk::open(&options(&path, false)).unwrap();
    assert_eq!(disk.size(), 1 << 20);
    let ram = bench.memory.dma();
    disk.read(&ram, 0, &[(0, 0x8_0000)]).unwrap();
    disk.read(&ram, 0x8_0000, &[(0x8_0000, 0x7_0000)]).unwrap();
    let mut now = vec![0; 0xF_0000];
    ram.read(0, &mut now).unwrap();
    assert!(now == std::fs::read(&raw).unwrap()[..0xF_0000]);
    ram.write(0, &[0x5A; 4096]).unwrap();
    disk.write(&ram, 0x1_2000, &[(0, 4096)]).unwrap();
    disk.write_zeroes(0x2_0000, 0x1_0000, true).unwrap();
    disk.discard(0x4_0000, 0x1_0000).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let check = qemu_img(NAME, &["check", to]).unwrap();
    assert!(check.status.success(), "{check:?}");
    let back = bench.folder.path().join("back.img");
    let convert = ["convert", "-f", "qcow2", "-O", "raw", to, back.to_str().unwrap()];
    assert!(qemu_img(NAME, &convert).unwrap().status.success());
    let (mut expected, back) = (std::fs::read(&raw).unwrap(), std::fs::read(&back).unwrap());
    expected[0x1_2000..0x1_3000].fill(0x5A);
    expected[0x2_0000..0x3_0000].fill(0);
    assert!(back[..0x4_0000] == expected[..0x4_0000] && back[0x5_0000..] == expected[0x5_0000..]);
}

#[test]
fn formats_come_from_the_name_and_never_from_what_a_guest_can_write() {
    let bench = Bench::new();
    let mut bytes = vec![0; 4096];
    bytes[..4].copy_from_slice(&QCOW2_MAGIC);
    let path = bench.file("disk.img", &bytes);
    let error = Disk::open(&options(&path, true)).unwrap_err().to_string();
    assert!(
        error.contains("say which it is with ,format=qcow2 or ,format=raw"),
        "{error}"
    );
    let raw = DiskOptions {
        format: Some(Format::Raw),
        ..options(&path, true)
    };
    assert_eq!(Disk::open(&raw).unwrap().size(), 4096);
    let broken = bench.file("broken.qcow2", &bytes);
    assert!(matches!(
        Disk::open(&options(&broken, true)),
        Err(DiskError::Qcow2 { .. })
    ));
}

#[test]
fn qcow2_images_that_name_other_files_are_refused() {
    const NAME: &str = "qcow2_images_that_name_other_files_are_refused";
    let bench = Bench::new();
    let base = bench.file("base.img", &[1; 4096]);
    let path = bench.folder.path().join("overlay.qcow2");
    let (base, overlay) = (base.to_str().unwrap(), path.to_str().unwrap());
    let create = ["create", "-f", "qcow2", "-F", "raw", "-b", base, overlay];
    let Some(made) = qemu_img(NAME, &create) else {
        return;
    };
    assert!(made.status.success(), "{made:?}");
    let error = Disk::open(&options(&path, true)).unwrap_err();
    assert!(matches!(error, DiskError::Qcow2 { .. }), "{error}");
}
