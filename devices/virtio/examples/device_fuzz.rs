// SPDX-License-Identifier: MIT
//! Guests that do anything to virtio and NVMe devices: registers, doorbells, configuration space, ring and queue
//! contents, buffers anywhere; hosts that send frames, and connect, answer and hang up.
//! `--seed S --first N --count M`: cases N to N + M - 1, each of [`OPERATIONS`] operations on one device.
//!
//! Always true: a case depends on its number and the seed only, because the devices work on the thread that asks,
//! also those that have one of their own in a VM.
//! What must hold: no panic, bounded memory and log, the disk keeps its size, a device that is set up properly
//! afterwards works.

#[path = "../../../vm_loaders/examples/mutate/counting.rs"]
mod counting;
#[path = "device_fuzz/host.rs"]
mod host;

use block::{Disk, DiskOptions};
use chipset_device::{InterruptLine, MmioDevice, MsiTarget, Placement};
use counting::measured;
use guest_memory::GuestMemory;
use host::{Host, socket_packet};
use nvme::NvmePci;
use pci::PciFunction;
use soak_case::{Cases, LogMeter, Random, at_most};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use virtio::{Blk, Console, ConsoleIo, Rng, VirtioDevice, VirtioPci, Waker, Wiring};

/// Operations of a case.
const OPERATIONS: u32 = 1000;
/// The devices, in turn.
const KINDS: u64 = 6;
const BLK: u64 = 0;
const NVME: u64 = 1;
const CONSOLE: u64 = 2;
const NET: u64 = 3;
const VSOCK: u64 = 4;
/// RAM in two pieces with a hole between.
const LOW: u64 = 0x4_0000;
const HIGH: u64 = 0x10_0000;
const HIGH_LEN: u64 = 0x1_0000;
const DISK_LEN: u64 = 64 << 10;
/// Bytes of memory that a device takes: what it copies, and what waits for either side.
const MOST_MEMORY: u64 = 32 << 20;
/// Lines of the log that one device writes.
const MOST_LINES: u64 = 10;

/// An address: mostly RAM, sometimes near its ends or nowhere.
fn gpa(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => LOW - 16 + random.below(32),
        1 => HIGH + random.below(HIGH_LEN),
        2 => random.bits(),
        _ => random.below(LOW) & !0xF,
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
    kind: u64,
    /// Lets a virtio device look at what came from the host.
    waker: Option<Waker>,
    host: Host,
}

/// A function, what answers in its BAR, and for virtio what wakes it.
type Made = (Box<dyn PciFunction>, Arc<Mutex<dyn MmioDevice>>, Option<Waker>);

fn virtio(device: Box<dyn VirtioDevice>, memory: &GuestMemory) -> Made {
    let wiring = Wiring {
        ram: memory.dma(),
        msi: Arc::new(Messages::default()),
        line: InterruptLine::unconnected(),
        threads: false,
    };
    let function = VirtioPci::new("fuzzed", device, wiring).expect("a function");
    let (bar, waker) = (function.bar(), function.waker());
    (Box::new(function), bar, Some(waker))
}

fn nvme(disk: Arc<Disk>, memory: &GuestMemory) -> Made {
    let wiring = nvme::Wiring {
        ram: memory.dma(),
        msi: Arc::new(Messages::default()),
        line: InterruptLine::unconnected(),
        threads: false,
    };
    let function = NvmePci::new("fuzzed", vec![disk], wiring).expect("a function");
    let bar = function.bar();
    (Box::new(function), bar, None)
}

