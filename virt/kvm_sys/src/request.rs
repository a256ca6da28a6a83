// SPDX-License-Identifier: MIT
//! Request numbers (Linux `include/uapi/linux/kvm.h`; the encoding is `asm-generic/ioctl.h`).
//!
//! Always true: a [`Request`] carries the type of its argument, and the size in its number is that
//! type's size unless the kernel's own header says otherwise.

use kvm_bindings as kb;
use std::marker::PhantomData;

/// KVM's ioctl type.
const KVMIO: u32 = 0xAE;

/// A request number with its name in the kernel's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// The number.
    pub number: u32,
    /// The name.
    pub name: &'static str,
}

/// A request whose argument is a `T` that holds no pointers.
#[derive(Debug)]
pub struct Request<T> {
    /// Number and name.
    pub number: Number,
    argument: PhantomData<fn(T)>,
}

impl<T> Clone for Request<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Request<T> {}

/// `_IO`: no argument, or a number.
const fn plain(nr: u32, name: &'static str) -> Number {
    Number {
        number: KVMIO << 8 | nr,
        name,
    }
}

/// The number for a structure of `size` bytes; direction 1 is to the kernel, 2 from it, 3 both.
const fn structure(direction: u32, nr: u32, size: usize, name: &'static str) -> Number {
    assert!(size < 1 << 14);
    Number {
        number: direction << 30 | (size as u32) << 16 | KVMIO << 8 | nr,
        name,
    }
}

const fn to_kernel<T>(nr: u32, name: &'static str) -> Request<T> {
    Request {
        number: structure(1, nr, size_of::<T>(), name),
        argument: PhantomData,
    }
}

const fn from_kernel<T>(nr: u32, name: &'static str) -> Request<T> {
    Request {
        number: structure(2, nr, size_of::<T>(), name),
        argument: PhantomData,
    }
}

pub(crate) const GET_API_VERSION: Number = plain(0x00, "KVM_GET_API_VERSION");
pub(crate) const CREATE_VM: Number = plain(0x01, "KVM_CREATE_VM");
pub(crate) const CHECK_EXTENSION: Number = plain(0x03, "KVM_CHECK_EXTENSION");
pub(crate) const GET_VCPU_MMAP_SIZE: Number = plain(0x04, "KVM_GET_VCPU_MMAP_SIZE");
pub(crate) const GET_SUPPORTED_CPUID: Number =
    structure(3, 0x05, size_of::<kb::kvm_cpuid2>(), "KVM_GET_SUPPORTED_CPUID");
pub(crate) const CREATE_VCPU: Number = plain(0x41, "KVM_CREATE_VCPU");
pub(crate) const SET_USER_MEMORY_REGION: Number = structure(
    1,
    0x46,
    size_of::<kb::kvm_userspace_memory_region>(),
    "KVM_SET_USER_MEMORY_REGION",
);
pub(crate) const SET_TSS_ADDR: Number = plain(0x47, "KVM_SET_TSS_ADDR");
pub(crate) const SET_IDENTITY_MAP_ADDR: Request<u64> = to_kernel(0x48, "KVM_SET_IDENTITY_MAP_ADDR");
pub(crate) const RUN: Number = plain(0x80, "KVM_RUN");
pub(crate) const GET_REGS: Request<kb::kvm_regs> = from_kernel(0x81, "KVM_GET_REGS");
pub(crate) const SET_REGS: Request<kb::kvm_regs> = to_kernel(0x82, "KVM_SET_REGS");
pub(crate) const GET_SREGS: Request<kb::kvm_sregs> = from_kernel(0x83, "KVM_GET_SREGS");
pub(crate) const SET_SREGS: Request<kb::kvm_sregs> = to_kernel(0x84, "KVM_SET_SREGS");
pub(crate) const INTERRUPT: Request<kb::kvm_interrupt> = to_kernel(0x86, "KVM_INTERRUPT");
pub(crate) const GET_MSRS: Number = structure(3, 0x88, size_of::<kb::kvm_msrs>(), "KVM_GET_MSRS");
pub(crate) const SET_MSRS: Number = structure(1, 0x89, size_of::<kb::kvm_msrs>(), "KVM_SET_MSRS");
pub(crate) const SET_CPUID2: Number = structure(1, 0x90, size_of::<kb::kvm_cpuid2>(), "KVM_SET_CPUID2");
pub(crate) const NMI: Number = plain(0x9A, "KVM_NMI");
pub(crate) const GET_VCPU_EVENTS: Request<kb::kvm_vcpu_events> = from_kernel(0x9F, "KVM_GET_VCPU_EVENTS");
pub(crate) const SET_VCPU_EVENTS: Request<kb::kvm_vcpu_events> = to_kernel(0xA0, "KVM_SET_VCPU_EVENTS");
pub(crate) const GET_DEBUGREGS: Request<kb::kvm_debugregs> = from_kernel(0xA1, "KVM_GET_DEBUGREGS");
pub(crate) const SET_DEBUGREGS: Request<kb::kvm_debugregs> = to_kernel(0xA2, "KVM_SET_DEBUGREGS");
pub(crate) const GET_TSC_KHZ: Number = plain(0xA3, "KVM_GET_TSC_KHZ");
pub(crate) const ENABLE_CAP: Request<kb::kvm_enable_cap> = to_kernel(0xA3, "KVM_ENABLE_CAP");
pub(crate) const GET_XSAVE: Request<kb::kvm_xsave> = from_kernel(0xA4, "KVM_GET_XSAVE");
pub(crate) const SET_XSAVE: Request<kb::kvm_xsave> = to_kernel(0xA5, "KVM_SET_XSAVE");
pub(crate) const GET_XCRS: Request<kb::kvm_xcrs> = from_kernel(0xA6, "KVM_GET_XCRS");
pub(crate) const SET_XCRS: Request<kb::kvm_xcrs> = to_kernel(0xA7, "KVM_SET_XCRS");
pub(crate) const X86_SET_MSR_FILTER: Number =
    structure(1, 0xC6, size_of::<kb::kvm_msr_filter>(), "KVM_X86_SET_MSR_FILTER");
