// SPDX-License-Identifier: MIT
//! qcow2 images, through the crate `imago`.
//!
//! Always true: an image stands alone; one that names a backing or data file is refused, because whoever made
//! the image would choose which files of the host the guest reads. Data is copied once between image and RAM.

use crate::{Image, Pieces};
use guest_memory::DmaMemory;
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::storage::StorageOpenOptions;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};
use std::fs::File;
use std::io;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// How many bytes are copied at a time.
const BUFFER: usize = 256 << 10;

/// The image.
pub(crate) struct Qcow2Disk {
    /// Shared by reads and writes; a discard has it alone, because it drops mappings.
    access: RwLock<FormatAccess<Storage>>,
    size: u64,
}

impl Qcow2Disk {
    /// Reads the header of `file`.
    pub(crate) fn new(file: File, read_only: bool) -> io::Result<Self> {
        let options = StorageOpenOptions::new().write(!read_only);
        let storage = Storage::from_open_file(file, options)?;
        let image = Qcow2::<Storage>::builder(storage)
            .write(!read_only)
            .open(DenyImplicitOpenGate::default())?;
        let access = FormatAccess::new(image);
        Ok(Self {
            size: access.size(),
            access: RwLock::new(access),
        })
    }

    fn shared(&self) -> RwLockReadGuard<'_, FormatAccess<Storage>> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `step` with the offset of each part of `pieces` that fits the buffer: disk offset, gpa, buffer.
fn in_parts(
    offset: u64,
    pieces: Pieces<'_>,
    mut step: impl FnMut(u64, u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let largest = pieces.iter().map(|&(_, len)| len as usize).max().unwrap_or(0);
    let mut buffer = vec![0; largest.min(BUFFER)];
    let mut at = offset;
    for &(gpa, len) in pieces {
        let mut done = 0;
        while done < u64::from(len) {
            let part = (u64::from(len) - done).min(buffer.len() as u64) as usize;
            let gpa = gpa.checked_add(done).ok_or(io::ErrorKind::InvalidInput)?;
            step(at, gpa, &mut buffer[..part])?;
            done += part as u64;
            at += part as u64;
        }
    }
    Ok(())
}

impl Image for Qcow2Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, ram: &DmaMemory, offset: u64, pieces: Pieces<'_>) -> io::Result<()> {
        let access = self.shared();
        in_parts(offset, pieces, |at, gpa, part| {
            access.read(&mut *part, at)?;
            ram.write(gpa, part).map_err(io::Error::other)
        })
    }

    fn write(&self, ram: &DmaMemory, offset: u64, pieces: Pieces<'_>) -> io::Result<()> {
        let access = self.shared();
        in_parts(offset, pieces, |at, gpa, part| {
            ram.read(gpa, part).map_err(io::Error::other)?;
            access.write(&*part, at)
        })
    }

    fn flush(&self) -> io::Result<()> {
        let access = self.shared();
        access.flush()?;
        access.sync()
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.shared().write_zeroes(offset, len)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        match access.discard_to_any(offset, len) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            done => done,
        }
    }
}
