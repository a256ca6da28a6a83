// SPDX-License-Identifier: MIT
//! The guest's readers against the host's builders, and against damaged bytes.

use crate::acpi::{self, Fadt, Flaw, Madt, Srat, Table};
use crate::fdt;
use crate::uefi_blob::{Blob, Refusal, declared_size, types};
use launch_plan::{Isolation, ParameterKind};
use openvmm_defs::{GpaRange, Machine, MemoryLayout, UefiSettings};
use uuid::Uuid;
use vm_loaders::params::{ParamInputs, host_values};
use vm_loaders::uefi::config::format::types as host_types;
use vm_loaders::uefi::config::{BlobInputs, BlobWriter, build, parse};

fn layout(machine: Machine, vp_count: u32) -> MemoryLayout {
    MemoryLayout {
        machine,
        ram: vec![GpaRange::new(0, 0x4000_0000), GpaRange::new(1 << 32, 0x2000_0000)],
        low_mmio: GpaRange::new(0xF800_0000, 0x800_0000),
        high_mmio: GpaRange::new(0x2_0000_0000, 0x2000_0000),
        tpm: None,
        root_complexes: Vec::new(),
        phys_bits: 40,
        vp_count,
    }
}

fn blob(settings: &UefiSettings) -> Vec<u8> {
    let layout = layout(Machine::HyperV, 3);
    build(&BlobInputs {
        layout: &layout,
        settings,
        bios_guid: Uuid::from_u128(0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF),
        entropy: &[0x5A; 64],
        acpi_tables: &vm_loaders::acpi::uefi_tables(&layout),
    })
    .unwrap()
}

#[test]
fn the_guest_reads_the_blob_that_the_host_builds() {
    let settings = UefiSettings {
        debug: true,
        smbios: vec![(types::CHASSIS_ASSET_TAG, "probe:reset-once".to_owned())],
        ..UefiSettings::default()
    };
    let bytes = blob(&settings);
    assert_eq!(declared_size(&bytes), Ok(bytes.len()));
    let blob = Blob::read(&bytes).unwrap();
    assert_eq!(
        blob.count as usize,
        parse::parse(&bytes).unwrap().structures.len()
    );
    assert_eq!(blob.asset_tag(), Some("probe:reset-once"));
    assert_ne!(blob.flags() & guest_protocol::control::UEFI_FLAG_MONITOR, 0);
    let map: Vec<_> = blob.memory_map().collect();
    assert_eq!(map, [(0, 0x4000_0000, 0), (1 << 32, 0x2000_0000, 0)]);
    assert_eq!(blob.mmio(), Some(((0xF_8000, 0x8000), (0x20_0000, 0x2_0000))));
    let names: Vec<_> = blob.tables().map(|table| table.signature()).collect();
    assert_eq!(names[..2], [b"APIC", b"SRAT"]);
}

/// Both judges of a blob, written apart from each other, say the same of every blob with one byte changed.
#[test]
fn guest_and_host_agree_on_damaged_blobs() {
    let good = blob(&UefiSettings::default());
    let mut refused = 0;
    for at in 0..good.len() {
        for change in [0x01, 0x08, 0x80, 0xFF] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            let guest = Blob::read(&bytes);
            // The guest also looks at the checksums of ACPI tables, at what follows them and at the types
            // of memory map entries, which the firmware does not.
            let stricter = matches!(guest, Err(Refusal::AcpiTable(_)));
            let host = parse::parse(&bytes);
            if !stricter {
                assert_eq!(
                    guest.is_ok(),
                    host.is_ok(),
                    "byte {at:#x} ^ {change:#x}: {guest:?} {host:?}"
                );
            }
            refused += usize::from(guest.is_err());
        }
    }
    assert!(refused > good.len(), "{refused}");
}

#[test]
fn a_blob_that_is_cut_short_is_refused() {
    let good = blob(&UefiSettings::default());
    for len in 0..good.len() {
        assert!(Blob::read(&good[..len]).is_err(), "{len:#x}");
    }
}

/// A blob with the required structures, and one more or one changed.
fn with(change: impl FnOnce(&mut Vec<(u32, Vec<u8>)>)) -> Vec<u8> {
    let good = blob(&UefiSettings::default());
    let mut structures: Vec<(u32, Vec<u8>)> = Blob::read(&good)
        .unwrap()
        .structures()
        .skip(1)
        .map(|structure| (structure.kind, structure.payload.to_vec()))
        .collect();
    change(&mut structures);
    let mut writer = BlobWriter::new();
    for (kind, payload) in structures {
        writer.structure(kind, &payload);
    }
    writer.finish().unwrap()
}

fn replace(kind: u32, payload: &[u8]) -> Vec<u8> {
    with(|structures| {
        let found = structures.iter_mut().find(|(is, _)| *is == kind).unwrap();
        found.1 = payload.to_vec();
    })
}

