// SPDX-License-Identifier: MIT
//! Rows 10 to 21 and 23 to 25: the launch of SEV-SNP.

use crate::rig::*;
use kvm_model::{Assumptions, FakeHost, Fault, PageState};
use kvm_sys::{Fd, Sys};
use libc::{EBUSY, EINVAL, EIO, ENOTTY};

fn started() -> Rig {
    let rig = Rig::new(SNP);
    assert_eq!(rig.start(), (0, 0));
    rig
}

/// The digest of a launch that adds `pages` at their gpas with NORMAL.
fn digest_of(pages: &[u64]) -> Vec<u8> {
    let rig = started();
    pages.iter().for_each(|gpa| rig.add(*gpa, 1));
    rig.digest()
}

#[test]
fn row_10_update_before_start_is_refused() {
    let rig = Rig::new(SNP);
    rig.set_private(0, 4096, true);
    assert_eq!(rig.update(0, 4096, NORMAL).0, EINVAL);
    assert_eq!(rig.finish().0, EINVAL);
    let sev = Rig::new(SEV);
    assert_eq!(sev.start().0, ENOTTY);
    assert_eq!(sev.update(0, 4096, NORMAL).0, EINVAL);
    assert_eq!(sev.finish().0, ENOTTY);
}

#[test]
fn row_11_start_takes_one_valid_policy_once() {
    let rig = Rig::new(SNP);
    for bad in [0x1_0000, POLICY | 1 << 18, POLICY | 1 << 21, POLICY | 1 << 63] {
        assert_eq!(rig.start_with(bad), (EINVAL, UNTOUCHED), "{bad:#x}");
    }
    let mut flags = structure::<64>(&[(0, &POLICY.to_le_bytes()), (24, &[1])]);
    assert_eq!(rig.command(SNP_START, &mut flags).0, EINVAL);
    for (refused, why) in [
        (POLICY | 2 << 8, "version 2"),
        (POLICY | 1 << 8 | 56, "version 1.56"),
        (2 << 16, "no SMT"),
    ] {
        assert_eq!(rig.start_with(refused), (EIO, 7), "{why}");
    }
    assert_eq!(
        rig.start_with(POLICY | 1 << 8 | 55),
        (0, 0),
        "a refused start may be repeated"
    );
    assert_eq!(rig.start(), (EINVAL, UNTOUCHED));
    let hiding = Rig::on(FakeHost::snp_ciphertext_hiding(), SNP);
    assert_eq!(hiding.start_with(POLICY | 1 << 23), (EIO, 7), "RAPL is on");
    assert_eq!(hiding.start_with(POLICY | 1 << 24), (0, 0));
}

#[test]
fn row_12_bad_types_lengths_addresses_and_flags_are_refused() {
    let rig = started();
    rig.set_private(0, RAM, true);
    for kind in [0, 2, 7, 255] {
        assert_eq!(rig.update(0, 4096, kind).0, EINVAL, "type {kind}");
    }
    for len in [0, 100, 4097] {
        assert_eq!(rig.update(0, len, NORMAL).0, EINVAL, "length {len}");
    }
    assert_eq!(rig.update_from(0, 4096, NORMAL, rig.host(0) + 1).0, EINVAL);
    for bit in 0..16u16 {
        let mut update = update_structure(0, 4096, NORMAL, rig.host(0));
        update[26..28].copy_from_slice(&(1u16 << bit).to_le_bytes());
        assert_eq!(rig.command(SNP_UPDATE, &mut update).0, EINVAL);
    }
    assert_eq!(rig.digest(), [0; 48]);
}

#[test]
fn row_13_only_zero_pages_need_no_source() {
    let rig = started();
    rig.set_private(0, RAM, true);
    for kind in [NORMAL, UNMEASURED, SECRETS, CPUID] {
        assert_eq!(rig.update_from(0, 4096, kind, 0), (EIO, 0, 4096), "{kind}");
    }
    assert_eq!(rig.update_from(0, 4096, ZERO, 0), (0, 0, 0));
    assert_eq!(
        rig.update_from(4096, 4096, ZERO, 1),
        (0, 0, 0),
        "the address is ignored"
    );
    assert_eq!(
        rig.update_from(8192, 4096, NORMAL, 4096),
        (EIO, 0, 4096),
        "unreadable"
    );
}