impl Bench {
    fn new(case: u64, seed: u64, disk: &Arc<Disk>, folder: &Path) -> Self {
        let memory = GuestMemory::allocate(&[(0, LOW), (HIGH, HIGH_LEN)]).expect("guest memory");
        let mut random = Random::of_case(seed, case);
        let kind = case % KINDS;
        let mut host = Host::Nobody;
        let (mut function, bar, waker) = match kind {
            BLK => virtio(Box::new(Blk::new(disk.clone())), &memory),
            NVME => nvme(disk.clone(), &memory),
            CONSOLE => virtio(Box::new(Console::new(Arc::new(Sink))), &memory),
            NET | VSOCK => {
                let both = if kind == NET {
                    Host::wire()
                } else {
                    Host::programs(folder)
                };
                let (device, other_end) = both.expect("sockets");
                host = other_end;
                virtio(device, &memory)
            }
            _ => {
                let mut state = random.bits();
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
            kind,
            waker,
            host,
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
                self.random.bits() as u32
            } else {
                u32::MAX
            };
            self.write(0xC, &(u32::from_le_bytes(offered) & keep).to_le_bytes());
        }
        self.write(0x14, &[0xB]);
        for queue in 0..3u16 {
            self.write(0x16, &queue.to_le_bytes());
            let (size, vector) = (1u16 << self.random.below(8), self.random.below(5) as u16);
            self.write(0x18, &size.to_le_bytes());
            self.write(0x1A, &vector.to_le_bytes());
            for at in [0x20, 0x28, 0x30] {
                let gpa = gpa(&mut self.random) & !0xF;
                self.write(at, &(gpa as u32).to_le_bytes());
                self.write(at + 4, &((gpa >> 32) as u32).to_le_bytes());
            }
            self.write(0x1C, &[1, 0]);
        }
        self.write(0x14, &[0xF]);
    }

