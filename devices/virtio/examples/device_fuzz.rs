// SPDX-License-Identifier: MIT
//! Guests that do anything to virtio and NVMe devices: registers, doorbells, configuration space, ring and queue
//! contents, buffers anywhere. `--seed S --first N --count M`: cases N to N + M - 1, each of [`OPERATIONS`]
//! operations on one device.
//!
//! Always true: a case depends on its number and the seed only, because the devices work on the thread that asks.
//! What must hold: no panic, the disk keeps its size, a device that is set up properly afterwards works.

use block::{Disk, DiskOptions};
use chipset_device::{InterruptLine, MmioDevice, MsiTarget, Placement};
use guest_memory::GuestMemory;
use nvme::NvmePci;
use pci::PciFunction;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use virtio::{Blk, Console, ConsoleIo, Rng, VirtioDevice, VirtioPci, Wiring};

/// Operations of a case.
const OPERATIONS: u32 = 1000;
/// RAM in two pieces with a hole between.
const LOW: u64 = 0x4_0000;
const HIGH: u64 = 0x10_0000;
const HIGH_LEN: u64 = 0x1_0000;
const DISK_LEN: u64 = 64 << 10;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Mostly small, sometimes anything.
    fn value(&mut self) -> u64 {
        let shift = self.below(64);
        self.next() >> shift
    }

    /// An address: mostly RAM, sometimes near its ends or nowhere.
    fn gpa(&mut self) -> u64 {
        match self.below(8) {
            0 => LOW - 16 + self.below(32),
            1 => HIGH + self.below(HIGH_LEN),
            2 => self.next(),
            _ => self.below(LOW) & !0xF,
        }
    }
}

#[derive(Default)]
struct Messages(AtomicU64);

impl MsiTarget for Messages {
    fn signal_msi(&self, _address: u64, _data: u32) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Sink;

impl ConsoleIo for Sink {
    fn output(&self, _bytes: &[u8]) {}