pub(crate) const SET_GUEST_DEBUG: Request<kb::kvm_guest_debug> = to_kernel(0x9B, "KVM_SET_GUEST_DEBUG");
pub(crate) const TRANSLATE: Request<kb::kvm_translation> = Request {
    number: structure(3, 0x85, size_of::<kb::kvm_translation>(), "KVM_TRANSLATE"),
    argument: PhantomData,
};
pub(crate) const SET_DEVICE_ATTR: Number =
    structure(1, 0xE1, size_of::<kb::kvm_device_attr>(), "KVM_SET_DEVICE_ATTR");
pub(crate) const GET_DEVICE_ATTR: Number =
    structure(1, 0xE2, size_of::<kb::kvm_device_attr>(), "KVM_GET_DEVICE_ATTR");
pub(crate) const HAS_DEVICE_ATTR: Number =
    structure(1, 0xE3, size_of::<kb::kvm_device_attr>(), "KVM_HAS_DEVICE_ATTR");
/// The size in this number is that of a pointer, whatever the command's structure.
pub(crate) const MEMORY_ENCRYPT_OP: Number = structure(3, 0xBA, size_of::<u64>(), "KVM_MEMORY_ENCRYPT_OP");
pub(crate) const MEMORY_ENCRYPT_REG_REGION: Request<kb::kvm_enc_region> = Request {
    number: structure(
        2,
        0xBB,
        size_of::<kb::kvm_enc_region>(),
        "KVM_MEMORY_ENCRYPT_REG_REGION",
    ),
    argument: PhantomData,
};
/// A command to the firmware through `/dev/sev` (Linux `include/uapi/linux/psp-sev.h`).
pub(crate) const SEV_ISSUE_CMD: Number = Number {
    number: 3 << 30 | 16 << 16 | (b'S' as u32) << 8,
    name: "SEV_ISSUE_CMD",
};
pub(crate) const SET_USER_MEMORY_REGION2: Number = structure(
    1,
    0x49,
    size_of::<kb::kvm_userspace_memory_region2>(),
    "KVM_SET_USER_MEMORY_REGION2",
);
pub(crate) const SET_MEMORY_ATTRIBUTES: Request<kb::kvm_memory_attributes> =
    to_kernel(0xD2, "KVM_SET_MEMORY_ATTRIBUTES");
pub(crate) const CREATE_GUEST_MEMFD: Request<kb::kvm_create_guest_memfd> = Request {
    number: structure(
        3,
        0xD4,
        size_of::<kb::kvm_create_guest_memfd>(),
        "KVM_CREATE_GUEST_MEMFD",
    ),
    argument: PhantomData,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_equal_the_ones_the_kernel_header_gives() {
        // Printed by a C program over Debian's <linux/kvm.h>.
        let known: [(Number, u32); 32] = [
            (GET_API_VERSION, 0xAE00),
            (CREATE_VM, 0xAE01),
            (CHECK_EXTENSION, 0xAE03),
            (GET_SUPPORTED_CPUID, 0xC008_AE05),
            (SET_USER_MEMORY_REGION, 0x4020_AE46),
            (SET_IDENTITY_MAP_ADDR.number, 0x4008_AE48),
            (GET_REGS.number, 0x8090_AE81),
            (SET_REGS.number, 0x4090_AE82),
            (GET_SREGS.number, 0x8138_AE83),
            (SET_SREGS.number, 0x4138_AE84),
            (INTERRUPT.number, 0x4004_AE86),
            (GET_MSRS, 0xC008_AE88),
            (SET_MSRS, 0x4008_AE89),
            (SET_CPUID2, 0x4008_AE90),
            (GET_VCPU_EVENTS.number, 0x8040_AE9F),
            (SET_DEBUGREGS.number, 0x4080_AEA2),
            (ENABLE_CAP.number, 0x4068_AEA3),
            (GET_XSAVE.number, 0x9000_AEA4),
            (SET_XSAVE.number, 0x5000_AEA5),
            (SET_XCRS.number, 0x4188_AEA7),
            (X86_SET_MSR_FILTER, 0x4188_AEC6),
            (SET_GUEST_DEBUG.number, 0x4048_AE9B),
            (TRANSLATE.number, 0xC018_AE85),
            (SET_DEVICE_ATTR, 0x4018_AEE1),
            (GET_DEVICE_ATTR, 0x4018_AEE2),
            (HAS_DEVICE_ATTR, 0x4018_AEE3),
            (MEMORY_ENCRYPT_OP, 0xC008_AEBA),
            (MEMORY_ENCRYPT_REG_REGION.number, 0x8010_AEBB),
            (SET_USER_MEMORY_REGION2, 0x40A0_AE49),
            (SET_MEMORY_ATTRIBUTES.number, 0x4020_AED2),
            (CREATE_GUEST_MEMFD.number, 0xC040_AED4),
            (SEV_ISSUE_CMD, 0xC010_5300),
        ];
        for (request, number) in known {
            assert_eq!(request.number, number, "{}", request.name);
        }
    }
}
