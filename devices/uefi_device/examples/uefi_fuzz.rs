// SPDX-License-Identifier: MIT
//! Guests that do anything to the UEFI device: commands, descriptors, logs, event channels, the generation id's
//! address, resets; and to the watchdog that ACPI describes.
//!
//! `cargo run --release -p uefi_device --example uefi_fuzz -- [--seed S] [--first N] [--count N]`
//!
//! One case is new devices and [`OPERATIONS`] operations each on the device, on the generation id and on the
//! watchdog. Always true: a case depends on its number and the seed only. What must hold: no panic, RAM that
//! nothing names keeps its contents, names are enumerated in order to an end, quotas hold, memory and log are
//! bounded, after a reset a guest that behaves gets its answers, and a watchdog asks for a reset on time and not
//! before.

#[path = "../../../vm_loaders/examples/mutate/counting.rs"]
mod counting;
#[path = "uefi_fuzz/watchdog.rs"]
mod watchdog;

use chipset_device::{Clock, Device, PortDevice, PowerRequest, PowerSink, Timed, TimerQueue};
use counting::measured;
use guest_memory::{DmaMemory, GuestMemory};
use soak_case::{Cases, LogMeter, Random, at_most};
use std::process::ExitCode;
use std::sync::Arc;
use uefi_device::{LogLevel, UefiConfig, UefiDevice, UefiWorld, index};
use uefi_nvram::{MAX_STORAGE, Nvram, vendor};

/// Operations of a case.
const OPERATIONS: u64 = 1000;
const RAM: u64 = 0x10_0000;
/// Nothing is aimed here.
const KEPT: u64 = 0xC_0000;
const KEPT_LEN: usize = 0x1000;
/// Where descriptors and buffers are, mostly.
const DESCRIPTOR: u32 = 0x1000;
const NAME: u32 = 0x2000;
const DATA: u32 = 0x3000;
const COMMANDS: [u32; 7] = [0, 1, 2, 3, 4, 5, 6];
const GENERATION: [u8; 16] = [3; 16];
/// Lines of the log between two resets: the firmware's own share; and one for each reset that is asked for.
const MOST_LINES: u64 = 20_001;
/// Bytes of memory: the variables, a log's lines.
const MOST_MEMORY: u64 = 16 << 20;

/// An address that is not in the kept page or before it so closely that a long buffer reaches it.
fn gpa(random: &mut Random) -> u64 {
    let wild = random.value();
    match random.below(8) {
        0 => RAM - random.below(16),
        1 if !(RAM / 2..RAM).contains(&wild) && wild < RAM => wild % (RAM / 4),
        2 if wild >= RAM => wild,
        _ => random.pick(&[NAME, DATA, DESCRIPTOR]).into(),
    }
}

struct Nobody;

impl PowerSink for Nobody {
    fn request(&self, _: PowerRequest) {}
}

struct Guest {
    device: UefiDevice,
    memory: DmaMemory,
    clock: Arc<Clock>,
    random: Random,
    _ram: GuestMemory,
}

impl Guest {
    fn new(seed: u64, case: u64) -> Result<Self, String> {
        let ram = GuestMemory::allocate(&[(0, RAM)]).map_err(|error| error.to_string())?;
        let clock = Arc::new(Clock::deterministic());
        let world = UefiWorld {
            memory: ram.dma(),
            clock: clock.clone(),
            timer: TimerQueue::new().timer(0),
            power: Arc::new(Nobody),
            random: Box::new(|bytes| {
                bytes.fill(1);
                Ok(())
            }),
        };
        let config = UefiConfig {
            nvram: Nvram::new(),
            generation_id: GENERATION,
            log_level: LogLevel::Everything,
        };
        let guest = Self {
            device: UefiDevice::new(config, world),
            memory: ram.dma(),
            clock,
            random: Random::of_case(seed, case),
            _ram: ram,
        };
        guest.put(KEPT, &[0xA5; KEPT_LEN])?;
        Ok(guest)
    }

    fn put(&self, gpa: u64, bytes: &[u8]) -> Result<(), String> {
        self.memory.write(gpa, bytes).map_err(|error| error.to_string())
    }

    fn write(&mut self, index: u32, value: u32) {
        self.device.port_write(0, &index.to_le_bytes());
        self.device.port_write(4, &value.to_le_bytes());
    }

