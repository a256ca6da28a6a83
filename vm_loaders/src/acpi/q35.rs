// SPDX-License-Identifier: MIT
//! The tables of the OVMF machine, as firmware takes them from fw_cfg: two files with tables and a script
//! that says how to place them (ovmf-machine section 1.8).
//!
//! Always true: pointers in the files are offsets into the file that they point to, and the script has a
//! command for every pointer and every checksum that placing changes. The sizes of the three files depend
//! on the layout and the ports only, so a directory may tell them before the guest has placed ECAM.
//! Not here: placing, which firmware does; link devices, so interrupts of PCI pins need the IO-APIC.

use super::dsdt::{LegacyDevice, legacy_device, soft_off};
use super::hardware::{COM1_IRQ, COM1_PORT, RTC_IRQ, RTC_PORT};
use super::root_complex::{AmlBytes, memory_window, osc_method, reserve_ecam};
use super::set::{FixedHardware, fadt};
use super::table::{HV, Table};
use super::{madt, mcfg};
use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, Device, EISAName, IO, Name, Package, PackageBuilder, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::facs::FACS;
use acpi_tables::rsdp::Rsdp;
use openvmm_defs::{GpaRange, MemoryLayout, RootComplexLayout};

/// What the guest and the configuration decide about the tables.
#[derive(Debug, Clone, Copy)]
pub struct Q35Facts {
    /// The configuration window as PCIEXBAR has it; `None` while it is off.
    pub ecam: Option<GpaRange>,
    /// First port of the PM block.
    pub pm_base: u16,
    /// The line (GSI) of a PCI device's interrupt pin (0 for INTA).
    pub intx_line: fn(u8, u8) -> u32,
    /// COM1 to COM4 that exist.
    pub com: [bool; 4],
}

/// The three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FwCfgTables {
    /// [`FwCfgTables::RSDP`].
    pub rsdp: Vec<u8>,
    /// [`FwCfgTables::TABLES`].
    pub tables: Vec<u8>,
    /// [`FwCfgTables::LOADER`].
    pub loader: Vec<u8>,
}

impl FwCfgTables {
    /// Name of the file with the root pointer.
    pub const RSDP: &'static str = "etc/acpi/rsdp";
    /// Name of the file with all tables.
    pub const TABLES: &'static str = "etc/acpi/tables";
    /// Name of the script.
    pub const LOADER: &'static str = "etc/table-loader";
}

/// COM1 to COM4: first port and line.
const COM: [(u16, u32); 4] = [(COM1_PORT, COM1_IRQ), (0x2F8, 3), (0x3E8, COM1_IRQ), (0x2E8, 3)];
/// End of the window for BARs below 4 GiB: the IO-APIC follows.
const LOW_WINDOW_END: u64 = 0xFEC0_0000;
const FOUR_GIB: u64 = 1 << 32;
const GIB: u64 = 1 << 30;
/// PCI devices on the bus.
const DEVICES: u8 = 32;

/// The files for `layout`.
pub fn q35_tables(layout: &MemoryLayout, facts: &Q35Facts) -> FwCfgTables {
    let mut files = Files::default();
    let facs = files.place(|bytes| FACS::new().to_aml_bytes(bytes));
    let dsdt = files.place(|bytes| bytes.extend(dsdt(layout, facts)));
    let hardware = FixedHardware {
        event_port: facts.pm_base,
        control_port: facts.pm_base + 4,
        timer_port: facts.pm_base + 8,
        wide_timer: false,
        gpe0_port: facts.pm_base + 0x20,
        gpe0_len: 16,
        // Port 0xCF9: system reset, full reset.
        reset_port: 0xCF9,
        reset_value: 0xF,
    };
    let fadt = files.place(|bytes| bytes.extend(fadt(&hardware, dsdt as u64, facs as u64)));
    // FIRMWARE_CTRL, DSDT, X_DSDT (ACPI 6.5 section 5.2.9).
    for (at, size) in [(36, 4), (40, 4), (140, 8)] {
        files.pointer_in_tables(fadt + at, size);
    }
    let madt = files.place(|bytes| bytes.extend(madt(layout)));
    let mcfg = files.place(|bytes| bytes.extend(mcfg_of(layout, facts)));
    let mut xsdt = Table::new(b"XSDT", 1, &HV);
    for table in [fadt, madt, mcfg] {
        xsdt.u64(table as u64);
    }
    let first = xsdt.position() - 3 * 8;
    let xsdt = files.place(|bytes| bytes.extend(xsdt.finish()));
    for i in 0..3 {
        files.pointer_in_tables(xsdt + first + 8 * i, 8);
    }
    files.checksum_of(fadt);
    files.checksum_of(xsdt);
    files.finish(xsdt)
}

