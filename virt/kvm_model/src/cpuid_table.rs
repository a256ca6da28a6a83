// SPDX-License-Identifier: MIT
//! The processor's CPUID, what KVM adds to it, and which values the firmware accepts on a CPUID page
//! (`spec/sev.md` 2.8, 4.8).
//!
//! Always true: [`offered`] is [`HARDWARE`] with [`SYNTHESISED`]; [`rule`] is data, one row for each leaf.
//! The real rules are AMD's: this is an assumption that makes every bit that is known to be refused one.
//! Not here: the page's layout.

use kvm_sys::bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf, index, and EAX to EDX.
type Row = (u32, u32, [u32; 4]);

/// An EPYC of the third generation.
const HARDWARE: &[Row] = &[
    (0, 0, [0x10, 0x6874_7541, 0x444D_4163, 0x6974_6E65]),
    (1, 0, [0x00A0_0F11, 0x0002_0800, 0x7EF8_3203, 0x178B_FBFF]),
    (5, 0, [0x40, 0x40, 3, 0x11]),
    (6, 0, [4, 0, 1, 0]),
    (7, 0, [0, 0x219C_97A9, 0x0040_068C, 0x10]),
    (0xB, 0, [1, 2, 0x100, 0]),
    (0xB, 1, [7, 0x80, 0x201, 0]),
    (0xD, 0, [0x207, 0x988, 0x988, 0]),
    (0xD, 1, [0xF, 0x348, 0x1800, 0]),
    (0xD, 2, [0x100, 0x240, 0, 0]),
    (0xD, 9, [8, 0x980, 0, 0]),
    (
        0x8000_0000,
        0,
        [0x8000_0023, 0x6874_7541, 0x444D_4163, 0x6974_6E65],
    ),
    (
        0x8000_0001,
        0,
        [0x00A0_0F11, 0x4000_0000, 0x75C2_37FF, 0x2FD3_FBFF],
    ),
    (
        0x8000_0002,
        0,
        [0x2044_4D41, 0x4359_5045, 0x646F_4D20, 0x6C65_2020],
    ),
    (
        0x8000_0003,
        0,
        [0x2020_2020, 0x2020_2020, 0x2020_2020, 0x2020_2020],
    ),
    (
        0x8000_0004,
        0,
        [0x2020_2020, 0x2020_2020, 0x2020_2020, 0x0020_2020],
    ),
    (
        0x8000_0005,
        0,
        [0xFF40_FF40, 0xFF40_FF40, 0x2008_0140, 0x2008_0140],
    ),
    (
        0x8000_0006,
        0,
        [0x4800_2200, 0x6800_4200, 0x0200_6140, 0x0800_9140],
    ),
    (0x8000_0007, 0, [0, 0x3B, 0, 0x6799]),
    (0x8000_0008, 0, [0x3030, 0x111E_F657, 0x707F, 0x0001_0007]),
    (0x8000_0019, 0, [0xF040_F040, 0xF040_0000, 0, 0]),
    (0x8000_001A, 0, [6, 0, 0, 0]),
    (0x8000_001D, 0, [0x4121, 0x01C0_003F, 0x3F, 0]),
    (0x8000_001D, 1, [0x4122, 0x01C0_003F, 0x3F, 0]),
    (0x8000_001D, 2, [0x4143, 0x01C0_003F, 0x3FF, 2]),
    (0x8000_001D, 3, [0x3C163, 0x03C0_003F, 0x7FFF, 1]),
    (0x8000_001E, 0, [0, 0x100, 0, 0]),
    (0x8000_001F, 0, [0x0001_781F, 0x5173, 509, 100]),
    (0x8000_0021, 0, [0x4D, 0, 0, 0]),
];

