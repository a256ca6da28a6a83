// SPDX-License-Identifier: MIT
//! A driver for tests: it does through BAR and configuration space what a guest does, and keeps rings in RAM.

use crate::{VirtioBar, VirtioDevice, VirtioPci, Wiring, lock};
use chipset_device::{InterruptLine, LineTarget, MmioDevice, MsiTarget, Placement};
use guest_memory::{DmaMemory, GuestMemory};
use pci::PciFunction;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where the test's RAM ends, and where rings begin in it; everything below is for buffers.
pub(crate) const RAM: u64 = 0x40_0000;
const RINGS: u64 = 0x30_0000;
const RING_STEP: u64 = 0x1_0000;

/// Remembers messages and the line.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) messages: Mutex<Vec<(u64, u32)>>,
    pub(crate) line: Mutex<bool>,
}

impl MsiTarget for Record {
    fn signal_msi(&self, address: u64, data: u32) {
        lock(&self.messages).push((address, data));
    }
}

impl LineTarget for Record {
    fn set_line(&self, _line: u32, level: bool) {
        *lock(&self.line) = level;
    }
}

struct Nowhere;
impl Placement for Nowhere {
    fn place(&self, _at: Option<(u64, u64)>) -> Result<(), String> {
        Ok(())
    }
}

/// One queue of the driver.
struct Ring {
    base: u64,
    size: u16,
    next_descriptor: u16,
    avail: u16,
    used: u16,
}

/// A device with its driver.
pub(crate) struct Driver {
    pub(crate) memory: GuestMemory,
    pub(crate) function: VirtioPci,
    pub(crate) bar: Arc<Mutex<VirtioBar>>,
    pub(crate) record: Arc<Record>,
    rings: Vec<Ring>,
}

pub(crate) const ACKNOWLEDGED: u8 = 3;
pub(crate) const FEATURES_OK: u8 = 8;
pub(crate) const DRIVER_OK: u8 = 4;

/// What a chain is made of: gpa, length, device-writable.
pub(crate) type Piece = (u64, u32, bool);

impl Driver {
    pub(crate) fn new(threads: bool, make: impl FnOnce(&DmaMemory) -> Box<dyn VirtioDevice>) -> Self {
        let memory = GuestMemory::allocate(&[(0, RAM)]).unwrap();
        let record = Arc::new(Record::default());
        let wiring = Wiring {
            ram: memory.dma(),
            msi: record.clone(),
            line: InterruptLine::new(record.clone(), 0),
            threads,
        };
        let mut function = VirtioPci::new("test", make(&memory.dma()), wiring).unwrap();
        function.config().connect_bar(0, Box::new(Nowhere));
        // Memory and bus master.
        function.config_write(4, &[6, 0]);
        Self {
            memory,
            bar: function.bar(),
            function,
            record,
            rings: Vec::new(),
        }
    }