    fn input(&self, buffer: &mut [u8]) -> usize {
        buffer.fill(b'x');
        buffer.len().min(3)
    }
}

struct Nowhere;

impl Placement for Nowhere {
    fn place(&self, _at: Option<(u64, u64)>) -> Result<(), String> {
        Ok(())
    }
}

/// A device with everything that a guest reaches.
struct Bench {
    memory: GuestMemory,
    function: Box<dyn PciFunction>,
    bar: Arc<Mutex<dyn MmioDevice>>,
    random: Random,
    is_nvme: bool,
}

fn virtio(
    device: Box<dyn VirtioDevice>,
    memory: &GuestMemory,
) -> (Box<dyn PciFunction>, Arc<Mutex<dyn MmioDevice>>) {
    let wiring = Wiring {
        ram: memory.dma(),
        msi: Arc::new(Messages::default()),
        line: InterruptLine::unconnected(),
        threads: false,
    };
    let function = VirtioPci::new("fuzzed", device, wiring).expect("a function");
    let bar = function.bar();
    (Box::new(function), bar)
}

fn nvme(disk: Arc<Disk>, memory: &GuestMemory) -> (Box<dyn PciFunction>, Arc<Mutex<dyn MmioDevice>>) {
    let wiring = nvme::Wiring {
        ram: memory.dma(),
        msi: Arc::new(Messages::default()),
        line: InterruptLine::unconnected(),
        threads: false,
    };
    let function = NvmePci::new("fuzzed", vec![disk], wiring).expect("a function");
    let bar = function.bar();
    (Box::new(function), bar)
}

impl Bench {
    fn new(case: u64, seed: u64, disk: &Arc<Disk>) -> Self {
        let memory = GuestMemory::allocate(&[(0, LOW), (HIGH, HIGH_LEN)]).expect("guest memory");
        let mut random = Random((seed ^ case.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1);
        let kind = case % 4;
        let (mut function, bar) = match kind {
            0 => virtio(Box::new(Blk::new(disk.clone())), &memory),
            1 => nvme(disk.clone(), &memory),
            2 => virtio(Box::new(Console::new(Arc::new(Sink))), &memory),
            _ => {
                let mut state = random.next();
                let source = move |bytes: &mut [u8]| {
                    state = state.wrapping_add(1);
                    bytes.fill(state as u8);
                    if state.is_multiple_of(16) {
                        Err("empty".to_owned())
                    } else {
                        Ok(())
                    }
                };
                virtio(Box::new(Rng::new(Box::new(source))), &memory)
            }
        };
        function.config().connect_bar(0, Box::new(Nowhere));
        function.config_write(4, &[6, 0]);
        Self {
            memory,
            function,
            bar,
            random,
            is_nvme: kind == 1,
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        bar.mmio_write(offset, data);
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        bar.mmio_read(offset, data);
    }

    fn ram(&self, gpa: u64, bytes: &[u8]) {
        // Outside RAM the guest cannot write either.
        let _ = self.memory.write(gpa, bytes);
    }

    /// A virtio device that its driver has started, with rings at random places.
    fn start_virtio(&mut self) {
        for status in [0u8, 1, 3] {
            self.write(0x14, &[status]);
        }
        for half in [0u32, 1] {
            self.write(0, &half.to_le_bytes());
            self.write(8, &half.to_le_bytes());
            let mut offered = [0; 4];
            self.read(4, &mut offered);
            let keep = if half == 0 {
                self.random.next() as u32
            } else {
                u32::MAX
            };
            self.write(0xC, &(u32::from_le_bytes(offered) & keep).to_le_bytes());
        }
        self.write(0x14, &[0xB]);
        for queue in 0..2u16 {
            self.write(0x16, &queue.to_le_bytes());
            let (size, vector) = (1u16 << self.random.below(8), self.random.below(5) as u16);
            self.write(0x18, &size.to_le_bytes());
            self.write(0x1A, &vector.to_le_bytes());
            for at in [0x20, 0x28, 0x30] {
                let gpa = self.random.gpa() & !0xF;
                self.write(at, &(gpa as u32).to_le_bytes());
                self.write(at + 4, &((gpa >> 32) as u32).to_le_bytes());
            }
            self.write(0x1C, &[1, 0]);
        }
        self.write(0x14, &[0xF]);
    }

    /// Chains of random shape where the current rings are.
    fn fill_virtio(&mut self) {
        let queue = self.random.below(2) as u16;
        self.write(0x16, &queue.to_le_bytes());
        let mut registers = [0; 0x20];
        for (at, part) in (0x18..).step_by(8).zip(registers.chunks_mut(8)) {
            self.read(at, part);
        }
        let size = u64::from(u16::from_le_bytes([registers[0], registers[1]]).max(1));
        let address = |at: usize| {
            registers[at..]
                .first_chunk()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let (table, avail) = (address(8), address(16));
        for _ in 0..self.random.below(6) {
            let mut descriptor = self.random.gpa().to_le_bytes().to_vec();
            let len = if self.random.one_in(8) {
                self.random.value() as u32
            } else {
                512 >> self.random.below(10)
            };
            descriptor.extend(len.to_le_bytes());
            descriptor.extend((self.random.below(8) as u16).to_le_bytes());
            descriptor.extend((self.random.below(size + 1) as u16).to_le_bytes());
            let slot = self.random.below(size);
            self.ram(table.wrapping_add(slot * 16), &descriptor);
            // A request header at its buffer.
            let mut header = (self.random.below(15) as u32).to_le_bytes().to_vec();
            header.extend([0; 4]);
            header.extend(self.random.below(200).to_le_bytes());
            let gpa = descriptor
                .first_chunk()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes));
            self.ram(gpa, &header);
        }
        let (slot, head) = (self.random.below(size), self.random.below(size + 1) as u16);
        self.ram(avail.wrapping_add(4 + slot * 2), &head.to_le_bytes());
        let mut index = [0; 2];
        let _ = self.memory.read(avail.wrapping_add(2), &mut index);
        let step = if self.random.one_in(32) {
            self.random.next() as u16
        } else {
            1
        };
        let index = u16::from_le_bytes(index).wrapping_add(step);
        self.ram(avail.wrapping_add(2), &index.to_le_bytes());
        self.write(0x3000 + u64::from(queue) * 4, &queue.to_le_bytes());
    }

    fn start_nvme(&mut self) {
        self.write(0x14, &[0; 4]);
        self.write(0x24, &0x000F_000Fu32.to_le_bytes());
        for (at, gpa) in [(0x28, 0x1000u64), (0x30, 0x2000)] {
            self.write(at, &gpa.to_le_bytes());
        }
        self.write(0x14, &0x0046_0001u32.to_le_bytes());
    }

    fn fill_nvme(&mut self) {
        let queue = self.random.below(3);
        let base = if queue == 0 {
            0x1000
        } else {
            0x1000 + queue * 0x4000
        };
        let mut entry = [0u8; 64];
        if self.random.one_in(3) {
            entry.iter_mut().for_each(|byte| *byte = self.random.next() as u8);
        }
        entry[0] = self.random.below(14) as u8;
        entry[4] = self.random.below(3) as u8;
        for at in [24, 32] {
            let gpa = self.random.gpa() & if self.random.one_in(4) { !0 } else { !0xFFF };
            entry[at..at + 8].copy_from_slice(&gpa.to_le_bytes());
        }
        let small = [self.random.below(4) as u8, 0, self.random.below(33) as u8, 0];
        entry[40..44].copy_from_slice(&small);
        entry[44..48].copy_from_slice(&[self.random.below(8) as u8, 0, self.random.below(4) as u8, 0]);
        entry[48] = self.random.value() as u8;
        let slot = self.random.below(16);
        self.ram(base + slot * 64, &entry);
        let doorbell = 0x1000 + queue * 8 + if self.random.one_in(3) { 4 } else { 0 };
        let value = self.random.below(18) as u32;
        self.write(doorbell, &value.to_le_bytes());
    }

    fn anything(&mut self) {
        let width = 1usize << self.random.below(4);
        let data = self.random.value().to_le_bytes();
        let offset = if self.random.one_in(4) {
            self.random.below(0x8000 - 8)
        } else {
            self.random.below(0x48)
        };
        match self.random.below(6) {
            0 | 1 => self.write(offset, &data[..width]),
            2 => self.read(offset, &mut [0; 8][..width]),
            3 => {
                let at = self.random.below(0x110) as u16 & !3;
                let len = [1, 2, 4][self.random.below(3) as usize];
                self.function.config_write(at, &data[..len]);
            }
            4 => {
                let at = self.random.below(0x1000) as u16 & !3;
                self.function.config_read(at, &mut [0; 4]);
            }
            _ => {
                let gpa = self.random.gpa();
                self.ram(gpa, &data);
            }
        }
    }

    fn step(&mut self) {
        match (self.random.below(64), self.is_nvme) {
            (0, false) => self.start_virtio(),
            (0, true) => self.start_nvme(),
            (1..16, _) => self.anything(),
            (16, _) if self.random.one_in(4) => self.function.reset(),
            (_, false) => self.fill_virtio(),
            (_, true) => self.fill_nvme(),
        }
    }
}

fn argument(name: &str, default: u64) -> u64 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    let value = arguments.nth(1);
    value.map_or(default, |value| value.parse().expect("a number"))
}

fn main() {
    let (seed, first, count) = (
        argument("--seed", 1),
        argument("--first", 0),
        argument("--count", 100),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![0; DISK_LEN as usize]).expect("a disk");
    let options = DiskOptions {
        path: path.clone(),
        read_only: false,
        format: None,
    };
    let disk = Disk::open(&options).expect("a disk");
    for case in first..first.saturating_add(count) {
        let mut bench = Bench::new(case, seed, &disk);
        for _ in 0..OPERATIONS {
            bench.step();
        }
        bench.function.reset();
        let len = std::fs::metadata(&path).expect("the disk").len();
        assert_eq!(len, DISK_LEN, "case {case}: the disk's size");
    }
    println!("{count} cases from {first}, seed {seed}: fine");
}
