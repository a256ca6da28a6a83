// SPDX-License-Identifier: MIT
//! Mechanism 1, ECAM, and the two functions of the q35 shape.

use super::*;
use crate::testing::{Place, Record};
use crate::{HostBridge, IntxRouter, LpcBridge};

struct Setup {
    root: Arc<PciRoot>,
    ports: ConfigPorts,
    ecam: Place,
    pm: Place,
    record: Arc<Record>,
    intx: Arc<IntxRouter>,
}

/// Something at 0xCF9.
#[derive(Default)]
struct Latch(u8);

impl Device for Latch {
    fn reset(&mut self) {}
}

impl PortDevice for Latch {
    fn port_read(&mut self, _offset: u16, data: &mut [u8]) {
        data.fill(self.0);
    }
    fn port_write(&mut self, _offset: u16, data: &[u8]) {
        self.0 = data[0];
    }
}

fn setup() -> Setup {
    let (root, record) = (PciRoot::new(), Arc::new(Record::default()));
    let (ecam, pm) = (Place::default(), Place::default());
    let intx = IntxRouter::new(record.clone());
    let host = HostBridge::new(Box::new(ecam.clone()));
    let lpc = LpcBridge::new(Box::new(pm.clone()), intx.clone());
    root.add(Bdf::new(0, 0, 0), Arc::new(Mutex::new(host))).unwrap();
    root.add(Bdf::new(0, 31, 0), Arc::new(Mutex::new(lpc))).unwrap();
    let ports = ConfigPorts::new(root.clone(), Some(Arc::new(Mutex::new(Latch::default()))));
    Setup {
        root,
        ports,
        ecam,
        pm,
        record,
        intx,
    }
}

impl Setup {
    fn select(&mut self, device: u32, offset: u32) {
        self.ports
            .port_write(0, &(1 << 31 | device << 11 | offset & 0xFC).to_le_bytes());
    }

    fn read32(&mut self, device: u32, offset: u32) -> u32 {
        self.select(device, offset);
        let mut data = [0; 4];
        self.ports.port_read(4, &mut data);
        u32::from_le_bytes(data)
    }

    fn write32(&mut self, device: u32, offset: u32, value: u32) {
        self.select(device, offset);
        self.ports.port_write(4, &value.to_le_bytes());
    }
}

#[test]
fn mechanism_1_reaches_functions_by_dword_word_and_byte() {
    let mut s = setup();
    assert_eq!(s.read32(0, 0), 0x29C0_8086);
    assert_eq!(s.read32(31, 8), 0x0601_0002);
    assert_eq!(s.read32(7, 0), u32::MAX);
    s.select(0, 0);
    let (mut word, mut byte) = ([0; 2], [0; 1]);
    s.ports.port_read(6, &mut word);
    s.ports.port_read(5, &mut byte);
    assert_eq!((word, byte), ([0xC0, 0x29], [0x80]));
    let mut across = [0; 4];
    s.ports.port_read(6, &mut across);
    assert_eq!(across, [0xFF; 4]);
}

#[test]
fn the_address_port_needs_a_dword_and_its_enable_bit() {
    let mut s = setup();
    s.ports.port_write(0, &0xFFFF_FFFFu32.to_le_bytes());
    let mut address = [0; 4];
    s.ports.port_read(0, &mut address);
    assert_eq!(u32::from_le_bytes(address), 0x80FF_FFFC);
    s.ports.port_write(0, &[0; 2]);
    s.ports.port_read(0, &mut address);
    assert_eq!(u32::from_le_bytes(address), 0x80FF_FFFC);
    s.ports.port_write(0, &[0; 4]);
    s.ports.port_read(4, &mut address);
    assert_eq!(address, [0xFF; 4]);
}

#[test]
fn the_reset_port_between_them_gets_its_bytes() {
    let mut s = setup();
    s.ports.port_write(1, &[6]);
    let mut byte = [0];
    s.ports.port_read(1, &mut byte);
    assert_eq!(byte, [6]);
    s.ports.port_read(2, &mut byte);
    assert_eq!(byte, [0xFF]);
}