#[test]
fn row_14_pages_outside_private_slots_are_refused() {
    let rig = started();
    let host = rig.host(0).to_le_bytes();
    let mut plain = structure::<32>(&[
        (0, &[1]),
        (8, &(RAM * 2).to_le_bytes()),
        (16, &[0, 16]),
        (24, &host),
    ]);
    rig.pointer(rig.vm, SET_REGION, &mut plain).unwrap();
    rig.set_private(0, RAM * 4, true);
    for gpa in [RAM, RAM * 2, !4095] {
        assert_eq!(
            rig.update_from(gpa, 4096, NORMAL, rig.host(0)).0,
            EINVAL,
            "{gpa:#x}"
        );
    }
}

#[test]
fn row_15_shared_pages_are_not_taken() {
    let rig = started();
    assert_eq!(rig.update(0, 4096, NORMAL), (EIO, 0, 4096));
    assert_eq!(rig.guest().page_state(0), PageState::Shared);
}

#[test]
fn row_16_a_page_added_twice_is_refused_and_leaves_the_digest() {
    let rig = started();
    rig.add(0x1000, 1);
    assert_eq!(rig.update(0x1000, 4096, NORMAL), (EIO, 0, 4096));
    assert_eq!(rig.update(0x1000, 4096, ZERO), (EIO, 0, 4096));
    assert_eq!(rig.digest(), digest_of(&[0x1000]));
}

#[test]
fn row_17_a_page_in_the_middle_stops_an_update_there() {
    let rig = started();
    rig.add(0x2000, 1);
    rig.set_private(0x1000, 0x3000, true);
    let mut update = update_structure(0x1000, 0x3000, NORMAL, rig.host(0x1000));
    assert_eq!(rig.command(SNP_UPDATE, &mut update), (0, 0));
    assert_eq!(
        (le64(&update, 0), le64(&update, 8), le64(&update, 16)),
        (2, rig.host(0x2000), 0x2000)
    );
    assert_eq!(rig.command(SNP_UPDATE, &mut update), (EIO, 0));
    assert_eq!(rig.digest(), digest_of(&[0x2000, 0x1000]));
}

#[test]
fn row_18_an_update_stops_at_the_end_of_a_slot() {
    let rig = started();
    let size = 0x4000u64.to_le_bytes();
    let memfd = rig
        .pointer(rig.vm, CREATE_MEMFD, &mut structure::<64>(&[(0, &size)]))
        .unwrap()
        .to_le_bytes();
    let host = rig.host(0).to_le_bytes();
    let gpa = RAM.to_le_bytes();
    let mut region = structure::<160>(&[
        (0, &[1, 0, 0, 0, 4]),
        (8, &gpa),
        (16, &size),
        (24, &host),
        (40, &memfd),
    ]);
    rig.pointer(rig.vm, SET_REGION2, &mut region).unwrap();
    rig.set_private(RAM - 0x2000, 0x4000, true);
    let mut update = update_structure(RAM - 0x2000, 0x4000, UNMEASURED, rig.host(0));
    assert_eq!(rig.command(SNP_UPDATE, &mut update), (0, 0));
    assert_eq!((le64(&update, 0), le64(&update, 16)), (RAM / 4096, 0x2000));
    assert_eq!(rig.command(SNP_UPDATE, &mut update), (0, 0));
    assert_eq!(le64(&update, 16), 0);
}

#[test]
fn row_19_a_signal_is_an_error_on_the_first_page_and_progress_later() {
    let rig = started();
    rig.set_private(0, 0x4000, true);
    rig.model
        .inject("KVM_SEV_SNP_LAUNCH_UPDATE", 0, Fault::Partial(0));
    rig.model
        .inject("KVM_SEV_SNP_LAUNCH_UPDATE", 1, Fault::Partial(3));
    assert_eq!(rig.update(0, 0x4000, NORMAL), (EIO, 0, 0x4000));
    assert_eq!(rig.update(0, 0x4000, NORMAL), (0, 0, 0x1000));
    assert_eq!(rig.update(0x3000, 0x1000, NORMAL), (0, 0, 0));
    assert_eq!(rig.digest(), digest_of(&[0, 0x1000, 0x2000, 0x3000]));
}

