// SPDX-License-Identifier: MIT
//! Register numbers and value layouts of VBS lists: the Hyper-V register interface (Hypervisor Top-Level
//! Functional Specification, `HV_REGISTER_NAME` and `HV_REGISTER_VALUE`), the subset that IGVM uses.
//!
//! Always true: number to name and back is one table. Not here: what registers do.

use launch_plan::{VbsRegisterName as Name, VbsValue};
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister};

/// Every register that an x64 list may name.
const X64: [(u32, Name); 41] = [
    (0x0002_0004, Name::Rsp),
    (0x0002_0005, Name::Rbp),
    (0x0002_0006, Name::Rsi),
    (0x0002_0008, Name::R8),
    (0x0002_0009, Name::R9),
    (0x0002_000A, Name::R10),
    (0x0002_000B, Name::R11),
    (0x0002_000C, Name::R12),
    (0x0002_0010, Name::Rip),
    (0x0002_0011, Name::Rflags),
    (0x0004_0000, Name::Cr0),
    (0x0004_0002, Name::Cr3),
    (0x0004_0003, Name::Cr4),
    (0x0006_0000, Name::Es),
    (0x0006_0001, Name::Cs),
    (0x0006_0002, Name::Ss),
    (0x0006_0003, Name::Ds),
    (0x0006_0004, Name::Fs),
    (0x0006_0005, Name::Gs),
    (0x0006_0007, Name::Tr),
    (0x0007_0000, Name::Idtr),
    (0x0007_0001, Name::Gdtr),
    (0x0008_0001, Name::Efer),
    (0x0008_0004, Name::Pat),
    (0x0008_000E, Name::MtrrDefType),
    (0x0008_0010, Name::MtrrPhysBase(0)),
    (0x0008_0011, Name::MtrrPhysBase(1)),
    (0x0008_0012, Name::MtrrPhysBase(2)),
    (0x0008_0013, Name::MtrrPhysBase(3)),
    (0x0008_0014, Name::MtrrPhysBase(4)),
    (0x0008_0040, Name::MtrrPhysMask(0)),
    (0x0008_0041, Name::MtrrPhysMask(1)),
    (0x0008_0042, Name::MtrrPhysMask(2)),
    (0x0008_0043, Name::MtrrPhysMask(3)),
    (0x0008_0044, Name::MtrrPhysMask(4)),
    (0x0008_0070, Name::MtrrFix64k00000),
    (0x0008_0071, Name::MtrrFix16k80000),
    (0x0008_0077, Name::MtrrFix4kE0000),
    (0x0008_0078, Name::MtrrFix4kE8000),
    (0x0008_0079, Name::MtrrFix4kF0000),
    (0x0008_007A, Name::MtrrFix4kF8000),
];

/// AArch64: X0-X7, PC, CPSR, SCTLR_EL1, TTBR0_EL1, TTBR1_EL1, TCR_EL1, MAIR_EL1, VBAR_EL1.
const AARCH64: [u32; 16] = [
    0x0002_0000,
    0x0002_0001,
    0x0002_0002,
    0x0002_0003,
    0x0002_0004,
    0x0002_0005,
    0x0002_0006,
    0x0002_0007,
    0x0002_0022,
    0x0002_0023,
    0x0004_0002,
    0x0004_0005,
    0x0004_0006,
    0x0004_0007,
    0x0004_000B,
    0x0004_000C,
];

/// The name of a register number.
pub(super) fn name_of(number: u32) -> Option<Name> {
    X64.iter().find(|row| row.0 == number).map(|row| row.1)
}

/// The number of a register; pairs beyond the table continue it, as the interface numbers them.
pub(super) fn number_of(name: Name) -> u32 {
    match name {
        Name::MtrrPhysBase(pair) => 0x0008_0010 + u32::from(pair),
        Name::MtrrPhysMask(pair) => 0x0008_0040 + u32::from(pair),
        _ => X64.iter().find(|row| row.1 == name).map_or(0, |row| row.0),
    }
}

/// Whether an AArch64 list may name a register.
pub(super) fn aarch64_register_exists(number: u32) -> bool {
    AARCH64.contains(&number)
}

/// Decodes a value in the shape that `name` has; `None` when bytes that the shape does not use are set.
pub(super) fn value_from(name: Name, bytes: &[u8; 16]) -> Option<VbsValue> {
    let value = u128::from_le_bytes(*bytes);
    let (low, high) = (value as u64, (value >> 64) as u64);
    match name {
        Name::Gdtr | Name::Idtr => {
            let table = TableRegister {
                limit: (low >> 48) as u16,
                base: high,
            };
            (low << 16 == 0).then_some(VbsValue::Table(table))
        }
        Name::Ds | Name::Es | Name::Fs | Name::Gs | Name::Ss | Name::Cs | Name::Tr => {
            Some(VbsValue::Segment(SegmentRegister {
                base: low,
                limit: high as u32,
                selector: (high >> 32) as u16,
                attributes: SegmentAttributes((high >> 48) as u32),
            }))
        }
        _ => (high == 0).then_some(VbsValue::U64(low)),
    }
}

/// Encodes a value.
pub(super) fn value_to(value: &VbsValue) -> [u8; 16] {
    let (low, high) = match *value {
        VbsValue::U64(value) => (value, 0),
        VbsValue::Table(table) => (u64::from(table.limit) << 48, table.base),
        VbsValue::Segment(segment) => {
            let attributes = u64::from(segment.attributes.0 as u16);
            let high = u64::from(segment.limit) | (u64::from(segment.selector) << 32) | (attributes << 48);
            (segment.base, high)
        }
    };
    (u128::from(low) | (u128::from(high) << 64)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_number_round_trips() {
        for (number, name) in X64 {
            assert_eq!(name_of(number), Some(name));
            assert_eq!(number_of(name), number);
        }
    }

    #[test]
    fn values_round_trip_in_every_shape() {
        let segment = SegmentRegister {
            selector: 0x10,
            attributes: SegmentAttributes(0xC093),
            limit: 0xFFFF_FFFF,
            base: 0x1234_5678_9ABC,
        };
        let rows = [
            (Name::Cs, VbsValue::Segment(segment)),
            (
                Name::Gdtr,
                VbsValue::Table(TableRegister {
                    base: 0x70_6000,
                    limit: 31,
                }),
            ),
            (Name::R12, VbsValue::U64(u64::MAX)),
        ];
        for (name, value) in rows {
            assert_eq!(value_from(name, &value_to(&value)), Some(value));
        }
        assert_eq!(value_from(Name::R12, &[1; 16]), None);
        assert_eq!(value_from(Name::Idtr, &[1; 16]), None);
    }
}
