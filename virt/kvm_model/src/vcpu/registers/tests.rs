// SPDX-License-Identifier: MIT
//! Each quirk of KVM on SVM with the exact difference that it makes in the save area.

use super::super::save_area;
use super::super::{CS, DS, Vcpu};
use super::*;
use crate::physical::PAGE;

/// Offsets and bytes in which two save areas differ.
fn difference(before: &[u8; PAGE], after: &[u8; PAGE]) -> Vec<(usize, u8, u8)> {
    let pairs = before.iter().zip(after).enumerate();
    pairs
        .filter(|(_, (a, b))| a != b)
        .map(|(at, (a, b))| (at, *a, *b))
        .collect()
}

fn image(vcpu: &Vcpu) -> Box<[u8; PAGE]> {
    save_area::build(vcpu, 1, true)
}

/// SREGS of a VP in reset state with segments set as a loader would, then changed.
fn with_sregs(change: impl FnOnce(&mut [u8; SREGS_LEN])) -> (Result<(), i32>, Vcpu) {
    let mut vcpu = Vcpu::new(0);
    let mut sregs = vcpu.get_sregs();
    change(&mut sregs);
    (vcpu.set_sregs(&sregs), vcpu)
}

#[test]
fn reset_state_is_kvms_own() {
    let page = image(&Vcpu::new(0));
    let word = |at| le::<8>(&page[..], at);
    let attributes = |at: usize| le::<2>(&page[..], at + 2);
    assert_eq!([0x00, 0x30, 0x40, 0x50, 0x20].map(attributes), [0x92; 5]);
    assert_eq!(
        (attributes(0x10), attributes(0x90), attributes(0x70)),
        (0x9A, 0x83, 0x82)
    );
    assert_eq!((word(0x148), word(0xD0), word(0x158)), (0x40, 0x1000, 0x10));
    assert_eq!(
        (word(0x168), word(0x160), word(0x310), word(0x178)),
        (0xFFFF_0FF0, 0x400, 0x600, 0xFFF0)
    );
    assert_eq!(
        (le32(&page[..], 0x408), le::<2>(&page[..], 0x410), word(0x268)),
        (0x1F80, 0x37F, 0x0007_0406_0007_0406)
    );
    assert_eq!((word(0x3B0), word(0x3E8), word(0x170)), (1, 1, 2));
    assert_eq!((le32(&page[..], 0x64), attributes(0x60)), (0xFFFF, 0));
}

#[test]
fn legacy_save_area_has_no_fpu_state() {
    let vcpu = Vcpu::new(0);
    let without = save_area::build(&vcpu, 1, false);
    let expected = [
        (0x408, 0x80, 0),
        (0x409, 0x1F, 0),
        (0x410, 0x7F, 0),
        (0x411, 0x03, 0),
    ];
    assert_eq!(difference(&image(&vcpu), &without), expected);
}

#[test]
fn reading_segments_and_writing_them_back_changes_accessed_and_busy_bits() {
    let before = image(&Vcpu::new(0));
    let (result, vcpu) = with_sregs(|_| ());
    assert_eq!(result, Ok(()));
    let expected = [
        (0x02, 0x92, 0x93),
        (0x32, 0x92, 0x93),
        (0x42, 0x92, 0x93),
        (0x52, 0x92, 0x93),
    ];
    assert_eq!(difference(&before, &image(&vcpu)), expected);
    let (result, vcpu) = with_sregs(|sregs| put::<4>(sregs, 24 * DS + 8, 0xFFFF_FFFF));
    assert_eq!(
        (result, vcpu.segments[DS].attributes >> 11),
        (Ok(()), 0),
        "G comes from the caller"
    );
    let again = vcpu.get_sregs();
    assert_eq!(again[24 * DS + 20], 1, "and is shown by the limit");
}

#[test]
fn efer_cr4_cr0_and_rflags_get_what_kvm_gives_them() {
    let (result, mut vcpu) = with_sregs(|sregs| {
        put::<8>(sregs, 0xE0, 0x6000_0010);
        put::<8>(sregs, 0xF8, 0x20);
        put::<8>(sregs, 0x108, 0x800);
    });
    assert_eq!(result, Ok(()));
    vcpu.set_regs(&[0; REGS * 8]);
    let page = image(&vcpu);
    let word = |at| le::<8>(&page[..], at);
    assert_eq!(
        (word(0x158), word(0x148), word(0xD0), word(0x170)),
        (0x10, 0x60, 0x1800, 2)
    );
    let sregs = vcpu.get_sregs();
    assert_eq!(
        (
            le::<8>(&sregs, 0xE0),
            le::<8>(&sregs, 0xF8),
            le::<8>(&sregs, 0x108)
        ),
        (0x6000_0010, 0x20, 0x800)
    );
}

