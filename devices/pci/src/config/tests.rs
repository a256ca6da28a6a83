// SPDX-License-Identifier: MIT
//! Configuration space as a guest probes it.

use super::*;
use crate::bar::BarKind;
use crate::testing::{Place, Record};
use chipset_device::MmioDevice;

fn config() -> ConfigSpace {
    ConfigSpace::new(Identity {
        vendor: 0x1AF4,
        device: 0x1042,
        revision: 1,
        class: [1, 0x80, 2],
        subsystem: (0x1AF4, 0x40),
    })
}

fn read32(config: &ConfigSpace, offset: u16) -> u32 {
    config.dword(offset)
}

fn write32(config: &mut ConfigSpace, offset: u16, value: u32) {
    config.write(offset, &value.to_le_bytes());
}

#[test]
fn identity_is_read_only() {
    let mut c = config();
    for offset in [0u16, 8, 0x2C] {
        write32(&mut c, offset, u32::MAX);
    }
    assert_eq!(
        [0, 8, 0x2C].map(|o| read32(&c, o)),
        [0x1042_1AF4, 0x0180_0201, 0x0040_1AF4]
    );
    write32(&mut c, 4, 0xFFFF_FFFF);
    assert_eq!(read32(&c, 4), 0x0000_0547);
    c.write(0x3C, &[11]);
    assert_eq!(read32(&c, 0x3C), 11);
    let mut past = [0; 4];
    c.read(0xFFE, &mut past);
    assert_eq!(past, [0, 0, 0xFF, 0xFF]);
    c.write(0xFFE, &[1; 4]);
}

#[test]
fn bars_answer_sizing_and_follow_the_command_register() {
    let mut c = config();
    let (memory, wide, ports) = (Place::default(), Place::default(), Place::default());
    c.add_bar(Bar {
        index: 0,
        kind: BarKind::Memory32,
        size: 0x1000,
    });
    c.add_bar(Bar {
        index: 2,
        kind: BarKind::Memory64 { prefetchable: true },
        size: 1 << 33,
    });
    c.add_bar(Bar {
        index: 4,
        kind: BarKind::Io,
        size: 0x20,
    });
    for (index, place) in [(0, &memory), (2, &wide), (4, &ports)] {
        c.connect_bar(index, Box::new(place.clone()));
    }
    (0x10..0x28).step_by(4).for_each(|o| write32(&mut c, o, u32::MAX));
    let sizes = [0x10, 0x14, 0x18, 0x1C, 0x20, 0x24].map(|o| read32(&c, o));
    assert_eq!(sizes, [0xFFFF_F000, 0, 0xC, 0xFFFF_FFFE, 0xFFFF_FFE1, 0]);
    write32(&mut c, 0x10, 0xC000_0000);
    write32(&mut c, 0x18, 0);
    write32(&mut c, 0x1C, 0x40);
    write32(&mut c, 0x20, 0x6000);
    assert_eq!((memory.now(), wide.now(), ports.now()), (None, None, None));
    c.write(4, &[2]);
    assert_eq!(
        (memory.now(), wide.now()),
        (Some((0xC000_0000, 0x1000)), Some((0x40_0000_0000, 1 << 33)))
    );
    assert_eq!(ports.now(), None);
    c.write(4, &[1]);
    assert_eq!(
        (memory.now(), wide.now(), ports.now()),
        (None, None, Some((0x6000, 0x20)))
    );
    write32(&mut c, 0x20, 0x1_0000);
    assert_eq!(ports.now(), None, "not a port");
    c.write(4, &[3]);
    c.reset();
    assert_eq!(
        (memory.now(), wide.now(), ports.now(), read32(&c, 0x20)),
        (None, None, None, 1)
    );
}

#[test]
fn a_bar_whose_address_is_taken_leaves_the_bus() {
    let mut c = config();
    let place = Place {
        refuses: Some(0xD000_0000),
        ..Place::default()
    };
    c.add_bar(Bar {
        index: 0,
        kind: BarKind::Memory32,
        size: 0x1000,
    });
    c.connect_bar(0, Box::new(place.clone()));
    c.write(4, &[2]);
    write32(&mut c, 0x10, 0xC000_0000);
    write32(&mut c, 0x10, 0xD000_0000);
    assert_eq!(place.now(), None);
    write32(&mut c, 0x10, 0xC000_0000);
    assert_eq!(place.now(), Some((0xC000_0000, 0x1000)));
}

