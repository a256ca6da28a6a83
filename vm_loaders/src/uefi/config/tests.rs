// SPDX-License-Identifier: MIT
//! Golden bytes of a small blob, the contents of a full one, and refusals.

use super::parse::parse;
use super::*;
use openvmm_defs::{Machine, RootComplexLayout};
use proptest::prelude::*;

const GUID: Uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF);

fn layout() -> MemoryLayout {
    MemoryLayout {
        machine: Machine::HyperV,
        ram: vec![GpaRange::new(0, 2 << 30)],
        low_mmio: GpaRange::new(0xF800_0000, 0x800_0000),
        high_mmio: GpaRange::default(),
        tpm: None,
        root_complexes: Vec::new(),
        phys_bits: 40,
        vp_count: 2,
    }
}

fn root_complex() -> RootComplexLayout {
    RootComplexLayout {
        segment: 1,
        start_bus: 2,
        end_bus: 9,
        uid: 7,
        ecam: GpaRange::new(0x1_0000_0000, 8 << 20),
        low_mmio: GpaRange::new(0xE000_0000, 0x400_0000),
        high_mmio: GpaRange::new(0x10_0000_0000, 1 << 30),
    }
}

fn table(bytes: usize) -> Vec<u8> {
    let mut table = vec![0x55; bytes];
    table[4..8].copy_from_slice(&(bytes as u32).to_le_bytes());
    table
}

fn build_with(
    layout: &MemoryLayout,
    settings: &UefiSettings,
    acpi_tables: &[Vec<u8>],
) -> Result<Vec<u8>, BlobError> {
    build(&BlobInputs {
        layout,
        settings,
        bios_guid: GUID,
        entropy: &[0xA5; 64],
        acpi_tables,
    })
}

#[test]
fn smallest_blob_has_these_bytes() {
    let settings = UefiSettings {
        serial: true,
        console_mode: UefiConsoleMode::Com1,
        pci_preassigned: true,
        ..UefiSettings::default()
    };
    let blob = build_with(&layout(), &settings, &[]).unwrap();
    let words: &[u32] = &[
        0,
        16,
        8,
        240, // StructureCount
        1,
        16,
        0x600,
        0, // BiosInformation
        3,
        32,
        0,
        0,
        0x8000_0000,
        0,
        0,
        0, // MemoryMap
        5,
        24,
        0x0011_2233,
        0x6677_4455,
        0xBBAA_9988,
        0xFFEE_DDCC, // BiosGuid
    ];
    let mut golden: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    golden.extend([4, 0, 0, 0, 72, 0, 0, 0]);
    golden.extend([0xA5; 64]);
    let words: &[u32] = &[
        0x14,
        40,
        0xF_8000,
        0,
        0x8000,
        0,
        0,
        0,
        0,
        0, // MmioRanges
        0x13,
        24,
        2,
        2,
        2,
        1, // ProcessorInformation
        0x12,
        16,
        0xD000_00C1,
        0, // Flags: 0, 6, 7, 28, 30, 31
    ];
    golden.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    assert_eq!(blob, golden);
}

