// SPDX-License-Identifier: MIT
//! Headers, entry order, sums, and the judgement of `iasl` where it is installed.

use super::table::ACPI_HEADER_BYTES;
use super::*;
use openvmm_defs::{GpaRange, Machine, RootComplexLayout};
use std::process::Command;

fn layout(machine: Machine, vp_count: u32) -> MemoryLayout {
    MemoryLayout {
        machine,
        ram: vec![GpaRange::new(0, 2 << 30), GpaRange::new(1 << 32, 1 << 30)],
        low_mmio: GpaRange::new(0xF800_0000, 0x800_0000),
        high_mmio: GpaRange::default(),
        tpm: None,
        root_complexes: Vec::new(),
        phys_bits: 40,
        vp_count,
    }
}

fn with_bridges(machine: Machine) -> MemoryLayout {
    let complex = |uid, segment, start_bus, ecam| RootComplexLayout {
        segment,
        start_bus,
        end_bus: start_bus + 3,
        uid,
        ecam: GpaRange::new(ecam, 4 << 20),
        low_mmio: GpaRange::new(0xE000_0000, 0x400_0000),
        high_mmio: GpaRange::new(0x20_0000_0000, 1 << 30),
    };
    MemoryLayout {
        tpm: None,
        root_complexes: vec![complex(0, 0, 0, 0xE800_0000), complex(1, 1, 8, 0xE900_0000)],
        ..layout(machine, 2)
    }
}

fn check(table: &[u8], signature: &[u8; 4], revision: u8) {
    assert_eq!(&table[..4], signature);
    assert_eq!(
        u32::from_le_bytes(table[4..8].try_into().unwrap()) as usize,
        table.len()
    );
    assert_eq!(table[8], revision);
    assert_eq!(checksum(table), 0, "sum of {signature:?}");
}

fn hv_header(table: &[u8]) {
    assert_eq!(&table[10..16], b"HVLITE");
    assert_eq!(&table[16..24], b"HVLITETB");
    assert_eq!(table[24..28], [0; 4]);
    assert_eq!(&table[28..32], b"MSHV");
    assert_eq!(table[32..36], [0; 4]);
}

/// Entries {type, length} of a table from `offset` on.
fn entries(table: &[u8], mut offset: usize) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while offset < table.len() {
        let len = usize::from(table[offset + 1]);
        found.push(&table[offset..offset + len]);
        offset += len;
    }
    found
}

#[test]
fn madt_of_the_hyper_v_machine_has_no_pic_and_no_pit() {
    let table = madt(&layout(Machine::HyperV, 2));
    check(&table, b"APIC", 5);
    hv_header(&table);
    assert_eq!(table[36..44], [0, 0, 0xE0, 0xFE, 0, 0, 0, 0]);
    let golden: [&[u8]; 5] = [
        &[1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0],
        &[2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0],
        &[4, 6, 1, 0, 0, 1],
        &[0, 8, 1, 0, 1, 0, 0, 0],
        &[0, 8, 2, 1, 1, 0, 0, 0],
    ];
    assert_eq!(entries(&table, 44), golden);
}

