// SPDX-License-Identifier: MIT
//! Splits, gaps and refusals.

use super::*;
use crate::testing::config;

const LIMITS: HostLimits = HostLimits::ASSUMED;

fn with(memory: u64, processors: u32) -> Config {
    Config {
        memory,
        processors,
        ..config()
    }
}

#[test]
fn ram_is_split_around_each_machines_gap() {
    for (machine, limit, mmio_end) in [
        (Machine::HyperV, 0xF800_0000, FOUR_GIB),
        (Machine::Plain, 0xC000_0000, 0xFF00_0000),
        (Machine::Linux, 0xC000_0000, 0xFF00_0000),
        (Machine::Ovmf, 0x8000_0000, 0xFF00_0000),
    ] {
        let layout = resolve(&with(5 << 30, 2), machine, LIMITS).unwrap();
        assert_eq!(
            layout.ram,
            [
                GpaRange::new(0, limit),
                GpaRange::new(FOUR_GIB, (5 << 30) - limit)
            ]
        );
        assert_eq!((layout.low_mmio.gpa, layout.low_mmio.end()), (limit, mmio_end));
        assert_eq!(layout.ram_size(), 5 << 30);
        assert_eq!(layout.vp_count, 2);
    }
}

#[test]
fn ram_that_fits_below_the_gap_is_one_range() {
    let layout = resolve(&with(0xC000_0000, 1), Machine::Plain, LIMITS).unwrap();
    assert_eq!(layout.ram, [GpaRange::new(0, 0xC000_0000)]);
}

#[test]
fn impossible_sizes_and_counts_are_refused_with_the_way_out() {
    for (memory, processors, message) in [
        (0xFF000, 1, "-m 1020 KiB: a guest needs at least 1 MiB"),
        (0x10_0001, 1, "-m 0x100001 bytes is not a multiple of 4 KiB"),
        (
            1 << 46,
            1,
            "-m 64 TiB: ram would end at gpa 0x400040000000, beyond the 46 physical address bits of this guest; at \
             most -m 65535 GiB fits",
        ),
        (1 << 30, 0, "-p 0: a guest needs at least one processor"),
        (
            1 << 30,
            256,
            "-p 256: without x2apic, which this hypervisor does not offer, a guest has at most 255 processors",
        ),
    ] {
        let error = resolve(&with(memory, processors), Machine::Plain, LIMITS).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let most = resolve(&with(65535 << 30, 1), Machine::Plain, LIMITS).unwrap();
    assert_eq!(most.ram[1].end(), 1 << 46);
    assert!(
        resolve(
            &with(1 << 30, 256),
            Machine::Plain,
            HostLimits {
                x2apic: true,
                ..LIMITS
            }
        )
        .is_ok()
    );
}

#[test]
fn vmbus_has_its_gap_above_ram_and_below_the_windows_of_root_complexes() {
    let mut config = with(5 << 30, 1);
    config.vmbus = Some(openvmm_defs::VmbusConfig::default());
    config.pci.root_complexes = vec![openvmm_defs::RootComplexConfig::implicit()];
    let layout = resolve(&config, Machine::HyperV, LIMITS).unwrap();
    let end_of_ram = layout.ram[1].end();
    assert_eq!(
        layout.high_mmio,
        GpaRange::new(end_of_ram.next_multiple_of(2 << 20), 512 << 20)
    );
    assert!(layout.root_complexes[0].high_mmio.gpa >= layout.high_mmio.end());
    let small = resolve(
        &Config {
            pci: Default::default(),
            ..config.clone()
        },
        Machine::HyperV,
        LIMITS,
    )
    .unwrap();
    assert!(small.root_complexes.is_empty());
    let narrow = HostLimits {
        phys_bits: 32,
        ..LIMITS
    };
    config.memory = 1 << 30;
    config.pci = Default::default();
    let error = resolve(&config, Machine::HyperV, narrow).unwrap_err().to_string();
    assert!(error.contains("--no-vmbus"), "{error}");
}
