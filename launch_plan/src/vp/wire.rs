// SPDX-License-Identifier: MIT
//! VBS registers as a file and a VBS digest hold them: Hyper-V register numbers and 16-byte values
//! (TLFS, "Virtual Processor Register Names" and `HV_REGISTER_VALUE`).
//!
//! Always true: `decode(number, bytes(value)) == value` for every register that a list may name.

use super::{VbsRegisterName, VbsValue};
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister};

/// Hyper-V numbers of everything but the variable MTRRs.
const NUMBERS: [(VbsRegisterName, u32); 31] = [
    (VbsRegisterName::Rsp, 0x2_0004),
    (VbsRegisterName::Rbp, 0x2_0005),
    (VbsRegisterName::Rsi, 0x2_0006),
    (VbsRegisterName::R8, 0x2_0008),
    (VbsRegisterName::R9, 0x2_0009),
    (VbsRegisterName::R10, 0x2_000A),
    (VbsRegisterName::R11, 0x2_000B),
    (VbsRegisterName::R12, 0x2_000C),
    (VbsRegisterName::Rip, 0x2_0010),
    (VbsRegisterName::Rflags, 0x2_0011),
    (VbsRegisterName::Cr0, 0x4_0000),
    (VbsRegisterName::Cr3, 0x4_0002),
    (VbsRegisterName::Cr4, 0x4_0003),
    (VbsRegisterName::Es, 0x6_0000),
    (VbsRegisterName::Cs, 0x6_0001),
    (VbsRegisterName::Ss, 0x6_0002),
    (VbsRegisterName::Ds, 0x6_0003),
    (VbsRegisterName::Fs, 0x6_0004),
    (VbsRegisterName::Gs, 0x6_0005),
    (VbsRegisterName::Tr, 0x6_0007),
    (VbsRegisterName::Idtr, 0x7_0000),
    (VbsRegisterName::Gdtr, 0x7_0001),
    (VbsRegisterName::Efer, 0x8_0001),
    (VbsRegisterName::Pat, 0x8_0004),
    (VbsRegisterName::MtrrDefType, 0x8_000E),
    (VbsRegisterName::MtrrFix64k00000, 0x8_0070),
    (VbsRegisterName::MtrrFix16k80000, 0x8_0071),
    (VbsRegisterName::MtrrFix4kE0000, 0x8_0077),
    (VbsRegisterName::MtrrFix4kE8000, 0x8_0078),
    (VbsRegisterName::MtrrFix4kF0000, 0x8_0079),
    (VbsRegisterName::MtrrFix4kF8000, 0x8_007A),
];

/// Numbers of the first variable MTRR base and mask.
const MTRR_BASE0: u32 = 0x8_0010;
const MTRR_MASK0: u32 = 0x8_0040;
/// Variable pairs that a list may name.
const MTRR_PAIRS: u32 = 5;

impl VbsRegisterName {
    /// The Hyper-V register number.
    pub fn hv_number(self) -> u32 {
        match self {
            Self::MtrrPhysBase(pair) => MTRR_BASE0 + u32::from(pair),
            Self::MtrrPhysMask(pair) => MTRR_MASK0 + u32::from(pair),
            name => NUMBERS
                .iter()
                .find(|(n, _)| *n == name)
                .map_or(0, |(_, number)| *number),
        }
    }

    /// The register with a Hyper-V number, when a list may name it.
    pub fn from_hv_number(number: u32) -> Option<Self> {
        let pair = |first: u32| {
            number
                .checked_sub(first)
                .filter(|p| *p < MTRR_PAIRS)
                .map(|p| p as u8)
        };
        if let Some(p) = pair(MTRR_BASE0) {
            return Some(Self::MtrrPhysBase(p));
        }
        if let Some(p) = pair(MTRR_MASK0) {
            return Some(Self::MtrrPhysMask(p));
        }
        NUMBERS.iter().find(|(_, n)| *n == number).map(|(name, _)| *name)
    }

    /// Reads a 16-byte register value in the shape that this register has. Bytes that the shape does
    /// not use are ignored.
    pub fn decode(self, bytes: &[u8; 16]) -> VbsValue {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let low = u64::from_le_bytes([
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
        ]);
        let high = u64::from_le_bytes([
            bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15],
        ]);
        let table = VbsValue::Table(TableRegister {
            base: high,
            limit: u16_at(6),
        });
        if self.accepts(&table) {
            return table;
        }
        let segment = VbsValue::Segment(SegmentRegister {
            base: low,
            limit: high as u32,
            selector: u16_at(12),
            attributes: SegmentAttributes(u32::from(u16_at(14))),
        });
        if self.accepts(&segment) {
            segment
        } else {
            VbsValue::U64(low)
        }
    }
}

impl VbsValue {
    /// The 16-byte register value; bytes that the shape does not use are zero.
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut b = [0; 16];
        match self {
            Self::U64(v) => b[..8].copy_from_slice(&v.to_le_bytes()),
            Self::Segment(s) => {
                b[..8].copy_from_slice(&s.base.to_le_bytes());
                b[8..12].copy_from_slice(&s.limit.to_le_bytes());
                b[12..14].copy_from_slice(&s.selector.to_le_bytes());
                b[14..].copy_from_slice(&(s.attributes.0 as u16).to_le_bytes());
            }
            Self::Table(t) => {
                b[6..8].copy_from_slice(&t.limit.to_le_bytes());
                b[8..].copy_from_slice(&t.base.to_le_bytes());
            }
        }
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_survives_the_wire_form() {
        let mut pattern = [0; 16];
        for (i, b) in pattern.iter_mut().enumerate() {
            *b = i as u8 + 1;
        }
        let pairs = (0..MTRR_PAIRS as u8)
            .flat_map(|p| [VbsRegisterName::MtrrPhysBase(p), VbsRegisterName::MtrrPhysMask(p)]);
        for name in NUMBERS.iter().map(|(n, _)| *n).chain(pairs) {
            assert_eq!(VbsRegisterName::from_hv_number(name.hv_number()), Some(name));
            let value = name.decode(&pattern);
            assert!(name.accepts(&value), "{name:?}");
            assert_eq!(name.decode(&value.to_bytes()), value, "{name:?}");
        }
        assert_eq!(VbsRegisterName::from_hv_number(0x2_0000), None);
        assert_eq!(VbsRegisterName::from_hv_number(0x8_0015), None);
    }
}