    /// A descriptor with fields that are good, or not.
    fn describe(&mut self, command: u32) -> Result<(), String> {
        let random = &mut self.random;
        let mut name: Vec<u8> = (0..random.below(4))
            .flat_map(|_| [b'A' + random.below(4) as u8, 0])
            .collect();
        if random.below(16) != 0 {
            name.extend_from_slice(&[0, 0]);
        }
        let mut bytes = [0; 56];
        let attributes = match random.below(4) {
            0 => random.value() as u32,
            1 => random.bits() as u32 & 0x7F,
            _ if random.below(8) == 0 => 7 | 0x40,
            _ => 7,
        };
        let name_bytes = match random.below(8) {
            0 => random.value() as u32,
            1 => 2048,
            _ => name.len() as u32,
        };
        let data_bytes = if random.below(8) == 0 {
            random.value()
        } else {
            random.below(0x9000)
        };
        bytes[..4].copy_from_slice(&command.to_le_bytes());
        bytes[12..16].copy_from_slice(&attributes.to_le_bytes());
        let (name_gpa, data_gpa) = (gpa(random), gpa(random));
        bytes[16..24].copy_from_slice(&name_gpa.to_le_bytes());
        bytes[24..28].copy_from_slice(&name_bytes.to_le_bytes());
        let owner = random.pick(&[vendor::GLOBAL, vendor::IMAGE_SECURITY, vendor::HARDWARE_ERROR]);
        bytes[28..44].copy_from_slice(&owner.to_bytes_le());
        bytes[44..52].copy_from_slice(&data_gpa.to_le_bytes());
        bytes[52..56].copy_from_slice(&(data_bytes as u32).to_le_bytes());
        self.put(NAME.into(), &name)?;
        self.put(DESCRIPTOR.into(), &bytes)
    }

    /// A log or an event channel that is nearly right.
    fn buffer(&mut self, magic: &[u8]) -> Result<(), String> {
        let mut bytes = vec![0; 0x400];
        bytes[..magic.len()].copy_from_slice(magic);
        for at in (12..32).step_by(4).chain([24, 28 + 56, 28 + 60]) {
            let value = if self.random.below(4) == 0 {
                self.random.value()
            } else {
                self.random.below(0x200)
            };
            bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        }
        for at in (80..0x3C0).step_by(40) {
            let signature = self.random.pick(&[&b"ALM2"[..], b"ALMS", b"ALM0"]);
            bytes[at..at + 4].copy_from_slice(signature);
            let (len, text) = (self.random.below(64) as u8, self.random.below(64) as u8);
            bytes[at + 16] = len;
            bytes[at + 20] = len;
            bytes[at + 22] = text;
        }
        self.put(DATA.into(), &bytes)
    }

    fn operation(&mut self) -> Result<(), String> {
        match self.random.below(32) {
            0 => {
                let (index, value) = (self.random.below(0x40) as u32, gpa(&mut self.random) as u32);
                self.write(index, value);
            }
            1 => {
                self.buffer(b"ALOG\x05\0")?;
                self.write(index::LOG_GPA, DATA);
                self.write(index::LOG_LOOK, 0);
                drop(self.device.last_lines());
            }
            2 => {
                self.buffer(&[])?;
                self.write(index::EVENT_LOG, DATA);
            }
            3 => {
                let command = self.random.below(8) as u32;
                self.describe(command)?;
                let (gpa, len) = (gpa(&mut self.random), self.random.value() as u32);
                self.put(u64::from(DESCRIPTOR) + 12, &gpa.to_le_bytes())?;
                self.put(u64::from(DESCRIPTOR) + 20, &len.to_le_bytes())?;
                self.write(index::CRYPTO, DESCRIPTOR);
            }
            4 => {
                let (count, config) = (self.random.value() as u32, self.random.bits() as u32);
                self.write(index::WATCHDOG_COUNT, count);
                self.write(index::WATCHDOG_CONFIG, config);
                let now = self.clock.now().saturating_add(self.random.value() >> 8);
                self.clock.advance_to(now);
                self.device.timer_fired(0, now);
            }
            5 => {
                let mut data = vec![0; self.random.pick(&[1, 2, 4])];
                let offset = self.random.below(8) as u16;
                self.device.port_read(offset, &mut data);
                self.device.port_write(offset, &data);
            }
            6 if self.random.below(16) == 0 => self.device.reset(),
            _ => {
                let command = self.random.pick(&COMMANDS);
                self.describe(command)?;
                self.write(index::NVRAM, DESCRIPTOR);
            }
        }
        Ok(())
    }

