// SPDX-License-Identifier: MIT
//! MCFG and SSDT: PCIe root complexes (PCI firmware specification 3.3 sections 4.1.2 and 4.5,
//! uefi-launch 3.9).
//!
//! Always true: `_UID`, segment and buses equal those of the blob's aperture records; each ECAM window
//! is reserved by a motherboard device beside its bridge. Not here: the bridges themselves.

use super::table::{HV, SSDT01, Table};
use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, CreateDWordField, Device, EISAName, Equal, If, Method, Name,
    Or, Path, ResourceTemplate, Return, Scope, Uuid, ZERO,
};
use openvmm_defs::{GpaRange, MemoryLayout, RootComplexLayout};

/// Bytes of configuration space of one bus.
const BUS_BYTES: u64 = 1 << 20;

/// The MCFG; `None` without root complexes. An entry's base is that of bus 0, below the window when it
/// starts at a later bus.
pub fn mcfg(layout: &MemoryLayout) -> Option<Vec<u8>> {
    if layout.root_complexes.is_empty() {
        return None;
    }
    let mut table = Table::new(b"MCFG", 1, &HV);
    table.u64(0);
    for complex in &layout.root_complexes {
        let bus_zero = complex
            .ecam
            .gpa
            .wrapping_sub(u64::from(complex.start_bus) * BUS_BYTES);
        table.u64(bus_zero).bytes(&complex.segment.to_le_bytes());
        table.bytes(&[complex.start_bus, complex.end_bus]).u32(0);
    }
    Some(table.finish())
}

/// The SSDT with a device per root complex; `None` without root complexes.
pub fn ssdt(layout: &MemoryLayout) -> Option<Vec<u8>> {
    if layout.root_complexes.is_empty() {
        return None;
    }
    let mut table = Table::new(b"SSDT", 2, &SSDT01);
    for (index, complex) in layout.root_complexes.iter().enumerate() {
        table.bytes(&bridge(index, complex));
    }
    Some(table.finish())
}

/// `_SB` scope with one host bridge and the device that reserves its ECAM.
pub(super) fn bridge(index: usize, complex: &RootComplexLayout) -> Vec<u8> {
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
    let cid = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
    let uid = Name::new("_UID".into(), &complex.uid);
    let segment = Name::new("_SEG".into(), &complex.segment);
    let bus = Name::new("_BBN".into(), &complex.start_bus);
    let coherent = Name::new("_CCA".into(), &1u8);
    let last_bus = complex.end_bus.max(complex.start_bus);
    let buses = AddressSpace::new_bus_number(u16::from(complex.start_bus), u16::from(last_bus));
    let windows: Vec<_> = [complex.low_mmio, complex.high_mmio]
        .iter()
        .filter_map(memory_window)
        .collect();
    let mut resources: Vec<&dyn Aml> = vec![&buses];
    resources.extend(windows.iter().map(|window| window as &dyn Aml));
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
    let osc = AmlBytes(osc_method());
    let device = Device::new(
        bridge_path(index),
        vec![&hid, &cid, &uid, &segment, &bus, &coherent, &crs, &osc],
    );

    let reservation = reserve_ecam(index, &complex.ecam).map(AmlBytes);
    let mut children: Vec<&dyn Aml> = vec![&device];
    children.extend(reservation.iter().map(|device| device as &dyn Aml));
    let mut bytes = Vec::new();
    Scope::new("_SB_".into(), children).to_aml_bytes(&mut bytes);
    bytes
}

/// AML that is encoded already.
pub(super) struct AmlBytes(pub(super) Vec<u8>);

impl Aml for AmlBytes {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// `PCI0` to `PCIF`, then `P010` and up; names are four characters long.
fn bridge_path(index: usize) -> Path {
    let name = if index < 16 {
        format!("PCI{index:X}")
    } else {
        format!("P{:03X}", index % 0x1000)
    };
    Path::new(&name)
}

pub(super) fn memory_window(range: &GpaRange) -> Option<AddressSpace<u64>> {
    let last = range.gpa.checked_add(range.len.checked_sub(1)?)?;
    let cacheable = AddressSpaceCacheable::NotCacheable;
    Some(AddressSpace::new_memory(cacheable, true, range.gpa, last, None))
}

/// `_OSC`: everything is granted for PCIe; bit 2 of the first dword says that a UUID is unknown.
pub(super) fn osc_method() -> Vec<u8> {
    let uuid = Uuid::new("33DB4D5B-1FF7-401C-9657-7441C03DD766");
    let is_pcie = Equal::new(&Arg(0), &uuid);
    let grant = Return::new(&Arg(3));
    let pcie = If::new(&is_pcie, vec![&grant]);
    let status = Path::new("CDW1");
    let field = CreateDWordField::new(&status, &Arg(3), &ZERO);
    let unknown = Or::new(&status, &status, &4u8);
    let refuse = Return::new(&Arg(3));
    let mut bytes = Vec::new();
    Method::new("_OSC".into(), 4, true, vec![&pcie, &field, &unknown, &refuse]).to_aml_bytes(&mut bytes);
    bytes
}

pub(super) fn reserve_ecam(index: usize, ecam: &GpaRange) -> Option<Vec<u8>> {
    let window = memory_window(ecam)?;
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0C02"));
    // Below 0x1000 by construction of `bridge_path`.
    let uid = Name::new("_UID".into(), &((index % 0x1000) as u32));
    let crs = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&window]));
    let path = Path::new(&format!("M{:03X}", index % 0x1000));
    let mut bytes = Vec::new();
    Device::new(path, vec![&hid, &uid, &crs]).to_aml_bytes(&mut bytes);
    Some(bytes)
}