    /// Chains of random shape where the current rings are.
    fn fill_virtio(&mut self) {
        let queue = self.random.below(3) as u16;
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
            let mut descriptor = gpa(&mut self.random).to_le_bytes().to_vec();
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
            if matches!(self.host, Host::Programs { .. }) {
                header = socket_packet(&mut self.random);
            }
            let gpa = descriptor
                .first_chunk()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes));
            self.ram(gpa, &header);
        }
        let mut index = [0; 2];
        let _ = self.memory.read(avail.wrapping_add(2), &mut index);
        let (mut slot, mut head) = (self.random.below(size), self.random.below(size + 1) as u16);
        if !matches!(self.host, Host::Nobody) && self.random.one_in(2) {
            slot = u64::from(u16::from_le_bytes(index)) % size;
            head = self.sound_chain(queue, table, size);
        }
        self.ram(avail.wrapping_add(4 + slot * 2), &head.to_le_bytes());
        let step = if self.random.one_in(32) {
            self.random.bits() as u16
        } else {
            1
        };
        let index = u16::from_le_bytes(index).wrapping_add(step);
        self.ram(avail.wrapping_add(2), &index.to_le_bytes());
        self.write(0x3000 + u64::from(queue) * 4, &queue.to_le_bytes());
    }

    /// A chain of one buffer in RAM, as the queue wants it, so that devices with a host get far; gives its head.
    fn sound_chain(&mut self, queue: u16, table: u64, size: u64) -> u16 {
        const RECEIVE: u16 = 0;
        let gpa = self.random.below(LOW - 0x2000) & !0xF;
        let (len, flags) = if queue == RECEIVE {
            (2048, 2u16)
        } else {
            (44 + self.random.below(600) as u32, 0)
        };
        let head = self.random.below(size);
        let mut descriptor = gpa.to_le_bytes().to_vec();
        descriptor.extend(len.to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend([0; 2]);
        self.ram(table.wrapping_add(head * 16), &descriptor);
        if queue != RECEIVE && matches!(self.host, Host::Programs { .. }) {
            let packet = socket_packet(&mut self.random);
            self.ram(gpa, &packet);
        }
        head as u16
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
            entry.iter_mut().for_each(|byte| *byte = self.random.bits() as u8);
        }
        entry[0] = self.random.below(14) as u8;
        entry[4] = self.random.below(3) as u8;
        for at in [24, 32] {
            let gpa = gpa(&mut self.random) & if self.random.one_in(4) { !0 } else { !0xFFF };
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
                let len = self.random.pick(&[1, 2, 4]);
                self.function.config_write(at, &data[..len]);
            }
            4 => {
                let at = self.random.below(0x1000) as u16 & !3;
                self.function.config_read(at, &mut [0; 4]);
            }
            _ => {
                let gpa = gpa(&mut self.random);
                self.ram(gpa, &data);
            }
        }
    }

    /// Reset, then a driver that behaves: its first request is done.
    fn works_after_reset(&mut self) -> bool {
        self.function.reset();
        self.function.config_write(4, &[6, 0]);
        self.ram(0, &vec![0; LOW as usize]);
        if self.kind == NVME {
            self.identifies()
        } else {
            self.serves()
        }
    }

    /// An NVMe controller tells what it is.
    fn identifies(&mut self) -> bool {
        self.start_nvme();
        let mut entry = [0; 64];
        // Identify, controller, to a page.
        (entry[0], entry[40]) = (6, 1);
        entry[24..32].copy_from_slice(&0x8000u64.to_le_bytes());
        self.ram(0x1000, &entry);
        self.write(0x1000, &1u32.to_le_bytes());
        let mut status = [0; 2];
        let read = self.memory.read(0x2000 + 14, &mut status);
        read.is_ok() && u16::from_le_bytes(status) == 1
    }

    /// A virtio device uses a chain of the kind that it takes.
    fn serves(&mut self) -> bool {
        const TABLE: u64 = 0x1000;
        const AVAIL: u64 = 0x2000;
        const USED: u64 = 0x3000;
        const NEXT: u16 = 1;
        const WRITE: u16 = 2;
        const DATA: u64 = 0x8000;
        // Receive queues and the only queue of some are 0.
        let (queue, chain): (u16, &[(u32, u16)]) = match self.kind {
            BLK => (0, &[(16, NEXT), (512, NEXT | WRITE), (1, WRITE)]),
            CONSOLE => (1, &[(5, 0)]),
            NET => (1, &[(12 + 60, 0)]),
            VSOCK => (1, &[(44, 0)]),
            _ => (0, &[(16, WRITE)]),
        };
        for status in [0u8, 1, 3] {
            self.write(0x14, &[status]);
        }
        // Version 1, and nothing that is optional.
        self.write(8, &1u32.to_le_bytes());
        self.write(0xC, &1u32.to_le_bytes());
        self.write(0x14, &[0xB]);
        self.write(0x16, &queue.to_le_bytes());
        self.write(0x18, &8u16.to_le_bytes());
        for (at, gpa) in [(0x20, TABLE), (0x28, AVAIL), (0x30, USED)] {
            self.write(at, &(gpa as u32).to_le_bytes());
            self.write(at + 4, &0u32.to_le_bytes());
        }
        self.write(0x1C, &[1, 0]);
        self.write(0x14, &[0xF]);
        for (i, (len, flags)) in (0..).zip(chain) {
            let mut descriptor = (DATA + i * 0x1000).to_le_bytes().to_vec();
            descriptor.extend(len.to_le_bytes());
            descriptor.extend(flags.to_le_bytes());
            descriptor.extend((i as u16 + 1).to_le_bytes());
            self.ram(TABLE + i * 16, &descriptor);
        }
        if self.kind == VSOCK {
            let packet = socket_packet(&mut self.random);
            self.ram(DATA, &packet);
        }
        self.ram(AVAIL + 2, &1u16.to_le_bytes());
        // A source of entropy may have nothing just now.
        (0..3).any(|_| {
            self.write(0x3000 + u64::from(queue) * 4, &queue.to_le_bytes());
            let mut index = [0; 2];
            self.memory.read(USED + 2, &mut index).is_ok() && index == [1, 0]
        })
    }

    fn step(&mut self) {
        match (self.random.below(64), self.kind == NVME) {
            (0, false) => self.start_virtio(),
            (0, true) => self.start_nvme(),
            (1..16, _) => self.anything(),
            (16, _) if self.random.one_in(4) => self.function.reset(),
            (17..24, false) => {
                self.host.act(&mut self.random);
                if let Some(waker) = &self.waker {
                    waker.wake();
                }
            }
            (_, false) => self.fill_virtio(),
            (_, true) => self.fill_nvme(),
        }
    }
}

fn main() -> ExitCode {
    let cases = Cases::from_command_line(100);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![0; DISK_LEN as usize]).expect("a disk");
    let options = DiskOptions {
        path: path.clone(),
        read_only: false,
        format: None,
    };
    let disk = Disk::open(&options).expect("a disk");
    let meter = LogMeter::install();
    cases.run(|case| {
        let act = || {
            let mut bench = Bench::new(case, cases.seed, &disk, folder.path());
            for _ in 0..OPERATIONS {
                bench.step();
            }
            bench.works_after_reset()
        };
        let (used, (said, works)) = measured(|| meter.measured(act));
        if !works {
            return Err("a driver that behaves gets no answer".into());
        }
        at_most("bytes of memory", used, MOST_MEMORY)?;
        at_most("lines of the log", said, MOST_LINES)?;
        let len = std::fs::metadata(&path).expect("the disk").len();
        if len == DISK_LEN {
            Ok(())
        } else {
            Err(format!("the disk has {len} bytes"))
        }
    })
}
