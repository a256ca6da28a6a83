// SPDX-License-Identifier: MIT
//! Rows 1 to 9, 39 and 40: types of VM, INIT2, who may be asked what and when; and a machine without SEV.

use crate::rig::*;
use kvm_model::{FakeHost, Fault, ModelSys};
use kvm_sys::{Fd, Node, Sys};
use libc::{EBADF, EBUSY, EINVAL, EIO, ENOENT, ENOTTY, ENXIO, EPERM};

fn init2(features: u64, flags: u32, ghcb: u16) -> [u8; 48] {
    structure(&[
        (0, &features.to_le_bytes()),
        (8, &flags.to_le_bytes()),
        (12, &ghcb.to_le_bytes()),
    ])
}

#[test]
fn row_1_vm_types_outside_the_mask_are_refused() {
    for (host, types) in [
        (FakeHost::intel(), 1u64),
        (FakeHost::sev_es(), 0b1101),
        (FakeHost::snp(), 0b1_1101),
        (FakeHost::linux_6_9(), 1),
    ] {
        let model = ModelSys::new(host);
        let kvm = model.open(Node::Kvm).unwrap();
        let said = model.ioctl_value(kvm, number(0xAE03), 235).unwrap();
        assert_eq!(said as u64, types);
        for vm_type in (0..8).chain([64, u64::MAX]) {
            let expected = if vm_type < 8 && types >> vm_type & 1 != 0 {
                0
            } else {
                EINVAL
            };
            assert_eq!(
                errno(&model.ioctl_value(kvm, number(CREATE_VM), vm_type)),
                expected,
                "{vm_type}"
            );
        }
    }
}

#[test]
fn row_2_every_init2_flag_is_refused() {
    let rig = Rig::bare(FakeHost::snp(), SNP);
    for bit in 0..32 {
        assert_eq!(
            rig.command(INIT2, &mut init2(0, 1 << bit, 0)),
            (EINVAL, UNTOUCHED),
            "flag {bit}"
        );
    }
    assert_eq!(rig.command(INIT2, &mut init2(0, 0, 0)).0, 0);
}

#[test]
fn row_3_features_outside_the_supported_set_are_refused() {
    for (host, vm_type, supported) in [
        (FakeHost::snp(), SEV, 0u64),
        (FakeHost::snp(), SEV_ES, 1 << 5),
        (FakeHost::snp(), SNP, 1 << 5),
        (FakeHost::snp_ciphertext_hiding(), SNP, 1 << 5 | 1 << 9),
        (FakeHost::sev_es(), SEV_ES, 0),
    ] {
        for bit in 0..64 {
            let rig = Rig::bare(host.clone(), vm_type);
            let expected = if supported >> bit & 1 != 0 { 0 } else { EINVAL };
            assert_eq!(
                rig.command(INIT2, &mut init2(1 << bit, 0, 0)).0,
                expected,
                "{} {bit}",
                host.name
            );
        }
    }
}

#[test]
fn row_4_each_way_to_initialise_takes_its_own_types_once() {
    let plain = Rig::bare(FakeHost::snp(), 0);
    assert_eq!(plain.command(INIT2, &mut [0; 48]).0, EINVAL);
    for vm_type in [SEV, SEV_ES, SNP] {
        let rig = Rig::bare(FakeHost::snp(), vm_type);
        for legacy in [0, 1] {
            assert_eq!(rig.command(legacy, &mut [0; 48]).0, EINVAL, "{vm_type}");
        }
        assert_eq!(rig.command(INIT2, &mut [0; 48]).0, 0);
        let again = if vm_type == SNP { EPERM } else { EINVAL };
        assert_eq!(rig.command(INIT2, &mut [0; 48]), (again, UNTOUCHED));
    }
    assert_eq!(plain.command(0, &mut [0; 8]).0, 0);
    assert_eq!(plain.command(1, &mut [0; 8]).0, EINVAL);
    let no_es = Rig::bare(FakeHost::sev_only(), 0);
    assert_eq!(no_es.command(1, &mut [0; 8]).0, ENOTTY);
    let old = Rig::bare(FakeHost::linux_6_9(), 0);
    assert_eq!(
        old.command(INIT2, &mut [0; 48]),
        (EINVAL, UNTOUCHED),
        "6.9 has no INIT2"
    );
    assert_eq!(old.command(1, &mut [0; 8]).0, 0);
}