#[test]
fn each_rule_of_the_firmware_has_its_refusal() {
    let refusal = |bytes: Vec<u8>| Blob::read(&bytes).map(|_| ()).unwrap_err();
    assert_eq!(refusal(vec![0; 4096]), Refusal::NoCount);
    let missing = with(|structures| structures.retain(|(kind, _)| *kind != types::ENTROPY));
    assert_eq!(refusal(missing), Refusal::Missing(0b111_1011));
    assert_eq!(
        refusal(replace(types::FLAGS, &[0; 16])),
        Refusal::FixedLength(types::FLAGS)
    );
    assert_eq!(refusal(replace(types::PROCESSORS, &[0; 16])), Refusal::Processors);
    let mut low_past_4_gib = [0; 32];
    low_past_4_gib[..8].copy_from_slice(&0xF_FFFF_u64.to_le_bytes());
    low_past_4_gib[8..16].copy_from_slice(&2_u64.to_le_bytes());
    assert_eq!(refusal(replace(types::MMIO, &low_past_4_gib)), Refusal::Mmio);
    let short = refusal(replace(types::ACPI_TABLE, &[0; 24]));
    assert_eq!(short, Refusal::AcpiTable(Flaw::Short));
    let no_apertures = with(|structures| structures.push((types::APERTURES, vec![0; 48])));
    assert_eq!(refusal(no_apertures), Refusal::Apertures);
    let unknown = with(|structures| structures.push((0x99, vec![7; 8])));
    assert!(Blob::read(&unknown).is_ok(), "unknown types are skipped");
    assert_eq!(host_types::ACPI_TABLE, types::ACPI_TABLE);
}

fn parameter(kind: ParameterKind, vp_count: u32) -> Vec<u8> {
    let plan = crate::plan::igvm_probe_plan(crate::plan::IgvmProbeOptions::new(Isolation::Native)).unwrap();
    let layout = layout(Machine::Plain, vp_count);
    let inputs = ParamInputs {
        plan: &plan,
        layout: &layout,
        cmdline: Some("one two"),
        com: [true, false, false, false],
        vmbus: false,
    };
    host_values(&inputs).unwrap().get(kind).unwrap().to_vec()
}

#[test]
fn the_guest_reads_the_tables_that_the_host_builds() {
    let madt = Madt::read(&parameter(ParameterKind::Madt, 5)).unwrap();
    assert_eq!(madt.ids(), [0, 1, 2, 3, 4]);
    let srat = Srat::read(&parameter(ParameterKind::Srat, 5)).unwrap();
    assert_eq!((srat.processors, srat.memory), (5, 0x6000_0000));
    assert_eq!(srat.end, (1 << 32) + 0x2000_0000);
    assert_eq!(acpi::slit_localities(&parameter(ParameterKind::Slit, 5)), Ok(1));
    assert_eq!(acpi::pptt_processors(&parameter(ParameterKind::Pptt, 5)), Ok(5));
}

#[test]
fn a_damaged_table_is_refused() {
    for kind in [
        ParameterKind::Madt,
        ParameterKind::Srat,
        ParameterKind::Slit,
        ParameterKind::Pptt,
    ] {
        let good = parameter(kind, 2);
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert!(Table::new(&bytes).is_err(), "{kind} byte {at:#x}");
            assert!(Table::new(&good[..at]).is_err(), "{kind} cut at {at:#x}");
        }
    }
}

#[test]
fn the_guest_finds_soft_off_in_the_tables_of_a_direct_boot() {
    let set = vm_loaders::acpi::linux_set(&layout(Machine::Linux, 2), 0xE_0000, 0x2_0000).unwrap();
    let at = |gpa: u64| &set.bytes[(gpa - set.gpa) as usize..];
    let xsdt = Table::with_signature(at(acpi::rsdp_xsdt(&set.bytes).unwrap()), b"XSDT").unwrap();
    let fadt = xsdt.bytes()[36..]
        .chunks_exact(8)
        .map(|pointer| at(acpi::u64_at(pointer, 0).unwrap()))
        .find(|table| table.starts_with(b"FACP"))
        .unwrap();
    let fadt = Fadt::read(fadt).unwrap();
    assert_eq!(fadt.pm1a_control, u32::from(guest_protocol::ports::PM1A_CONTROL));
    assert_eq!(fadt.reset, (u64::from(guest_protocol::ports::RESET), 1));
    let dsdt = Table::with_signature(at(fadt.dsdt), b"DSDT").unwrap();
    assert_eq!(acpi::s5_sleep_types(&dsdt.bytes()[36..]), Some((0, 0)));
}

#[test]
fn soft_off_is_a_package_of_small_integers() {
    let s5 = |rest: &[u8]| acpi::s5_sleep_types(&[&[0x08], &b"_S5_"[..], rest].concat());
    assert_eq!(
        s5(&[0x12, 0x06, 0x04, 0x0A, 0x05, 0x01, 0x00, 0x00]),
        Some((5, 1))
    );
    assert_eq!(
        s5(&[0x12, 0x06, 0x04, 0x0B, 0x05, 0x01]),
        None,
        "a word is too large"
    );
    assert_eq!(s5(&[0x12]), None);
    assert_eq!(
        acpi::s5_sleep_types(b"x_S5_\x12\x06\x04\x00\x00"),
        None,
        "not a name"
    );
}

#[test]
fn the_guest_reads_the_device_tree_that_the_host_builds() {
    let tree = parameter(ParameterKind::DeviceTree, 2);
    let (mut cpus, mut bootargs) = (0, None);
    fdt::walk(&tree, |property| match (property.path, property.name) {
        (["cpus", _], "reg") => cpus += 1,
        (["chosen"], "bootargs") => bootargs = property.text().map(str::to_owned),
        _ => {}
    })
    .unwrap();
    assert_eq!((cpus, bootargs.as_deref()), (2, Some("one two")));
}

#[test]
fn a_damaged_device_tree_never_ends_the_guest() {
    let good = parameter(ParameterKind::DeviceTree, 2);
    for at in 0..good.len() {
        assert!(fdt::walk(&good[..at], |_| {}).is_err(), "cut at {at:#x}");
        let mut bytes = good.clone();
        for change in [0x01, 0x80, 0xFF] {
            bytes[at] ^= change;
            // Only that it ends matters here: a changed value is no error.
            let _ = fdt::walk(&bytes, |property| assert!(property.value.len() <= good.len()));
        }
    }
}
