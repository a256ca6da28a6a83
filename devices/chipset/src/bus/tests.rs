// SPDX-License-Identifier: MIT
//! Decoding, with devices that record what reaches them.

use super::*;
use crate::lapic::LapicConfig;
use crate::testing::Bench;

/// Remembers accesses; reads its last write back.
#[derive(Default)]
struct Probe {
    log: Vec<(u64, Vec<u8>)>,
    reads: Vec<(u64, usize)>,
    resets: u32,
}

impl Device for Probe {
    fn reset(&mut self) {
        self.resets += 1;
    }

    fn inspect(&self) -> String {
        format!("resets {}\n", self.resets)
    }
}

impl PortDevice for Probe {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        self.mmio_read(offset.into(), data);
    }
    fn port_write(&mut self, offset: u16, data: &[u8]) {
        self.mmio_write(offset.into(), data);
    }
}

impl MmioDevice for Probe {
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]) {
        self.reads.push((offset, data.len()));
        (0..).zip(data).for_each(|(i, byte)| *byte = offset as u8 + i);
    }
    fn mmio_write(&mut self, offset: u64, data: &[u8]) {
        self.log.push((offset, data.to_vec()));
    }
}

fn builder() -> ChipsetBuilder {
    ChipsetBuilder::new(Bench::new().lapics(2, LapicConfig::default()))
}

fn probe() -> Arc<Mutex<Probe>> {
    Arc::default()
}

fn port_read<const N: usize>(chipset: &Chipset, port: u16) -> [u8; N] {
    let mut data = [0; N];
    chipset.port_read(0, port, &mut data);
    data
}

fn mmio_read<const N: usize>(chipset: &Chipset, gpa: u64) -> [u8; N] {
    let mut data = [0; N];
    chipset.mmio_read(0, gpa, &mut data);
    data
}

#[test]
fn overlapping_ranges_are_refused_by_name() {
    let mut b = builder();
    b.add_ports("first", (0x3F8, 8), PortWidth::Any, probe()).unwrap();
    let error = b
        .add_ports("second", (0x3FF, 2), PortWidth::Any, probe())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "second: ports 0x3ff..0x401 overlap those of first"
    );
    let error = b
        .add_ports("third", (0xFFFF, 2), PortWidth::Any, probe())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "third: ports 0xffff..0x10001 are empty or go past 0xffff"
    );
    b.add_mmio("fourth", 0x1000, 0x1000, probe()).unwrap();
    let error = b.add_mmio("fifth", 0x1FFF, 1, probe()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "fifth: mmio 0x1fff..0x2000 overlaps that of fourth"
    );
    let error = b.add_mmio("sixth", u64::MAX, 2, probe()).unwrap_err();
    assert!(matches!(error, BusError::BadMmioRange { .. }));
    b.add_mmio("seventh", 0x2000, 0x1000, probe()).unwrap();
}

#[test]
fn unclaimed_ports_and_addresses_read_all_ones() {
    let chipset = builder().build();
    assert_eq!(port_read(&chipset, 0xFFFF), [0xFF; 4]);
    assert_eq!(mmio_read(&chipset, 0xFED4_0000), [0xFF; 8]);
    chipset.port_write(0, 0x1234, &[1]);
    chipset.mmio_write(0, u64::MAX, &[1, 2]);
    assert!(chipset.inspect().contains("unclaimed 2"));
}

#[test]
fn absorbed_ports_are_not_counted() {
    let mut b = builder();
    b.absorb_ports(0xED, 1).unwrap();
    let chipset = b.build();
    assert_eq!(port_read(&chipset, 0xED), [0xFF]);
    assert!(!chipset.inspect().contains("unclaimed 1"));
}

#[test]
fn wide_accesses_stay_whole_or_become_bytes_as_the_device_wants() {
    let (whole, bytes) = (probe(), probe());
    let mut b = builder();
    b.add_ports("whole", (0x100, 4), PortWidth::Any, whole.clone())
        .unwrap();
    b.add_ports("bytes", (0x104, 2), PortWidth::Byte, bytes.clone())
        .unwrap();
    let chipset = b.build();
    assert_eq!(port_read(&chipset, 0x100), [0, 1, 2, 3]);
    assert_eq!(port_read(&chipset, 0x104), [0, 1]);
    // Across both and over the end.
    assert_eq!(port_read(&chipset, 0x103), [3, 0, 1, 0xFF]);
    assert_eq!(lock(&whole).reads, [(0, 4), (3, 1)]);
    assert_eq!(lock(&bytes).reads, [(0, 1), (1, 1), (0, 1), (1, 1)]);
    chipset.port_write(0, 0x102, &[7, 8, 9, 10]);
    assert_eq!(lock(&whole).log, [(2, vec![7]), (3, vec![8])]);
    assert_eq!(lock(&bytes).log, [(0, vec![9]), (1, vec![10])]);
}

