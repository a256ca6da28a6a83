// SPDX-License-Identifier: MIT
//! Block device (section 5.2): one queue of requests to a [`Disk`].
//!
//! Always true: every request that has room for a status byte gets one; what the host cannot do is IOERR and
//! one log line. A driver that did not take the flush feature gets write-through (section 5.2.6.2).

use crate::device::VirtioDevice;
use crate::pieces::Pieces;
use crate::queue::{Chain, QueueError, VirtQueue};
use block::{Disk, SECTOR};
use guest_memory::DmaMemory;
use io_thread::Progress;
use std::io;
use std::sync::Arc;

/// Requests that a driver can have outstanding.
const QUEUE_SIZE: u16 = 256;
/// Requests served before others are let at the device's registers.
const BATCH: usize = 64;

const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const TOPOLOGY: u64 = 1 << 10;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;

/// Request types.
mod request {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

const HEADER: u64 = 16;
/// Bytes of the largest read that is served on the VP that asks.
const MOST_AT_ONCE: u64 = 256 << 10;
const ID_LEN: usize = 20;
/// Bytes of a range of a discard or write-zeroes request, and how many ranges one has at most.
const RANGE_LEN: usize = 16;
const RANGES: u32 = 16;
/// Sectors of the largest range.
const RANGE_SECTORS: u32 = 1 << 22;
/// Bytes that a guest should not go below.
const PHYSICAL: u64 = 4096;
const CONFIG_LEN: usize = 60;

/// The device.
pub struct Blk {
    disk: Arc<Disk>,
    write_through: bool,
    requests: u64,
    errors: u64,
}

/// How a request ended, when not well.
enum Failure {
    Unsupported,
    Host(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

impl Blk {
    /// A device in front of `disk`.
    pub fn new(disk: Arc<Disk>) -> Self {
        Self {
            disk,
            write_through: true,
            requests: 0,
            errors: 0,
        }
    }

    fn config(&self) -> [u8; CONFIG_LEN] {
        let mut bytes = [0; CONFIG_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &(self.disk.size() / SECTOR).to_le_bytes());
        // A chain also has a header and a status.
        put(12, &u32::from(QUEUE_SIZE - 2).to_le_bytes());
        put(20, &(SECTOR as u32).to_le_bytes());
        // Logical blocks in a physical one, as a power of two; no offset; least and best transfer.
        put(24, &[(PHYSICAL / SECTOR).trailing_zeros() as u8, 0]);
        put(26, &((PHYSICAL / SECTOR) as u16).to_le_bytes());
        put(34, &1u16.to_le_bytes());
        // Discard: sectors, ranges, alignment. Write zeroes: sectors, ranges, may unmap.
        put(36, &RANGE_SECTORS.to_le_bytes());
        put(40, &RANGES.to_le_bytes());
        put(44, &((PHYSICAL / SECTOR) as u32).to_le_bytes());
        put(48, &RANGE_SECTORS.to_le_bytes());
        put(52, &RANGES.to_le_bytes());
        put(56, &[1]);
        bytes
    }

    /// Serves a read of data that the host has in memory; gives the number of bytes that were written to the chain.
    fn serve_now(&mut self, ram: &DmaMemory, chain: &Chain) -> Option<u32> {
        let room = chain.writable.total().checked_sub(1)?;
        let mut header = [0; HEADER as usize];
        let whole = chain.readable.read(ram, &mut header).ok()? == header.len();
        let kind = u32::from_le_bytes(*header.first_chunk()?);
        let sector = u64::from_le_bytes(*header.last_chunk()?);
        if !whole || kind != request::IN || room > MOST_AT_ONCE {
            return None;
        }
        let data = chain.writable.part(0, room);
        // What is wrong with a request is found when it is served as any other.
        let read = self
            .disk
            .read_now(ram, sector.checked_mul(SECTOR)?, data.as_slice());
        let status = chain.writable.part(room, 1);
        if !read.is_ok_and(|read| read) || status.write(ram, &[OK]).is_err() {
            return None;
        }
        self.requests += 1;
        u32::try_from(room + 1).ok()
    }

    /// Serves one request; gives the number of bytes that were written to the chain.
    fn serve(&mut self, ram: &DmaMemory, chain: &Chain) -> u32 {
        let Some(room) = chain.writable.total().checked_sub(1) else {
            return 0;
        };
        self.requests += 1;
        let data = chain.writable.part(0, room);
        let (status, written) = match self.request(ram, chain, &data) {
            Ok(written) => (OK, written),
            Err(Failure::Unsupported) => (UNSUPP, 0),
            Err(Failure::Host(error)) => {
                self.errors += 1;
                if self.errors == 1 {
                    tracing::warn!(
                        "disk {}: {error}; the guest gets an I/O error (said once)",
                        self.disk.serial()
                    );
                }
                (IOERR, 0)
            }
        };
        // Without RAM under it there is nobody to tell.
        let told = chain.writable.part(room, 1).write(ram, &[status]).is_ok();
        if told { written.saturating_add(1) } else { 0 }
    }

    fn request(&self, ram: &DmaMemory, chain: &Chain, data: &Pieces) -> Result<u32, Failure> {
        let mut header = [0; HEADER as usize];
        let got = chain.readable.read(ram, &mut header).map_err(io::Error::other)?;
        if got < header.len() {
            let what = format!("a request header has {got} bytes, not {HEADER}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what).into());
        }
        let [kind, _, sector_low, sector_high] = [0, 4, 8, 12]
            .map(|at| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        let sector = u64::from(sector_high) << 32 | u64::from(sector_low);
        let offset = sector.checked_mul(SECTOR).ok_or(io::ErrorKind::InvalidInput);
        let body = chain.readable.part(HEADER, u64::MAX);
        match kind {
            request::IN => {
                self.disk
                    .read(ram, offset.map_err(io::Error::from)?, data.as_slice())?;
                Ok(u32::try_from(data.total()).unwrap_or(u32::MAX))
            }
            request::OUT => {
                self.disk
                    .write(ram, offset.map_err(io::Error::from)?, body.as_slice())?;
                self.written()
            }
            request::FLUSH => Ok(self.disk.flush().map(|()| 0)?),
            request::GET_ID => {
                let mut id = [0; ID_LEN];
                let serial = self.disk.serial().as_bytes();
                let len = serial.len().min(ID_LEN);
                id[..len].copy_from_slice(&serial[..len]);
                Ok(data.write(ram, &id).map_err(io::Error::other)? as u32)
            }
            request::DISCARD => self.ranges(ram, &body, false),
            request::WRITE_ZEROES => self.ranges(ram, &body, true),
            _ => Err(Failure::Unsupported),
        }
    }

    /// After a write.
    fn written(&self) -> Result<u32, Failure> {
        if self.write_through {
            self.disk.flush()?;
        }
        Ok(0)
    }

    /// Discard and write zeroes (section 5.2.6): ranges of sector, count and flags, of which only unmap exists.
    fn ranges(&self, ram: &DmaMemory, body: &Pieces, zeroes: bool) -> Result<u32, Failure> {
        let total = body.total();
        if total > u64::from(RANGES) * RANGE_LEN as u64 || !total.is_multiple_of(RANGE_LEN as u64) {
            let what = format!("a request for ranges has {total:#x} bytes of them");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what).into());
        }
        let mut bytes = [0; RANGES as usize * RANGE_LEN];
        let len = body.read(ram, &mut bytes).map_err(io::Error::other)?;
        for range in bytes[..len].as_chunks::<RANGE_LEN>().0 {
            let sector = u64::from_le_bytes(*range.first_chunk().unwrap_or(&[0; 8]));
            let [count, flags] = [8, 12]
                .map(|at| u32::from_le_bytes([range[at], range[at + 1], range[at + 2], range[at + 3]]));
            let unmap = flags & 1 != 0;
            if flags & !1 != 0 || (unmap && !zeroes) {
                return Err(Failure::Unsupported);
            }
            let outside = || io::Error::from(io::ErrorKind::InvalidInput);
            let offset = sector.checked_mul(SECTOR).ok_or_else(outside)?;
            let len = u64::from(count) * SECTOR;
            if count > RANGE_SECTORS {
                return Err(outside().into());
            } else if zeroes {
                self.disk.write_zeroes(offset, len, unmap)?;
            } else {
                self.disk.discard(offset, len)?;
            }
        }
        self.written()
    }
}

impl VirtioDevice for Blk {
    fn kind(&self) -> u16 {
        2
    }

    fn class(&self) -> [u8; 3] {
        // Mass storage, other; as every virtio disk.
        [1, 0x80, 0]
    }

    fn features(&self) -> u64 {
        let always = SEG_MAX | BLK_SIZE | FLUSH | TOPOLOGY;
        if self.disk.read_only() {
            always | READ_ONLY
        } else {
            always | DISCARD | WRITE_ZEROES
        }
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        for (to, from) in data.iter_mut().zip(self.config().iter().skip(offset)) {
            *to = *from;
        }
    }

    fn activate(&mut self, features: u64) {
        self.write_through = features & FLUSH == 0;
    }

    fn process(&mut self, queues: &mut [VirtQueue]) -> Result<Progress, QueueError> {
        let Some(queue) = queues.first_mut() else {
            return Ok(Progress::Idle);
        };
        for _ in 0..BATCH {
            let Some(chain) = queue.pop()? else {
                return Ok(Progress::Idle);
            };
            let written = self.serve(queue.ram(), &chain);
            queue.push(chain, written)?;
        }
        Ok(Progress::More)
    }

    fn process_now(&mut self, queues: &mut [VirtQueue]) -> Result<bool, QueueError> {
        let Some(queue) = queues.first_mut() else {
            return Ok(true);
        };
        for _ in 0..BATCH {
            let Some(chain) = queue.pop()? else {
                return Ok(true);
            };
            let Some(written) = self.serve_now(queue.ram(), &chain) else {
                queue.unpop();
                return Ok(false);
            };
            queue.push(chain, written)?;
        }
        Ok(false)
    }

    fn works_at_once(&self) -> bool {
        true
    }

    fn reset(&mut self) {
        self.write_through = true;
    }

    fn inspect(&self) -> String {
        format!(
            "disk {:?}\nrequests {}\nerrors {}\n",
            self.disk, self.requests, self.errors
        )
    }
}

#[cfg(test)]
mod tests;