#[test]
fn row_5_a_vp_before_init2_makes_init2_and_run_fail() {
    let rig = Rig::bare(FakeHost::snp(), SNP);
    let (vcpu, _) = rig.running_vcpu(0);
    assert_eq!(rig.command(INIT2, &mut [0; 48]).0, EINVAL);
    assert_eq!(rig.run(vcpu), EINVAL);
}

#[test]
fn row_6_ghcb_versions_that_a_type_does_not_have_are_refused() {
    for (vm_type, good, bad) in [
        (SEV, &[0u16][..], &[1u16, 2, 3][..]),
        (SEV_ES, &[0, 1, 2], &[3, 0xFFFF]),
        (SNP, &[0, 2], &[1, 3]),
    ] {
        for (versions, expected) in [(good, 0), (bad, EINVAL)] {
            for version in versions {
                let rig = Rig::bare(FakeHost::snp(), vm_type);
                assert_eq!(
                    rig.command(INIT2, &mut init2(0, 0, *version)).0,
                    expected,
                    "{vm_type} {version}"
                );
            }
        }
    }
}

#[test]
fn row_7_legacy_commands_are_not_permitted_on_snp() {
    let rig = Rig::new(SNP);
    for id in (0..24).chain([99]) {
        assert_eq!(rig.command(id, &mut [0; 64]), (EPERM, UNTOUCHED), "{id}");
    }
    assert_eq!(rig.command(103, &mut [0; 64]), (EINVAL, UNTOUCHED));
}

#[test]
fn row_8_commands_before_init2_do_not_exist() {
    let rig = Rig::bare(FakeHost::snp(), SEV);
    for id in [2, 3, 4, 5, 6, 7, 16, 17, SNP_START, SNP_FINISH] {
        assert_eq!(rig.command(id, &mut [0; 128]), (ENOTTY, UNTOUCHED), "{id}");
    }
    for id in [10, 14, 19, 23, 1000] {
        assert_eq!(rig.command(id, &mut [0; 128]), (EINVAL, UNTOUCHED), "{id}");
    }
    assert_eq!(
        errno(&rig.pointer(rig.vm, REG_REGION, &mut structure::<16>(&[(8, &[0, 16])]))),
        ENOTTY
    );
}

#[test]
fn row_9_only_an_open_dev_sev_counts() {
    let rig = Rig::bare(FakeHost::snp(), SNP);
    assert_eq!(
        rig.command_by(-1, INIT2, &mut [0; 48]).0,
        0,
        "INIT2 does not care"
    );
    let mut rig = Rig { ..rig };
    rig.add_memory(SNP);
    let mut start = structure::<64>(&[(0, &POLICY.to_le_bytes())]);
    for fd in [-1, rig.kvm.0, rig.vm.0, 0] {
        assert_eq!(rig.command_by(fd, SNP_START, &mut start).0, ENOTTY, "{fd}");
    }
    assert_eq!(rig.start(), (0, 0));
    assert_eq!(rig.set_private(0, RAM, true), 0);
    let mut update = update_structure(0, 4096, NORMAL, rig.host(0));
    assert_eq!(rig.command_by(-1, SNP_UPDATE, &mut update), (EIO, 0));
    assert_eq!(rig.command(SNP_UPDATE, &mut update), (0, 0));
    rig.model.close(rig.sev);
    let other = rig.model.open(Node::Sev).unwrap();
    assert_eq!(
        rig.command_by(other.0, SNP_FINISH, &mut [0; 88]).0,
        EBADF,
        "the start's number is stored"
    );
}

