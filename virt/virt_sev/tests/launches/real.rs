// SPDX-License-Identifier: MIT
//! The same wrappers on this machine's kernel: what a KVM without SEV answers (`spec/sev.md` 5.1). On a
//! machine that has it, these say so and pass.

use guest_memory::GuestMemory;
use kvm_sys::bindings as kb;
use kvm_sys::{KvmError, RealSys, SnpFinish, SnpPageType, System, VmType};
use std::sync::Arc;

/// `/dev/kvm`, when its kernel has none of the three types of VM.
fn kvm_without_sev(test: &str) -> Option<System> {
    let system = match System::open(Arc::new(RealSys)) {
        Ok(system) => system,
        Err(error) => {
            println!("skipped: {test}: {error}");
            return None;
        }
    };
    let types = system.check_extension(kb::KVM_CAP_VM_TYPES).unwrap();
    if types & 0b1_1100 != 0 {
        println!("skipped: {test}: this kernel has SEV (types {types:#x})");
        return None;
    }
    Some(system)
}

fn memory() -> GuestMemory {
    GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap()
}

#[track_caller]
fn refused<T>(result: Result<T, KvmError>, errnos: &[i32]) {
    let error = result.err().expect("a kernel without SEV refuses");
    assert!(errnos.contains(&error.errno().unwrap()), "{error}");
    assert_eq!(error.firmware(), 0, "{error}");
}

#[test]
fn vms_of_the_encrypted_types_cannot_be_made() {
    let Some(system) = kvm_without_sev("vms_of_the_encrypted_types_cannot_be_made") else {
        return;
    };
    for vm_type in [VmType::Sev, VmType::SevEs, VmType::Snp] {
        refused(system.create_vm(vm_type, &memory()), &[libc::EINVAL]);
    }
    let features = system.handle().get_attribute(1, 0);
    refused(features, &[libc::ENXIO, libc::EINVAL, libc::ENOTTY]);
}

#[test]
fn every_launch_command_is_refused_and_leaves_no_firmware_status() {
    let test = "every_launch_command_is_refused_and_leaves_no_firmware_status";
    let Some(system) = kvm_without_sev(test) else {
        return;
    };
    let vm = system.create_vm(VmType::Default, &memory()).unwrap();
    assert!(!vm.sev_is_enabled());
    // KVM refuses before it looks at the descriptor, which no /dev/sev is there for.
    let sev = vm.sev(system.handle());
    let none = &[libc::ENOTTY];
    refused(sev.init2(0), none);
    refused(sev.init_legacy(false), none);
    refused(sev.init_legacy(true), none);
    refused(sev.launch_start(1), none);
    refused(sev.launch_update_data(0, 0x1000), none);
    refused(sev.launch_update_vmsa(), none);
    refused(sev.launch_measure(), none);
    refused(sev.launch_finish(), none);
    refused(sev.snp_launch_start(0x3_0000), none);
    refused(
        sev.snp_launch_update(0, SnpPageType::Normal, &mut [0; 0x1000]),
        none,
    );
    let finish = SnpFinish {
        id_block: None,
        author_key: false,
        host_data: [0; 32],
    };
    refused(sev.snp_launch_finish(&finish), none);
    refused(vm.register_encrypted_memory(), none);
    refused(vm.set_private(0, 0x1000, true), none);
}

#[test]
fn range_outside_guest_memory_never_reaches_the_kernel() {
    let Some(system) = kvm_without_sev("range_outside_guest_memory_never_reaches_the_kernel") else {
        return;
    };
    let vm = system.create_vm(VmType::Default, &memory()).unwrap();
    let error = vm
        .sev(system.handle())
        .launch_update_data(0xF_F000, 0x2000)
        .unwrap_err();
    assert_eq!(error.errno(), None);
    assert!(error.to_string().contains("not wholly inside ram"), "{error}");
}
