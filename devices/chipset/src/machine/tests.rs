// SPDX-License-Identifier: MIT
//! Whole machines: what each has, interrupts from device to VP, and a guest that does anything.

use super::*;
use crate::lock;
use crate::testing::Bench;
use chipset_device::{PowerRequest, VpBus};
use soak_case::Random;

const MACHINES: [Machine; 4] = [Machine::Plain, Machine::Linux, Machine::HyperV, Machine::Ovmf];

fn config(bench: &Bench, machine: Machine) -> MachineConfig {
    MachineConfig {
        machine,
        vp_count: 2,
        phys_bits: 39,
        x2apic: true,
        tsc_hz: Some(1_000_000_000),
        memory: CmosMemory {
            below_4g: 1 << 30,
            above_4g: 0,
        },
        serial: [Some(bench.record.clone()), None, Some(bench.record.clone()), None],
        test_exit: true,
        world: bench.world(),
    }
}

fn chipset(bench: &Bench, machine: Machine) -> Chipset {
    compose(config(bench, machine)).unwrap().build()
}

fn inb(chipset: &Chipset, port: u16) -> u8 {
    let mut data = [0];
    chipset.port_read(0, port, &mut data);
    data[0]
}

fn outb(chipset: &Chipset, port: u16, value: u8) {
    chipset.port_write(0, port, &[value]);
}

#[test]
fn every_machine_prints_powers_off_resets_and_exits() {
    for machine in MACHINES.into_iter().filter(|m| *m != Machine::Ovmf) {
        let bench = Bench::new();
        let chipset = chipset(&bench, machine);
        outb(&chipset, 0x3F8, b'!');
        assert_eq!(*lock(&bench.record.output), b"!", "{machine:?}");
        chipset.port_write(0, 0x404, &0x2000u16.to_le_bytes());
        outb(&chipset, 0x405, 0x20);
        outb(&chipset, 0x433, 1);
        chipset.port_write(0, 0xF4, &3u32.to_le_bytes());
        let expected = [
            PowerRequest::Shutdown,
            PowerRequest::Shutdown,
            PowerRequest::Reset,
            PowerRequest::TestExit(3),
        ];
        assert_eq!(*lock(&bench.record.power), expected, "{machine:?}");
    }
}

/// What OVMF does before it needs a clock (ovmf-machine section 1.2).
fn ovmf_set_up(chipset: &Chipset) {
    let config = |device: u32, register: u32, value: u32| {
        chipset.port_write(0, 0xCF8, &(1 << 31 | device << 11 | register).to_le_bytes());
        chipset.port_write(0, 0xCFC, &value.to_le_bytes());
    };
    config(31, 0x40, 0x601);
    config(31, 0x44, 0x80);
    config(0, 0x64, 0);
    config(0, 0x60, 0xB000_0001);
}

