// SPDX-License-Identifier: MIT
//! Physical region pages (section 4.3): where a command's data is.
//!
//! Always true: at most [`MOST_DATA`] bytes, in pieces of at most a page.

use crate::command::{Command, Status};
use guest_memory::DmaMemory;

/// The only page size.
pub(crate) const PAGE: u64 = 4096;
/// The largest transfer, as identify says it: a power of two of pages.
pub(crate) const MOST_PAGES_SHIFT: u8 = 8;
/// Bytes of the largest transfer.
pub(crate) const MOST_DATA: u64 = PAGE << MOST_PAGES_SHIFT;

/// The pieces of `len` bytes of data.
pub(crate) fn pieces(ram: &DmaMemory, command: &Command, len: u64) -> Result<Vec<(u64, u32)>, Status> {
    if !command.uses_prp() || len > MOST_DATA {
        return Err(Status::INVALID_FIELD);
    }
    let (first, second) = command.prps();
    if first % 4 != 0 {
        return Err(Status::INVALID_PRP_OFFSET);
    }
    let mut list = List {
        pieces: Vec::new(),
        left: len,
    };
    list.add(first);
    if list.left <= PAGE {
        if list.left > 0 {
            list.add_page(second)?;
        }
        return Ok(list.pieces);
    }
    if second % 8 != 0 {
        return Err(Status::INVALID_PRP_OFFSET);
    }
    let mut at = second;
    while list.left > 0 {
        let entry = ram.read_u64(at).map_err(|_| Status::TRANSFER)?;
        let last_of_page = at % PAGE == PAGE - 8;
        if last_of_page && list.left > PAGE {
            // The list goes on in another page.
            if entry % PAGE != 0 {
                return Err(Status::INVALID_PRP_OFFSET);
            }
            at = entry;
        } else {
            list.add_page(entry)?;
            // Below the end of a page.
            at += 8;
        }
    }
    Ok(list.pieces)
}

struct List {
    pieces: Vec<(u64, u32)>,
    left: u64,
}

impl List {
    fn add(&mut self, gpa: u64) {
        let len = (PAGE - gpa % PAGE).min(self.left);
        self.left -= len;
        if len > 0 {
            self.pieces.push((gpa, len as u32));
        }
    }

    /// All but the first begin a page.
    fn add_page(&mut self, gpa: u64) -> Result<(), Status> {
        if !gpa.is_multiple_of(PAGE) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        self.add(gpa);
        Ok(())
    }
}

/// Writes `data`, as far as it has room in `len` bytes, to where the command's data goes.
pub(crate) fn give(ram: &DmaMemory, command: &Command, data: &[u8], len: u64) -> Result<(), Status> {
    let data = &data[..data.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
    let mut done = 0;
    for (gpa, part) in pieces(ram, command, data.len() as u64)? {
        let part = part as usize;
        ram.write(gpa, &data[done..done + part])
            .map_err(|_| Status::TRANSFER)?;
        done += part;
    }
    Ok(())
}

/// Reads the command's data.
pub(crate) fn take(ram: &DmaMemory, command: &Command, len: u64) -> Result<Vec<u8>, Status> {
    let pieces = pieces(ram, command, len)?;
    let mut data = vec![0; len as usize];
    let mut done = 0;
    for (gpa, part) in pieces {
        let part = part as usize;
        ram.read(gpa, &mut data[done..done + part])
            .map_err(|_| Status::TRANSFER)?;
        done += part;
    }
    Ok(data)
}