#[test]
fn everything_given_is_in_the_blob() {
    let mut layout = layout();
    layout.ram.push(GpaRange::new(1 << 32, 6 << 30));
    layout.high_mmio = GpaRange::new(0x2_8000_0000, 0x2000_0000);
    layout.root_complexes.push(root_complex());
    let settings = UefiSettings {
        vmbus: true,
        smbios: vec![
            (types::SMBIOS_SYSTEM_SERIAL, "1234-5678".into()),
            (types::SMBIOS_SYSTEM_FAMILY, String::new()),
            (types::SMBIOS_MEMORY_SERIAL, "M".into()),
        ],
        ..UefiSettings::default()
    };
    let tables = [table(44), table(100)];
    let blob = build_with(&layout, &settings, &tables).unwrap();
    let parsed = parse(&blob).unwrap();
    assert_eq!(parsed.total, blob.len());
    assert_eq!(parsed.image_pages, 0x600);
    assert_eq!(parsed.bios_guid, GUID);
    assert_eq!(parsed.entropy, [0xA5; 64]);
    let ram: Vec<_> = parsed
        .memory_map
        .iter()
        .map(|e| (e.gpa, e.len, e.flags))
        .collect();
    assert_eq!(ram, [(0, 2 << 30, 0), (1 << 32, 6 << 30, 0)]);
    assert_eq!(
        (parsed.high_mmio.first_page, parsed.high_mmio.page_count),
        (0x28_0000, 0x2_0000)
    );
    assert_eq!(parsed.processors.count, 2);
    assert_eq!(parsed.acpi_tables, [&tables[0][..], &tables[1][..]]);
    assert_eq!(
        parsed.smbios,
        [
            (types::SMBIOS_SYSTEM_SERIAL, &b"1234-5678"[..]),
            (types::SMBIOS_MEMORY_SERIAL, b"M")
        ]
    );
    let aperture = &parsed.apertures[0];
    assert_eq!((aperture.segment, aperture.buses, aperture.uid), (1, (2, 9), 7));
    assert_eq!(aperture.low, (0xE000_0000, 0x400_0000));
    assert_eq!(aperture.high, (0x10_0000_0000, 1 << 30));
    assert!(parsed.structures.iter().all(|s| s.offset % 8 == 0));
    assert_eq!(
        parsed
            .structures
            .iter()
            .filter(|s| s.structure_type == types::ACPI_TABLE)
            .count(),
        2
    );
}

#[test]
fn each_setting_sets_its_flag() {
    let base = UefiSettings {
        vmbus: true,
        ..UefiSettings::default()
    };
    assert_eq!(flag_bits(&base), 1 << 28 | 1 << 6);
    let with = |change: fn(&mut UefiSettings)| {
        let mut settings = base.clone();
        change(&mut settings);
        flag_bits(&settings) & !flag_bits(&base)
    };
    assert_eq!(with(|s| s.serial = true), 1);
    assert_eq!(with(|s| s.debug = true), 1 << 3);
    assert_eq!(with(|s| s.tpm = true), 1 << 5 | 1 << 13 | 1 << 25);
    assert_eq!(with(|s| s.console_mode = UefiConsoleMode::Com1), 1 << 7);
    assert_eq!(with(|s| s.console_mode = UefiConsoleMode::Com2), 2 << 7);
    assert_eq!(with(|s| s.console_mode = UefiConsoleMode::None), 3 << 7);
    assert_eq!(with(|s| s.battery = true), 1 << 10);
    assert_eq!(with(|s| s.disable_frontpage = true), 1 << 14);
    assert_eq!(with(|s| s.default_boot_always_attempt = true), 1 << 15);
    assert_eq!(with(|s| s.memory_protections = true), 1 << 21);
    assert_eq!(with(|s| s.watchdog = true), 1 << 24);
    assert_eq!(with(|s| s.vmbus = false), 1 << 30);
    assert_eq!(with(|s| s.pci_preassigned = true), 1 << 31);
    assert_eq!(with(|s| s.force_dma_bounce = true), 1 << 32);
}

#[test]
fn listing_names_everything() {
    let mut layout = layout();
    layout.root_complexes.push(root_complex());
    let settings = UefiSettings {
        serial: true,
        smbios: vec![(types::SMBIOS_SYSTEM_SERIAL, "S1".into())],
        ..UefiSettings::default()
    };
    let mut apic = table(44);
    apic[..4].copy_from_slice(b"APIC");
    let blob = build_with(&layout, &settings, &[apic]).unwrap();
    let text = parse(&blob).unwrap().to_string();
    let golden = "\
config blob: 11 structures, 0x168 bytes
  image pages 0x600, bios guid 00112233-4455-6677-8899-aabbccddeeff
  memory 0x0..0x80000000 flags 0x0
  low mmio 0xf8000000..0x100000000
  high mmio 0x0..0x0
  processors 2 of 2, 2 per socket, 1 threads per core
  flags 0x50000041: serial hibernate-layout mtrrs-initialized no-vmbus; console mode 0, memory protection 0
  SmbiosSystemSerial \"S1\"
  acpi table APIC of 0x2c bytes
  pcie aperture segment 1 buses 2-9 uid 7 low 0xe0000000+0x4000000 high 0x1000000000+0x40000000
";
    assert_eq!(text, golden);
}

