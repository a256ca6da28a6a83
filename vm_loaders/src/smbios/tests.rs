// SPDX-License-Identifier: MIT

use super::*;
use openvmm_defs::Machine;

fn layout(vp_count: u32, high: u64) -> MemoryLayout {
    MemoryLayout {
        machine: Machine::Ovmf,
        ram: vec![GpaRange::new(0, 2 << 30), GpaRange::new(1 << 32, high)],
        low_mmio: GpaRange::default(),
        high_mmio: GpaRange::default(),
        tpm: None,
        root_complexes: Vec::new(),
        phys_bits: 46,
        vp_count,
    }
}

/// Type and formatted part of each structure.
fn walk(tables: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tables.len() {
        let len = usize::from(tables[at + 1]);
        found.push((tables[at], &tables[at..at + len]));
        at += len;
        while tables[at..at + 2] != [0, 0] {
            at += 1;
        }
        at += 2;
    }
    found
}

#[test]
fn structures_are_walked_to_the_end_with_the_lengths_of_the_specification() {
    let uuid = Uuid::from_bytes(*b"0123456789abcdef");
    let smbios = build(&layout(2, 3 << 30), uuid);
    let structures = walk(&smbios.tables);
    let kinds: Vec<_> = structures.iter().map(|(kind, s)| (*kind, s.len())).collect();
    assert_eq!(
        kinds,
        [
            (1, 0x1B),
            (3, 0x16),
            (4, 0x2A),
            (4, 0x2A),
            (16, 0x17),
            (17, 0x28),
            (19, 0x1F),
            (19, 0x1F),
            (32, 0xB),
            (127, 4)
        ]
    );
    assert_eq!(&structures[0].1[8..24], b"3210547689abcdef");
    let mut handles: Vec<_> = structures.iter().map(|(_, s)| [s[2], s[3]]).collect();
    handles.sort_unstable();
    handles.dedup();
    assert_eq!(handles.len(), structures.len());
}

#[test]
fn anchor_has_its_sum_and_the_length_of_the_structures() {
    let smbios = build(&layout(1, 1 << 30), Uuid::nil());
    assert_eq!(&smbios.anchor[..5], b"_SM3_");
    assert_eq!(smbios.anchor.len(), 24);
    assert_eq!(crate::acpi::checksum(&smbios.anchor), 0);
    assert_eq!(smbios.anchor[12..16], (smbios.tables.len() as u32).to_le_bytes());
}

#[test]
fn sizes_from_32_gib_go_to_the_extended_field() {
    let device = |high| {
        let smbios = build(&layout(1, high), Uuid::nil());
        let structures = walk(&smbios.tables);
        let device = structures
            .iter()
            .find(|(kind, _)| *kind == 17)
            .unwrap()
            .1
            .to_vec();
        (
            u16::from_le_bytes([device[12], device[13]]),
            u32::from_le_bytes(device[28..32].try_into().unwrap()),
        )
    };
    assert_eq!(device(3 << 30), (5120, 0));
    assert_eq!(device(38 << 30), (EXTENDED_SIZE, 40 << 10));
}
