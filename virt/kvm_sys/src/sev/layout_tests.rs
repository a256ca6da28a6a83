// SPDX-License-Identifier: MIT
//! Layouts of the structures that launches pass, against the kernel's header as `spec/sev.md` 1.3 lists it
//! (Linux 7.2).

use kvm_bindings as kb;
use std::mem::{offset_of, size_of};

/// Sizes, and offsets of fields, of one structure.
macro_rules! layout {
    ($structure:ident is $size:literal: $($field:ident $offset:literal),*) => {
        assert_eq!(size_of::<kb::$structure>(), $size, stringify!($structure));
        $(assert_eq!(
            offset_of!(kb::$structure, $field),
            $offset,
            concat!(stringify!($structure), ".", stringify!($field))
        );)*
    };
}

#[test]
fn commands_have_the_kernels_layout() {
    layout!(kvm_sev_cmd is 24: id 0, data 8, error 16, sev_fd 20);
    layout!(kvm_sev_init is 48: vmsa_features 0, flags 8, ghcb_version 12);
    layout!(kvm_sev_launch_start is 40: handle 0, policy 4, dh_uaddr 8, dh_len 16, session_uaddr 24, session_len 32);
    layout!(kvm_sev_launch_update_data is 16: uaddr 0, len 8);
    layout!(kvm_sev_launch_measure is 16: uaddr 0, len 8);
    layout!(kvm_sev_launch_secret is 48: hdr_uaddr 0, hdr_len 8, guest_uaddr 16, guest_len 24, trans_uaddr 32, trans_len 40);
    layout!(kvm_sev_guest_status is 12: handle 0, policy 4, state 8);
    layout!(kvm_sev_snp_launch_start is 64: policy 0, gosvw 8, flags 24);
    layout!(kvm_sev_snp_launch_update is 64: gfn_start 0, uaddr 8, len 16, type_ 24, flags 26);
    layout!(kvm_sev_snp_launch_finish is 88: id_block_uaddr 0, id_auth_uaddr 8, id_block_en 16, auth_key_en 17,
        vcek_disabled 18, host_data 19, flags 54);
}

#[test]
fn memory_structures_have_the_kernels_layout() {
    layout!(kvm_enc_region is 16: addr 0, size 8);
    layout!(kvm_userspace_memory_region2 is 160: slot 0, flags 4, guest_phys_addr 8, memory_size 16, userspace_addr 24,
        guest_memfd_offset 32, guest_memfd 40);
    layout!(kvm_memory_attributes is 32: address 0, size 8, attributes 16, flags 24);
    layout!(kvm_create_guest_memfd is 64: size 0, flags 8);
    layout!(kvm_device_attr is 24: flags 0, group 4, attr 8, addr 16);
}

#[test]
fn exits_have_the_kernels_layout() {
    layout!(kvm_run is 2352: exit_reason 8, __bindgen_anon_1 32);
    type Exits = kb::kvm_run__bindgen_ty_1;
    assert_eq!(
        (offset_of!(Exits, hypercall), offset_of!(Exits, memory_fault)),
        (0, 0)
    );
    assert_eq!(offset_of!(kb::kvm_run__bindgen_ty_1__bindgen_ty_8, ret) + 32, 88);
}

#[test]
fn command_ids_and_flags_have_the_kernels_values() {
    assert_eq!(
        (kb::sev_cmd_id_KVM_SEV_INIT2, kb::sev_cmd_id_KVM_SEV_LAUNCH_START),
        (22, 2)
    );
    assert_eq!(
        (
            kb::sev_cmd_id_KVM_SEV_SNP_LAUNCH_START,
            kb::sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH
        ),
        (100, 102)
    );
    assert_eq!((super::GUEST_MEMFD, super::PRIVATE), (4, 8));
    assert_eq!((kb::KVM_CAP_VM_TYPES, kb::KVM_CAP_EXIT_HYPERCALL), (235, 201));
}
