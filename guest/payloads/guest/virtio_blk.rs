// SPDX-License-Identifier: MIT
//! A driver for one virtio block device: one request at a time.

#![allow(dead_code, reason = "several payloads share this driver, and none uses all of it")]

use crate::virtio_driver::{Driver, Piece, QUEUES_LEN};
use crate::virtio_pci::Function;
use guest_rt::memory;
use guest_rt::protocol::flat::FREE_GPA;

pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;
/// No status came.
const SILENT: u8 = 0xFE;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
/// VIRTIO_BLK_F_FLUSH.
const CAN_FLUSH: u32 = 1 << 9;

const HEADER: u64 = FREE_GPA + QUEUES_LEN;
const STATUS: u64 = HEADER + 0x100;

/// The device, started.
pub(crate) struct Disk(Driver);

impl Disk {
    pub(crate) fn start(function: &Function, bar: u64) -> Option<Self> {
        Some(Self(Driver::start(function, bar, CAN_FLUSH, 1)?))
    }

    pub(crate) fn sectors(&self) -> u64 {
        let config = self.0.config;
        u64::from(memory::read_u32(config + 4)) << 32 | u64::from(memory::read_u32(config))
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
        header(IN, sector);
        self.0.poll(0, &chain(gpa, len, true));
        memory::read_u8(STATUS)
    }

    /// Sends a request and waits for its interrupt; gives its status.
    pub(crate) fn request(&mut self, kind: u32, sector: u64, gpa: u64, len: u32, reads: bool) -> u8 {
        header(kind, sector);
        let all = chain(gpa, len, reads);
        let short = [all[0], all[2]];
        let pieces = if len == 0 { &short[..] } else { &all[..] };
        match self.0.transact(0, pieces) {
            Some(_) => memory::read_u8(STATUS),
            None => SILENT,
        }
    }
}

fn header(kind: u32, sector: u64) {
    memory::write_u32(HEADER, kind);
    memory::write_u32(HEADER + 4, 0);
    memory::write_u64(HEADER + 8, sector);
    memory::write_u8(STATUS, SILENT);
}

fn chain(gpa: u64, len: u32, writable: bool) -> [Piece; 3] {
    let piece = |gpa, len, writable| Piece { gpa, len, writable };
    [
        piece(HEADER, 16, false),
        piece(gpa, len, writable),
        piece(STATUS, 1, true),
    ]
}
