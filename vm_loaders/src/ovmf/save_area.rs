// SPDX-License-Identifier: MIT
//! The save area of a VP that starts at OVMF's reset vector, as QEMU and buildigvm fill it (sev.md 2.3
//! and 2.6).

use launch_plan::Isolation;
use x86defs::vmsa::{ResetState, reset_page, sev_features};

/// Where and how a VP starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetVp {
    /// Linear address of the first instruction: 0xFFFFFFF0 for the BSP, the AP reset block's for an AP.
    pub entry: u32,
    /// CPUID signature that RDX holds after reset (leaf 1 EAX).
    pub signature: u32,
}

/// A 4 KiB save area in reset state, with the descriptor types that QEMU gives (sev.md 2.6).
pub fn reset_save_area(isolation: Isolation, vp: ResetVp) -> Vec<u8> {
    let features = if isolation == Isolation::Snp {
        sev_features::SNP_ACTIVE
    } else {
        0
    };
    let state = ResetState {
        entry: vp.entry,
        rdx: vp.signature.into(),
        code: 0x9B,
        data: 0x93,
        task: 0x8B,
        features,
    };
    reset_page(&state).to_vec()
}