/// Files being built.
#[derive(Default)]
struct Files {
    tables: Vec<u8>,
    commands: Vec<[u8; COMMAND]>,
}

/// Bytes of a script command.
const COMMAND: usize = 128;
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
/// Offsets of the root pointer's fields.
const RSDP_XSDT: usize = 24;
const RSDP_CHECKSUM: usize = 8;
const RSDP_EXTENDED_CHECKSUM: usize = 32;
/// Length of the part that the first checksum covers.
const RSDP_V1: usize = 20;

/// A command of the script: little-endian, file names zero-filled to 56 bytes.
struct Command {
    bytes: [u8; COMMAND],
    at: usize,
}

impl Command {
    fn new(kind: u32) -> Self {
        let command = Self {
            bytes: [0; COMMAND],
            at: 0,
        };
        command.value(kind)
    }

    fn file(mut self, name: &str) -> Self {
        self.bytes[self.at..self.at + name.len()].copy_from_slice(name.as_bytes());
        self.at += 56;
        self
    }

    fn value(self, value: u32) -> Self {
        self.put(&value.to_le_bytes())
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }
}

impl Files {
    /// Appends a table on a 64-byte boundary and gives its offset.
    fn place(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let offset = self.tables.len().next_multiple_of(64);
        self.tables.resize(offset, 0);
        write(&mut self.tables);
        offset
    }

    fn allocate(name: &str, align: u32, zone: u8) -> [u8; COMMAND] {
        Command::new(ALLOCATE).file(name).value(align).put(&[zone]).bytes
    }

    fn pointer(&mut self, file: &str, offset: usize, size: u8) {
        let command = Command::new(ADD_POINTER).file(file).file(FwCfgTables::TABLES);
        self.commands
            .push(command.value(offset as u32).put(&[size]).bytes);
    }

    fn pointer_in_tables(&mut self, offset: usize, size: u8) {
        self.pointer(FwCfgTables::TABLES, offset, size);
    }

    fn checksum(&mut self, file: &str, result: usize, start: usize, len: usize) {
        let command = Command::new(ADD_CHECKSUM).file(file);
        let command = command.value(result as u32).value(start as u32).value(len as u32);
        self.commands.push(command.bytes);
    }

    /// A checksum over the table at `offset`, to be worked out after its pointers are placed.
    fn checksum_of(&mut self, offset: usize) {
        let len = u32::from_le_bytes([4, 5, 6, 7].map(|i| self.tables[offset + i]));
        self.tables[offset + 9] = 0;
        self.checksum(FwCfgTables::TABLES, offset + 9, offset, len as usize);
    }

    fn finish(mut self, xsdt: usize) -> FwCfgTables {
        let mut rsdp = Vec::new();
        Rsdp::new(*HV.oem_id, xsdt as u64).to_aml_bytes(&mut rsdp);
        rsdp[RSDP_CHECKSUM] = 0;
        rsdp[RSDP_EXTENDED_CHECKSUM] = 0;
        self.pointer(FwCfgTables::RSDP, RSDP_XSDT, 8);
        self.checksum(FwCfgTables::RSDP, RSDP_CHECKSUM, 0, RSDP_V1);
        self.checksum(FwCfgTables::RSDP, RSDP_EXTENDED_CHECKSUM, 0, rsdp.len());
        // The root pointer goes where old guests look for it, the tables anywhere.
        let mut loader = Self::allocate(FwCfgTables::RSDP, 16, 2).to_vec();
        loader.extend(Self::allocate(FwCfgTables::TABLES, 64, 1));
        loader.extend(self.commands.concat());
        FwCfgTables {
            rsdp,
            tables: self.tables,
            loader,
        }
    }
}

/// The root complex as the tables describe it; without ECAM the window is empty.
fn root_complex(facts: &Q35Facts) -> RootComplexLayout {
    let ecam = facts.ecam.unwrap_or_default();
    RootComplexLayout {
        segment: 0,
        start_bus: 0,
        end_bus: (ecam.len >> 20).saturating_sub(1).min(255) as u8,
        uid: 0,
        ecam,
        low_mmio: GpaRange::default(),
        high_mmio: GpaRange::default(),
    }
}

fn mcfg_of(layout: &MemoryLayout, facts: &Q35Facts) -> Vec<u8> {
    let layout = MemoryLayout {
        tpm: None,
        root_complexes: facts.ecam.map(|_| root_complex(facts)).into_iter().collect(),
        ..layout.clone()
    };
    // Without ECAM a table without entries keeps the number of pointers the same.
    mcfg(&layout).unwrap_or_else(|| {
        let mut table = Table::new(b"MCFG", 1, &HV);
        table.u64(0);
        table.finish()
    })
}