#[test]
fn what_kvm_does_not_copy_stays_zero() {
    let before = image(&Vcpu::new(0));
    let mut vcpu = Vcpu::new(0);
    vcpu.cr2 = 0x1234;
    vcpu.db = [1, 2, 3, 4];
    assert!(vcpu.set_msr(0xC000_0103, 7));
    assert_eq!(difference(&before, &image(&vcpu)), []);
    assert!(vcpu.set_msr(0x175, 0x1_0000_0002));
    assert_eq!(difference(&before, &image(&vcpu)), [(0x230, 0, 2)]);
}

#[test]
fn impossible_control_registers_are_refused() {
    type Change = fn(&mut [u8; SREGS_LEN]);
    let cases: [(&str, Change); 8] = [
        ("SVME without SVM in CPUID", |s| put::<8>(s, 0x108, 1 << 12)),
        ("LMA without paging", |s| put::<8>(s, 0x108, 0x500)),
        ("PG without PE", |s| put::<8>(s, 0xE0, 0x8000_0010)),
        ("NW without CD", |s| put::<8>(s, 0xE0, 0x2000_0010)),
        ("upper half of CR0", |s| put::<8>(s, 0xE0, 1 << 32)),
        ("unknown bit of CR4", |s| put::<8>(s, 0xF8, 1 << 13)),
        ("long code segment outside long mode", |s| s[24 * CS + 19] = 1),
        ("unknown bit of EFER", |s| put::<8>(s, 0x108, 1 << 20)),
    ];
    for (what, change) in cases {
        let (result, vcpu) = with_sregs(change);
        assert_eq!(result, Err(EINVAL), "{what}");
        assert_eq!(vcpu.get_sregs(), Vcpu::new(0).get_sregs(), "{what}");
    }
}

#[test]
fn c_bit_in_cr3_is_legal_once_cpuid_names_it() {
    let long_mode = |vcpu: &Vcpu| {
        let mut sregs = vcpu.get_sregs();
        put::<8>(&mut sregs, 0xE0, 0x8000_0011);
        put::<8>(&mut sregs, 0xF0, 1 << 51 | 0x1000);
        put::<8>(&mut sregs, 0xF8, 0x20);
        put::<8>(&mut sregs, 0x108, 0x500);
        sregs
    };
    let mut vcpu = Vcpu::new(0);
    assert_eq!(vcpu.set_sregs(&long_mode(&vcpu)), Err(EINVAL));
    let mut leaf = [0; LEAF_LEN];
    put::<4>(&mut leaf, 0, 0x8000_001F);
    put::<4>(&mut leaf, 16, 51 | 5 << 6);
    vcpu.set_cpuid(&leaf);
    assert_eq!(vcpu.set_sregs(&long_mode(&vcpu)), Ok(()));
    assert_eq!(le::<8>(&image(&vcpu)[..], 0x150), 1 << 51 | 0x1000);
}

#[test]
fn debug_registers_extended_control_and_fpu_are_checked() {
    let mut vcpu = Vcpu::new(0);
    let mut debug = vcpu.get_debugregs();
    put::<8>(&mut debug, 32, 1 << 32);
    assert_eq!(vcpu.set_debugregs(&debug), Err(EINVAL));
    let mut xcrs = vcpu.get_xcrs();
    for (value, result) in [
        (0, Err(EINVAL)),
        (5, Err(EINVAL)),
        (8, Err(EINVAL)),
        (7, Ok(())),
        (1, Ok(())),
    ] {
        put::<8>(&mut xcrs, 16, value);
        assert_eq!(vcpu.set_xcrs(&xcrs), result, "{value}");
    }
    let mut xsave = vcpu.get_xsave();
    put::<4>(&mut xsave[..], 24, 1 << 31);
    assert_eq!(vcpu.set_xsave(&xsave), Err(EINVAL));
    assert!(!vcpu.set_msr(0x277, 2) && !vcpu.set_msr(0xDA0, 1) && !vcpu.set_msr(0x12345, 0));
}

#[test]
fn x87_registers_are_split_in_low_and_high_parts() {
    let mut vcpu = Vcpu::new(0);
    let mut xsave = vcpu.get_xsave();
    xsave[32..42].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    xsave[48..58].fill(0xAA);
    xsave[576] = 0x55;
    xsave[4] = 3;
    assert_eq!(vcpu.set_xsave(&xsave), Ok(()));
    let page = image(&vcpu);
    assert_eq!(page[0x420..0x428], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(page[0x460..0x464], [9, 10, 0xAA, 0xAA]);
    assert_eq!((page[0x570], page[0x40C], page[0x40D]), (0x55, 3, 0));
    put::<8>(&mut xsave[..], 512, 3);
    vcpu.set_xsave(&xsave).unwrap();
    assert_eq!(image(&vcpu)[0x570], 0, "YMM is zero when its state bit is clear");
}
