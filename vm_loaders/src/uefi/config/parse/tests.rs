// SPDX-License-Identifier: MIT
//! Every rule of uefi-launch 3.7 and 3.8, broken once each, and mutated blobs.

use super::super::BlobWriter;
use super::*;
use proptest::prelude::*;

/// The seven required structures with plausible contents.
fn required_parts() -> Vec<(u32, Vec<u8>)> {
    let words = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    vec![
        (types::BIOS_INFORMATION, vec![0, 6, 0, 0, 0, 0, 0, 0]),
        (types::MEMORY_MAP, words(&[0, 1 << 30, 0])),
        (types::ENTROPY, vec![1; 64]),
        (types::BIOS_GUID, vec![2; 16]),
        (types::FLAGS, words(&[1 << 28])),
        (types::PROCESSOR_INFORMATION, words(&[1 | 1 << 32, 1 | 1 << 32])),
        (types::MMIO_RANGES, words(&[0xF_8000, 0x8000, 0x10_0000, 0x1000])),
    ]
}

fn blob_of(parts: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut writer = BlobWriter::new();
    for (structure_type, payload) in parts {
        writer.structure(*structure_type, payload);
    }
    writer.finish().unwrap()
}

fn with(structure_type: u32, payload: &[u8]) -> Vec<u8> {
    let mut parts = required_parts();
    match parts.iter_mut().find(|(kind, _)| *kind == structure_type) {
        Some((_, old)) => *old = payload.to_vec(),
        None => parts.push((structure_type, payload.to_vec())),
    }
    blob_of(&parts)
}

