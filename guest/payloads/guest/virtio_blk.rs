// SPDX-License-Identifier: MIT
//! A driver for one virtio block device: one queue, one request at a time.

use crate::virtio_pci::Function;
use guest_rt::protocol::flat::FREE_GPA;
use guest_rt::time::Deadline;
use guest_rt::{cpu, lapic, memory, trap};

pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;
/// No status came.
const SILENT: u8 = 0xFE;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;

const TABLE: u64 = FREE_GPA;
const AVAILABLE: u64 = FREE_GPA + 0x1000;
const USED: u64 = FREE_GPA + 0x2000;
const HEADER: u64 = FREE_GPA + 0x3000;
const STATUS: u64 = FREE_GPA + 0x3100;
const SIZE: u16 = 16;
const VECTOR: u8 = 0x54;
/// Patience for one request, in milliseconds.
const PATIENCE_MS: u64 = 5000;

/// Descriptor flags.
const NEXT: u16 = 1;
const WRITABLE: u16 = 2;

/// The device, started.
pub(crate) struct Disk {
    notify: u64,
    device: u64,
    available: u16,
    used: u16,
}

impl Disk {
    /// Does what section 3.1.1 of the specification says.
    pub(crate) fn start(function: &Function, bar: u64) -> Option<Self> {
        const COMMON: u8 = 1;
        const NOTIFY: u8 = 2;
        const DEVICE: u8 = 4;
        let common = bar + function.structure(COMMON)?.0;
        let (notify, step) = function.structure(NOTIFY)?;
        let device = bar + function.structure(DEVICE)?.0;
        lapic::enable();
        function.open_message(bar, 1, VECTOR)?;
        let status = |value: u8| {
            memory::write_u8(common + 0x14, value);
            memory::read_u8(common + 0x14) == value
        };
        status(0);
        status(1);
        status(3);
        // Flush, and version 1.
        for (half, features) in [(0, 1u32 << 9), (1, 1)] {
            memory::write_u32(common, half);
            if memory::read_u32(common + 4) & features != features {
                return None;
            }
            memory::write_u32(common + 8, half);
            memory::write_u32(common + 0xC, features);
        }
        if !status(0xB) {
            return None;
        }
        memory::write_u16(common + 0x16, 0);
        memory::write_u16(common + 0x18, SIZE);
        memory::write_u16(common + 0x1A, 1);
        for (at, gpa) in [(0x20, TABLE), (0x28, AVAILABLE), (0x30, USED)] {
            (0..0x200).for_each(|n| memory::write_u64(gpa + n * 8, 0));
            memory::write_u32(common + at, gpa as u32);
            memory::write_u32(common + at + 4, 0);
        }
        let offset = u64::from(memory::read_u16(common + 0x1E)) * u64::from(step);
        memory::write_u16(common + 0x1C, 1);
        status(0xF).then_some(Self {
            notify: bar + notify + offset,
            device,
            available: 0,
            used: 0,
        })
    }

    pub(crate) fn sectors(&self) -> u64 {
        u64::from(memory::read_u32(self.device + 4)) << 32 | u64::from(memory::read_u32(self.device))
    }

    /// Interrupts so far.
    pub(crate) fn interrupts(&self) -> u32 {
        trap::count(VECTOR)
    }

    pub(crate) fn read(&mut self, sector: u64, gpa: u64, len: u32) -> u8 {
        self.request(IN, sector, gpa, len, true)
    }

    pub(crate) fn write(&mut self, sector: u64, gpa: u64, len: u32) -> u8 {
        self.request(OUT, sector, gpa, len, false)
    }

    pub(crate) fn flush(&mut self) -> u8 {
        self.request(FLUSH, 0, 0, 0, false)
    }

    /// A read that is waited for at the ring, interrupts off.
    pub(crate) fn poll_read(&mut self, sector: u64, gpa: u64, len: u32) -> u8 {
        memory::write_u16(AVAILABLE, 1);
        self.send(IN, sector, gpa, len, true);
        let wanted = self.used;
        while memory::read_u16(USED + 2) != wanted {
            cpu::relax();
        }
        memory::write_u16(AVAILABLE, 0);
        memory::read_u8(STATUS)
    }

    /// Sends a request and waits for its interrupt; gives its status.
    pub(crate) fn request(&mut self, kind: u32, sector: u64, gpa: u64, len: u32, reads: bool) -> u8 {
        let before = self.interrupts();
        self.send(kind, sector, gpa, len, reads);
        let wanted = self.used;
        cpu::enable_interrupts();
        let came = Deadline::in_ms(PATIENCE_MS).wait(|| self.interrupts() != before);
        cpu::disable_interrupts();
        if came && memory::read_u16(USED + 2) == wanted {
            memory::read_u8(STATUS)
        } else {
            SILENT
        }
    }

    fn send(&mut self, kind: u32, sector: u64, gpa: u64, len: u32, reads: bool) {
        memory::write_u32(HEADER, kind);
        memory::write_u32(HEADER + 4, 0);
        memory::write_u64(HEADER + 8, sector);
        memory::write_u8(STATUS, SILENT);
        let data_flags = NEXT | if reads { WRITABLE } else { 0 };
        descriptor(0, HEADER, 16, NEXT, if len == 0 { 2 } else { 1 });
        descriptor(1, gpa, len, data_flags, 2);
        descriptor(2, STATUS, 1, WRITABLE, 0);
        let slot = u64::from(self.available % SIZE);
        memory::write_u16(AVAILABLE + 4 + slot * 2, 0);
        self.available = self.available.wrapping_add(1);
        self.used = self.used.wrapping_add(1);
        memory::write_u16(AVAILABLE + 2, self.available);
        memory::write_u16(self.notify, 0);
    }
}

fn descriptor(n: u64, gpa: u64, len: u32, flags: u16, next: u16) {
    let at = TABLE + n * 16;
    memory::write_u64(at, gpa);
    memory::write_u32(at + 8, len);
    memory::write_u16(at + 12, flags);
    memory::write_u16(at + 14, next);
}
