// SPDX-License-Identifier: MIT
//! Rows 33, 35 and 36: pinned ranges, attributes, slots and guest_memfds.

use crate::rig::*;
use kvm_model::FakeHost;
use kvm_sys::{Fd, Sys};
use libc::{EBADF, EEXIST, EINVAL, ENODEV, ENOMEM, ENOTTY};

fn range(address: u64, len: u64) -> [u8; 16] {
    structure(&[(0, &address.to_le_bytes()), (8, &len.to_le_bytes())])
}

#[test]
fn row_33_ranges_are_pinned_within_the_limit() {
    let plain = Rig::bare(FakeHost::snp(), 0);
    let request =
        |rig: &Rig, number, address, len| errno(&rig.pointer(rig.vm, number, &mut range(address, len)));
    assert_eq!(request(&plain, REG_REGION, plain.host(0), 4096), ENOTTY);
    let host = FakeHost {
        pin_limit: Some(RAM),
        ..FakeHost::snp()
    };
    let rig = Rig::on(host, SEV);
    assert_eq!(request(&rig, REG_REGION, rig.host(0), 0), EINVAL);
    assert_eq!(request(&rig, REG_REGION, u64::MAX, 2), EINVAL);
    assert_eq!(
        request(&rig, REG_REGION, rig.host(0), 4096),
        ENOMEM,
        "the limit is used up"
    );
    assert_eq!(
        request(&rig, UNREG_REGION, rig.host(0), 4096),
        EINVAL,
        "another length"
    );
    assert_eq!(request(&rig, UNREG_REGION, rig.host(0), RAM), 0);
    assert_eq!(request(&rig, UNREG_REGION, rig.host(0), RAM), EINVAL);
    assert_eq!(request(&rig, REG_REGION, rig.host(0), 4096), 0);
    assert_eq!(request(&rig, REG_REGION, 4096, 4096), ENOMEM, "not mapped");
}

#[test]
fn row_35_attributes_are_whole_pages_of_known_bits() {
    let rig = Rig::new(SNP);
    let set = |address: u64, size: u64, attributes: u64, flags: u64| {
        let fields = [address, size, attributes, flags].map(u64::to_le_bytes);
        let mut request = structure::<32>(&[
            (0, &fields[0]),
            (8, &fields[1]),
            (16, &fields[2]),
            (24, &fields[3]),
        ]);
        errno(&rig.pointer(rig.vm, SET_ATTRIBUTES, &mut request))
    };
    for bad in [
        (1, 4096, 8, 0),
        (0, 100, 8, 0),
        (0, 0, 8, 0),
        (0, 4096, 8, 1),
        (1 << 63, 1 << 63, 8, 0),
    ] {
        assert_eq!(set(bad.0, bad.1, bad.2, bad.3), EINVAL, "{bad:x?}");
    }
    for bit in (0..64).filter(|bit| *bit != 3) {
        assert_eq!(set(0, 4096, 1 << bit, 0), EINVAL);
    }
    assert_eq!((set(0x1000, 0x2000, 8, 0), set(0x2000, 0x1000, 0, 0)), (0, 0));
    let guest = rig.guest();
    assert_eq!(
        [0, 0x1000, 0x2000].map(|gpa| guest.is_private(gpa)),
        [false, true, false]
    );
    assert_eq!(
        Rig::new(SEV).set_private(0, 4096, true),
        EINVAL,
        "no private memory"
    );
}

fn region2(flags: u32, gpa: u64, size: u64, host: u64, offset: u64, memfd: i32) -> [u8; 160] {
    structure(&[
        (0, &[7]),
        (4, &flags.to_le_bytes()),
        (8, &gpa.to_le_bytes()),
        (16, &size.to_le_bytes()),
        (24, &host.to_le_bytes()),
        (32, &offset.to_le_bytes()),
        (40, &memfd.to_le_bytes()),
    ])
}

#[test]
fn row_36_slots_with_private_memory_are_checked() {
    let rig = Rig::new(SNP);
    let host = rig.host(0);
    let memfd = rig
        .pointer(rig.vm, CREATE_MEMFD, &mut structure::<64>(&[(0, &[0, 0x40])]))
        .unwrap();
    let set = |mut region: [u8; 160]| errno(&rig.pointer(rig.vm, SET_REGION2, &mut region));
    let gpa = RAM * 2;
    for flags in [4 | 1, 4 | 2, 8] {
        assert_eq!(
            set(region2(flags, gpa, 0x1000, host, 0, memfd)),
            EINVAL,
            "flags {flags}"
        );
    }
    assert_eq!(set(region2(4, gpa, 0x1000, host, 0x100, memfd)), EINVAL);
    assert_eq!(
        set(region2(4, gpa, 0x2000, host, 0x3000, memfd)),
        EINVAL,
        "past the end"
    );
    assert_eq!(set(region2(4, gpa, 0x1000, host, 0, -1)), EBADF);
    assert_eq!(
        set(region2(4, gpa, 0x1000, host, 0, rig.sev.0)),
        EINVAL,
        "not a guest_memfd"
    );
    assert_eq!(
        set(region2(4, RAM - 0x1000, 0x2000, host, 0, memfd)),
        EEXIST,
        "gpa overlap"
    );
    assert_eq!(
        set(region2(4, gpa, 0x1000, host, 0, rig.memfd.0)),
        EEXIST,
        "range is bound"
    );
    assert_eq!(set(region2(4, gpa, 0x1000, host, 0x1000, memfd)), 0);
    assert_eq!(
        set(region2(4, gpa, 0x1000, host, 0x2000, memfd)),
        EINVAL,
        "an existing slot"
    );
    assert_eq!(set(region2(0, gpa, 0, host, 0, 0)), 0, "deleted");
    assert_eq!(set(region2(0, gpa, 0, host, 0, 0)), EINVAL, "is gone");
    assert_eq!(set(region2(0, gpa, 0x1000, host + 1, 0, 0)), EINVAL);
    let sev = Rig::new(SEV);
    let other = errno(&sev.pointer(sev.vm, SET_REGION2, &mut region2(4, gpa, 0x1000, host, 0, 3)));
    assert_eq!(other, EINVAL, "this type has no private memory");
}

#[test]
fn guest_memfds_are_neither_mapped_nor_misused() {
    let rig = Rig::new(SNP);
    for (size, flags) in [(0u64, 0u64), (100, 0), (0x1000, 1 << 5)] {
        let mut request = structure::<64>(&[(0, &size.to_le_bytes()), (8, &flags.to_le_bytes())]);
        assert_eq!(errno(&rig.pointer(rig.vm, CREATE_MEMFD, &mut request)), EINVAL);
    }
    assert_eq!(errno(&rig.model.map(rig.memfd, 4096)), ENODEV);
    for (offset, len, expected) in [
        (0, 0x1000, 0),
        (1, 0x1000, EINVAL),
        (0, 0x10, EINVAL),
        (0, 0, EINVAL),
    ] {
        assert_eq!(errno(&rig.model.punch(rig.memfd, offset, len)), expected);
    }
    assert_eq!(errno(&rig.model.punch(Fd(5), 0, 0x1000)), EBADF);
}
