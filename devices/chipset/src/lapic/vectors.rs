// SPDX-License-Identifier: MIT
//! A 256-bit vector register (IRR, ISR, TMR).

/// One bit per vector, as eight 32-bit registers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct VectorSet([u32; 8]);

impl VectorSet {
    pub(crate) fn set(&mut self, vector: u8, on: bool) {
        let (word, bit) = (usize::from(vector >> 5), 1 << (vector & 31));
        if on {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    pub(crate) fn has(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] & (1 << (vector & 31)) != 0
    }

    pub(crate) fn highest(&self) -> Option<u8> {
        let word = (0..8).rev().find(|&w| self.0[w] != 0)?;
        Some((word as u32 * 32 + 31 - self.0[word].leading_zeros()) as u8)
    }

    /// Register `index` (0 to 7) as the guest reads it.
    pub(crate) fn word(&self, index: u32) -> u32 {
        self.0[(index & 7) as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=255u8).filter(|&v| self.has(v))
    }
}
