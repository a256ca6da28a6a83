// SPDX-License-Identifier: MIT
//! Which model-specific registers belong to whom.
//!
//! KVM keeps what belongs to the processor (MTRRs, PAT, SYSENTER, SYSCALL, time-stamp counter, machine
//! check). The registers here belong to the machine and go to [`virt::VpBus`], as does every number that
//! KVM does not know. x2APIC registers cannot be filtered; KVM answers #GP, which is right while x2APIC is
//! hidden.

use kvm_sys::MsrRange;
use x86defs::msr;

/// Registers of KVM's paravirtual interface, old and new numbers: not offered to our guests.
const KVM_OLD: MsrRange = MsrRange {
    first: 0x11,
    count: 2,
};
const KVM_NEW: MsrRange = MsrRange {
    first: 0x4B56_4D00,
    count: 0x20,
};
/// Where hypervisors put their synthetic registers (Hyper-V TLFS; KVM can put its own there too).
const SYNTHETIC: MsrRange = MsrRange {
    first: 0x4000_0000,
    count: 0x200,
};

const fn one(first: u32) -> MsrRange {
    MsrRange { first, count: 1 }
}

/// Registers whose accesses go to the bus although KVM knows some of them.
pub(crate) const TO_BUS: &[MsrRange] = &[
    KVM_OLD,
    one(msr::APIC_BASE),
    one(msr::FEATURE_CONTROL),
    one(msr::TSC_DEADLINE),
    SYNTHETIC,
    KVM_NEW,
];