#[test]
fn the_ovmf_machine_gets_its_pm_block_and_ecam_from_pci() {
    let bench = Bench::new();
    let chipset = chipset(&bench, Machine::Ovmf);
    let timer = || {
        let mut data = [0; 4];
        chipset.port_read(0, 0x608, &mut data);
        u32::from_le_bytes(data)
    };
    let host = |gpa: u64| {
        let mut data = [0; 4];
        chipset.mmio_read(0, gpa, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!((timer(), host(0xB000_0000)), (u32::MAX, u32::MAX));
    ovmf_set_up(&chipset);
    assert_eq!((host(0xB000_0000), host(0xB00F_8000)), (0x29C0_8086, 0x2918_8086));
    let before = timer();
    bench.advance(1_000_000_000);
    assert_eq!(timer() - before, 3_579_545);
    assert_eq!((inb(&chipset, 0xCF9), inb(&chipset, 0x400)), (0, 0xFF));
    outb(&chipset, 0xCF9, 6);
    chipset.port_write(0, 0x604, &0x2000u16.to_le_bytes());
    assert_eq!(
        *lock(&bench.record.power),
        [PowerRequest::Reset, PowerRequest::Shutdown]
    );
    chipset.reset();
    assert_eq!((timer(), host(0xB000_0000)), (u32::MAX, u32::MAX));
}

#[test]
fn a_pci_function_is_found_and_its_bar_answers() {
    /// Reads as its offset.
    struct Ramp;
    impl Device for Ramp {
        fn reset(&mut self) {}
    }
    impl MmioDevice for Ramp {
        fn mmio_read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn mmio_write(&mut self, _offset: u64, _data: &[u8]) {}
    }
    struct Card(pci::ConfigSpace);
    impl Device for Card {
        fn reset(&mut self) {
            self.0.reset();
        }
    }
    impl pci::PciFunction for Card {
        fn config(&mut self) -> &mut pci::ConfigSpace {
            &mut self.0
        }
    }
    let bench = Bench::new();
    let mut machine = compose(config(&bench, Machine::Ovmf)).unwrap();
    let mut space = pci::ConfigSpace::new(pci::Identity {
        vendor: 1,
        device: 2,
        ..Default::default()
    });
    space.add_bar(pci::Bar {
        index: 0,
        kind: pci::BarKind::Memory32,
        size: 0x1000,
    });
    let card = Arc::new(Mutex::new(Card(space)));
    let bdf = machine.pci.as_ref().unwrap().root.free_device(0).unwrap();
    let alive = Arc::downgrade(&card);
    machine.add_pci_function("card", bdf, card.clone()).unwrap();
    machine
        .connect_bar("card", &card, 0, Arc::new(Mutex::new(Ramp)))
        .unwrap();
    let error = machine
        .connect_bar("card", &card, 1, Arc::new(Mutex::new(Ramp)))
        .unwrap_err();
    assert_eq!(error.to_string(), "card: there is no BAR 1");
    let error = machine.add_pci_function("card", bdf, card).unwrap_err();
    assert_eq!(error.to_string(), "card: PCI address 00:01.0 is taken");
    let chipset = machine.build();
    ovmf_set_up(&chipset);
    chipset.mmio_write(0, 0xB000_8010, &0xC000_0000u32.to_le_bytes());
    chipset.mmio_write(0, 0xB000_8004, &[2, 0]);
    let mut data = [0; 2];
    chipset.mmio_read(0, 0xC000_0042, &mut data);
    assert_eq!(data, [0x42, 0x42]);
    drop(chipset);
    assert!(alive.upgrade().is_none(), "the function goes with its machine");
}

#[test]
fn absent_ports_read_all_ones() {
    let bench = Bench::new();
    let hyperv = chipset(&bench, Machine::HyperV);
    for port in [0x2F8, 0x20, 0x21, 0xA1, 0x40, 0x61, 0xCF8, 0x64, 0x92, 0xCF9] {
        assert_eq!(inb(&hyperv, port), 0xFF, "port {port:#x}");
    }
    outb(&hyperv, 0xCF9, 6);
    assert!(lock(&bench.record.power).is_empty());
}

#[test]
fn com1_and_com3_share_a_line() {
    let bench = Bench::new();
    let chipset = chipset(&bench, Machine::Plain);
    let entry = |low: u32| {
        chipset.mmio_write(0, 0xFEC0_0000, &0x18u32.to_le_bytes());
        chipset.mmio_write(0, 0xFEC0_0010, &low.to_le_bytes());
    };
    entry(0x8034);
    for base in [0x3F8, 0x3E8] {
        outb(&chipset, base + 4, 8);
        outb(&chipset, base + 1, 2);
    }
    assert_eq!(chipset.acknowledge(0), Some(0x34));
    let eoi = || chipset.mmio_write(0, 0xFEE0_00B0, &[0; 4]);
    outb(&chipset, 0x3F8 + 1, 0);
    eoi();
    assert_eq!(chipset.acknowledge(0), Some(0x34), "the other one still asks");
    outb(&chipset, 0x3E8 + 1, 0);
    eoi();
    assert_eq!(chipset.acknowledge(0), None);
}

#[test]
fn the_pit_reaches_vp_0_through_the_8259_and_pin_2() {
    let bench = Bench::new();
    let chipset = chipset(&bench, Machine::Linux);
    for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0xFE)] {
        outb(&chipset, port, value);
    }
    for (port, value) in [(0x43, 0x34), (0x40, 0), (0x40, 0x10)] {
        outb(&chipset, port, value);
    }
    bench.advance(4_000_000);
    assert!(chipset.poll(0).interrupt);
    assert_eq!(chipset.acknowledge(0), Some(0x30));
    outb(&chipset, 0x20, 0x20);
    outb(&chipset, 0x21, 0xFF);
    // Pin 2, edge, vector 0x41 to VP 1.
    chipset.mmio_write(1, 0xFEE0_00F0, &0x1FFu32.to_le_bytes());
    for (register, value) in [(0x15u32, 1u32 << 24), (0x14, 0x41)] {
        chipset.mmio_write(0, 0xFEC0_0000, &register.to_le_bytes());
        chipset.mmio_write(0, 0xFEC0_0010, &value.to_le_bytes());
    }
    bench.advance(4_000_000);
    assert_eq!(
        (chipset.acknowledge(0), chipset.acknowledge(1)),
        (None, Some(0x41))
    );
}

