// SPDX-License-Identifier: MIT
//! Placement of root complexes.

use crate::layout::{HostLimits, resolve};
use crate::testing;
use openvmm_defs::{
    Config, DiskConfig, GpaRange, Machine, MemoryLayout, PciDeviceConfig, PciDeviceKind, RootComplexConfig,
};

fn config(memory: u64, complexes: &[(&str, u16, u8, u8)]) -> Config {
    let mut config = testing::config();
    config.memory = memory;
    config.pci.root_complexes = complexes
        .iter()
        .map(|&(name, segment, start_bus, end_bus)| RootComplexConfig {
            name: name.into(),
            segment,
            start_bus,
            end_bus,
            ..RootComplexConfig::implicit()
        })
        .collect();
    config
}

fn assert_apart(layout: &MemoryLayout) {
    let mut ranges: Vec<GpaRange> = layout.ram.clone();
    ranges.push(GpaRange::new(0xFEC0_0000, 0x140_0000));
    for complex in &layout.root_complexes {
        ranges.extend([complex.ecam, complex.low_mmio, complex.high_mmio]);
    }
    for (i, a) in ranges.iter().enumerate() {
        assert!(ranges[..i].iter().all(|b| !a.overlaps(b)), "{a} in {ranges:x?}");
    }
}

#[test]
fn devices_alone_get_an_implicit_root_complex_and_no_device_gets_none() {
    for machine in [Machine::Plain, Machine::Linux, Machine::HyperV] {
        let mut config = config(8 << 30, &[]);
        assert!(
            resolve(&config, machine, HostLimits::ASSUMED)
                .unwrap()
                .root_complexes
                .is_empty()
        );
        config.pci.devices.push(PciDeviceConfig {
            name: "d".into(),
            root_complex: None,
            kind: PciDeviceKind::VirtioBlk(DiskConfig {
                path: "d".into(),
                read_only: false,
                format: None,
            }),
        });
        let layout = resolve(&config, machine, HostLimits::ASSUMED).unwrap();
        let [complex] = layout.root_complexes[..] else {
            panic!("{layout:?}")
        };
        assert_eq!(
            (complex.start_bus, complex.end_bus, complex.ecam.len),
            (0, 0, 1 << 20)
        );
        assert_eq!(layout.ram_size(), 8 << 30);
        assert_apart(&layout);
    }
}

#[test]
fn several_complexes_lie_apart_and_share_the_base_of_their_segment() {
    let config = config(6 << 30, &[("a", 0, 0, 15), ("b", 0, 16, 31), ("c", 3, 0, 255)]);
    for machine in [Machine::Linux, Machine::HyperV] {
        let layout = resolve(&config, machine, HostLimits::ASSUMED).unwrap();
        assert_apart(&layout);
        let base = |i: usize| {
            let complex = &layout.root_complexes[i];
            complex.ecam.gpa - (u64::from(complex.start_bus) << 20)
        };
        assert_eq!(base(0), base(1));
        assert_ne!(base(0), base(2));
        assert_eq!(layout.root_complexes[1].ecam.len, 16 << 20);
    }
}

#[test]
fn what_cannot_be_placed_says_why() {
    let message =
        |config: &Config, machine, limits| resolve(config, machine, limits).unwrap_err().to_string();
    let limits = HostLimits::ASSUMED;
    let overlap = config(1 << 30, &[("a", 0, 0, 15), ("b", 0, 15, 31)]);
    assert!(message(&overlap, Machine::Linux, limits).contains("b: its buses overlap those of a"));
    let twice = config(1 << 30, &[("a", 0, 0, 1), ("a", 1, 0, 1)]);
    assert!(message(&twice, Machine::Linux, limits).contains("a: the name is given twice"));
    let backwards = config(1 << 30, &[("a", 0, 2, 1)]);
    assert!(message(&backwards, Machine::Linux, limits).contains("start_bus is behind end_bus"));
    let many = config(
        1 << 30,
        &(0..8)
            .map(|n| (["a", "b", "c", "d", "e", "f", "g", "h"][n], n as u16, 0, 255))
            .collect::<Vec<_>>(),
    );
    assert!(message(&many, Machine::Linux, limits).contains("bytes below 4 GiB"));
    let mut wide = config(1 << 30, &[("a", 0, 0, 0)]);
    wide.pci.root_complexes[0].high_mmio = 1 << 46;
    assert!(message(&wide, Machine::Linux, limits).contains("physical address bits"));
    let ovmf = config(1 << 30, &[("a", 0, 0, 0)]);
    assert!(message(&ovmf, Machine::Ovmf, limits).contains("a PCI bus of its own"));
}
