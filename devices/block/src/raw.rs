// SPDX-License-Identifier: MIT
//! A file or block device of the host as it is.

use crate::{Image, Pieces};
use guest_memory::DmaMemory;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Zeros are written in pieces of this size where the host cannot do better.
const ZEROS: usize = 64 << 10;

/// The file and its size when it was opened.
pub(crate) struct RawDisk {
    file: File,
    size: u64,
}

impl RawDisk {
    /// A disk as large as the file.
    pub(crate) fn new(mut file: File) -> io::Result<Self> {
        // Also right for block devices, whose metadata say 0.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, size })
    }

    /// Whether the host did it; `false` when it cannot on this file system.
    fn fallocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
        loop {
            match rustix::fs::fallocate(&self.file, flags | FallocateFlags::KEEP_SIZE, offset, len) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Image for RawDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, ram: &DmaMemory, offset: u64, pieces: Pieces<'_>) -> io::Result<()> {
        ram.read_file(&self.file, offset, pieces)
    }

    fn read_now(&self, ram: &DmaMemory, offset: u64, pieces: Pieces<'_>) -> io::Result<bool> {
        ram.read_file_now(&self.file, offset, pieces)
    }

    fn write(&self, ram: &DmaMemory, offset: u64, pieces: Pieces<'_>) -> io::Result<()> {
        ram.write_file(&self.file, offset, pieces)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if len == 0 || (unmap && self.fallocate(FallocateFlags::PUNCH_HOLE, offset, len)?) {
            return Ok(());
        }
        if self.fallocate(FallocateFlags::ZERO_RANGE, offset, len)? {
            return Ok(());
        }
        let zeros = vec![0; ZEROS.min(usize::try_from(len).unwrap_or(ZEROS))];
        let mut done = 0;
        while done < len {
            let part = (len - done).min(zeros.len() as u64) as usize;
            self.file.write_all_at(&zeros[..part], offset + done)?;
            done += part as u64;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        // Where the host cannot give storage back, nothing has to happen.
        if len != 0 {
            self.fallocate(FallocateFlags::PUNCH_HOLE, offset, len)?;
        }
        Ok(())
    }
}
