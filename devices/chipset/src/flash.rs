// SPDX-License-Identifier: MIT
//! The variable part of a firmware flash: byte-wide NOR with the Intel command set, kept in a file
//! (CFI 01, as much of it as firmware uses; ovmf-machine section 1.9).
//!
//! Always true: programming clears bits and erasing a block sets them, so the order of the guest's
//! operations is all that its own write protocol relies on; each operation is in the file, by one write
//! of one byte or one block, before the guest's next instruction runs. So whenever the process dies, the
//! file holds what the flash held then. It is on the disk after a reset and at the end of the VM.
//! Not here: whose file it is and what was in it before (the worker), the code part of a flash, which is
//! RAM.

use chipset_device::{Device, MmioDevice};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes that are erased together.
pub const BLOCK: usize = 4096;

/// Commands.
const PROGRAM: u8 = 0x10;
const PROGRAM_TOO: u8 = 0x40;
const ERASE: u8 = 0x20;
const ERASE_CONFIRM: u8 = 0xD0;
const CLEAR_STATUS: u8 = 0x50;
const READ_STATUS: u8 = 0x70;
const READ_ARRAY: u8 = 0xFF;

/// Status bits. Clearing clears `READY` too, as in QEMU's part: OVMF knows a flash by a status of zero.
const READY: u8 = 0x80;
const ERASE_ERROR: u8 = 0x20;
const PROGRAM_ERROR: u8 = 0x10;

/// What an access means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Reads give the contents.
    Array,
    /// Reads give the status.
    Status,
    /// The next write is a byte to program.
    Program,
    /// The next write confirms an erase.
    Erase,
}

/// The device.
pub struct Flash {
    contents: Vec<u8>,
    file: File,
    mode: Mode,
    status: u8,
    /// Operations since the file was last known to be on the disk.
    unsynced: u64,
    operations: u64,
    /// A failing file is reported once.
    reported: bool,
}

impl Flash {
    /// A flash that holds `contents`, whole blocks, which are those of `file`.
    pub fn new(contents: Vec<u8>, file: File) -> Self {
        Self {
            contents,
            file,
            mode: Mode::Array,
            status: 0,
            unsynced: 0,
            operations: 0,
            reported: false,
        }
    }

    /// Bytes of the part.
    pub fn len(&self) -> u64 {
        self.contents.len() as u64
    }

    /// Whether there is nothing to address.
    pub fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }

    /// Brings `range` of the contents to the file; on failure `error` is set.
    fn store(&mut self, range: std::ops::Range<usize>, error: u8) {
        let offset = range.start as u64;
        self.operations += 1;
        self.unsynced += 1;
        match self.file.write_all_at(&self.contents[range], offset) {
            Ok(()) => self.status |= READY,
            Err(reason) => {
                self.status |= READY | error;
                self.complain(&reason);
            }
        }
    }

    fn complain(&mut self, reason: &std::io::Error) {
        if !std::mem::replace(&mut self.reported, true) {
            tracing::error!("the file of the firmware's variables cannot be written: {reason}");
        }
    }

    fn sync(&mut self) {
        if self.unsynced == 0 {
            return;
        }
        match self.file.sync_data() {
            Ok(()) => self.unsynced = 0,
            Err(reason) => self.complain(&reason),
        }
    }

    fn program(&mut self, at: usize, value: u8) {
        if let Some(byte) = self.contents.get_mut(at) {
            *byte &= value;
            self.store(at..at + 1, PROGRAM_ERROR);
        }
    }

    fn erase(&mut self, at: usize) {
        let start = at / BLOCK * BLOCK;
        if let Some(block) = self.contents.get_mut(start..start + BLOCK) {
            block.fill(0xFF);
            self.store(start..start + BLOCK, ERASE_ERROR);
        }
    }

    fn write(&mut self, at: usize, value: u8) {
        match self.mode {
            Mode::Program => {
                self.mode = Mode::Status;
                self.program(at, value);
            }
            Mode::Erase => {
                self.mode = Mode::Status;
                if value == ERASE_CONFIRM {
                    self.erase(at);
                } else {
                    self.status |= READY | ERASE_ERROR | PROGRAM_ERROR;
                }
            }
            Mode::Array | Mode::Status => self.command(value),
        }
    }

    fn command(&mut self, value: u8) {
        self.mode = match value {
            PROGRAM | PROGRAM_TOO => Mode::Program,
            ERASE => Mode::Erase,
            CLEAR_STATUS => {
                self.status = 0;
                Mode::Array
            }
            READ_STATUS => Mode::Status,
            READ_ARRAY => Mode::Array,
            _ => {
                self.status |= READY | ERASE_ERROR | PROGRAM_ERROR;
                Mode::Status
            }
        };
    }
}

impl Device for Flash {
    /// The contents stay; they are what the part is for.
    fn reset(&mut self) {
        self.sync();
        self.mode = Mode::Array;
        self.status = 0;
    }

    fn inspect(&self) -> String {
        format!(
            "mode {:?}\nstatus {:#04x}\noperations {}\n",
            self.mode, self.status, self.operations
        )
    }
}

impl Drop for Flash {
    fn drop(&mut self) {
        self.sync();
    }
}

impl MmioDevice for Flash {
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]) {
        if self.mode != Mode::Array {
            data.fill(self.status);
            return;
        }
        let bytes = self.contents.get(offset as usize..).unwrap_or(&[]);
        let there = data.len().min(bytes.len());
        data[..there].copy_from_slice(&bytes[..there]);
        data[there..].fill(0xFF);
    }

    /// The bus is a byte wide: a wider store arrives as its bytes, lowest address first.
    fn mmio_write(&mut self, offset: u64, data: &[u8]) {
        for (at, &value) in (offset as usize..).zip(data) {
            self.write(at, value);
        }
    }
}

#[cfg(test)]
mod tests;