/// Leaf 1 with the TSC deadline timer, which KVM offers and the firmware refuses.
#[test]
fn row_20_a_refused_cpuid_page_is_corrected_in_place_and_accepted_then() {
    let rig = started();
    rig.set_private(0x5000, 0x1000, true);
    let mut table = structure::<64>(&[(0, &[1]), (16, &[1]), (48, &[0x03, 0x32, 0xF8, 0x7F])]);
    rig.memory.write(0x5000, &table).unwrap();
    assert_eq!(rig.update(0x5000, 4096, CPUID), (EIO, 0x16, 4096));
    assert_eq!(
        rig.guest().page_state(0x5000),
        PageState::PrivateUnassigned,
        "the page is given back"
    );
    let mut corrected = [0; 64];
    rig.memory.read(0x5000, &mut corrected).unwrap();
    table[51] = 0x7E;
    assert_eq!(corrected, table, "bit 24 of ECX is gone");
    assert_eq!(rig.update(0x5000, 4096, CPUID), (0, 0, 0));
    let mut seen = [0; 64];
    let guest = rig.guest();
    assert_eq!(rig.finish(), (0, 0));
    guest.read(0x5000, &mut seen, kvm_model::Side::Private).unwrap();
    assert_eq!(seen, table);
}

#[test]
fn row_20_a_firmware_that_checks_nothing_takes_any_table() {
    let host = FakeHost {
        assumptions: Assumptions {
            cpuid_pages_are_checked: false,
            ..FakeHost::snp().assumptions
        },
        ..FakeHost::snp()
    };
    let rig = Rig::on(host, SNP);
    assert_eq!(rig.start(), (0, 0));
    rig.set_private(0, 0x1000, true);
    rig.memory.write(0, &[65]).unwrap();
    assert_eq!(rig.update(0, 4096, CPUID), (0, 0, 0));
}

#[test]
fn row_21_finish_with_flags_can_be_repeated_and_with_null_blocks_not() {
    let rig = started();
    rig.vcpu(0);
    for bit in 0..16 {
        let mut flags = structure::<88>(&[(54, &(1u16 << bit).to_le_bytes())]);
        assert_eq!(rig.command(SNP_FINISH, &mut flags), (EINVAL, UNTOUCHED));
    }
    assert_eq!(rig.finish(), (0, 0));
    let sealed = started();
    sealed.vcpu(0);
    assert_eq!(
        sealed.command(SNP_FINISH, &mut structure::<88>(&[(16, &[1])])).0,
        EINVAL
    );
    assert_eq!(sealed.finish().0, EINVAL, "the VPs are sealed already");
    assert!(sealed.model.launches().is_empty());
}

#[test]
fn row_23_finish_happens_once() {
    let rig = started();
    rig.vcpu(0);
    assert_eq!(rig.finish(), (0, 0));
    assert_eq!(rig.finish().0, EINVAL);
    let without_vps = started();
    assert_eq!(without_vps.finish(), (0, 0));
    assert_eq!(
        without_vps.finish(),
        (EIO, 2),
        "without VPs only the firmware refuses"
    );
}

#[test]
fn row_24_update_after_finish_is_refused_by_firmware_or_kvm() {
    for (by_kvm, expected) in [(false, (EIO, 2)), (true, (EINVAL, UNTOUCHED))] {
        let mut host = FakeHost::snp();
        host.assumptions.update_after_finish_is_einval = by_kvm;
        let rig = Rig::on(host, SNP);
        assert_eq!(rig.start(), (0, 0));
        assert_eq!(rig.finish(), (0, 0));
        rig.set_private(0, 4096, true);
        let (errno, error, _) = rig.update(0, 4096, NORMAL);
        assert_eq!((errno, error), expected);
        assert_eq!(rig.guest().page_state(0), PageState::PrivateUnassigned);
    }
}

