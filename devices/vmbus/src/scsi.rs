// SPDX-License-Identifier: MIT
//! A disk as a SCSI logical unit (SPC-4, SBC-3): what initiators of today send.
//!
//! Always true: a command that fails has sense data; data goes straight between the disk and guest memory;
//! what is transferred is never more than the initiator's buffer. Not here: how commands arrive.

use crate::gpadl::Pages;
use block::{Disk, SECTOR};
use chipset_device::LogBudget;
use guest_memory::DmaMemory;
use std::io;

/// Bytes of fixed-format sense data.
pub const SENSE_LEN: usize = 18;

/// Status byte of a command.
const GOOD: u8 = 0;
const CHECK_CONDITION: u8 = 2;

/// Sense key, additional code and qualifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sense(u8, u8, u8);

const INVALID_OPCODE: Sense = Sense(5, 0x20, 0);
const INVALID_FIELD: Sense = Sense(5, 0x24, 0);
const OUT_OF_RANGE: Sense = Sense(5, 0x21, 0);
const WRITE_PROTECTED: Sense = Sense(7, 0x27, 0);
const READ_ERROR: Sense = Sense(3, 0x11, 0);
const WRITE_ERROR: Sense = Sense(3, 0x0C, 0);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// SCSI status.
    pub status: u8,
    /// Bytes that went to or came from the initiator's buffer.
    pub transferred: u32,
    /// Sense data of a command that failed.
    pub sense: Option<[u8; SENSE_LEN]>,
}

/// One command.
pub struct Command<'c> {
    /// The command descriptor block, zero behind its end.
    pub cdb: [u8; 16],
    /// The initiator's buffer.
    pub buffer: Option<&'c Pages>,
    /// Guest memory.
    pub memory: &'c DmaMemory,
    /// The guest's share of the log.
    pub log: &'c LogBudget,
}

/// Most blocks of one command.
const MOST_BLOCKS: u64 = 0x1_0000;

fn be16(cdb: &[u8], at: usize) -> u64 {
    u64::from(u16::from_be_bytes([cdb[at], cdb[at + 1]]))
}

fn be32(cdb: &[u8], at: usize) -> u64 {
    be16(cdb, at) << 16 | be16(cdb, at + 2)
}

fn be64(cdb: &[u8], at: usize) -> u64 {
    be32(cdb, at) << 32 | be32(cdb, at + 4)
}

/// Runs `command` on `disk`, which is logical unit `lun` of `luns`.
pub fn execute(disk: &Disk, luns: &[u8], command: &Command<'_>) -> Outcome {
    match perform(disk, luns, command) {
        Ok(transferred) => Outcome {
            status: GOOD,
            transferred,
            sense: None,
        },
        Err(Sense(key, code, qualifier)) => {
            let mut sense = [0; SENSE_LEN];
            sense[0] = 0x70;
            sense[2] = key;
            sense[7] = (SENSE_LEN - 8) as u8;
            sense[12] = code;
            sense[13] = qualifier;
            Outcome {
                status: CHECK_CONDITION,
                transferred: 0,
                sense: Some(sense),
            }
        }
    }
}

/// What a place without a logical unit answers to the commands that look for one; `None` for all others.
/// An INQUIRY has to succeed: Linux takes a failed one for an answer of zeros, which is a disk.
pub fn execute_absent(luns: &[u8], command: &Command<'_>) -> Option<Outcome> {
    let cdb = &command.cdb;
    let answered = match cdb[0] {
        0x12 => {
            let mut data = [0; 36];
            data[0] = 0x7F;
            command.answer(&data, be16(cdb, 3))
        }
        0xA0 => report_luns(luns, command),
        _ => return None,
    };
    Some(Outcome {
        status: GOOD,
        transferred: answered.unwrap_or(0),
        sense: None,
    })
}

