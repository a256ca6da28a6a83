// SPDX-License-Identifier: MIT
//! The script carried out as firmware does it, and what the placed tables then say.

use super::*;
use crate::acpi::checksum;
use openvmm_defs::Machine;

const RSDP_AT: u64 = 0xF_5A00;
const TABLES_AT: u64 = 0x7FE0_0000;

fn layout() -> MemoryLayout {
    MemoryLayout {
        machine: Machine::Ovmf,
        ram: vec![GpaRange::new(0, 2 << 30), GpaRange::new(1 << 32, 3 << 30)],
        low_mmio: GpaRange::new(0x8000_0000, 0x7F00_0000),
        high_mmio: GpaRange::default(),
        tpm: None,
        root_complexes: Vec::new(),
        phys_bits: 40,
        vp_count: 4,
    }
}

fn facts(ecam: Option<u64>) -> Q35Facts {
    Q35Facts {
        ecam: ecam.map(|gpa| GpaRange::new(gpa, 256 << 20)),
        pm_base: 0x600,
        intx_line: |device, pin| 20 + u32::from((device + pin) & 3),
        com: [true, false, false, true],
    }
}

/// The files after the script has run.
struct Placed {
    rsdp: Vec<u8>,
    tables: Vec<u8>,
}

impl Placed {
    fn file(&mut self, name: &[u8]) -> (&mut Vec<u8>, u64) {
        match std::str::from_utf8(name).unwrap().trim_end_matches('\0') {
            FwCfgTables::RSDP => (&mut self.rsdp, RSDP_AT),
            FwCfgTables::TABLES => (&mut self.tables, TABLES_AT),
            other => panic!("unknown file {other}"),
        }
    }

    fn run(files: FwCfgTables) -> Self {
        let mut placed = Self {
            rsdp: files.rsdp,
            tables: files.tables,
        };
        let u32_at = |c: &[u8], at: usize| u32::from_le_bytes(c[at..at + 4].try_into().unwrap()) as usize;
        let mut allocated = Vec::new();
        for c in files.loader.chunks(COMMAND) {
            match u32_at(c, 0) as u32 {
                ALLOCATE => allocated.push(c[4..60].to_vec()),
                ADD_POINTER => {
                    assert!(allocated.contains(&c[4..60].to_vec()));
                    let (_, base) = placed.file(&c[60..116]);
                    let (at, size) = (u32_at(c, 116), usize::from(c[120]));
                    let (bytes, _) = placed.file(&c[4..60]);
                    let mut value = [0; 8];
                    value[..size].copy_from_slice(&bytes[at..at + size]);
                    let value = (u64::from_le_bytes(value) + base).to_le_bytes();
                    bytes[at..at + size].copy_from_slice(&value[..size]);
                }
                ADD_CHECKSUM => {
                    let (result, start, len) = (u32_at(c, 60), u32_at(c, 64), u32_at(c, 68));
                    let (bytes, _) = placed.file(&c[4..60]);
                    bytes[result] = checksum(&bytes[start..start + len]);
                }
                other => panic!("command {other}"),
            }
        }
        placed
    }

    fn at(&self, gpa: u64) -> &[u8] {
        let bytes = &self.tables[(gpa - TABLES_AT) as usize..];
        let len = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
        &bytes[..len]
    }

    /// The tables that the XSDT names, each with a right sum.
    fn tables(&self) -> Vec<&[u8]> {
        assert_eq!(checksum(&self.rsdp[..20]), 0);
        assert_eq!(checksum(&self.rsdp), 0);
        let xsdt = self.at(u64_at(&self.rsdp, 24));
        assert_eq!(checksum(xsdt), 0);
        let tables: Vec<_> = xsdt[36..]
            .as_chunks::<8>()
            .0
            .iter()
            .map(|gpa| self.at(u64::from_le_bytes(*gpa)))
            .collect();
        tables.iter().for_each(|table| assert_eq!(checksum(table), 0));
        tables
    }

    fn dsdt(&self) -> &[u8] {
        let fadt = self.tables()[0];
        let dsdt = u64_at(fadt, 140);
        assert_eq!(u64::from(u32_of(fadt, 40)), dsdt);
        self.at(dsdt)
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_of(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn script_places_four_tables_with_right_sums_and_an_aligned_facs() {
    let placed = Placed::run(q35_tables(&layout(), &facts(Some(0xB000_0000))));
    let tables = placed.tables();
    let names: Vec<_> = tables.iter().map(|table| &table[..4]).collect();
    assert_eq!(names, [b"FACP", b"APIC", b"MCFG"]);
    assert_eq!(checksum(placed.dsdt()), 0);
    let facs = u64::from(u32_of(tables[0], 36));
    assert_eq!(&placed.at(facs)[..4], b"FACS");
    assert_eq!(facs % 64, 0);
    // PM1a event, control and timer.
    assert_eq!(
        [56, 64, 76].map(|at| u32_of(tables[0], at)),
        [0x600, 0x604, 0x608]
    );
    assert_eq!(u64_at(tables[2], 44), 0xB000_0000);
    assert_eq!(tables[2][54..56], [0, 255]);
}

#[test]
fn sizes_do_not_depend_on_where_ecam_is_and_no_ecam_is_smaller() {
    let sizes = |ecam| {
        let files = q35_tables(&layout(), &facts(ecam));
        (files.rsdp.len(), files.tables.len(), files.loader.len())
    };
    let with = sizes(Some(0xB000_0000));
    assert_eq!(sizes(Some(0xE000_0000)), with);
    let without = sizes(None);
    assert!(without.1 < with.1);
    assert_eq!((without.0, without.2), (with.0, with.2));
    assert_eq!(
        Placed::run(q35_tables(&layout(), &facts(None))).tables()[2].len(),
        44
    );
}

#[test]
fn bar_windows_lie_around_ecam_and_above_ram() {
    let windows = bar_windows(&layout(), Some(GpaRange::new(0xB000_0000, 256 << 20)));
    let text: Vec<_> = windows.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "0x80000000..0xb0000000",
            "0xc0000000..0xfec00000",
            "0x1c0000000..0x10000000000"
        ]
    );
}

#[test]
fn iasl_takes_the_dsdt_apart_and_together_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dsdt.aml");
    let placed = Placed::run(q35_tables(&layout(), &facts(Some(0xE000_0000))));
    std::fs::write(&path, placed.dsdt()).unwrap();
    let Ok(output) = std::process::Command::new("iasl").arg("-d").arg(&path).output() else {
        println!("skipped: iasl (Debian package acpica-tools) is not installed");
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let source = std::fs::read_to_string(path.with_extension("dsl")).unwrap();
    for wanted in [
        "Device (COM1)",
        "Device (COM4)",
        "0x00000000E0000000",
        "Name (_S5",
        "\"QEMU0002\"",
    ] {
        assert!(source.contains(wanted), "{wanted} is not in {source}");
    }
    assert!(!source.contains("Device (COM2)"));
    super::super::tests::compile_again(&path.with_extension("dsl"), "DSDT");
}