#[test]
fn sizes_are_rounded_to_what_a_bar_can_be() {
    assert_eq!(Bar::size_for(BarKind::Memory32, 5), 16);
    assert_eq!(Bar::size_for(BarKind::Io, 3), 4);
    assert_eq!(Bar::size_for(BarKind::Memory32, 0x1001), 0x2000);
}

#[test]
fn capabilities_are_linked_in_order_until_there_is_no_room() {
    let mut c = config();
    assert_eq!(read32(&c, 4) >> 16, 0);
    assert_eq!(c.add_capability(9, &[0xAA; 3], &[0, 0xFF]), Some(0x40));
    assert_eq!(c.add_capability(9, &[0xBB; 14], &[]), Some(0x48));
    assert_eq!(
        (read32(&c, 4) >> 16, read32(&c, 0x34), read32(&c, 0x40)),
        (0x10, 0x40, 0xAAAA_4809)
    );
    assert_eq!(read32(&c, 0x48), 0xBBBB_0009);
    write32(&mut c, 0x40, 0);
    assert_eq!(read32(&c, 0x40), 0x00AA_4809, "one byte of it is writable");
    assert_eq!(c.add_capability(9, &[0; 0xA8], &[]), None);
    assert_eq!(c.add_capability(9, &[0; 0xA6], &[]), Some(0x58));
}

#[test]
fn msix_follows_its_control_word_and_bus_mastering() {
    let record = Arc::new(Record::default());
    let msix = Msix::new(3, record.clone());
    let mut c = config();
    let at = c.add_msix(msix.clone(), 1, 0, 0x1000).unwrap();
    assert_eq!(read32(&c, at), 0x0002_0011);
    assert_eq!((read32(&c, at + 4), read32(&c, at + 8)), (1, 0x1001));
    write32(&mut c, at, 0xFFFF_FFFF);
    assert_eq!(read32(&c, at), 0xC002_0011);
    assert!(msix.enabled());
    c.reset();
    assert!(!msix.enabled());
}

#[test]
fn no_guest_access_panics_and_bars_stay_where_they_can_be() {
    let record = Arc::new(Record::default());
    let msix = Msix::new(70, record);
    let mut region = crate::MsixRegion::new(msix.clone());
    let mut c = config();
    let kinds = [
        BarKind::Memory32,
        BarKind::Memory64 { prefetchable: false },
        BarKind::Io,
    ];
    let places: Vec<Place> = kinds
        .into_iter()
        .zip([0, 2, 4])
        .map(|(kind, index)| {
            let place = Place::default();
            c.add_bar(Bar {
                index,
                kind,
                size: 0x1000,
            });
            c.connect_bar(index, Box::new(place.clone()));
            place
        })
        .collect();
    c.add_msix(msix.clone(), 0, 0, 0x1000).unwrap();
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    for _ in 0..200_000 {
        // xorshift64.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let mut data = seed.rotate_left(21).to_le_bytes();
        let (offset, len) = ((seed >> 8) as u16, [1, 2, 4, 8][(seed & 3) as usize]);
        // Mostly the header and the first capability.
        let offset = if seed & 4 == 0 { offset } else { offset & 0x4F };
        match seed >> 4 & 3 {
            0 => c.write(offset, &data[..len.min(4)]),
            1 => c.read(offset, &mut data[..len.min(4)]),
            2 => region.mmio_write((offset & 0x1FFF).into(), &data[..len]),
            _ => region.mmio_read((offset & 0x1FFF).into(), &mut data[..len]),
        }
        msix.trigger(offset & 0x7F);
        let limits = [0xFFFF_FFFF, u64::MAX, 0xFFFF];
        for (place, limit) in places.iter().zip(limits) {
            assert!(
                place
                    .now()
                    .is_none_or(|(base, len)| base % len == 0 && base <= limit - (len - 1))
            );
        }
    }
    assert_eq!(c.dword(0), 0x1042_1AF4);
}
