// SPDX-License-Identifier: MIT
//! Guests that do anything to the hypervisor interface and VMBus: registers, hypercalls, channel messages, ring
//! contents. `--seed S --first N --count M`: cases N to N + M - 1, each of [`OPERATIONS`] operations.
//!
//! Always true: a case depends on its number and the seed only, because time moves only between operations.
//! What must hold: no panic, the disk keeps its size, and after a reset a guest that behaves gets its answers.

use block::{Disk, DiskOptions};
use chipset_device::{
    Clock, Device, MsrHandler, PowerRequest, PowerSink, TimerQueue, VpIndex, VpInterrupts, VpPorts,
};
use guest_memory::{DmaMemory, GuestMemory};
use hyperv::{HyperV, HyperVConfig, HyperVWorld};
use soak_case::{Cases, Random};
use std::process::ExitCode;
use std::sync::Arc;
use vmbus::ic::{Component, IntegrationComponent};
use vmbus::{BusPart, ChannelDevice, StorVsp, VmBus};

/// Operations of a case.
const OPERATIONS: u32 = 1000;
/// RAM, and what lies where in a guest that behaves half of the time.
const RAM: u64 = 0x20_0000;
const PARAMETERS: u64 = 0x4000;
const RINGS: u64 = 0x1_0000;
const RING_PAGES: u64 = 2;
const CHANNELS: u64 = 4;
const DISK_LEN: u64 = 64 << 10;

struct Nobody;

impl VpInterrupts for Nobody {
    fn request(&self, _: VpIndex, _: u8) {}
    fn set_auto_eoi(&self, _: VpIndex, _: u8, _: bool) {}
    fn apic_read(&self, _: VpIndex, _: u16) -> Option<u32> {
        Some(0)
    }
    fn apic_write(&self, _: VpIndex, _: u16, _: u32) -> bool {
        true
    }
}

impl PowerSink for Nobody {
    fn request(&self, _: PowerRequest) {}
}

struct Guest {
    hv: Arc<HyperV>,
    bus: Arc<VmBus>,
    memory: DmaMemory,
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
    random: Random,
}

impl Guest {
    fn new(case: u64, seed: u64, disk: &Arc<Disk>) -> Self {
        let memory = GuestMemory::allocate(&[(0, RAM)]).expect("guest memory").dma();
        let clock = Arc::new(Clock::deterministic());
        let timers = TimerQueue::new();
        let config = HyperVConfig {
            vp_count: 2,
            phys_bits: 39,
            tsc_hz: Some(1_000_000_000),
            tsc_is_clock: true,
            apic_hz: 1_000_000_000,
        };
        let world = HyperVWorld {
            clock: clock.clone(),
            timers: timers.clone(),
            interrupts: Arc::new(Nobody),
            memory: memory.clone(),
            power: Arc::new(Nobody),
        };
        let hv = HyperV::new(config, world);
        let component = |component| Box::new(IntegrationComponent::new(component)) as Box<dyn ChannelDevice>;
        let devices = vec![
            Box::new(StorVsp::new(uuid::Uuid::nil(), vec![disk.clone()])) as Box<dyn ChannelDevice>,
            component(Component::Shutdown),
            component(Component::Heartbeat),
            component(Component::TimeSync),
        ];
        let bus = VmBus::new(hv.clone(), memory.clone(), (clock.clone(), &timers), devices);
        Self {
            hv,
            bus,
            memory,
            clock,
            timers,
            random: Random::of_case(seed, case),
        }
    }

    fn wrmsr(&self, number: u32, value: u64) -> bool {
        self.hv.msr_write(0, number, value)
    }

    fn hypercall(&self, registers: [u64; 3]) -> u32 {
        for (offset, value) in [0, 4, 8].into_iter().zip(registers) {
            self.hv.port_write(0, offset, &(value as u32).to_le_bytes());
            self.hv
                .port_write(0, offset, &((value >> 32) as u32).to_le_bytes());
        }
        let mut half = [0; 4];
        self.hv.port_read(0, 0, &mut half);
        self.hv.port_read(0, 4, &mut half);
        u32::from_le_bytes(half)
    }

    fn write(&self, gpa: u64, bytes: &[u8]) {
        // Outside RAM the guest cannot write either.
        let _ = self.memory.write(gpa, bytes);
    }

    fn post(&self, words: &[u32]) -> u32 {
        let mut message = vec![1, 0, 1, 4 * words.len() as u32];
        message.extend_from_slice(words);
        let bytes: Vec<u8> = message.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(PARAMETERS, &bytes);
        self.hypercall([0x5C, PARAMETERS, 0])
    }

    /// What a driver does before it uses anything.
    fn start(&self) {
        self.wrmsr(0x4000_0000, 1);
        self.wrmsr(0x4000_0001, 0x1001);
        self.wrmsr(0x4000_0083, 0x2001);
        self.wrmsr(0x4000_0082, 0x3001);
        self.wrmsr(0x4000_0092, 0x41);
        self.post(&[14, 0, 0x0005_0003, 0, 2, 0, 0, 0, 0, 0]);
    }

    fn open(&self, channel: u64) {
        let first = (RINGS / 4096 + channel * 2 * RING_PAGES) as u32;
        let (channel, gpadl) = (channel as u32 + 1, 100 + channel as u32);
        let mut words = vec![
            8,
            0,
            channel,
            gpadl,
            40 | 1 << 16,
            2 * RING_PAGES as u32 * 4096,
            0,
        ];
        (0..2 * RING_PAGES as u32).for_each(|page| words.extend([first + page, 0]));
        self.post(&words);
        self.post(&[5, 0, channel, 1, gpadl, 0, RING_PAGES as u32]);
    }

