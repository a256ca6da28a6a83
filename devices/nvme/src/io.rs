// SPDX-License-Identifier: MIT
//! NVM commands (section 6): flush, read, write, write zeroes, dataset management.

use crate::command::{Command, Outcome, Status};
use crate::prp;
use block::{Disk, SECTOR};
use guest_memory::DmaMemory;
use std::io;
use std::sync::Arc;

const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET: u8 = 0x09;

/// All namespaces.
const EVERY: u32 = 0xFFFF_FFFF;
/// Command dword 12: the data is on stable storage when the command ends; zeroed blocks may be deallocated.
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
const DEALLOCATE_ZEROES: u32 = 1 << 25;
/// Command dword 11 of dataset management.
const DEALLOCATE: u32 = 1 << 2;
/// Bytes of a range.
const RANGE: u64 = 16;

/// Carries out one command; `failed` is called with what the host could not do.
pub(crate) fn execute(
    ram: &DmaMemory,
    command: &Command,
    disks: &[Arc<Disk>],
    failed: &mut dyn FnMut(&Disk, &io::Error),
) -> Outcome {
    if command.opcode() == FLUSH && command.namespace() == EVERY {
        for disk in disks {
            disk.flush().map_err(|error| {
                failed(disk, &error);
                Status::WRITE_FAULT
            })?;
        }
        return Ok(0);
    }
    let index = (command.namespace() as usize).checked_sub(1);
    let disk = index
        .and_then(|index| disks.get(index))
        .ok_or(Status::INVALID_NAMESPACE)?;
    let fault = |status| {
        move |error: io::Error, failed: &mut dyn FnMut(&Disk, &io::Error)| {
            failed(disk, &error);
            status
        }
    };
    let (read_error, write_fault) = (fault(Status::READ_ERROR), fault(Status::WRITE_FAULT));
    match command.opcode() {
        FLUSH => disk.flush().map_err(|error| write_fault(error, failed))?,
        READ => {
            let (offset, len) = blocks(disk, command)?;
            let pieces = ram_pieces(ram, command, len)?;
            disk.read(ram, offset, &pieces)
                .map_err(|error| read_error(error, failed))?;
        }
        WRITE => {
            let (offset, len) = blocks(disk, command)?;
            writable(disk)?;
            let pieces = ram_pieces(ram, command, len)?;
            disk.write(ram, offset, &pieces)
                .and_then(|()| settle(disk, command))
                .map_err(|error| write_fault(error, failed))?;
        }
        WRITE_ZEROES => {
            let (offset, len) = blocks(disk, command)?;
            writable(disk)?;
            let unmap = command.dword(12) & DEALLOCATE_ZEROES != 0;
            disk.write_zeroes(offset, len, unmap)
                .and_then(|()| settle(disk, command))
                .map_err(|error| write_fault(error, failed))?;
        }
        DATASET => {
            for (offset, len) in ranges(ram, disk, command)? {
                disk.discard(offset, len)
                    .map_err(|error| write_fault(error, failed))?;
            }
        }
        _ => return Err(Status::INVALID_OPCODE),
    }
    Ok(0)
}

fn writable(disk: &Disk) -> Result<(), Status> {
    if disk.read_only() {
        return Err(Status::READ_ONLY);
    }
    Ok(())
}

fn settle(disk: &Disk, command: &Command) -> io::Result<()> {
    if command.dword(12) & FORCE_UNIT_ACCESS != 0 {
        return disk.flush();
    }
    Ok(())
}

/// Data that is not RAM is a fault of the command, not of the disk.
fn ram_pieces(ram: &DmaMemory, command: &Command, len: u64) -> Result<Vec<(u64, u32)>, Status> {
    let pieces = prp::pieces(ram, command, len)?;
    if pieces.iter().all(|&(gpa, len)| ram.is_ram(gpa, len.into())) {
        return Ok(pieces);
    }
    Err(Status::TRANSFER)
}

/// Offset and length in bytes of a range inside the disk.
fn inside(disk: &Disk, block: u64, count: u64) -> Result<(u64, u64), Status> {
    let end = block.checked_add(count).and_then(|end| end.checked_mul(SECTOR));
    if end.is_none_or(|end| end > disk.size()) {
        return Err(Status::OUT_OF_RANGE);
    }
    Ok((block * SECTOR, count * SECTOR))
}

fn blocks(disk: &Disk, command: &Command) -> Result<(u64, u64), Status> {
    inside(disk, command.qword(10), u64::from(command.dword(12) & 0xFFFF) + 1)
}

/// Ranges to deallocate; other hints are taken and change nothing.
fn ranges(ram: &DmaMemory, disk: &Disk, command: &Command) -> Result<Vec<(u64, u64)>, Status> {
    let count = u64::from(command.dword(10) & 0xFF) + 1;
    let data = prp::take(ram, command, count * RANGE)?;
    if command.dword(11) & DEALLOCATE == 0 {
        return Ok(Vec::new());
    }
    writable(disk)?;
    let ranges = data.as_chunks::<{ RANGE as usize }>().0.iter().map(|range| {
        let [_, _, _, _, c0, c1, c2, c3, block @ ..] = *range;
        inside(
            disk,
            u64::from_le_bytes(block),
            u32::from_le_bytes([c0, c1, c2, c3]).into(),
        )
    });
    ranges.collect()
}