#[test]
fn row_9_legacy_commands_use_the_number_that_the_start_stored() {
    let rig = Rig::new(SEV);
    let mut start = structure::<40>(&[(4, &1u32.to_le_bytes())]);
    assert_eq!(rig.command_by(-1, 2, &mut start).0, EBADF);
    let mut data = structure::<16>(&[(0, &rig.host(0).to_le_bytes()), (8, &[0, 16])]);
    assert_eq!(rig.command(3, &mut data).0, EBADF, "nothing is stored yet");
    assert_eq!(rig.command(2, &mut start), (0, 0));
    assert_eq!(rig.command_by(-1, 3, &mut data), (0, 0));
    rig.model.close(rig.sev);
    assert_eq!(rig.command(7, &mut [0; 8]).0, EBADF);
}

#[test]
fn row_39_a_dead_firmware_makes_everything_busy() {
    let rig = Rig::new(SNP);
    rig.model.inject("KVM_SEV_SNP_LAUNCH_START", 0, Fault::PspDead);
    assert_eq!(
        rig.start().0,
        ENOTTY,
        "whatever keeps the context from being made"
    );
    let legacy = Rig::new(SEV);
    let mut start = structure::<40>(&[(4, &1u32.to_le_bytes())]);
    assert_eq!(legacy.command(2, &mut start), (0, 0));
    legacy.model.inject("KVM_SEV_LAUNCH_MEASURE", 0, Fault::PspDead);
    for id in [6, 7, 16, 6] {
        assert_eq!(legacy.command(id, &mut [0; 16]), (EBUSY, UNTOUCHED), "{id}");
    }
    let mut issue = structure::<16>(&[(0, &[1])]);
    assert_eq!(errno(&legacy.pointer(legacy.sev, 0xC010_5300, &mut issue)), EBUSY);
    assert_eq!(legacy.model.unmet_faults(), 0);
}

#[test]
fn row_40_asids_run_out_and_come_back() {
    let host = FakeHost {
        encryption_leaf: [0x1F, 51, 4, 3],
        ..FakeHost::snp()
    };
    let model = ModelSys::new(host);
    let kvm = model.open(Node::Kvm).unwrap();
    let memory = guest_memory::GuestMemory::allocate(&[(0, RAM)]).unwrap();
    let rig = |vm_type| {
        let vm = Fd(model.ioctl_value(kvm, number(CREATE_VM), vm_type).unwrap());
        Rig {
            model: model.clone(),
            kvm,
            sev: Fd(-1),
            vm,
            memory: memory.clone(),
            memfd: Fd(-1),
        }
    };
    let first = rig(SNP);
    assert_eq!(first.command(INIT2, &mut [0; 48]).0, 0);
    assert_eq!(rig(SEV_ES).command(INIT2, &mut [0; 48]).0, 0);
    assert_eq!(rig(SNP).command(INIT2, &mut [0; 48]).0, EBUSY);
    assert_eq!(rig(SEV).command(INIT2, &mut [0; 48]).0, 0);
    model.close(first.vm);
    assert_eq!(rig(SNP).command(INIT2, &mut [0; 48]).0, 0);
}

#[test]
fn null_and_unreadable_commands_are_a_probe_and_a_fault() {
    let rig = Rig::bare(FakeHost::snp(), 0);
    // SAFETY: a null pointer is KVM's probe; address 8 is not mapped and answers EFAULT.
    let [probe, bad] =
        [0usize, 8].map(|at| unsafe { rig.model.ioctl_pointer(rig.vm, number(ENCRYPT_OP), at as *mut u8) });
    assert_eq!((errno(&probe), errno(&bad)), (0, libc::EFAULT));
}