fn patched(offset: usize, value: u32) -> Vec<u8> {
    let mut blob = blob_of(&required_parts());
    blob[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    blob
}

fn refusal(blob: &[u8]) -> RuleError {
    parse(blob).unwrap_err()
}

fn message(blob: &[u8]) -> String {
    refusal(blob).to_string()
}

#[test]
fn required_structures_alone_are_enough_in_any_order() {
    let mut parts = required_parts();
    parse(&blob_of(&parts)).unwrap();
    parts.reverse();
    parse(&blob_of(&parts)).unwrap();
}

#[test]
fn blob_never_written_fails_at_the_first_check() {
    assert_eq!(parse(&[0; 4096]), Err(RuleError::CountTooSmall(0)));
}

#[test]
fn count_structure_must_be_first() {
    assert_eq!(parse(&patched(0, 1)), Err(RuleError::CountNotFirst(1)));
    assert_eq!(
        message(&patched(0, 0x12)),
        "config blob offset 0x0: the first structure has type 0x12; it must be StructureCount (0x0)"
    );
}

#[test]
fn count_of_one_is_refused() {
    assert_eq!(parse(&patched(8, 1)), Err(RuleError::CountTooSmall(1)));
}

#[test]
fn length_that_is_not_a_multiple_of_8_is_refused() {
    assert_eq!(
        message(&patched(36, 33)),
        "config blob offset 0x20: MemoryMap has length 33; it must be a multiple of 8 and above 8"
    );
}

#[test]
fn structure_without_payload_is_refused() {
    assert!(matches!(
        parse(&with(types::MEMORY_MAP, &[])),
        Err(RuleError::Length { len: 8, .. })
    ));
    assert!(matches!(
        parse(&patched(36, 0)),
        Err(RuleError::Length { len: 0, .. })
    ));
}

#[test]
fn wrong_fixed_lengths_are_refused() {
    let fixed = [
        (types::BIOS_INFORMATION, 16),
        (types::ENTROPY, 72),
        (types::BIOS_GUID, 24),
        (types::FLAGS, 16),
        (types::PROCESSOR_INFORMATION, 24),
        (types::MMIO_RANGES, 40),
        (types::SMBIOS_PROCESSOR_INFORMATION, 32),
        (types::NVDIMM_COUNT, 16),
        (types::VPCI_INSTANCE_FILTER, 24),
        (types::GIC, 24),
    ];
    for (structure_type, expected) in fixed {
        let error = parse(&with(structure_type, &vec![1; expected as usize])).unwrap_err();
        let RuleError::FixedLength {
            len, expected: rule, ..
        } = error
        else {
            panic!("{structure_type:#x}: {error}");
        };
        assert_eq!((len, rule), (expected + 8, expected), "{structure_type:#x}");
    }
}

#[test]
fn structure_past_the_declared_total_is_refused() {
    let blob = blob_of(&required_parts());
    let short = (blob.len() - 8) as u32;
    assert!(matches!(
        parse(&patched(12, short)),
        Err(RuleError::PassesTotal { .. })
    ));
    assert!(matches!(
        parse(&patched(36, 0xFFFF_FFF8)),
        Err(RuleError::PassesTotal { .. })
    ));
}

#[test]
fn total_beyond_the_bytes_is_refused() {
    let blob = blob_of(&required_parts());
    let more = (blob.len() + 8) as u32;
    assert!(matches!(
        parse(&patched(12, more)),
        Err(RuleError::Truncated { .. })
    ));
    assert!(matches!(parse(&blob[..8]), Err(RuleError::Truncated { .. })));
}

#[test]
fn sum_that_differs_from_the_total_is_refused() {
    let mut blob = patched(8, 7);
    let end = blob.len() - 40;
    // One structure fewer than there are, and MmioRanges (the last) moves out of reach.
    assert_eq!(
        parse(&blob),
        Err(RuleError::TotalMismatch { end, total: end + 40 })
    );
    blob[8] = 9;
    assert!(matches!(parse(&blob), Err(RuleError::PassesTotal { .. })));
}

#[test]
fn each_required_structure_is_required() {
    for index in 0..7 {
        let mut parts = required_parts();
        let (kind, _) = parts.remove(index);
        let name = describe(kind).0;
        assert_eq!(
            message(&blob_of(&parts)),
            format!("the config blob lacks {name}, which the firmware requires")
        );
    }
}

#[test]
fn unknown_and_retired_types_are_ignored() {
    parse(&with(0x29, &[9; 16])).unwrap();
    parse(&with(0xFFFF_FFFF, &[9; 8])).unwrap();
    parse(&with(types::AARCH64_MPIDR, &[9; 24])).unwrap();
}

#[test]
fn acpi_tables_must_be_whole() {
    for structure_type in [types::ACPI_TABLE, types::MADT, types::SRAT, types::IORT] {
        let short = refusal(&with(structure_type, &[0; 32]));
        assert!(matches!(short, RuleError::AcpiShort { have: 32, .. }));
        let mut table = vec![0; 40];
        table[4] = 41;
        let long = refusal(&with(structure_type, &table));
        assert!(matches!(
            long,
            RuleError::AcpiLength {
                declared: 41,
                have: 40,
                ..
            }
        ));
        table[4] = 36;
        assert_eq!(
            parse(&with(structure_type, &table)).unwrap().acpi_tables[0].len(),
            36
        );
    }
}

#[test]
fn zero_processor_fields_are_refused() {
    for (index, field) in [
        (1, "processor count"),
        (2, "processors per socket"),
        (3, "threads per core"),
    ] {
        let mut fields = [1u32; 4];
        fields[index] = 0;
        let payload: Vec<u8> = fields.iter().flat_map(|f| f.to_le_bytes()).collect();
        let text = message(&with(types::PROCESSOR_INFORMATION, &payload));
        assert!(text.ends_with(&format!("{field} is zero")), "{text}");
    }
}

fn mmio(values: [u64; 4]) -> Result<(MmioRange, MmioRange), RuleError> {
    let payload: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    parse(&with(types::MMIO_RANGES, &payload)).map(|blob| (blob.low_mmio, blob.high_mmio))
}

#[test]
fn mmio_ranges_are_told_apart_by_4_gib() {
    let (low, high) = mmio([0x20_0000, 5, 0xF_0000, 0x1_0000]).unwrap();
    assert_eq!((low.first_page, high.first_page), (0xF_0000, 0x20_0000));
    let (low, high) = mmio([0, 0, 0, 0]).unwrap();
    assert_eq!((low.page_count, high.page_count), (0, 0));
}

#[test]
fn mmio_ranges_on_the_wrong_side_are_refused() {
    let low = [
        [0xF_8000, 0x8001, 0, 0],
        [0, 0x10_0001, 0, 0],
        [0x20_0000, 1, 0x20_0000, 1],
        [u64::MAX, 0, 0, 0],
    ];
    for values in low {
        assert!(
            matches!(mmio(values), Err(RuleError::LowMmio { .. })),
            "{values:x?}"
        );
    }
    let high = [
        [0xF_8000, 0x8000, 0xF_0000, 1],
        [0xF_8000, 0x8000, 0x10_0000, u64::MAX],
    ];
    for values in high {
        assert!(
            matches!(mmio(values), Err(RuleError::HighMmio { .. })),
            "{values:x?}"
        );
    }
}

#[test]
fn apertures_must_be_whole_and_ascending() {
    let length = refusal(&with(types::PCIE_BAR_APERTURES, &[0; 48]));
    assert!(matches!(length, RuleError::ApertureLength { bytes: 48, .. }));
    let mut entries = [0; 80];
    entries[42] = 5;
    entries[43] = 4;
    let buses = refusal(&with(types::PCIE_BAR_APERTURES, &entries));
    assert!(matches!(
        buses,
        RuleError::ApertureBuses {
            index: 1,
            start: 5,
            end: 4,
            ..
        }
    ));
}

#[test]
fn memory_map_format_follows_bios_information() {
    let mut parts = required_parts();
    parts[0].1[4] = 1;
    let text = message(&blob_of(&parts));
    assert!(
        text.contains("24 bytes is not whole entries of 16 bytes"),
        "{text}"
    );
    parts[1].1.truncate(16);
    let blob = blob_of(&parts);
    assert_eq!(parse(&blob).unwrap().memory_map[0].len, 1 << 30);
}

#[test]
fn unterminated_text_loses_its_last_byte() {
    let blob = with(types::SMBIOS_SYSTEM_SKU, b"12345678");
    assert_eq!(
        parse(&blob).unwrap().smbios,
        [(types::SMBIOS_SYSTEM_SKU, &b"1234567"[..])]
    );
}

proptest! {
    #[test]
    fn mutated_blobs_never_panic(at in 0usize..272, value: u32, cut in 0usize..280) {
        let mut blob = with(types::PCIE_BAR_APERTURES, &[0; 40]);
        let end = blob.len().min(at + 4);
        if at < end {
            let bytes = value.to_le_bytes();
            blob[at..end].copy_from_slice(&bytes[..end - at]);
        }
        blob.truncate(blob.len().min(cut.max(1)));
        if let Ok(parsed) = parse(&blob) {
            prop_assert!(!parsed.to_string().is_empty());
        }
    }
}
