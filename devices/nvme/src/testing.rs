// SPDX-License-Identifier: MIT
//! A driver for tests: it does through the BAR what a guest does, and keeps queues in RAM.

use crate::{NvmeBar, NvmePci, Wiring, lock};
use block::{Disk, DiskOptions};
use chipset_device::{InterruptLine, LineTarget, MmioDevice, MsiTarget};
use guest_memory::GuestMemory;
use pci::PciFunction;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const RAM: u64 = 0x80_0000;
const QUEUES_AT: u64 = 0x60_0000;
/// Entries of the driver's queues.
pub(crate) const ENTRIES: u32 = 16;

/// Remembers messages and the line.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) messages: Mutex<Vec<u32>>,
    pub(crate) line: Mutex<bool>,
}

impl MsiTarget for Record {
    fn signal_msi(&self, _address: u64, data: u32) {
        lock(&self.messages).push(data);
    }
}

impl LineTarget for Record {
    fn set_line(&self, _line: u32, level: bool) {
        *lock(&self.line) = level;
    }
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Pair {
    pub(crate) tail: u32,
    pub(crate) head: u32,
    phase: u16,
}

/// A completion: dword 0, status without the phase and the do-not-retry bit, command id.
pub(crate) type End = (u32, u16, u16);

/// A controller with its driver.
pub(crate) struct Driver {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) memory: GuestMemory,
    pub(crate) function: NvmePci,
    pub(crate) bar: Arc<Mutex<NvmeBar>>,
    pub(crate) record: Arc<Record>,
    pub(crate) pairs: [Pair; 17],
    next_id: u16,
}

impl Driver {
    /// A controller with a disk of 64 KiB, whose bytes are their sector's number, and a read-only one of 4 KiB.
    pub(crate) fn new(threads: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, len: u32, read_only| {
            let path = folder.path().join(name);
            let bytes: Vec<u8> = (0..len).map(|n| (n / 512) as u8).collect();
            std::fs::write(&path, bytes).unwrap();
            let format = None;
            Disk::open(&DiskOptions {
                path,
                read_only,
                format,
            })
            .unwrap()
        };
        let disks = vec![open("first", 4 << 20, false), open("second", 4096, true)];
        let memory = GuestMemory::allocate(&[(0, RAM)]).unwrap();
        let record = Arc::new(Record::default());
        let wiring = Wiring {
            ram: memory.dma(),
            msi: record.clone(),
            line: InterruptLine::new(record.clone(), 0),
            threads,
        };
        let mut function = NvmePci::new("nvme0", disks, wiring).unwrap();
        function.config_write(4, &[6, 0]);
        Self {
            folder,
            memory,
            bar: function.bar(),
            function,
            record,
            pairs: [Pair::default(); 17],
            next_id: 0,
        }
    }

    pub(crate) fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        lock(&self.bar).mmio_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write(&self, offset: u64, value: u32) {
        lock(&self.bar).mmio_write(offset, &value.to_le_bytes());
    }

    pub(crate) fn submission(queue: u16) -> u64 {
        QUEUES_AT + u64::from(queue) * 0x2000
    }

    fn completion(queue: u16) -> u64 {
        Self::submission(queue) + 0x1000
    }

