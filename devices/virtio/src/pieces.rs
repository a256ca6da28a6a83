// SPDX-License-Identifier: MIT
//! Buffers of a request: pieces of guest memory that are read or written as one run of bytes.

use guest_memory::{DmaMemory, MemoryError};

/// Pieces in order, gpa and length in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces(Vec<(u64, u32)>);

impl Pieces {
    pub(crate) fn push(&mut self, gpa: u64, len: u32) {
        self.0.push((gpa, len));
    }

    /// The pieces.
    pub fn as_slice(&self) -> &[(u64, u32)] {
        &self.0
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|&(_, len)| u64::from(len)).sum()
    }

    /// The bytes `skip..skip + take`, as far as they exist.
    #[must_use]
    pub fn part(&self, mut skip: u64, mut take: u64) -> Self {
        let mut part = Self::default();
        for &(gpa, len) in &self.0 {
            let first = skip.min(len.into());
            skip -= first;
            let rest = (u64::from(len) - first).min(take);
            take -= rest;
            if rest != 0 {
                // Both are at most `len`.
                part.push(gpa.wrapping_add(first), rest as u32);
            }
        }
        part
    }

    /// Copies to `data` from the beginning; gives how many bytes there were.
    pub fn read(&self, ram: &DmaMemory, data: &mut [u8]) -> Result<usize, MemoryError> {
        let mut done = 0;
        for &(gpa, len) in &self.0 {
            let part = (len as usize).min(data.len() - done);
            ram.read(gpa, &mut data[done..done + part])?;
            done += part;
        }
        Ok(done)
    }

    /// Copies from `data` to the beginning; gives how many bytes had room.
    pub fn write(&self, ram: &DmaMemory, data: &[u8]) -> Result<usize, MemoryError> {
        let mut done = 0;
        for &(gpa, len) in &self.0 {
            let part = (len as usize).min(data.len() - done);
            ram.write(gpa, &data[done..done + part])?;
            done += part;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[(u64, u32)]) -> Pieces {
        Pieces(list.to_vec())
    }

    #[test]
    fn parts_cut_pieces_where_they_begin_and_end() {
        let pieces = of(&[(0x100, 16), (0x200, 0), (0x300, 8), (0x400, 1)]);
        assert_eq!(pieces.total(), 25);
        assert_eq!(pieces.part(0, 16), of(&[(0x100, 16)]));
        assert_eq!(pieces.part(15, 3), of(&[(0x10F, 1), (0x300, 2)]));
        assert_eq!(pieces.part(24, 100), of(&[(0x400, 1)]));
        assert_eq!(pieces.part(25, 1), of(&[]));
        assert_eq!(pieces.part(0, 0), of(&[]));
    }
}
