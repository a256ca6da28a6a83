// SPDX-License-Identifier: MIT
//! The save area of a VP that starts at OVMF's reset vector, as QEMU and buildigvm fill it (sev.md 2.3
//! and 2.6).

use launch_plan::Isolation;
use x86defs::vmsa::{VMSA_SIZE, offset, sev_features};

/// Where and how a VP starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetVp {
    /// Linear address of the first instruction: 0xFFFFFFF0 for the BSP, the AP reset block's for an AP.
    pub entry: u32,
    /// CPUID signature that RDX holds after reset (leaf 1 EAX).
    pub signature: u32,
}

/// A 4 KiB save area in reset state.
pub fn reset_save_area(isolation: Isolation, vp: ResetVp) -> Vec<u8> {
    let mut p = vec![0; VMSA_SIZE];
    let mut put = |at: usize, bytes: &[u8]| p[at..at + bytes.len()].copy_from_slice(bytes);
    let segments: [(usize, u16, u16, u64); 10] = [
        (offset::ES, 0, 0x93, 0),
        (offset::CS, 0xF000, 0x9B, u64::from(vp.entry & 0xFFFF_0000)),
        (offset::SS, 0, 0x93, 0),
        (offset::DS, 0, 0x93, 0),
        (offset::FS, 0, 0x93, 0),
        (offset::GS, 0, 0x93, 0),
        (offset::GDTR, 0, 0, 0),
        (offset::LDTR, 0, 0x82, 0),
        (offset::IDTR, 0, 0, 0),
        (offset::TR, 0, 0x8B, 0),
    ];
    for (at, selector, attributes, base) in segments {
        put(at, &selector.to_le_bytes());
        put(at + 2, &attributes.to_le_bytes());
        put(at + 4, &0xFFFFu32.to_le_bytes());
        put(at + 8, &base.to_le_bytes());
    }
    let features = if isolation == Isolation::Snp {
        sev_features::SNP_ACTIVE
    } else {
        0
    };
    let registers: [(usize, u64); 11] = [
        (offset::EFER, x86defs::efer::SVME),
        (offset::CR4, x86defs::cr4::MCE),
        (offset::CR0, x86defs::cr0::ET),
        (offset::DR7, 0x400),
        (offset::DR6, 0xFFFF_0FF0),
        (offset::RFLAGS, x86defs::rflags::RESERVED_ONE),
        (offset::RIP, u64::from(vp.entry & 0xFFFF)),
        (offset::PAT, x86defs::msr::PAT_RESET),
        (offset::RDX, vp.signature.into()),
        (offset::SEV_FEATURES, features),
        (offset::XCR0, 1),
    ];
    for (at, value) in registers {
        put(at, &value.to_le_bytes());
    }
    put(offset::MXCSR, &0x1F80u32.to_le_bytes());
    put(offset::FCW, &0x37Fu16.to_le_bytes());
    p
}