#[test]
fn mmio_across_a_window_end_is_split() {
    let (low, high) = (probe(), probe());
    let mut b = builder();
    b.add_mmio("low", 0x1000, 0x1000, low.clone()).unwrap();
    b.add_mmio("high", 0x2000, 0x1000, high.clone()).unwrap();
    let chipset = b.build();
    chipset.mmio_write(0, 0x1FFE, &[1, 2, 3, 4]);
    assert_eq!(lock(&low).log, [(0xFFE, vec![1, 2])]);
    assert_eq!(lock(&high).log, [(0, vec![3, 4])]);
    assert_eq!(mmio_read(&chipset, 0x2FFF), [0xFF, 0xFF]);
}

#[test]
fn windows_move_and_leave_nothing_behind() {
    let device = probe();
    let mut b = builder();
    let ports = b
        .add_port_window("movable", 16, PortWidth::Any, device.clone())
        .unwrap();
    b.add_ports("fixed", (0x700, 1), PortWidth::Any, probe()).unwrap();
    let window = b.add_mmio_window("bar", 0x1000, device.clone());
    let chipset = b.build();
    assert_eq!(port_read(&chipset, 0x600), [0xFF]);
    ports.map(Some(0x600)).unwrap();
    assert_eq!(port_read(&chipset, 0x605), [5]);
    assert!(ports.map(Some(0x6F8)).is_err());
    assert_eq!(port_read(&chipset, 0x605), [5], "a refused move changes nothing");
    ports.map(Some(0x608)).unwrap();
    assert_eq!(
        (port_read(&chipset, 0x605), port_read(&chipset, 0x608)),
        ([0xFF], [0])
    );
    ports.map(None).unwrap();
    assert_eq!(port_read(&chipset, 0x608), [0xFF]);
    window.map(Some(0xC000_0000)).unwrap();
    assert_eq!(mmio_read(&chipset, 0xC000_0002), [2]);
    window.map_sized(0xD000_0000, 4).unwrap();
    assert_eq!(
        (mmio_read(&chipset, 0xC000_0002), mmio_read(&chipset, 0xD000_0003)),
        ([0xFF], [3, 0xFF])
    );
}

#[test]
fn the_lapic_page_is_the_vps_own() {
    let chipset = builder().build();
    let id = |vp: VpIndex, gpa: u64| {
        let mut data = [0; 4];
        chipset.mmio_read(vp, gpa, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!((id(0, 0xFEE0_0020), id(1, 0xFEE0_0020)), (0, 0x0100_0000));
    assert!(chipset.msr_write(1, 0x1B, 0x1000_0800));
    assert_eq!((id(1, 0xFEE0_0020), id(1, 0x1000_0020)), (u32::MAX, 0x0100_0000));
    assert_eq!(id(7, 0xFEE0_0020), u32::MAX, "a VP that does not exist");
}

struct Echo;

impl MsrHandler for Echo {
    fn msr_read(&self, vp: VpIndex, msr: u32) -> Option<u64> {
        (msr != 0x4000_0001).then_some(u64::from(vp) << 32 | u64::from(msr))
    }
    fn msr_write(&self, _vp: VpIndex, _msr: u32, value: u64) -> bool {
        value == 0
    }
    fn reset(&self) {}
}

#[test]
fn msr_handlers_own_their_range_only() {
    let mut b = builder();
    b.add_msrs("echo", 0x4000_0000..=0x4000_00FF, Arc::new(Echo))
        .unwrap();
    let error = b
        .add_msrs("other", 0x4000_00FF..=0x4000_0100, Arc::new(Echo))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "other: MSRs 0x400000ff..=0x40000100 overlap those of echo"
    );
    let chipset = b.build();
    assert_eq!(chipset.msr_read(1, 0x4000_0002), Some(0x1_4000_0002));
    assert_eq!(
        (chipset.msr_read(1, 0x4000_0001), chipset.msr_read(1, 0x4000_0100)),
        (None, None)
    );
    assert!(chipset.msr_write(0, 0x4000_0000, 0) && !chipset.msr_write(0, 0x4000_0000, 1));
    assert_eq!(chipset.msr_read(0, 0x1B), Some(0xFEE0_0900));
}

#[test]
fn reset_and_inspect_reach_every_device() {
    let device = probe();
    let mut b = builder();
    b.add_device("probe", device.clone());
    let chipset = b.build();
    chipset.reset();
    assert_eq!(lock(&device).resets, 1);
    assert!(chipset.inspect().contains("[probe]\nresets 1\n"));
}