    /// Says where the generation id goes; it is there, if that is RAM.
    fn generation(&mut self) -> Result<(), String> {
        let random = &mut self.random;
        let gpa = match random.below(8) {
            0 => gpa(random),
            1 => RAM - random.below(24),
            2 => u64::MAX - random.below(24),
            _ => random.below(RAM / 2),
        };
        self.write(index::GENERATION_ID_LOW, gpa as u32);
        self.write(index::GENERATION_ID_HIGH, (gpa >> 32) as u32);
        let mut there = [0; 16];
        if self.memory.read(gpa, &mut there).is_ok() && there != GENERATION {
            return Err(format!("{there:x?} at {gpa:#x} is not the generation id"));
        }
        Ok(())
    }

    /// The call of a guest that behaves; its status.
    fn call(&mut self, command: u32, name: &[u8], len: u32) -> Result<u64, String> {
        let mut bytes = [0; 56];
        bytes[..4].copy_from_slice(&command.to_le_bytes());
        bytes[12] = 7;
        bytes[16..20].copy_from_slice(&NAME.to_le_bytes());
        bytes[24..28].copy_from_slice(&2048_u32.to_le_bytes());
        bytes[28..44].copy_from_slice(&vendor::GLOBAL.to_bytes_le());
        bytes[44..48].copy_from_slice(&DATA.to_le_bytes());
        bytes[52..56].copy_from_slice(&len.to_le_bytes());
        self.put(NAME.into(), name)?;
        self.put(DESCRIPTOR.into(), &bytes)?;
        self.send()
    }

    fn send(&mut self) -> Result<u64, String> {
        self.write(index::NVRAM, DESCRIPTOR);
        let status = self.memory.read_u64(u64::from(DESCRIPTOR) + 4);
        status.map_err(|error| error.to_string())
    }

    fn check(&mut self) -> Result<(), String> {
        let mut kept = [0; KEPT_LEN];
        self.memory
            .read(KEPT, &mut kept)
            .map_err(|error| error.to_string())?;
        if kept != [0xA5; KEPT_LEN] {
            return Err("memory that nothing named has changed".into());
        }
        self.device.reset();
        let name = b"Z\0Z\0\0\0";
        // A full store refuses with OUT_OF_RESOURCES; deleting is always possible.
        let status = self.call(1, name, 4)?;
        let (written, back) = (status == 0, self.call(0, name, 0x9000)?);
        if !(written && back == 0 || status == 9 && back == 14) {
            return Err(format!("a write is answered {status}, and then a read {back}"));
        }
        let mut names = 0;
        let mut status = self.call(2, &[0, 0], 0)?;
        while status == 0 {
            names += 1;
            if names > MAX_STORAGE {
                return Err("the names do not end".into());
            }
            self.put(DESCRIPTOR.into(), &3_u32.to_le_bytes())?;
            self.put(u64::from(DESCRIPTOR) + 24, &2048_u32.to_le_bytes())?;
            status = self.send()?;
        }
        if status != 14 {
            return Err(format!("the names end with {status}"));
        }
        Ok(())
    }
}

fn case(seed: u64, case: u64) -> Result<(), String> {
    let mut guest = Guest::new(seed, case)?;
    for _ in 0..OPERATIONS {
        guest.operation()?;
        guest.generation()?;
    }
    guest.check()?;
    watchdog::case(Random::of_case(!seed, case), OPERATIONS)
}

fn main() -> ExitCode {
    let cases = Cases::from_command_line(100);
    let meter = LogMeter::install();
    cases.run(|number| {
        let (used, (said, outcome)) = measured(|| meter.measured(|| case(cases.seed, number)));
        outcome?;
        at_most("bytes of memory", used, MOST_MEMORY)?;
        // Each operation is in one life of the machine or the next, and says a line or so.
        at_most("lines of the log", said, MOST_LINES)
    })
}