    pub(crate) fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        lock(&self.bar).mmio_read(offset, &mut data);
        data
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        lock(&self.bar).mmio_write(offset, data);
    }

    pub(crate) fn status(&self) -> u8 {
        self.read::<1>(0x14)[0]
    }

    /// Features up to FEATURES_OK; gives what was offered.
    pub(crate) fn negotiate(&self, wanted: u64) -> u64 {
        self.write(0x14, &[0]);
        self.write(0x14, &[ACKNOWLEDGED]);
        let mut offered = 0;
        for half in [0u32, 1] {
            self.write(0, &half.to_le_bytes());
            offered |= u64::from(u32::from_le_bytes(self.read(4))) << (32 * half);
            self.write(8, &half.to_le_bytes());
            self.write(0xC, &((wanted & offered) >> (32 * half)).to_le_bytes()[..4]);
        }
        self.write(0x14, &[ACKNOWLEDGED | FEATURES_OK]);
        offered
    }

    pub(crate) fn add_queue(&mut self, vector: u16) {
        let index = self.rings.len() as u16;
        self.write(0x16, &index.to_le_bytes());
        let size = u16::from_le_bytes(self.read(0x18)).min(64);
        self.write(0x18, &size.to_le_bytes());
        self.write(0x1A, &vector.to_le_bytes());
        let base = RINGS + u64::from(index) * RING_STEP;
        for (at, gpa) in [(0x20, base), (0x28, base + 0x4000), (0x30, base + 0x8000)] {
            self.write(at, &(gpa as u32).to_le_bytes());
            self.write(at + 4, &0u32.to_le_bytes());
        }
        self.memory.write(base, &vec![0; RING_STEP as usize]).unwrap();
        self.write(0x1C, &1u16.to_le_bytes());
        self.rings.push(Ring {
            base,
            size,
            next_descriptor: 0,
            avail: 0,
            used: 0,
        });
    }

    pub(crate) fn start(&mut self, wanted: u64, queues: u16) {
        self.negotiate(wanted);
        self.rings.clear();
        (0..queues).for_each(|index| self.add_queue(index));
        self.write(0x14, &[ACKNOWLEDGED | FEATURES_OK | DRIVER_OK]);
    }

    /// MSI-X on, every message open: message n has data 0x40 + n.
    pub(crate) fn enable_msix(&mut self) {
        let capability = u16::from(self.config_byte(0x34));
        for vector in 0..8u64 {
            self.write(0x4000 + vector * 16, &0xFEE0_0000u32.to_le_bytes());
            self.write(0x4008 + vector * 16, &(0x40 + vector as u32).to_le_bytes());
            self.write(0x400C + vector * 16, &[0; 4]);
        }
        self.function.config_write(capability + 2, &[0, 0x80]);
    }

    pub(crate) fn config_byte(&mut self, offset: u16) -> u8 {
        let mut byte = [0];
        self.function.config_read(offset, &mut byte);
        byte[0]
    }

    /// Makes a chain and puts it into the ring; the device is not told.
    pub(crate) fn submit(&mut self, queue: usize, pieces: &[Piece]) -> u16 {
        let ring = &mut self.rings[queue];
        let head = ring.next_descriptor % ring.size;
        for (i, &(gpa, len, writable)) in pieces.iter().enumerate() {
            let at = (head + i as u16) % ring.size;
            let last = i + 1 == pieces.len();
            let next = (at + 1) % ring.size;
            let flags = u16::from(!last) | u16::from(writable) << 1;
            let mut bytes = gpa.to_le_bytes().to_vec();
            bytes.extend(len.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(next.to_le_bytes());
            self.memory.write(ring.base + u64::from(at) * 16, &bytes).unwrap();
        }
        ring.next_descriptor = head + pieces.len() as u16;
        let avail = ring.base + 0x4000;
        let slot = u64::from(ring.avail % ring.size);
        self.memory
            .write(avail + 4 + slot * 2, &head.to_le_bytes())
            .unwrap();
        ring.avail = ring.avail.wrapping_add(1);
        self.memory.write(avail + 2, &ring.avail.to_le_bytes()).unwrap();
        head
    }

    pub(crate) fn notify(&self, queue: u16) {
        self.write(0x3000 + u64::from(queue) * 4, &queue.to_le_bytes());
    }

    /// The next returned chain, if any: head and bytes written.
    pub(crate) fn used(&mut self, queue: usize) -> Option<(u32, u32)> {
        let ring = &mut self.rings[queue];
        let mut index = [0; 2];
        self.memory.read(ring.base + 0x8002, &mut index).unwrap();
        if u16::from_le_bytes(index) == ring.used {
            return None;
        }
        let mut element = [0; 8];
        let slot = u64::from(ring.used % ring.size);
        self.memory
            .read(ring.base + 0x8004 + slot * 8, &mut element)
            .unwrap();
        ring.used = ring.used.wrapping_add(1);
        let [head, written] = [0, 4].map(|at| u32::from_le_bytes(*element[at..].first_chunk().unwrap()));
        Some((head, written))
    }

    /// Waits for a returned chain.
    #[track_caller]
    pub(crate) fn wait_used(&mut self, queue: usize) -> (u32, u32) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(used) = self.used(queue) {
                return used;
            }
            assert!(
                Instant::now() < end,
                "nothing came back; status {:#x}",
                self.status()
            );
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Sends one chain and waits for it; gives the bytes written.
    #[track_caller]
    pub(crate) fn transact(&mut self, queue: usize, pieces: &[Piece]) -> u32 {
        let head = self.submit(queue, pieces);
        self.notify(queue as u16);
        let (id, written) = self.wait_used(queue);
        assert_eq!(id, u32::from(head));
        written
    }

    pub(crate) fn ram(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(gpa, &mut bytes).unwrap();
        bytes
    }
}