#[test]
fn reset_gives_the_state_after_power_on() {
    for machine in MACHINES {
        let bench = Bench::new();
        let chipset = chipset(&bench, machine);
        let fresh = chipset.inspect();
        fuzz(&chipset, &bench, 7, 20_000, &|port| {
            !(0x70..=0x73).contains(&port)
        });
        bench.record.power.lock().unwrap().clear();
        chipset.reset();
        let strip = |text: &str| {
            // Time goes on, counters and clocks with it.
            let moving = ["timer ", "time ", "waiting "];
            text.lines()
                .filter(|l| !moving.iter().any(|m| l.starts_with(m)))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(strip(&chipset.inspect()), strip(&fresh), "{machine:?}");
    }
}

const PORTS: [u16; 22] = [
    0x20, 0x21, 0xA0, 0xA1, 0x40, 0x43, 0x61, 0x64, 0x70, 0x71, 0x92, 0xF4, 0x3F8, 0x2F8, 0x400, 0x408,
    0x433, 0x4D0, 0x600, 0xCF8, 0xCFC, 0xFFFC,
];
const PAGES: [u64; 8] = [
    0xFEC0_0000,
    0xFEE0_0000,
    0xFED4_0000,
    0xB000_0000,
    0xE000_0000,
    0xFEBF_FFFC,
    0,
    u64::MAX - 0xFFF,
];
const MSRS: [u32; 6] = [0x1B, 0x6E0, 0x80B, 0x808, 0x830, 0x83F];

/// `count` random things that a guest can do.
fn fuzz(chipset: &Chipset, bench: &Bench, seed: u64, count: u32, allowed: &dyn Fn(u16) -> bool) {
    let mut r = Random::of_case(seed, 0);
    for _ in 0..count {
        let vp = r.below(3) as u32;
        let mut data = r.bits().to_le_bytes();
        let port_len = r.pick(&[1, 2, 4]);
        let mmio_len = r.pick(&[1, 2, 4, 8, 3]);
        let port = match r.below(4) {
            0 => r.bits() as u16,
            _ => r.pick(&PORTS).wrapping_add(r.below(8) as u16),
        };
        let gpa = r.pick(&PAGES).wrapping_add(r.below(0x1000));
        let gpa = if r.below(2) == 0 { gpa & !0xF } else { gpa };
        let msr = if r.below(2) == 0 {
            r.pick(&MSRS)
        } else {
            0x800 + r.below(0x100) as u32
        };
        match r.below(9) {
            0 | 1 if allowed(port) => chipset.port_read(vp, port, &mut data[..port_len]),
            2 | 3 if allowed(port) => chipset.port_write(vp, port, &data[..port_len]),
            4 => chipset.mmio_read(vp, gpa, &mut data[..mmio_len]),
            5 => chipset.mmio_write(vp, gpa, &data[..mmio_len]),
            6 => {
                let value = u64::from_le_bytes(data) >> r.below(64);
                let _ = (chipset.msr_read(vp, msr), chipset.msr_write(vp, msr, value));
            }
            7 => {
                let _ = (chipset.poll(vp), chipset.acknowledge(vp));
                chipset.set_cr8(vp, data[0]);
            }
            _ => {
                let step = r.below(1 << 22) >> r.below(22);
                bench.skip(step);
            }
        }
    }
}

#[test]
fn no_guest_access_panics_on_any_machine() {
    let count = 300_000;
    for machine in MACHINES {
        for seed in [1, 2, 3] {
            let bench = Bench::new();
            let chipset = chipset(&bench, machine);
            ovmf_set_up(&chipset);
            fuzz(&chipset, &bench, seed, count, &|_| true);
        }
    }
}

/// A lock taken out of order would stop two of these for ever.
#[test]
fn vps_and_the_timer_thread_never_deadlock() {
    let bench = Arc::new(Bench::new());
    let chipset = Arc::new(chipset(&bench, Machine::Ovmf));
    ovmf_set_up(&chipset);
    let (done, finished) = std::sync::mpsc::channel();
    for seed in [11, 12, 13] {
        let (bench, chipset, done) = (bench.clone(), chipset.clone(), done.clone());
        std::thread::spawn(move || {
            fuzz(&chipset, &bench, seed, 60_000, &|_| true);
            let _ = (chipset.inspect(), done.send(seed));
        });
    }
    for _ in 0..3 {
        finished
            .recv_timeout(std::time::Duration::from_secs(120))
            .expect("a thread is stuck or died");
    }
}

#[test]
fn deadlines_never_lie_so_close_that_the_host_spins() {
    let bench = Bench::new();
    let chipset = chipset(&bench, Machine::Plain);
    fuzz(&chipset, &bench, 99, 50_000, &|_| true);
    let start = bench.clock.now();
    let mut fired = 0;
    while let Some(deadline) = bench.timers.next_deadline().filter(|&d| d < start + 100_000_000) {
        bench.skip(deadline.saturating_sub(bench.clock.now()));
        fired += 1;
    }
    // Three sources at most every 10 us, the clock at most every 30 us.
    assert!(fired <= 4 * 10_000 + 10, "{fired} deadlines in 100 ms");
}
