// SPDX-License-Identifier: MIT
//! Disks: what a block device reads and writes, whatever is behind it.
//!
//! Always true: a request is wholly inside the disk or refused; data goes straight between the image and
//! guest RAM where the format allows it; one image is opened for writing by one VM at a time. A disk is
//! called from any thread, and every call is finished when it returns.
//! Not here: how guests ask (virtio, NVMe, SCSI), threads.
#![forbid(unsafe_code)]

mod qcow2;
mod raw;

use guest_memory::DmaMemory;
use qcow2::Qcow2Disk;
use raw::RawDisk;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a sector, the unit of every request.
pub const SECTOR: u64 = 512;

/// Pieces of guest memory: gpa and length in bytes.
pub type Pieces<'p> = &'p [(u64, u32)];

/// What holds a disk's bytes. Offsets and lengths are bytes, multiples of [`SECTOR`] and inside the disk; [`Disk`]
/// checks that before it asks.
trait Image: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fills pieces of RAM.
    fn read(&self, ram: &DmaMemory, offset: u64, pieces: Pieces<'_>) -> io::Result<()>;
    /// Fills pieces of RAM if that takes no waiting; `false` when it would.
    fn read_now(&self, _ram: &DmaMemory, _offset: u64, _pieces: Pieces<'_>) -> io::Result<bool> {
        Ok(false)
    }
    /// Writes pieces of RAM.
    fn write(&self, ram: &DmaMemory, offset: u64, pieces: Pieces<'_>) -> io::Result<()>;
    /// Returns when everything written before is on stable storage.
    fn flush(&self) -> io::Result<()>;
    /// Makes a range read as zeros; `unmap` allows giving its storage back.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
    /// Gives the storage of a range back; what it reads as afterwards is anything.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// How the bytes of an image are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The file is the disk.
    Raw,
    /// QEMU's format, without backing and data files.
    Qcow2,
}

/// How a qcow2 image begins.
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xFB";

/// Which image to open and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// The image.
    pub path: PathBuf,
    /// The guest cannot write.
    pub read_only: bool,
    /// The format; by default what the file's name ends in says, because the guest decides what a raw disk begins with.
    pub format: Option<Format>,
}

/// Why an image cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The host refused.
    #[error("cannot open disk {}: {error}{}", .path.display(), if *.read_only { "" } else { "; add ,ro to open it read-only" })]
    Open {
        /// The image.
        path: PathBuf,
        /// Whether it was opened for reading only.
        read_only: bool,
        /// The host's answer.
        error: io::Error,
    },
    /// A read after opening failed.
    #[error("cannot read disk {}: {error}", .path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// The host's answer.
        error: io::Error,
    },
    /// Another process writes it, or reads it while this one wants to write.
    #[error("disk {} is in use by another process; stop that one, or open it read-only in both with ,ro", .0.display())]
    Locked(PathBuf),
    /// A qcow2 image that nobody calls one, or a raw disk on which the guest wrote what looks like one.
    #[error(
        "disk {} begins like a qcow2 image but is not named .qcow2, and a guest can write such a beginning itself; say \
         which it is with ,format=qcow2 or ,format=raw",
        .0.display()
    )]
    AmbiguousFormat(PathBuf),
    /// Not the qcow2 image that it is said to be.
    #[error("disk {}: {error}", .path.display())]
    Qcow2 {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
    /// Directories, pipes and the like.
    #[error("disk {} is neither a regular file nor a block device", .0.display())]
    NotADisk(PathBuf),
    /// No whole number of sectors.
    #[error("disk {} has {size:#x} bytes, which is not a positive multiple of 512; extend it with truncate -s", .path.display())]
    Size {
        /// The image.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
}

/// An open disk.
pub struct Disk {
    image: Box<dyn Image>,
    format: Format,
    read_only: bool,
    serial: String,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let access = if self.read_only { "ro" } else { "rw" };
        write!(
            f,
            "{} {:?} {:#x} bytes {access}",
            self.serial,
            self.format,
            self.size()
        )
    }
}