    /// A message that is right but for a word, or not at all.
    fn message(&mut self) {
        let kind = self.random.below(26) as u32;
        let channel = self.random.below(CHANNELS + 2) as u32;
        let len = 1 + self.random.below(58) as usize;
        let mut words: Vec<u32> = (0..len).map(|_| self.random.value() as u32).collect();
        words[0] = kind;
        if len > 3 {
            words[2] = channel;
            words[3] = 100 + channel;
        }
        self.post(&words);
        // The guest takes what comes, most of the time.
        if self.random.below(4) != 0 {
            self.write(0x2200, &[0; 4]);
            self.wrmsr(0x4000_0084, 0);
        }
    }

    /// A packet that is right but for what is random in it.
    fn packet(&mut self) {
        let channel = self.random.below(CHANNELS);
        let ring = RINGS + channel * 2 * RING_PAGES * 4096;
        let size = (RING_PAGES - 1) * 4096;
        let at = (self.memory.read_u32(ring).map_or(0, u64::from) % size) & !7;
        let words = 2 + self.random.below(12);
        let offset = 2 + self.random.below(words);
        let kind = [6, 7, 9, 11][self.random.below(4) as usize];
        let mut packet = Vec::new();
        for half in [kind, offset, words, self.random.below(2)] {
            packet.extend_from_slice(&(half as u16).to_le_bytes());
        }
        packet.extend((0..words).flat_map(|_| self.random.bits().to_le_bytes()));
        if self.random.below(2) == 0 && packet.len() > 80 {
            // A storage request, perhaps with a buffer.
            packet[16..24].copy_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
            packet[16 + 28] = [0x12, 0x28, 0x2A, 0x88, 0x42, 0x93, 0xA0][self.random.below(7) as usize];
        }
        for (i, byte) in (0..).zip(&packet) {
            self.write(ring + 4096 + (at + i) % size, &[*byte]);
        }
        let next = (at + packet.len() as u64).next_multiple_of(8) % size;
        self.write(ring, &(next as u32).to_le_bytes());
        self.hypercall([0x5D | 1 << 16, 0x1_0001 + channel, 0]);
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0 => {
                let number = 0x4000_0000 + self.random.below(0x200) as u32;
                let value = self.random.value();
                self.wrmsr(number, value);
                self.hv.msr_read(self.random.below(3) as u32, number);
            }
            1 => {
                let page = self.random.below(RAM / 4096 + 2) * 4096 + self.random.below(2);
                let number = [1, 0x21, 0x73, 0x82, 0x83][self.random.below(5) as usize];
                self.wrmsr(0x4000_0000 + number, page);
            }
            2 => {
                let registers = [(); 3].map(|()| self.random.value());
                self.hypercall(registers);
            }
            3 => {
                let codes = [0x08, 0x5C, 0x5D, 0x99, 0x9A];
                let code = codes[self.random.below(5) as usize] | (self.random.value() & 0xF_0001) << 16;
                let gpa = self.random.below(RAM + 64);
                self.hypercall([code, gpa, gpa & !7]);
            }
            4..=6 => self.message(),
            7 => {
                self.start();
                let channel = self.random.below(CHANNELS);
                self.open(channel);
            }
            8 => {
                // Any control page.
                let at =
                    RINGS + self.random.below(CHANNELS * 2) * RING_PAGES * 4096 + self.random.below(5) * 4;
                let value = self.random.value() as u32;
                self.write(at, &value.to_le_bytes());
                let channel = self.random.below(CHANNELS);
                self.hypercall([0x5D | 1 << 16, 0x1_0001 + channel, 0]);
            }
            9 => {
                let ns = self.clock.now() + self.random.below(3_000_000_000);
                self.clock.advance_to(ns);
                self.timers.fire_due(self.clock.now());
                self.bus.request_shutdown();
            }
            _ => self.packet(),
        }
    }

    /// Reset, then a driver that behaves: a TEST UNIT READY is completed.
    fn works_after_reset(&self) -> bool {
        BusPart(self.bus.clone()).reset();
        MsrHandler::reset(&*self.hv);
        self.write(0, &vec![0; RAM as usize]);
        self.start();
        self.write(0x2200, &[0; 4]);
        self.open(0);
        // Inband, two words before the data, ten words in all, wants a completion; EXECUTE_SRB.
        let mut packet = [0; 88];
        packet[..8].copy_from_slice(&[6, 0, 2, 0, 10, 0, 1, 0]);
        packet[16] = 3;
        self.write(RINGS + 4096, &packet);
        self.write(RINGS, &88u32.to_le_bytes());
        self.hypercall([0x5D | 1 << 16, 0x1_0001, 0]);
        let mut answer = [0; 32];
        let there = self.memory.read(RINGS + (RING_PAGES + 1) * 4096, &mut answer);
        there.is_ok() && answer[0] == 11 && answer[16] == 1 && answer[30] == 1
    }
}

fn main() -> ExitCode {
    let cases = Cases::from_command_line(100);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(DISK_LEN).expect("room for a disk");
    let options = DiskOptions {
        path: file.path().to_owned(),
        read_only: false,
        format: None,
    };
    let disk = Disk::open(&options).expect("a disk");
    cases.run(|case| {
        let mut guest = Guest::new(case, cases.seed, &disk);
        guest.start();
        for _ in 0..OPERATIONS {
            guest.step();
        }
        if !guest.works_after_reset() {
            return Err("a guest that behaves gets no answer");
        }
        if disk.size() != DISK_LEN {
            return Err("the disk's size has changed");
        }
        Ok(())
    })
}