#[test]
fn row_25_sealed_vps_show_no_registers() {
    let rig = started();
    let vcpu = rig.vcpu(0);
    let all = [
        (GET_REGS, 144),
        (SET_REGS, 144),
        (GET_SREGS, 312),
        (SET_SREGS, 312),
        (SET_DEBUGREGS, 128),
        (SET_XSAVE, 4096),
        (0x8188_AEA6, 392),
        (0xC008_AE88, 24),
    ];
    for (request, len) in all.into_iter().filter(|(request, _)| *request != SET_SREGS) {
        assert_eq!(
            errno(&rig.pointer(vcpu, request, &mut vec![0; len])),
            0,
            "{request:#x}"
        );
    }
    assert_eq!(rig.finish(), (0, 0));
    for (request, len) in all {
        assert_eq!(
            errno(&rig.pointer(vcpu, request, &mut vec![0; len])),
            EINVAL,
            "{request:#x}"
        );
    }
}

#[test]
fn row_25_legacy_es_keeps_its_register_ioctls() {
    let rig = Rig::bare(FakeHost::linux_6_9(), 0);
    assert_eq!(rig.command(1, &mut [0; 8]).0, 0);
    let vcpu = rig.vcpu(0);
    assert_eq!(rig.command(2, &mut structure::<40>(&[(4, &[5])])), (0, 0));
    assert_eq!(rig.command(4, &mut [0; 8]), (0, 0));
    assert_eq!(errno(&rig.pointer(vcpu, SET_REGS, &mut [0; 144])), 0);
}

#[test]
fn sealing_waits_for_vps_and_refuses_debugged_ones() {
    let rig = started();
    let vcpu = rig.vcpu(0);
    rig.model.set_creating_vp(1, true);
    assert_eq!(rig.finish().0, EBUSY);
    rig.model.set_creating_vp(1, false);
    let debug = |on: u8| errno(&rig.pointer(vcpu, SET_GUEST_DEBUG, &mut structure::<72>(&[(0, &[on])])));
    assert_eq!(debug(1), 0);
    assert_eq!(rig.finish().0, EINVAL);
    assert_eq!(debug(0), 0);
    let dr7 = |value: u64| {
        let mut regs = structure::<128>(&[(32, &0xFFFF_0FF0u64.to_le_bytes()), (40, &value.to_le_bytes())]);
        errno(&rig.pointer(vcpu, SET_DEBUGREGS, &mut regs))
    };
    assert_eq!(dr7(0x401), 0);
    assert_eq!(rig.finish().0, EINVAL);
    assert_eq!(dr7(0), 0);
    assert_eq!(rig.finish(), (0, 0));
}

#[test]
fn vps_are_measured_in_creation_order_behind_all_pages() {
    let digest = |ids: [u64; 2], page_first: bool| {
        let rig = started();
        if page_first {
            rig.add(0x1000, 1);
        }
        for id in ids {
            let vcpu: Fd = rig.vcpu(id);
            let mut regs = structure::<144>(&[(0, &[0x10 + id as u8])]);
            rig.pointer(vcpu, SET_REGS, &mut regs).unwrap();
        }
        if !page_first {
            rig.add(0x1000, 1);
        }
        rig.digest()
    };
    assert_eq!(digest([0, 1], true), digest([0, 1], false));
    assert_ne!(digest([0, 1], true), digest([1, 0], true));
}

#[test]
fn ending_a_vm_gives_everything_back() {
    let rig = started();
    rig.add(0, 4);
    let (vcpu, at) = rig.running_vcpu(0);
    assert_eq!(rig.finish(), (0, 0));
    assert_eq!(
        (rig.model.firmware_guests(), rig.model.assigned_pages()),
        (1, 6),
        "pages, save area, context"
    );
    rig.model.close(rig.vm);
    rig.model.close(vcpu);
    assert_eq!(rig.model.firmware_guests(), 1, "the mapping keeps it");
    // SAFETY: the mapping of the VP above, which nobody uses any more.
    unsafe { rig.model.unmap(std::ptr::NonNull::new(at).unwrap(), 0x3000) };
    assert_eq!(rig.model.firmware_guests(), 0);
    rig.model.close(rig.memfd);
    assert_eq!(rig.model.assigned_pages(), 0);
    rig.model.close(rig.sev);
    rig.model.close(rig.kvm);
    assert_eq!((rig.model.open_descriptors(), rig.model.live_mappings()), (0, 0));
}