fn dsdt(layout: &MemoryLayout, facts: &Q35Facts) -> Vec<u8> {
    let com = (1u8..).zip(COM).zip(facts.com).filter(|(_, there)| *there);
    let com: Vec<(String, LegacyDevice)> = com
        .map(|((n, (port, line)), _)| (format!("COM{n}"), legacy_device("PNP0501", n, (port, 8), line)))
        .collect();
    let rtc = legacy_device("PNP0B00", 0, (RTC_PORT, 2), RTC_IRQ);
    let mut devices: Vec<Device<'_>> = com.iter().map(|(name, objects)| objects.device(name)).collect();
    devices.push(rtc.device("RTC_"));
    let mut children: Vec<&dyn Aml> = devices.iter().map(|device| device as &dyn Aml).collect();
    let fw_cfg = AmlBytes(fw_cfg());
    let bridge = AmlBytes(pci_root(layout, facts));
    let ecam = reserve_ecam(0, &facts.ecam.unwrap_or_default()).map(AmlBytes);
    children.push(&fw_cfg);
    children.push(&bridge);
    children.extend(ecam.iter().map(|device| device as &dyn Aml));
    let mut table = Table::new(b"DSDT", 2, &HV);
    table.aml(&soft_off());
    table.aml(&Scope::new("_SB_".into(), children));
    table.finish()
}

/// fw_cfg, so that operating systems can read it too.
fn fw_cfg() -> Vec<u8> {
    let ports = IO::new(0x510, 0x510, 1, 12);
    let hid = Name::new("_HID".into(), &"QEMU0002");
    let status = Name::new("_STA".into(), &0xBu8);
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports]));
    let mut bytes = Vec::new();
    Device::new("FWCF".into(), vec![&hid, &status, &crs]).to_aml_bytes(&mut bytes);
    bytes
}

/// Where BARs may be: below 4 GiB around ECAM, and above RAM.
fn bar_windows(layout: &MemoryLayout, ecam: Option<GpaRange>) -> Vec<GpaRange> {
    let between = |start: u64, end: u64| GpaRange::new(start, end.saturating_sub(start));
    let low = layout.low_mmio.gpa;
    let ecam = ecam.filter(|window| window.gpa >= low && window.end() <= LOW_WINDOW_END);
    let mut windows = match ecam {
        Some(ecam) => vec![between(low, ecam.gpa), between(ecam.end(), LOW_WINDOW_END)],
        None => vec![between(low, LOW_WINDOW_END)],
    };
    let ram_end = layout.ram.iter().map(GpaRange::end).max().unwrap_or(0);
    let high = ram_end.max(FOUR_GIB).checked_next_multiple_of(GIB);
    let space = 1u64.checked_shl(layout.phys_bits.into());
    if let (Some(high), Some(space)) = (high, space) {
        windows.push(between(high, space));
    }
    windows
}

fn pci_root(layout: &MemoryLayout, facts: &Q35Facts) -> Vec<u8> {
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
    let cid = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
    let uid = Name::new("_UID".into(), &ZERO);
    let segment = Name::new("_SEG".into(), &ZERO);
    let bus = Name::new("_BBN".into(), &ZERO);
    let complex = root_complex(facts);
    let buses = AddressSpace::new_bus_number(0u16, complex.end_bus.into());
    let mechanism_1 = IO::new(0xCF8, 0xCF8, 1, 8);
    let ports = [
        AddressSpace::new_io(0u16, 0xCF7, None),
        AddressSpace::new_io(0xD00u16, 0xFFFF, None),
    ];
    let windows = bar_windows(layout, facts.ecam);
    let windows: Vec<_> = windows.iter().filter_map(memory_window).collect();
    let mut resources: Vec<&dyn Aml> = vec![&buses, &mechanism_1, &ports[0], &ports[1]];
    resources.extend(windows.iter().map(|window| window as &dyn Aml));
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
    let osc = AmlBytes(osc_method());
    let routing = AmlBytes(routing(facts.intx_line));
    let mut bytes = Vec::new();
    Device::new(
        "PCI0".into(),
        vec![&hid, &cid, &uid, &segment, &bus, &crs, &osc, &routing],
    )
    .to_aml_bytes(&mut bytes);
    bytes
}

/// `_PRT`: each device's four pins, wired to the IO-APIC for good.
fn routing(line: fn(u8, u8) -> u32) -> Vec<u8> {
    let mut entries = PackageBuilder::new();
    for (device, pin) in (0..DEVICES).flat_map(|device| (0..4u8).map(move |pin| (device, pin))) {
        let address = u32::from(device) << 16 | 0xFFFF;
        entries.add_element(&Package::new(vec![&address, &pin, &ZERO, &line(device, pin)]));
    }
    let mut bytes = Vec::new();
    Name::new("_PRT".into(), &entries).to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