#[test]
fn bad_inputs_are_refused_by_name() {
    let settings = UefiSettings::default();
    let refused = |change: fn(&mut MemoryLayout)| {
        let mut layout = layout();
        change(&mut layout);
        build_with(&layout, &settings, &[]).unwrap_err().to_string()
    };
    assert_eq!(refused(|l| l.ram.clear()), "the memory layout has no RAM");
    assert_eq!(
        refused(|l| l.ram[0].len = 0x1234),
        "RAM 0x0..0x1234 is not page aligned"
    );
    assert_eq!(
        refused(|l| l.vp_count = 0),
        "the memory layout has no virtual processors"
    );
    assert_eq!(
        refused(|l| l.low_mmio.len += 0x1000),
        "the low MMIO gap 0xf8000000..0x100001000 must end at or below 4 GiB"
    );
    assert_eq!(
        refused(|l| l.high_mmio = GpaRange::new(0xC000_0000, 0x1000)),
        "the high MMIO gap 0xc0000000..0xc0001000 must start at or above 4 GiB"
    );
    assert_eq!(
        refused(|l| l.root_complexes.push(RootComplexLayout {
            end_bus: 1,
            ..root_complex()
        })),
        "root complex 7 has last bus 1 below first bus 2"
    );
    let with_text = |structure_type, text: &str| {
        let smbios = vec![(structure_type, text.to_owned())];
        let settings = UefiSettings {
            smbios,
            ..UefiSettings::default()
        };
        build_with(&layout(), &settings, &[]).unwrap_err().to_string()
    };
    assert_eq!(
        with_text(types::SMBIOS_PROCESSOR_INFORMATION, "x"),
        "structure type 0xb does not hold an SMBIOS string"
    );
    assert_eq!(
        with_text(types::SMBIOS_SYSTEM_SKU, "a\0b"),
        "SMBIOS string SmbiosSystemSku must be printable ASCII, not \"a\\0b\""
    );
    let mut wrong = table(40);
    wrong[4] = 41;
    let error = build_with(&layout(), &settings, &[table(36), wrong]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ACPI table 1 of 40 bytes is not a whole table (its length field says 41)"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn blobs_of_any_machine_keep_every_rule(
        vps in 1u32..4096,
        ram_pages in 1u64..1 << 24,
        high_pages in 0u64..1 << 20,
        buses in proptest::collection::vec((any::<u16>(), any::<u8>(), 0u8..16), 0..4),
        texts in proptest::collection::vec((0x1Au32..0x20, "[ -~]{0,40}"), 0..6),
        tables in proptest::collection::vec(36usize..400, 0..6),
        entropy in any::<[u8; 64]>(),
    ) {
        let mut layout = layout();
        layout.vp_count = vps;
        layout.ram = vec![GpaRange::new(0, ram_pages << 12)];
        layout.high_mmio = GpaRange::new(1 << 40, high_pages << 12);
        layout.root_complexes = buses
            .iter()
            .map(|&(segment, start, more)| RootComplexLayout {
                segment,
                start_bus: start,
                end_bus: start.saturating_add(more),
                ..root_complex()
            })
            .collect();
        let settings = UefiSettings { smbios: texts.clone(), ..UefiSettings::default() };
        let tables: Vec<_> = tables.into_iter().map(table).collect();
        let inputs = BlobInputs {
            layout: &layout,
            settings: &settings,
            bios_guid: GUID,
            entropy: &entropy,
            acpi_tables: &tables,
        };
        let blob = build(&inputs).unwrap();
        let parsed = parse(&blob).unwrap();
        prop_assert_eq!(parsed.total, blob.len());
        prop_assert_eq!(parsed.processors.count, vps);
        prop_assert_eq!(parsed.acpi_tables.len(), tables.len());
        prop_assert_eq!(parsed.apertures.len(), buses.len());
        let given: Vec<_> = texts.iter().filter(|(_, t)| !t.is_empty()).map(|(k, t)| (*k, t.as_bytes())).collect();
        prop_assert_eq!(parsed.smbios, given);
        prop_assert_eq!(parsed.flags, flag_bits(&settings));
        // The same VM with other entropy differs in the entropy alone.
        let again = build(&BlobInputs { entropy: &[0; 64], ..inputs }).unwrap();
        let differing = blob.iter().zip(&again).filter(|(a, b)| a != b).count();
        prop_assert_eq!(differing, entropy.iter().filter(|b| **b != 0).count());
    }
}