/// Bits that KVM adds to what it offers, and which no hardware has: leaf, index, register from EAX on, bits.
const SYNTHESISED: &[(u32, u32, usize, u32)] = &[
    (1, 0, 2, 1 << 24 | 1 << 31),
    (7, 0, 1, 1 << 1),
    (7, 0, 3, 1 << 26 | 1 << 27 | 1 << 29 | 1 << 31),
    (0x8000_0008, 0, 1, 1 << 25),
    (0x8000_0021, 0, 0, 1 << 9),
];

fn is_indexed(leaf: u32) -> bool {
    matches!(
        leaf,
        4 | 7 | 0xB | 0xD | 0x10 | 0x12 | 0x14 | 0x1F | 0x8000_001D | 0x8000_0026
    )
}

/// What KVM_GET_SUPPORTED_CPUID answers.
pub(crate) fn offered() -> Vec<kvm_cpuid_entry2> {
    let entry = |&(function, index, mut registers): &Row| {
        for &(leaf, at, register, bits) in SYNTHESISED {
            if (leaf, at) == (function, index) {
                registers[register] |= bits;
            }
        }
        let [eax, ebx, ecx, edx] = registers;
        let flags = if is_indexed(function) {
            KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        } else {
            0
        };
        kvm_cpuid_entry2 {
            function,
            index,
            flags,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        }
    };
    HARDWARE.iter().map(entry).collect()
}

/// How the firmware looks at a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Not at all.
    Free,
    /// Bits must be the processor's or these.
    Subset(u32),
    /// These bits must equal the processor's.
    Same(u32),
    /// Must not exceed the processor's.
    AtMost,
    /// The size of an XSAVE image for the page's XCR0 and XSS.
    XsaveSize,
}

/// What the processor answers for a leaf; `None` when it has no such leaf.
pub(crate) fn hardware(leaf: u32, index: u32) -> Option<[u32; 4]> {
    let index = if is_indexed(leaf) { index } else { 0 };
    HARDWARE
        .iter()
        .find(|row| (row.0, row.1) == (leaf, index))
        .map(|row| row.2)
}

/// How EAX to EDX of a leaf are checked.
pub(crate) fn rule(leaf: u32, index: u32) -> [Check; 4] {
    use Check::{AtMost, Free, Same, Subset, XsaveSize};
    const ALL: u32 = u32::MAX;
    const C_BIT: u32 = 0x3F;
    const HYPERVISOR: u32 = 1 << 31;
    /// OSXSAVE follows CR4.
    const OSXSAVE: u32 = 1 << 27;
    match (leaf, index) {
        (0 | 0x8000_0000, _) => [AtMost, Same(ALL), Same(ALL), Same(ALL)],
        (1, _) => [Free, Free, Subset(HYPERVISOR | OSXSAVE), Subset(0)],
        (7, 0) => [AtMost, Subset(0), Subset(0), Subset(0)],
        (0xD, 0) => [Subset(0), XsaveSize, AtMost, Subset(0)],
        (0xD, 1) => [Subset(0), XsaveSize, Subset(0), Subset(0)],
        (0xD, _) => [Same(ALL), Same(ALL), Subset(0), Free],
        (0x8000_0001, _) => [Free, Free, Subset(0), Subset(0)],
        (0x8000_0007, _) => [Free, Free, Free, Subset(0)],
        (0x8000_0008, _) => [Free, Subset(0), Free, Free],
        (0x8000_001F, _) => [Subset(0), Same(C_BIT), Free, Free],
        (0x8000_0021, _) => [Subset(0), Free, Subset(0), Free],
        _ => [Free; 4],
    }
}

/// Size of an XSAVE image for the enabled features, standard or compacted.
pub(crate) fn xsave_size(features: u64, compacted: bool) -> u32 {
    const LEGACY: u32 = 0x240;
    let parts = (2..64)
        .filter(|bit| features >> bit & 1 != 0)
        .filter_map(|bit| hardware(0xD, bit))
        .map(|[size, offset, ..]| (size, offset));
    if compacted {
        LEGACY + parts.map(|(size, _)| size).sum::<u32>()
    } else {
        parts.map(|(size, offset)| size + offset).max().unwrap_or(LEGACY)
    }
}
