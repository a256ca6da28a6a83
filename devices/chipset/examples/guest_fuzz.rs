// SPDX-License-Identifier: MIT
//! A guest that does anything: random port, MMIO, MSR and interrupt operations on the whole OVMF machine,
//! with PCI, fw_cfg and flash, and in every fifth case on the Hyper-V machine with its battery, which the host
//! changes.
//!
//! `cargo run --release -p chipset --example guest_fuzz -- [--seed S] [--first N] [--count N]`
//!
//! One case is a new machine and [`OPERATIONS`] operations. Always true: case N of a seed is the same
//! whatever ran before; a panic names its case. A case fails when the contents of the flash and of its
//! file part, when RAM that no transfer was aimed at has changed, when the battery says something else than the
//! host, or when the log has too many lines. Not here: virtio, what Hyper-V guests have besides (`hyperv_fuzz`).

use chipset::battery::{self, Battery, CAPACITY_MWH, Charge};
use chipset::flash::{BLOCK, Flash};
use chipset::fw_cfg::FwCfg;
use chipset::machine::{Composition, MachineConfig, World, compose};
use chipset::pm::PowerManagement;
use chipset::rtc::CmosMemory;
use chipset::uart::SerialIo;
use chipset_device::{Clock, MmioDevice, PowerRequest, PowerSink, TimerQueue, VpBus, VpWake};
use guest_memory::GuestMemory;
use openvmm_defs::Machine;
use soak_case::{Cases, LogMeter, Random, at_most};
use std::io::{Read, Seek, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

/// Operations of a case.
const OPERATIONS: u64 = 1000;
const VPS: u32 = 2;
const RAM: u64 = 1 << 20;
/// No descriptor is made that aims here.
const KEPT: u64 = 0x8_0000;
const FLASH: u64 = 0xFFE0_0000;
const FLASH_LEN: usize = 4 * BLOCK;

/// First port and count of the devices.
const PORTS: &[(u16, u16)] = &[
    (0x510, 12),
    (0xCF8, 8),
    (0x20, 2),
    (0xA0, 2),
    (0x40, 4),
    (0x61, 4),
    (0x70, 2),
    (0x92, 1),
    (0x3F8, 8),
    (0x4D0, 2),
    (0x600, 0x80),
];
/// First address and length of the windows.
const WINDOWS: &[(u64, u64)] = &[
    (0xFEC0_0000, 0x1000),
    (0xFEE0_0000, 0x1000),
    (FLASH, FLASH_LEN as u64),
    (0xB000_0000, 0x11_0000),
];

const HYPERV_PORTS: &[(u16, u16)] = &[(0x400, 0x10), (0x433, 1), (0x70, 2), (0x3F8, 8), (0xF4, 4)];
const HYPERV_WINDOWS: &[(u64, u64)] = &[
    (0xFEC0_0000, 0x1000),
    (0xFEE0_0000, 0x1000),
    (battery::GPA, battery::LEN),
    (battery::GPA, 0x20),
];
/// Lines of the log between two resets: ten of each of the devices that have something to say.
const MOST_LINES: u64 = 50;

/// The host around the machine.
struct Host;

impl VpWake for Host {
    fn wake(&self, _vp: u32) {}
}

impl PowerSink for Host {
    fn request(&self, _request: PowerRequest) {}
}

impl SerialIo for Host {
    fn output(&self, _byte: u8) {}
    fn input(&self, _buffer: &mut [u8]) -> usize {
        0
    }
}

struct Rig {
    chipset: chipset::Chipset,
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
    memory: GuestMemory,
    special: Special,
    resets: u64,
}

/// What only one of the machines has.
enum Special {
    Ovmf {
        flash: Arc<Mutex<Flash>>,
        file: std::fs::File,
    },
    HyperV {
        pm: Arc<Mutex<PowerManagement>>,
        battery: Arc<Mutex<Battery>>,
        /// What the host has said last.
        charge: Charge,
    },
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn rig(kind: Machine) -> Result<Rig> {
    let (clock, timers) = (Arc::new(Clock::deterministic()), TimerQueue::new());
    let memory = GuestMemory::allocate(&[(0, RAM)])?;
    let host = Arc::new(Host);
    let mut machine = compose(MachineConfig {
        machine: kind,
        vp_count: VPS,
        phys_bits: 40,
        x2apic: true,
        tsc_hz: Some(1_000_000_000),
        memory: CmosMemory {
            below_4g: RAM,
            above_4g: 0,
        },
        serial: [Some(host.clone()), None, None, None],
        test_exit: true,
        world: World {
            clock: clock.clone(),
            timers: timers.clone(),
            wake: host.clone(),
            power: host,
        },
    })?;
    let special = match kind {
        Machine::HyperV => add_battery(&mut machine)?,
        _ => add_flash(&mut machine, &memory)?,
    };
    Ok(Rig {
        chipset: machine.build(),
        clock,
        timers,
        memory,
        special,
        resets: 0,
    })
}

fn add_battery(machine: &mut Composition) -> Result<Special> {
    let charge = Charge {
        percent: 100,
        mains: true,
    };
    let battery = Arc::new(Mutex::new(Battery::new(charge)));
    machine
        .builder
        .add_mmio("battery", battery::GPA, battery::LEN, battery.clone())?;
    machine.builder.add_device("battery", battery.clone());
    let pm = machine.pm.clone().ok_or("a machine without power management")?;
    Ok(Special::HyperV { pm, battery, charge })
}

fn add_flash(machine: &mut Composition, memory: &GuestMemory) -> Result<Special> {
    let mut fw_cfg = FwCfg::new(memory.dma());
    fw_cfg.add_file("small", vec![1; 100])?;
    fw_cfg.add_generated(&["made"], vec![vec![0; 5000]], Box::new(|| vec![vec![7; 4000]]))?;
    machine.add_fw_cfg(fw_cfg)?;
    let mut file = tempfile::tempfile()?;
    let contents = vec![0xFF; FLASH_LEN];
    file.write_all(&contents)?;
    let flash = Arc::new(Mutex::new(Flash::new(contents, file.try_clone()?)));
    machine
        .builder
        .add_mmio("flash", FLASH, FLASH_LEN as u64, flash.clone())?;
    machine.builder.add_device("flash", flash.clone());
    Ok(Special::Ovmf { flash, file })
}

impl Rig {
    fn operation(&mut self, random: &mut Random) -> Result<()> {
        let vp = random.below(u64::from(VPS)) as u32;
        let len = 1usize << random.below(3);
        let value = random.bits().to_le_bytes();
        let mut data = [0; 8];
        match random.below(16) {
            0..=3 => self.chipset.port_write(vp, self.port(random), &value[..len]),
            4..=5 => self.chipset.port_read(vp, self.port(random), &mut data[..len]),
            6..=8 => self
                .chipset
                .mmio_write(vp, self.gpa(random), &value[..1 + random.below(8) as usize]),
            9..=10 => self
                .chipset
                .mmio_read(vp, self.gpa(random), &mut data[..1 + random.below(8) as usize]),
            11 => self.transfer(random)?,
            12 => self.configure(random)?,
            13 => {
                let x2apic = 0x800 + random.below(0x40) as u32;
                let msr = random.pick(&[0x1B, 0x6E0, x2apic, 0x2FF]);
                if random.below(2) == 0 {
                    let _ = self.chipset.msr_write(vp, msr, u64::from_le_bytes(value));
                } else {
                    let _ = self.chipset.msr_read(vp, msr);
                }
            }
            14 => {
                let later = self.clock.now() + random.below(20_000_000);
                self.clock.advance_to(later);
                self.timers.fire_due(later);
                if self.chipset.poll(vp).interrupt {
                    let _ = self.chipset.acknowledge(vp);
                }
            }
            _ if random.below(64) == 0 => self.reset(),
            _ => drop(self.chipset.inspect()),
        }
        Ok(())
    }

    /// A fw_cfg transfer with a descriptor that mostly makes sense.
    fn transfer(&mut self, random: &mut Random) -> Result<()> {
        let key = random.below(0x24) as u32;
        let control = key << 16 | random.below(32) as u32;
        let anywhere = random.below(0x4_0000);
        let to = random.pick(&[0x4000, RAM - 16, u64::MAX - 4, anywhere]);
        let len = random.pick(&[0, 1, 64, 0x1_1000, u32::MAX]);
        let mut descriptor = control.to_be_bytes().to_vec();
        descriptor.extend_from_slice(&len.to_be_bytes());
        descriptor.extend_from_slice(&to.to_be_bytes());
        let at = random.pick(&[0x1000u64, RAM - 8, 1 << 40]);
        if self.memory.is_ram(at, 16) {
            self.memory.write(at, &descriptor)?;
        }
        let halves = [at >> 32, at].map(|half| (half as u32).to_be_bytes());
        self.chipset.port_write(0, 0x514, &halves[0]);
        self.chipset.port_write(0, 0x518, &halves[1]);
        Ok(())
    }

    /// What firmware writes to the two bridges, now and then with other values.
    fn configure(&mut self, random: &mut Random) -> Result<()> {
        if let Special::HyperV { .. } = self.special {
            return self.discharge(random);
        }
        let anything = random.bits() as u32;
        let (device, register, value) = random.pick(&[
            (0u32, 0x60u32, 0xB000_0001u32),
            (31, 0x40, 0x601),
            (31, 0x44, 0x80),
            (31, 0x60, anything),
            (0, 0x60, anything),
        ]);
        let address = 1 << 31 | device << 11 | register;
        self.chipset.port_write(0, 0xCF8, &address.to_le_bytes());
        self.chipset.port_write(0, 0xCFC, &value.to_le_bytes());
        Ok(())
    }

    /// The host's battery changes, or somebody presses the power button.
    fn discharge(&mut self, random: &mut Random) -> Result<()> {
        let Special::HyperV { pm, battery, charge } = &mut self.special else {
            return Ok(());
        };
        let poisoned = "a device has panicked";
        if random.one_in(8) {
            pm.lock().map_err(|_| poisoned)?.press_power_button();
            return Ok(());
        }
        *charge = Charge {
            percent: random.below(256) as u8,
            mains: random.one_in(2),
        };
        battery.lock().map_err(|_| poisoned)?.change(*charge);
        pm.lock().map_err(|_| poisoned)?.raise_gpe(battery::GPE);
        self.battery()
    }

    /// Whether the battery's registers say what the host has said.
    fn battery(&self) -> Result<()> {
        let Special::HyperV { charge, .. } = self.special else {
            return Ok(());
        };
        let words = [0x00, 0x04, 0x0C, 0x10].map(|offset| {
            let mut bytes = [0; 4];
            self.chipset.mmio_read(0, battery::GPA + offset, &mut bytes);
            u32::from_le_bytes(bytes)
        });
        let percent = u32::from(charge.percent.min(100));
        let state = match (charge.mains, percent) {
            (false, _) => 1,
            (true, 100) => 0,
            (true, _) => 2,
        };
        let right = [0x1F, state, CAPACITY_MWH * percent / 100, charge.mains.into()];
        if words == right {
            Ok(())
        } else {
            Err(format!("the battery says {words:x?} of {charge:?}").into())
        }
    }

    fn reset(&mut self) {
        self.chipset.reset();
        self.resets += 1;
    }

    fn port(&self, random: &mut Random) -> u16 {
        if random.below(8) == 0 {
            return random.bits() as u16;
        }
        let (first, count) = random.pick(match self.special {
            Special::Ovmf { .. } => PORTS,
            Special::HyperV { .. } => HYPERV_PORTS,
        });
        first + random.below(count.into()) as u16
    }

    fn gpa(&self, random: &mut Random) -> u64 {
        if random.below(16) == 0 {
            return random.bits() >> random.below(40);
        }
        let (first, len) = random.pick(match self.special {
            Special::Ovmf { .. } => WINDOWS,
            Special::HyperV { .. } => HYPERV_WINDOWS,
        });
        first + random.below(len)
    }

    /// Whether the flash holds what its file does.
    fn flash(&mut self) -> Result<()> {
        let Special::Ovmf { flash, file } = &mut self.special else {
            return Ok(());
        };
        let mut held = vec![0; FLASH_LEN];
        let mut flash = flash.lock().map_err(|_| "a device has panicked")?;
        for (at, byte) in held.chunks_mut(1).enumerate() {
            flash.mmio_read(at as u64, byte);
        }
        let mut stored = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut stored)?;
        if stored != held {
            return Err("the flash and its file have parted".into());
        }
        Ok(())
    }

    /// Whether everything that must hold at the end of a case does.
    fn check(&mut self) -> Result<()> {
        self.reset();
        self.battery()?;
        self.flash()?;
        let mut kept = vec![1; 0x1000];
        self.memory.read(KEPT, &mut kept)?;
        if kept.iter().any(|byte| *byte != 0) {
            return Err(format!("ram at {KEPT:#x} was written").into());
        }
        Ok(())
    }
}

fn case(seed: u64, number: u64, meter: &LogMeter) -> Result<()> {
    let mut random = Random::of_case(seed, number);
    let kind = if number % 5 == 4 {
        Machine::HyperV
    } else {
        Machine::Ovmf
    };
    let (mut rig, before) = (rig(kind)?, meter.lines());
    for _ in 0..OPERATIONS {
        rig.operation(&mut random)?;
    }
    rig.check()?;
    at_most(
        "lines of the log",
        meter.lines() - before,
        MOST_LINES * rig.resets,
    )?;
    Ok(())
}

fn main() -> ExitCode {
    let cases = Cases::from_command_line(1000);
    let meter = LogMeter::install();
    cases.run(|number| case(cases.seed, number, &meter))
}
