// SPDX-License-Identifier: MIT
//! The view of RAM that devices get.

use crate::file_io;
use crate::memory::{GuestMemory, GuestRam, MemoryError};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::bitmap::Bitmap as _;
use vm_memory::{GuestAddress, GuestMemoryBackend as _, VolatileMemory as _};

/// Checked access to RAM for a device. Writes bump page generations. Later layers narrow it to the
/// pages that a confidential guest shares.
#[derive(Clone, Debug)]
pub struct DmaMemory {
    memory: GuestMemory,
}

impl DmaMemory {
    pub(crate) fn new(memory: GuestMemory) -> Self {
        Self { memory }
    }

    /// Reads guest memory into `data`; the whole range must be RAM.
    pub fn read(&self, gpa: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        self.memory.read(gpa, data)
    }

    /// Writes `data` to guest memory; the whole range must be RAM.
    pub fn write(&self, gpa: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.memory.write(gpa, data)
    }

    /// All RAM, for rust-vmm crates such as `virtio-queue`; it is only meant to be handed on.
    pub fn ram(&self) -> &GuestRam {
        self.memory.ram()
    }

    /// Fills the `(gpa, length)` pieces from `file` at `offset`, without a copy in between. A piece outside RAM is
    /// refused before anything moves; a file that ends early is `UnexpectedEof`.
    pub fn read_file(&self, file: &File, offset: u64, pieces: &[(u64, u32)]) -> io::Result<()> {
        file_io::read(&self.memory, file, offset, pieces)
    }

    /// Like [`DmaMemory::read_file`], but only as far as the host has the data in memory; `false` when it would have to
    /// wait for some of it, and then the pieces hold anything.
    pub fn read_file_now(&self, file: &File, offset: u64, pieces: &[(u64, u32)]) -> io::Result<bool> {
        file_io::read_now(&self.memory, file, offset, pieces)
    }

    /// Writes the `(gpa, length)` pieces to `file` at `offset`, without a copy in between. A piece outside RAM is
    /// refused before anything moves.
    pub fn write_file(&self, file: &File, offset: u64, pieces: &[(u64, u32)]) -> io::Result<()> {
        file_io::write(&self.memory, file, offset, pieces)
    }

    /// Reads a little-endian value.
    pub fn read_u64(&self, gpa: u64) -> Result<u64, MemoryError> {
        let mut b = [0; 8];
        self.read(gpa, &mut b)?;
        Ok(u64::from_le_bytes(b))
    }

    /// Reads a little-endian value.
    pub fn read_u32(&self, gpa: u64) -> Result<u32, MemoryError> {
        let mut b = [0; 4];
        self.read(gpa, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    /// Sets `bits` in the little-endian 64-bit value at `gpa`, a multiple of 8, in one atomic step and says
    /// what it was.
    pub fn fetch_or_u64(&self, gpa: u64, bits: u64) -> Result<u64, MemoryError> {
        let err = || MemoryError::OutOfRange { gpa, len: 8 };
        let slice = self
            .memory
            .ram()
            .get_slice(GuestAddress(gpa), 8)
            .map_err(|_| err())?;
        let value = slice.get_atomic_ref::<AtomicU64>(0).map_err(|_| err())?;
        let before = value.fetch_or(bits.to_le(), Ordering::AcqRel);
        slice.bitmap().mark_dirty(0, 8);
        Ok(u64::from_le(before))
    }

    /// Whether the whole range is RAM.
    pub fn is_ram(&self, gpa: u64, len: u64) -> bool {
        self.memory.is_ram(gpa, len)
    }
}
