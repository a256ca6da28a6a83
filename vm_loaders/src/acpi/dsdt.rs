// SPDX-License-Identifier: MIT
//! DSDT for guests that boot without firmware: COM1, RTC, power off, host bridges.
//!
//! Always true: only devices that every such machine has, at their fixed places. Not here: what
//! Microsoft's UEFI brings in its own DSDT.

use super::hardware::{COM1_IRQ, COM1_PORT, RTC_IRQ, RTC_PORT};
use super::root_complex::bridge;
use super::table::{HV, Table};
use acpi_tables::Aml;
use acpi_tables::aml::Memory32Fixed;
use acpi_tables::aml::{Device, EISAName, IO, Interrupt, Name, Package, Path, ResourceTemplate, Scope, ZERO};
use openvmm_defs::{Machine, MemoryLayout};

/// Hardware id of a TPM 2.0.
const TPM: &str = "MSFT0101";
/// Hardware id by which guests find VMBus.
const VMBUS: &str = "VMBUS";

/// The DSDT.
pub(super) fn dsdt(layout: &MemoryLayout) -> Vec<u8> {
    let com1 = legacy_device("PNP0501", 0, (COM1_PORT, 8), COM1_IRQ);
    let rtc = legacy_device("PNP0B00", 0, (RTC_PORT, 2), RTC_IRQ);
    let com1 = com1.device("COM1");
    let rtc = rtc.device("RTC_");
    let mut table = Table::new(b"DSDT", 2, &HV);
    table.aml(&soft_off());
    table.aml(&Scope::new("_SB_".into(), vec![&com1, &rtc]));
    // VMBus and its gap above RAM come together.
    if layout.machine == Machine::HyperV && !layout.high_mmio.is_empty() {
        let bus = [Name::new("_HID".into(), &VMBUS), Name::new("_UID".into(), &ZERO)];
        let bus = Device::new("VMBS".into(), bus.iter().map(|name| name as &dyn Aml).collect());
        table.aml(&Scope::new("_SB_".into(), vec![&bus]));
    }
    if let Some(range) = layout.tpm {
        let (hid, uid) = (Name::new("_HID".into(), &TPM), Name::new("_UID".into(), &ZERO));
        // Fixed registers below 4 GiB.
        let registers = Memory32Fixed::new(true, range.gpa as u32, range.len as u32);
        let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers]));
        let tpm = Device::new("TPM_".into(), vec![&hid, &uid, &resources]);
        table.aml(&Scope::new("_SB_".into(), vec![&tpm]));
    }
    for (index, complex) in layout.root_complexes.iter().enumerate() {
        table.bytes(&bridge(index, complex));
    }
    table.finish()
}

/// Sleep type 0 in PM1a control with the enable bit powers off.
pub(super) fn soft_off() -> Name {
    let sleep = Package::new(vec![&ZERO, &ZERO, &ZERO, &ZERO]);
    Name::new("_S5_".into(), &sleep)
}

/// The objects of a device with one port range and one edge-triggered interrupt.
pub(super) struct LegacyDevice {
    hid: Name,
    uid: Name,
    crs: Name,
}

impl LegacyDevice {
    pub(super) fn device(&self, name: &str) -> Device<'_> {
        Device::new(Path::new(name), vec![&self.hid, &self.uid, &self.crs])
    }
}

pub(super) fn legacy_device(hid: &str, uid: u8, (port, ports): (u16, u8), irq: u32) -> LegacyDevice {
    let io = IO::new(port, port, 1, ports);
    let interrupt = Interrupt::new(true, true, false, false, irq);
    LegacyDevice {
        hid: Name::new("_HID".into(), &EISAName::new(hid)),
        uid: Name::new("_UID".into(), &uid),
        crs: Name::new("_CRS".into(), &ResourceTemplate::new(vec![&io, &interrupt])),
    }
}
