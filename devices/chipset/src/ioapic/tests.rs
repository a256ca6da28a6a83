// SPDX-License-Identifier: MIT
//! Pins to vectors and back.

use super::*;
use crate::lapic::LapicConfig;
use crate::testing::Bench;

struct Setup {
    ioapic: Arc<IoApic>,
    window: IoApicWindow,
    lapics: Arc<LapicSet>,
}

fn setup() -> Setup {
    let lapics = Bench::new().lapics(2, LapicConfig::default());
    (0..2).for_each(|vp| lapics.mmio_write(vp, 0xF0, &0x1FFu32.to_le_bytes()));
    let ioapic = IoApic::new(lapics.clone());
    Setup {
        window: ioapic.window(),
        ioapic,
        lapics,
    }
}

impl Setup {
    fn read(&mut self, index: u8) -> u32 {
        self.window.mmio_write(0, &u32::from(index).to_le_bytes());
        let mut data = [0; 4];
        self.window.mmio_read(0x10, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, index: u8, value: u32) {
        self.window.mmio_write(0, &u32::from(index).to_le_bytes());
        self.window.mmio_write(0x10, &value.to_le_bytes());
    }

    fn entry(&mut self, pin: u8, value: u64) {
        self.write(0x11 + 2 * pin, (value >> 32) as u32);
        self.write(0x10 + 2 * pin, value as u32);
    }

    fn eoi(&self, vp: u32) {
        self.lapics.mmio_write(vp, 0xB0, &[0; 4]);
    }
}

const VP1: u64 = 1 << 56;

#[test]
fn registers_read_as_version_0x20_with_24_masked_pins() {
    let mut s = setup();
    assert_eq!(s.read(1), 0x0017_0020);
    s.write(0, 0xFFFF_FFFF);
    assert_eq!((s.read(0), s.read(2)), (0x0F00_0000, 0x0F00_0000));
    assert_eq!(
        (s.read(0x10), s.read(0x3F), s.read(0x40)),
        (0x1_0000, 0, u32::MAX)
    );
    s.entry(3, u64::MAX);
    assert_eq!((s.read(0x16), s.read(0x17)), (0x0001_AFFF, 0xFF00_0000));
}

#[test]
fn an_edge_sends_once_to_its_destination() {
    let mut s = setup();
    s.entry(4, VP1 | 0x34);
    s.ioapic.set_line(4, true);
    s.ioapic.set_line(4, true);
    assert_eq!(
        (s.lapics.acknowledge(0), s.lapics.acknowledge(1)),
        (None, Some(0x34))
    );
    s.eoi(1);
    s.ioapic.set_line(4, false);
    assert_eq!(s.lapics.acknowledge(1), None);
    s.ioapic.set_line(4, true);
    assert_eq!(s.lapics.acknowledge(1), Some(0x34));
}

#[test]
fn an_edge_on_a_masked_pin_is_lost() {
    let mut s = setup();
    s.ioapic.set_line(4, true);
    s.entry(4, 0x34);
    assert_eq!(s.lapics.acknowledge(0), None);
}

#[test]
fn a_level_sends_again_after_the_eoi_while_it_is_high() {
    let mut s = setup();
    s.entry(9, LEVEL | 0x39);
    s.ioapic.set_line(9, true);
    assert_eq!(s.lapics.acknowledge(0), Some(0x39));
    assert_eq!(s.read(0x22), 0xC039, "remote IRR");
    s.eoi(0);
    assert_eq!(s.lapics.acknowledge(0), Some(0x39));
    s.ioapic.set_line(9, false);
    s.eoi(0);
    assert_eq!((s.lapics.acknowledge(0), s.read(0x22)), (None, 0x8039));
}

#[test]
fn unmasking_a_high_level_sends_it() {
    let mut s = setup();
    s.entry(20, MASKED | LEVEL | 0x44);
    s.ioapic.set_line(20, true);
    assert_eq!(s.lapics.acknowledge(0), None);
    s.entry(20, LEVEL | 0x44);
    assert_eq!(s.lapics.acknowledge(0), Some(0x44));
}

#[test]
fn the_eoi_register_and_an_edge_setting_clear_remote_irr() {
    let mut s = setup();
    s.entry(9, LEVEL | 0x39);
    s.ioapic.set_line(9, true);
    s.ioapic.set_line(9, false);
    s.window.mmio_write(0x40, &0x38u32.to_le_bytes());
    assert_eq!(s.read(0x22) & REMOTE_IRR as u32, REMOTE_IRR as u32);
    s.window.mmio_write(0x40, &0x39u32.to_le_bytes());
    assert_eq!(s.read(0x22), 0x8039);
    s.ioapic.set_line(9, true);
    s.entry(9, MASKED | 0x39);
    assert_eq!(s.read(0x22), 0x1_0039);
}

#[test]
fn nmi_and_reserved_modes() {
    let mut s = setup();
    s.entry(5, VP1 | 0x400);
    s.ioapic.set_line(5, true);
    assert!(s.lapics.poll(1).nmi);
    s.entry(6, VP1 | 0x340);
    s.ioapic.set_line(6, true);
    assert_eq!(s.lapics.poll(1), chipset_device::VpEvents::default());
}

#[test]
fn reset_masks_and_keeps_the_wires() {
    let mut s = setup();
    s.entry(9, LEVEL | 0x39);
    s.ioapic.set_line(9, true);
    s.window.reset();
    assert_eq!(s.read(0x22), 0x1_0000);
    s.entry(9, LEVEL | 0x3A);
    s.eoi(0);
    assert_eq!(s.lapics.acknowledge(0), Some(0x3A));
}
