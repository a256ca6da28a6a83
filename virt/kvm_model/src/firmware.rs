// SPDX-License-Identifier: MIT
//! Status codes of the security processor's firmware (`spec/sev.md` 1.7), and numbers in raw structures.
//!
//! Always true: structures are taken apart at the offsets of the kernel's header, little-endian.
//! Not here: when a code is given.

/// Only what the model gives; the numbers are AMD's.
pub(crate) mod status {
    pub(crate) const INVALID_GUEST_STATE: u32 = 0x02;
    pub(crate) const INVALID_LEN: u32 = 0x04;
    pub(crate) const INVALID_CERTIFICATE: u32 = 0x06;
    pub(crate) const POLICY_FAILURE: u32 = 0x07;
    pub(crate) const INVALID_ADDRESS: u32 = 0x09;
    pub(crate) const BAD_SIGNATURE: u32 = 0x0A;
    pub(crate) const BAD_MEASUREMENT: u32 = 0x0B;
    pub(crate) const ASID_OWNED: u32 = 0x0C;
    pub(crate) const INVALID_ASID: u32 = 0x0D;
    pub(crate) const INVALID_GUEST: u32 = 0x10;
    pub(crate) const UNSUPPORTED: u32 = 0x15;
    pub(crate) const INVALID_PARAM: u32 = 0x16;
    pub(crate) const INVALID_PAGE_STATE: u32 = 0x1A;
    pub(crate) const INVALID_PAGE_OWNER: u32 = 0x1C;
}

/// A little-endian number in `bytes`; the caller knows that it lies inside.
pub(crate) fn le<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(word)
}

/// A little-endian u32 in `bytes`.
pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    le::<4>(bytes, at) as u32
}

/// Replaces a little-endian number in `bytes`.
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + N].copy_from_slice(&value.to_le_bytes()[..N]);
}