#[test]
fn madt_of_the_plain_machine_has_both() {
    let table = madt(&layout(Machine::Plain, 1));
    assert_eq!(table[40], 1);
    assert_eq!(entries(&table, 44)[2], [2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
}

#[test]
fn processors_beyond_8_bits_get_x2apic_entries() {
    let table = madt(&layout(Machine::HyperV, 257));
    check(&table, b"APIC", 5);
    let entries = entries(&table, 44);
    assert_eq!(entries[3 + 253], [0, 8, 254, 253, 1, 0, 0, 0]);
    assert_eq!(entries[3 + 254], [0, 8, 255, 254, 1, 0, 0, 0]);
    assert_eq!(
        entries[3 + 255],
        [9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    );
    assert_eq!(entries.len(), 3 + 257);
}

#[test]
fn srat_lists_processors_then_ram() {
    let table = srat(&layout(Machine::HyperV, 257));
    check(&table, b"SRAT", 3);
    hv_header(&table);
    assert_eq!(table[36..48], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let entries = entries(&table, 48);
    assert_eq!(entries[1], [0, 16, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(entries[256][..12], [2, 24, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    let memory = entries[258];
    assert_eq!((memory[0], memory[1], memory[28]), (1, 40, 1));
    assert_eq!(memory[8..16], (1u64 << 32).to_le_bytes());
    assert_eq!(memory[16..24], (1u64 << 30).to_le_bytes());
}

#[test]
fn slit_has_one_locality_at_distance_ten() {
    let table = slit();
    check(&table, b"SLIT", 1);
    assert_eq!(table[36..], [1, 0, 0, 0, 0, 0, 0, 0, 10]);
}

#[test]
fn pptt_has_a_package_with_a_leaf_per_processor() {
    let table = pptt(&layout(Machine::Plain, 2));
    check(&table, b"PPTT", 1);
    let nodes = entries(&table, 36);
    assert_eq!(
        nodes[0],
        [0, 20, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        nodes[2],
        [0, 20, 0, 0, 10, 0, 0, 0, 36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn mcfg_counts_its_base_from_bus_zero() {
    assert!(mcfg(&layout(Machine::HyperV, 1)).is_none());
    let table = mcfg(&with_bridges(Machine::HyperV)).unwrap();
    check(&table, b"MCFG", 1);
    hv_header(&table);
    assert_eq!(table[44..52], 0xE800_0000u64.to_le_bytes());
    assert_eq!(table[60..68], (0xE900_0000u64 - (8 << 20)).to_le_bytes());
    assert_eq!(table[68..76], [1, 0, 8, 11, 0, 0, 0, 0]);
}

#[test]
fn ssdt_has_its_own_header() {
    assert!(ssdt(&layout(Machine::HyperV, 1)).is_none());
    let table = ssdt(&with_bridges(Machine::HyperV)).unwrap();
    check(&table, b"SSDT", 2);
    assert_eq!(&table[10..28], b"MSFTVMSSDT01\0\0\x01\0\0\0");
    assert_eq!(&table[28..36], b"MSFT\0\0\0\x01");
    let holds = |part: &[u8]| table.windows(part.len()).any(|window| window == part);
    assert!(holds(b"PCI0") && holds(b"PCI1") && holds(b"_OSC") && holds(b"M001"));
}

#[test]
fn uefi_tables_come_in_emission_order() {
    let signatures = |layout: &MemoryLayout| -> Vec<[u8; 4]> {
        uefi_tables(layout)
            .iter()
            .map(|t| t[..4].try_into().unwrap())
            .collect()
    };
    assert_eq!(signatures(&layout(Machine::HyperV, 1)), [*b"APIC", *b"SRAT"]);
    let full = [*b"APIC", *b"SRAT", *b"MCFG", *b"SSDT"];
    assert_eq!(signatures(&with_bridges(Machine::HyperV)), full);
}

const BASE: u32 = 0xE_0000;

/// The table that a pointer of the set leads to.
fn table_at(set: &AcpiSet, gpa: u64) -> &[u8] {
    let at = (gpa - set.gpa) as usize;
    let len = u32::from_le_bytes(set.bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    &set.bytes[at..at + len]
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn set_can_be_walked_from_its_rsdp() {
    let set = linux_set(&with_bridges(Machine::Linux), BASE, 0x2_0000).unwrap();
    assert_eq!(set.gpa, 0xE_0000);
    let rsdp = &set.bytes[..36];
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    assert_eq!(rsdp[15], 2);
    assert_eq!((checksum(&rsdp[..20]), checksum(rsdp)), (0, 0));
    let xsdt = table_at(&set, u64_at(rsdp, 24));
    check(xsdt, b"XSDT", 1);
    let tables: Vec<&[u8]> = xsdt[ACPI_HEADER_BYTES..]
        .chunks_exact(8)
        .map(|entry| table_at(&set, u64_at(entry, 0)))
        .collect();
    let signatures: Vec<&[u8]> = tables.iter().map(|table| &table[..4]).collect();
    assert_eq!(signatures, [b"FACP", b"APIC", b"MCFG"]);
    assert!(tables.iter().all(|table| checksum(table) == 0));
    tables.iter().chain([&xsdt]).for_each(|table| hv_header(table));
    let fadt = tables[0];
    check(table_at(&set, u64_at(fadt, 140)), b"DSDT", 2);
    let facs_gpa = u32::from_le_bytes(fadt[36..40].try_into().unwrap());
    assert_eq!(facs_gpa % 64, 0);
    assert_eq!(&table_at(&set, facs_gpa.into())[..4], b"FACS");
    assert_eq!(
        u32::from_le_bytes(fadt[40..44].try_into().unwrap()),
        u64_at(fadt, 140) as u32
    );
    let port = |at: usize| u32::from_le_bytes(fadt[at..at + 4].try_into().unwrap());
    assert_eq!(
        (port(56), port(64), port(76), port(80)),
        (0x400, 0x404, 0x408, 0x40C)
    );
    assert_eq!(fadt[116..129], [1, 8, 0, 1, 0x33, 4, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn set_that_does_not_fit_is_refused() {
    let error = linux_set(&layout(Machine::Linux, 20_000), BASE, 0x2_0000).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("for 20000 processors do not fit the 0x20000 bytes at gpa 0xe0000"),
        "{text}"
    );
}

#[test]
fn iasl_accepts_every_table() {
    if Command::new("iasl").arg("-v").output().is_err() {
        println!("skipped: iasl (Debian package acpica-tools) is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let machine = with_bridges(Machine::Linux);
    let set = linux_set(&machine, BASE, 0x2_0000).unwrap();
    let fadt = table_at(&set, u64_at(table_at(&set, u64_at(&set.bytes, 24)), 36)).to_vec();
    let dsdt = table_at(&set, u64_at(&fadt, 140)).to_vec();
    let mut tables = uefi_tables(&with_bridges(Machine::HyperV));
    tables.extend([
        fadt,
        dsdt,
        slit(),
        pptt(&machine),
        srat(&layout(Machine::Plain, 300)),
    ]);
    for (index, table) in tables.iter().enumerate() {
        let path = directory.path().join(format!("table{index}.aml"));
        std::fs::write(&path, table).unwrap();
        let output = Command::new("iasl").arg("-d").arg(&path).output().unwrap();
        let signature = String::from_utf8_lossy(&table[..4]).into_owned();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{signature}: {text}");
        for bad in ["Error", "Invalid", "Incorrect checksum", "Could not"] {
            assert!(!text.contains(bad), "{signature}: {text}");
        }
        if matches!(&table[..4], b"DSDT" | b"SSDT") {
            compile_again(&path.with_extension("dsl"), &signature);
        }
    }
}

/// Disassembled AML must compile without an error.
pub(super) fn compile_again(path: &std::path::Path, signature: &str) {
    let output = Command::new("iasl")
        .arg("-p")
        .arg(path.with_extension("again"))
        .arg(path)
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains(" 0 Errors"),
        "{signature}: {text}"
    );
}