/// `spec/sev.md` 5.1.
#[test]
fn a_machine_without_sev_answers_as_the_probed_one() {
    let model = ModelSys::new(FakeHost::intel());
    assert_eq!(errno(&model.open(Node::Sev)), ENOENT);
    let kvm = model.open(Node::Kvm).unwrap();
    let ask = |capability| model.ioctl_value(kvm, number(0xAE03), capability).unwrap();
    assert_eq!(
        [235, 233, 234, 231, 232, 201, 197, 206].map(ask),
        [1, 0, 1, 1, 1, 0x1000, 1, 1]
    );
    let vm = Fd(model.ioctl_value(kvm, number(CREATE_VM), 0).unwrap());
    let memory = guest_memory::GuestMemory::allocate(&[(0, RAM)]).unwrap();
    let rig = Rig {
        model,
        kvm,
        sev: Fd(-1),
        vm,
        memory,
        memfd: Fd(-1),
    };
    for request in [0x4018_AEE2, 0x4018_AEE3] {
        assert_eq!(
            errno(&rig.pointer(kvm, request, &mut structure::<24>(&[(4, &[1])]))),
            ENXIO
        );
    }
    for id in [0, 1, 2, 22, 100, 500] {
        assert_eq!(rig.command(id, &mut [0; 64]), (ENOTTY, UNTOUCHED));
    }
    // SAFETY: a null pointer is KVM's probe.
    let probe = unsafe {
        rig.model
            .ioctl_pointer(vm, number(ENCRYPT_OP), std::ptr::null_mut())
    };
    assert_eq!(errno(&probe), ENOTTY);
    assert_eq!(errno(&rig.pointer(vm, REG_REGION, &mut [0; 16])), ENOTTY);
    assert_eq!(rig.set_private(0, 4096, true), ENOTTY);
    assert_eq!(
        errno(&rig.pointer(vm, CREATE_MEMFD, &mut structure::<64>(&[(0, &[0, 16])]))),
        0
    );
}

#[test]
fn device_attributes_and_platform_status_tell_features_policy_and_version() {
    let rig = Rig::bare(FakeHost::snp(), SNP);
    for (attribute, expected) in [(0u8, 0x20u64), (1, 0x1B_FFFF)] {
        let mut value = 0u64;
        let at = (&raw mut value as u64).to_le_bytes();
        let mut request = structure::<24>(&[(4, &[1]), (8, &[attribute]), (16, &at)]);
        assert_eq!(errno(&rig.pointer(rig.kvm, 0x4018_AEE2, &mut request)), 0);
        assert_eq!(value, expected);
    }
    let mut unknown = structure::<24>(&[(4, &[1]), (8, &[9])]);
    assert_eq!(errno(&rig.pointer(rig.kvm, 0x4018_AEE3, &mut unknown)), ENXIO);
    let mut status = [0u8; 32];
    let at = (status.as_mut_ptr() as u64).to_le_bytes();
    for (id, build) in [(1u8, 7), (9, 4)] {
        let mut issue = structure::<16>(&[(0, &[id]), (4, &at), (12, &UNTOUCHED.to_le_bytes())]);
        assert_eq!(errno(&rig.pointer(rig.sev, 0xC010_5300, &mut issue)), 0);
        assert_eq!((status[0], status[1], status[build], issue[12]), (1, 55, 24, 0));
    }
}

#[test]
fn wrong_descriptors_and_unknown_requests_are_told_apart() {
    let rig = Rig::bare(FakeHost::snp(), SNP);
    assert_eq!(errno(&rig.pointer(Fd(77), GET_REGS, &mut [0; 144])), EBADF);
    assert_eq!(errno(&rig.pointer(rig.kvm, GET_REGS, &mut [0; 144])), ENOTTY);
    assert_eq!(errno(&rig.pointer(rig.vm, 0xC0FF_AE00, &mut [0; 256])), ENOTTY);
    assert_eq!(errno(&rig.model.map(rig.vm, 4096)), libc::ENODEV);
    assert_eq!(errno(&rig.pointer(rig.sev, ENCRYPT_OP, &mut [0; 24])), ENOTTY);
}