fn perform(disk: &Disk, luns: &[u8], command: &Command<'_>) -> Result<u32, Sense> {
    let cdb = &command.cdb;
    match cdb[0] {
        // TEST UNIT READY, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, VERIFY.
        0x00 | 0x1B | 0x1E | 0x2F | 0x8F => Ok(0),
        // REQUEST SENSE: nothing is kept, each command brings its own.
        0x03 => command.answer(
            &[0x70, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            cdb[4].into(),
        ),
        0x12 => inquiry(disk, command),
        0x1A => command.answer(&mode_pages(disk, false), cdb[4].into()),
        0x5A => command.answer(&mode_pages(disk, true), be16(cdb, 7)),
        0x25 => command.answer(&capacity_10(disk), 8),
        0x9E if cdb[1] & 0x1F == 0x10 => command.answer(&capacity_16(disk), be32(cdb, 10)),
        0xA0 => report_luns(luns, command),
        0x08 | 0x28 | 0xA8 | 0x88 => transfer(disk, command, Disk::read, READ_ERROR),
        0x0A | 0x2A | 0xAA | 0x8A => {
            writable(disk)?;
            transfer(disk, command, Disk::write, WRITE_ERROR)
        }
        0x35 | 0x91 => disk
            .flush()
            .map(|()| 0)
            .map_err(|error| command.failed("flush", &error, WRITE_ERROR)),
        0x42 => unmap(disk, command),
        0x93 => write_same(disk, command),
        _ => Err(INVALID_OPCODE),
    }
}

fn writable(disk: &Disk) -> Result<(), Sense> {
    if disk.read_only() {
        Err(WRITE_PROTECTED)
    } else {
        Ok(())
    }
}

impl Command<'_> {
    /// The host's disk cannot do its part of the command.
    fn failed(&self, what: &str, error: &io::Error, sense: Sense) -> Sense {
        if let Some(line) = self.log.line(|| format!("scsi: {what}: {error}")) {
            tracing::warn!("{line}");
        }
        sense
    }

    /// Gives `data`, at most `allocation` bytes of it and what the buffer takes.
    fn answer(&self, data: &[u8], allocation: u64) -> Result<u32, Sense> {
        let room = self.buffer.map_or(0, Pages::len).min(allocation);
        let len = room.min(data.len() as u64) as usize;
        if let Some(buffer) = self.buffer {
            buffer
                .write(self.memory, 0, &data[..len])
                .map_err(|_| INVALID_FIELD)?;
        }
        Ok(len as u32)
    }

    /// First block and count of a read or write.
    fn blocks(&self) -> (u64, u64) {
        let cdb = &self.cdb;
        match cdb[0] {
            0x08 | 0x0A => {
                let count = if cdb[4] == 0 { 256 } else { cdb[4].into() };
                (be32(cdb, 0) & 0x1F_FFFF, count)
            }
            0x28 | 0x2A => (be32(cdb, 2), be16(cdb, 7)),
            0xA8 | 0xAA => (be32(cdb, 2), be32(cdb, 6)),
            _ => (be64(cdb, 2), be32(cdb, 10)),
        }
    }
}

type Transfer = fn(&Disk, &DmaMemory, u64, &[(u64, u32)]) -> io::Result<()>;

fn transfer(disk: &Disk, command: &Command<'_>, act: Transfer, sense: Sense) -> Result<u32, Sense> {
    let (first, count) = command.blocks();
    in_range(disk, first, count)?;
    if count == 0 {
        return Ok(0);
    }
    let len = count * SECTOR;
    if count > MOST_BLOCKS {
        return Err(INVALID_FIELD);
    }
    let pieces = command
        .buffer
        .map_or_else(Vec::new, |buffer| buffer.pieces(0, len));
    if pieces.is_empty() {
        return Err(INVALID_FIELD);
    }
    act(disk, command.memory, first * SECTOR, &pieces)
        .map_err(|error| command.failed("transfer", &error, sense))?;
    Ok(len as u32)
}

fn in_range(disk: &Disk, first: u64, count: u64) -> Result<(), Sense> {
    let end = first.checked_add(count).ok_or(OUT_OF_RANGE)?;
    if end > disk.size() / SECTOR {
        return Err(OUT_OF_RANGE);
    }
    Ok(())
}

/// A text field, padded with spaces.
fn field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    field
}

fn inquiry(disk: &Disk, command: &Command<'_>) -> Result<u32, Sense> {
    let (vital, page, allocation) = (command.cdb[1] & 1 != 0, command.cdb[2], be16(&command.cdb, 3));
    if vital {
        return command.answer(&vital_page(disk, page)?, allocation);
    }
    if page != 0 {
        return Err(INVALID_FIELD);
    }
    // A direct access device, SPC-4, 31 bytes follow, command queuing.
    let mut data = vec![0, 0, 6, 2, 31, 0, 0, 2];
    data.extend(field::<8>("OpenVMM"));
    data.extend(field::<16>("Virtual Disk"));
    data.extend(field::<4>("1.0"));
    command.answer(&data, allocation)
}

fn vital_page(disk: &Disk, page: u8) -> Result<Vec<u8>, Sense> {
    let body: Vec<u8> = match page {
        0x00 => vec![0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2],
        0x80 => disk.serial().bytes().collect(),
        // Designator: ASCII, T10 vendor id.
        0x83 => {
            let mut id = field::<8>("OpenVMM").to_vec();
            id.extend(disk.serial().bytes());
            let mut body = vec![2, 1, 0, id.len() as u8];
            body.extend(id);
            body
        }
        // Block limits: most blocks to unmap at once, and of one write same.
        0xB0 => {
            let mut body = vec![0; 60];
            body[4..8].copy_from_slice(&(MOST_BLOCKS as u32).to_be_bytes());
            body[16..20].copy_from_slice(&(MOST_UNMAP as u32).to_be_bytes());
            body[20..24].copy_from_slice(&(MOST_DESCRIPTORS as u32).to_be_bytes());
            body[36..44].copy_from_slice(&MOST_UNMAP.to_be_bytes());
            body
        }
        // Not rotating.
        0xB1 => {
            let mut body = vec![0; 60];
            body[1] = 1;
            body
        }
        // Thin: unmap and write same with unmap work.
        0xB2 => vec![0, 0xC0, 2, 0],
        _ => return Err(INVALID_FIELD),
    };
    let mut data = vec![0, page];
    data.extend((body.len() as u16).to_be_bytes());
    data.extend(body);
    Ok(data)
}

