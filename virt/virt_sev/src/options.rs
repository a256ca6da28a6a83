// SPDX-License-Identifier: MIT
//! What a user may say about a launch beyond the plan.

/// What a user may say about a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Guest policy instead of the file's.
    pub policy: Option<u64>,
    /// What attestation reports carry as HOST_DATA (SEV-SNP).
    pub host_data: Option<[u8; 32]>,
    /// Expected position of the host's C-bit.
    pub cbitpos: Option<u32>,
    /// Expected loss of physical address bits.
    pub reduced_phys_bits: Option<u32>,
}