    pub(crate) fn enable(&mut self) {
        self.write(0x14, 0);
        self.memory.write(QUEUES_AT, &vec![0; 17 * 0x2000]).unwrap();
        self.pairs = [Pair::default(); 17];
        self.write(0x24, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        self.write(0x28, Self::submission(0) as u32);
        self.write(0x2C, 0);
        self.write(0x30, Self::completion(0) as u32);
        self.write(0x34, 0);
        self.write(0x14, 0x0046_0001);
        assert_eq!(self.read(0x1C), 1, "ready");
    }

    pub(crate) fn enable_msix(&mut self) {
        let mut at = [0];
        self.function.config_read(0x34, &mut at);
        for vector in 0..17u64 {
            self.write(0x2000 + vector * 16, 0xFEE0_0000);
            self.write(0x2008 + vector * 16, 0x40 + vector as u32);
            self.write(0x200C + vector * 16, 0);
        }
        self.function.config_write(u16::from(at[0]) + 2, &[0, 0x80]);
    }

    /// Puts a command into a queue; the controller is not told. Dwords are opcode, namespace, PRP 1, PRP 2 and 10 up.
    pub(crate) fn submit(&mut self, queue: u16, command: &Entry) -> u16 {
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id;
        let mut bytes = [0; 64];
        bytes[0] = command.opcode;
        bytes[2..4].copy_from_slice(&id.to_le_bytes());
        bytes[4..8].copy_from_slice(&command.namespace.to_le_bytes());
        bytes[24..32].copy_from_slice(&command.prp.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&command.prp.1.to_le_bytes());
        for (i, dword) in command.dwords.iter().enumerate() {
            bytes[40 + i * 4..44 + i * 4].copy_from_slice(&dword.to_le_bytes());
        }
        let pair = &mut self.pairs[usize::from(queue)];
        let at = Self::submission(queue) + u64::from(pair.tail) * 64;
        pair.tail = (pair.tail + 1) % ENTRIES;
        self.memory.write(at, &bytes).unwrap();
        id
    }

    pub(crate) fn ring(&self, queue: u16) {
        let pair = &self.pairs[usize::from(queue)];
        self.write(0x1000 + u64::from(queue) * 8, pair.tail);
    }

    /// The next completion, taken and acknowledged.
    pub(crate) fn take(&mut self, queue: u16) -> Option<End> {
        let pair = &mut self.pairs[usize::from(queue)];
        let mut bytes = [0; 16];
        let at = Self::completion(queue) + u64::from(pair.head) * 16;
        self.memory.read(at, &mut bytes).unwrap();
        let dword = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        let status = (dword(12) >> 16) as u16;
        if status & 1 == pair.phase {
            return None;
        }
        pair.head += 1;
        if pair.head == ENTRIES {
            (pair.head, pair.phase) = (0, pair.phase ^ 1);
        }
        let head = pair.head;
        self.write(0x1004 + u64::from(queue) * 8, head);
        Some((dword(0), status >> 1 & 0x3FFF, dword(12) as u16))
    }

    #[track_caller]
    pub(crate) fn wait(&mut self, queue: u16) -> End {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(ended) = self.take(queue) {
                return ended;
            }
            assert!(
                Instant::now() < end,
                "no completion; status {:#x}",
                self.read(0x1C)
            );
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Sends one command and waits for its end: dword 0 or the status.
    #[track_caller]
    pub(crate) fn send(&mut self, queue: u16, command: Entry) -> Result<u32, u16> {
        let id = self.submit(queue, &command);
        self.ring(queue);
        let (result, status, ended) = self.wait(queue);
        assert_eq!(ended, id);
        if status == 0 { Ok(result) } else { Err(status) }
    }

    /// Makes I/O queue pair `queue` with interrupt vector `queue`.
    #[track_caller]
    pub(crate) fn make_pair(&mut self, queue: u16) {
        let id = u32::from(queue) | (ENTRIES - 1) << 16;
        let completion = Entry {
            opcode: 5,
            prp: (Self::completion(queue), 0),
            dwords: [id, u32::from(queue) << 16 | 3, 0, 0, 0, 0],
            ..Entry::default()
        };
        self.send(0, completion).unwrap();
        let submission = Entry {
            opcode: 1,
            prp: (Self::submission(queue), 0),
            dwords: [id, u32::from(queue) << 16 | 1, 0, 0, 0, 0],
            ..Entry::default()
        };
        self.send(0, submission).unwrap();
    }

    pub(crate) fn ram(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(gpa, &mut bytes).unwrap();
        bytes
    }
}

/// What a test puts into a command.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entry {
    pub(crate) opcode: u8,
    pub(crate) namespace: u32,
    pub(crate) prp: (u64, u64),
    pub(crate) dwords: [u32; 6],
}

/// Read, write or zero `count` blocks from `block` on.
pub(crate) fn io(opcode: u8, block: u64, count: u32, prp: (u64, u64)) -> Entry {
    Entry {
        opcode,
        namespace: 1,
        prp,
        dwords: [
            block as u32,
            (block >> 32) as u32,
            count.wrapping_sub(1) & 0xFFFF,
            0,
            0,
            0,
        ],
    }
}