#[test]
fn ecam_reaches_the_same_registers_and_absent_functions_read_all_ones() {
    let s = setup();
    let mut ecam = Ecam::new(s.root.clone(), 0);
    let mut data = [0; 8];
    ecam.mmio_read(0xF8 << 12, &mut data);
    assert_eq!(data, [0x86, 0x80, 0x18, 0x29, 0, 0, 0, 0]);
    ecam.mmio_read(0xF9 << 12, &mut data);
    assert_eq!(data, [0xFF; 8]);
    ecam.mmio_write((0xF8 << 12) + 0x3C, &[5]);
    ecam.mmio_read((0xF8 << 12) + 0x3C, &mut data[..1]);
    assert_eq!(data[0], 5);
    ecam.mmio_read(1 << 40, &mut data);
    assert_eq!(data, [0xFF; 8]);
    let mut other_bus = Ecam::new(s.root.clone(), 1);
    other_bus.mmio_read(0, &mut data);
    assert_eq!(data, [0xFF; 8]);
}

#[test]
fn pciexbar_moves_the_window_as_ovmf_programs_it() {
    let mut s = setup();
    s.write32(0, 0x64, 0);
    s.write32(0, 0x60, 0);
    s.write32(0, 0x60, 0xB000_0001);
    assert_eq!(s.ecam.now(), Some((0xB000_0000, 256 << 20)));
    s.write32(0, 0x60, 0xE000_0005);
    assert_eq!(s.ecam.now(), Some((0xE000_0000, 64 << 20)));
    s.write32(0, 0x64, 0x8);
    assert_eq!(s.ecam.now(), Some((0x8_E000_0000, 64 << 20)));
    s.write32(0, 0x60, 0xE000_0007);
    assert_eq!(s.ecam.now(), None, "reserved length");
    s.root.functions().iter().for_each(|(_, f)| lock(f).reset());
    assert_eq!((s.ecam.now(), s.read32(0, 0x60)), (None, 0));
}

#[test]
fn pmbase_moves_the_pm_block_once_acpi_is_enabled() {
    let mut s = setup();
    assert_eq!(s.read32(31, 0x40), 1);
    s.write32(31, 0x40, 0x601);
    assert_eq!((s.pm.now(), s.read32(31, 0x40)), (None, 0x601));
    s.write32(31, 0x44, 0x80);
    assert_eq!(s.pm.now(), Some((0x600, 0x80)));
    s.write32(31, 0xF0, 0xFED1_C001);
    assert_eq!(s.read32(31, 0xF0), 0xFED1_C001);
    s.root.functions().iter().for_each(|(_, f)| lock(f).reset());
    assert_eq!(s.pm.now(), None);
}

#[test]
fn interrupt_pins_share_wires_and_follow_the_route_registers() {
    let mut s = setup();
    let (a, b) = (s.intx.pin(1, 0), s.intx.pin(5, 0));
    a.set(true);
    b.set(true);
    assert_eq!((s.record.high(), IntxRouter::line_of(1, 0)), (vec![21], 21));
    a.set(false);
    assert_eq!(s.record.high(), [21]);
    // PIRQF to line 10.
    s.write32(31, 0x68, 0x8080_0A80);
    assert_eq!(s.record.high(), [10, 21]);
    s.write32(31, 0x68, 0x8080_0B80);
    assert_eq!(s.record.high(), [11, 21]);
    // Line 8 is not an interrupt that PCI may have.
    s.write32(31, 0x68, 0x8080_0880);
    assert_eq!(s.record.high(), [21]);
    b.set(false);
    assert!(s.record.high().is_empty());
}

#[test]
fn addresses_are_given_out_once() {
    let s = setup();
    let lpc = s.root.functions()[1].1.clone();
    let error = s.root.add(Bdf::new(0, 31, 0), lpc.clone()).unwrap_err();
    assert_eq!(error.to_string(), "PCI address 00:1f.0 is taken");
    for device in 1..31 {
        assert_eq!(s.root.free_device(0), Ok(Bdf::new(0, device, 0)));
        s.root.add(Bdf::new(0, device, 0), lpc.clone()).unwrap();
    }
    assert_eq!(s.root.free_device(0), Err(PciError::Full(0)));
}