/// Mode parameters: the header and the caching page, with a write cache.
fn mode_pages(disk: &Disk, ten: bool) -> Vec<u8> {
    let protected = if disk.read_only() { 0x80 } else { 0 };
    let mut caching = vec![0x08, 18];
    caching.resize(20, 0);
    caching[2] = 4;
    let mut data = if ten {
        vec![0, 6 + caching.len() as u8, 0, protected, 0, 0, 0, 0]
    } else {
        vec![3 + caching.len() as u8, 0, protected, 0]
    };
    data.extend(caching);
    data
}

fn capacity_10(disk: &Disk) -> [u8; 8] {
    let last = (disk.size() / SECTOR - 1).min(u32::MAX.into()) as u32;
    let mut data = [0; 8];
    data[..4].copy_from_slice(&last.to_be_bytes());
    data[4..].copy_from_slice(&(SECTOR as u32).to_be_bytes());
    data
}

fn capacity_16(disk: &Disk) -> [u8; 32] {
    let mut data = [0; 32];
    data[..8].copy_from_slice(&(disk.size() / SECTOR - 1).to_be_bytes());
    data[8..12].copy_from_slice(&(SECTOR as u32).to_be_bytes());
    // Thin provisioning.
    data[14] = 0x80;
    data
}

/// REPORT LUNS. Microsoft's firmware leaves the allocation length zero and means its whole buffer.
fn report_luns(luns: &[u8], command: &Command<'_>) -> Result<u32, Sense> {
    let allocation = match be32(&command.cdb, 6) {
        0 => command.buffer.map_or(0, Pages::len),
        allocation => allocation,
    };
    command.answer(&lun_list(luns), allocation)
}

fn lun_list(luns: &[u8]) -> Vec<u8> {
    let mut data = (luns.len() as u32 * 8).to_be_bytes().to_vec();
    data.extend([0; 4]);
    for lun in luns {
        data.extend([0, *lun, 0, 0, 0, 0, 0, 0]);
    }
    data
}

/// Most blocks of one unmap or write same, and descriptors of one unmap.
const MOST_UNMAP: u64 = 1 << 22;
const MOST_DESCRIPTORS: usize = 256;

fn unmap(disk: &Disk, command: &Command<'_>) -> Result<u32, Sense> {
    writable(disk)?;
    let len = be16(&command.cdb, 7) as usize;
    let mut list = vec![0; len];
    let buffer = command.buffer.filter(|buffer| buffer.len() >= len as u64);
    buffer
        .ok_or(INVALID_FIELD)?
        .read(command.memory, 0, &mut list)
        .map_err(|_| INVALID_FIELD)?;
    let descriptors = list.get(8..).unwrap_or_default().chunks_exact(16);
    if descriptors.len() > MOST_DESCRIPTORS {
        return Err(INVALID_FIELD);
    }
    for descriptor in descriptors {
        let (first, count) = (be64(descriptor, 0), be32(descriptor, 8));
        in_range(disk, first, count)?;
        disk.discard(first * SECTOR, count * SECTOR)
            .map_err(|error| command.failed("unmap", &error, WRITE_ERROR))?;
    }
    Ok(len as u32)
}

/// WRITE SAME(16) of zeros, which is what initiators use it for.
fn write_same(disk: &Disk, command: &Command<'_>) -> Result<u32, Sense> {
    writable(disk)?;
    let (flags, first, count) = (command.cdb[1], be64(&command.cdb, 2), be32(&command.cdb, 10));
    in_range(disk, first, count)?;
    let mut block = [0; SECTOR as usize];
    let none = flags & 1 != 0;
    if !none {
        let buffer = command.buffer.ok_or(INVALID_FIELD)?;
        buffer
            .read(command.memory, 0, &mut block)
            .map_err(|_| INVALID_FIELD)?;
    }
    if count == 0 || count > MOST_UNMAP || block.iter().any(|byte| *byte != 0) {
        return Err(INVALID_FIELD);
    }
    disk.write_zeroes(first * SECTOR, count * SECTOR, flags & 8 != 0)
        .map_err(|error| command.failed("write same", &error, WRITE_ERROR))?;
    Ok(if none { 0 } else { SECTOR as u32 })
}