impl Disk {
    /// Opens the image that `options` names.
    pub fn open(options: &DiskOptions) -> Result<Arc<Self>, DiskError> {
        let path = &options.path;
        let read_only = options.read_only;
        let fail = |error| DiskError::Open {
            path: path.clone(),
            read_only,
            error,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(fail)?;
        let kind = file.metadata().map_err(fail)?.file_type();
        if !kind.is_file() && !std::os::unix::fs::FileTypeExt::is_block_device(&kind) {
            return Err(DiskError::NotADisk(path.clone()));
        }
        lock(&file, options)?;
        let format = decide_format(&file, options)?;
        let image: Box<dyn Image> = match format {
            Format::Raw => Box::new(RawDisk::new(file).map_err(fail)?),
            Format::Qcow2 => {
                let opened = Qcow2Disk::new(file, read_only).map_err(|error| {
                    let path = path.clone();
                    DiskError::Qcow2 { path, error }
                });
                Box::new(opened?)
            }
        };
        let size = image.size();
        if size == 0 || !size.is_multiple_of(SECTOR) {
            let path = path.clone();
            return Err(DiskError::Size { path, size });
        }
        Ok(Arc::new(Self {
            image,
            format,
            read_only,
            serial: serial(path),
        }))
    }

    /// Size in bytes, a multiple of [`SECTOR`].
    pub fn size(&self) -> u64 {
        self.image.size()
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// A name of at most 20 printable characters.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Fills pieces of RAM from `offset` on.
    pub fn read(&self, ram: &DmaMemory, offset: u64, pieces: Pieces<'_>) -> io::Result<()> {
        self.check(offset, total(pieces)?)?;
        self.image.read(ram, offset, pieces)
    }

    /// Like [`Disk::read`] if that takes no waiting; `false` when it would, and then the pieces hold anything.
    pub fn read_now(&self, ram: &DmaMemory, offset: u64, pieces: Pieces<'_>) -> io::Result<bool> {
        self.check(offset, total(pieces)?)?;
        self.image.read_now(ram, offset, pieces)
    }

    /// Writes pieces of RAM from `offset` on.
    pub fn write(&self, ram: &DmaMemory, offset: u64, pieces: Pieces<'_>) -> io::Result<()> {
        self.check_write(offset, total(pieces)?)?;
        self.image.write(ram, offset, pieces)
    }

    /// Returns when everything written before is on stable storage.
    pub fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.image.flush()
    }

    /// Makes a range read as zeros; `unmap` allows giving its storage back.
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check_write(offset, len)?;
        self.image.write_zeroes(offset, len, unmap)
    }

    /// Gives the storage of a range back; what it reads as afterwards is anything.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_write(offset, len)?;
        self.image.discard(offset, len)
    }

    fn check(&self, offset: u64, len: u64) -> io::Result<()> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.size());
        if inside && offset.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR) {
            return Ok(());
        }
        let what = format!(
            "request of {len:#x} bytes at {offset:#x} is not in whole sectors inside the disk's {:#x} bytes",
            self.size()
        );
        Err(io::Error::new(io::ErrorKind::InvalidInput, what))
    }

    fn check_write(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.check(offset, len)
    }
}

fn total(pieces: Pieces<'_>) -> io::Result<u64> {
    let sum = pieces
        .iter()
        .try_fold(0u64, |sum, &(_, len)| sum.checked_add(len.into()));
    sum.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Readers share an image, a writer has it alone. The lock is advisory and ends with the file handle.
fn lock(file: &File, options: &DiskOptions) -> Result<(), DiskError> {
    let locked = if options.read_only {
        file.try_lock_shared()
    } else {
        file.try_lock()
    };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(DiskError::Locked(options.path.clone())),
        Err(TryLockError::Error(error)) => {
            tracing::warn!("disk {} cannot be locked: {error}", options.path.display());
            Ok(())
        }
    }
}

/// What the user said, else what the name says; never what the guest could have written.
fn decide_format(file: &File, options: &DiskOptions) -> Result<Format, DiskError> {
    if let Some(format) = options.format {
        return Ok(format);
    }
    let path = options.path.clone();
    if path.extension().is_some_and(|ending| ending == "qcow2") {
        return Ok(Format::Qcow2);
    }
    let mut magic = [0; 4];
    match file.read_exact_at(&mut magic, 0) {
        Ok(()) if magic == QCOW2_MAGIC => Err(DiskError::AmbiguousFormat(path)),
        Ok(()) => Ok(Format::Raw),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Format::Raw),
        Err(error) => Err(DiskError::Read { path, error }),
    }
}

/// The file's name as far as it is printable.
fn serial(path: &Path) -> String {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let printable = name.chars().filter(char::is_ascii_graphic);
    printable.take(20).collect()
}

#[cfg(test)]
mod tests;
