// SPDX-License-Identifier: MIT
//! The view of RAM that devices get.

use crate::memory::{GuestMemory, MemoryError};

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

    /// Whether the whole range is RAM.
    pub fn is_ram(&self, gpa: u64, len: u64) -> bool {
        self.memory.is_ram(gpa, len)
    }
}
