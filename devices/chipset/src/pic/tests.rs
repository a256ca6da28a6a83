// SPDX-License-Identifier: MIT
//! The 8259 pair behind LINT0.

use super::*;
use crate::lapic::LapicConfig;
use crate::testing::{Bench, inb, outb};

struct Setup {
    pic: Arc<Pic>,
    lapics: Arc<LapicSet>,
    first: PicPorts,
    second: PicPorts,
    elcr: ElcrPorts,
}

/// The pair at vectors 0x20 and 0x28, all inputs open, as a PC BIOS leaves it.
fn setup(icw4: u8) -> Setup {
    let lapics = Bench::new().lapics(
        1,
        LapicConfig {
            virtual_wire: true,
            ..Default::default()
        },
    );
    let pic = Pic::new(lapics.clone());
    let (mut first, mut second) = (pic.ports(false), pic.ports(true));
    for (ports, base, wiring) in [(&mut first, 0x20, 4), (&mut second, 0x28, 2)] {
        outb(ports, 0, 0x11);
        outb(ports, 1, base);
        outb(ports, 1, wiring);
        outb(ports, 1, icw4);
        outb(ports, 1, 0);
    }
    Setup {
        elcr: pic.elcr_ports(),
        pic,
        lapics,
        first,
        second,
    }
}

impl Setup {
    fn pulse(&self, line: u32) {
        self.pic.set_line(line, true);
        self.pic.set_line(line, false);
    }

    fn take(&self) -> Option<u8> {
        self.lapics.acknowledge(0)
    }
}

#[test]
fn vectors_come_by_priority_and_wait_for_the_eoi() {
    let mut s = setup(1);
    s.pulse(4);
    s.pulse(1);
    assert_eq!(s.take(), Some(0x21));
    assert_eq!(s.take(), None, "a lower one waits");
    s.pulse(0);
    assert_eq!(s.take(), Some(0x20), "a higher one nests");
    outb(&mut s.first, 0, 0x20);
    outb(&mut s.first, 0, 0x20);
    assert_eq!(s.take(), Some(0x24));
    outb(&mut s.first, 0, 0x64);
    assert_eq!(s.take(), None);
}

#[test]
fn the_second_controller_goes_through_the_cascade() {
    let mut s = setup(1);
    s.pulse(8);
    s.pulse(12);
    assert_eq!(s.take(), Some(0x28));
    outb(&mut s.second, 0, 0x20);
    outb(&mut s.first, 0, 0x20);
    assert_eq!(s.take(), Some(0x2C));
    outb(&mut s.second, 0, 0x0B);
    assert_eq!(inb(&mut s.second, 0), 0x10, "in service");
    outb(&mut s.second, 0, 0x0A);
    assert_eq!(inb(&mut s.second, 0), 0, "requests");
}

#[test]
fn masked_inputs_wait_and_masks_read_back() {
    let mut s = setup(1);
    outb(&mut s.first, 1, 0xFF);
    assert_eq!(inb(&mut s.first, 1), 0xFF);
    s.pulse(3);
    assert!(!s.lapics.poll(0).interrupt);
    outb(&mut s.first, 1, 0xF7);
    assert!(s.lapics.poll(0).interrupt);
    assert_eq!(s.take(), Some(0x23));
}

#[test]
fn a_level_input_that_went_away_is_spurious() {
    let mut s = setup(1);
    outb(&mut s.elcr, 1, 0x04);
    assert_eq!(inb(&mut s.elcr, 1), 0x04);
    s.pic.set_line(10, true);
    assert!(s.lapics.poll(0).interrupt);
    s.pic.set_line(10, false);
    assert!(!s.lapics.poll(0).interrupt);
    assert_eq!(ExtIntSource::acknowledge(&*s.pic), 0x27);
    outb(&mut s.first, 0, 0x0B);
    assert_eq!(inb(&mut s.first, 0), 0, "nothing is in service");
}

#[test]
fn a_level_input_interrupts_again_until_it_falls() {
    let mut s = setup(1);
    outb(&mut s.elcr, 1, 0x02);
    s.pic.set_line(9, true);
    for _ in 0..2 {
        assert_eq!(s.take(), Some(0x29));
        outb(&mut s.second, 0, 0x61);
        outb(&mut s.first, 0, 0x62);
    }
    assert_eq!(s.take(), Some(0x29));
    s.pic.set_line(9, false);
    outb(&mut s.second, 0, 0x61);
    outb(&mut s.first, 0, 0x62);
    assert_eq!(s.take(), None);
}

#[test]
fn automatic_eoi_leaves_nothing_in_service() {
    let s = setup(3);
    s.pulse(5);
    assert_eq!(s.take(), Some(0x25));
    s.pulse(6);
    assert_eq!(s.take(), Some(0x26));
}

#[test]
fn rotation_puts_the_served_input_last() {
    let mut s = setup(1);
    s.pulse(0);
    assert_eq!(s.take(), Some(0x20));
    outb(&mut s.first, 0, 0xA0);
    s.pulse(0);
    s.pulse(7);
    assert_eq!(s.take(), Some(0x27));
    outb(&mut s.first, 0, 0x20);
    assert_eq!(s.take(), Some(0x20));
}

#[test]
fn special_mask_lets_lower_inputs_through() {
    let mut s = setup(1);
    s.pulse(1);
    assert_eq!(s.take(), Some(0x21));
    outb(&mut s.first, 1, 0x02);
    outb(&mut s.first, 0, 0x68);
    s.pulse(5);
    assert_eq!(s.take(), Some(0x25));
}

#[test]
fn a_poll_takes_the_request() {
    let mut s = setup(1);
    s.pulse(6);
    outb(&mut s.first, 0, 0x0C);
    assert_eq!(inb(&mut s.first, 0), 0x86);
    outb(&mut s.first, 0, 0x0C);
    assert_eq!(inb(&mut s.first, 0), 0);
    assert_eq!(s.take(), None);
}

#[test]
fn fixed_edge_inputs_cannot_be_made_level() {
    let mut s = setup(1);
    s.elcr.port_write(0, &[0xFF]);
    s.elcr.port_write(1, &[0xFF]);
    assert_eq!((inb(&mut s.elcr, 0), inb(&mut s.elcr, 1)), (0xF8, 0xDE));
    s.elcr.reset();
    assert_eq!(inb(&mut s.elcr, 0), 0);
}

#[test]
fn an_extint_message_takes_its_vector_from_the_pair() {
    let s = setup(1);
    s.lapics.mmio_write(0, 0x350, &0x1_0700u32.to_le_bytes());
    s.pulse(3);
    assert_eq!(s.take(), None, "LINT0 is masked");
    s.lapics.deliver(crate::lapic::ApicMessage {
        destination: crate::lapic::Destination::All,
        mode: crate::lapic::DeliveryMode::ExtInt,
        vector: 0,
        level_triggered: false,
    });
    assert!(s.lapics.poll(0).interrupt);
    assert_eq!(s.take(), Some(0x23));
    assert!(!s.lapics.poll(0).interrupt);
}
