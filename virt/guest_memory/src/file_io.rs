// SPDX-License-Identifier: MIT
//! Files straight to and from RAM: `preadv` and `pwritev` on host addresses that never leave this file.
//!
//! Always true: every piece is checked to be RAM before the first byte moves; short transfers go on where
//! they stopped; pages that a read filled get new generations.

use crate::memory::{GuestMemory, MemoryError};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use vm_memory::bitmap::Bitmap;
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// Vectors per call, well below the kernel's limit of 1024.
const BATCH: usize = 256;

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToRam,
    FromRam,
}

/// Fills `pieces` from `file` at `offset`.
pub(crate) fn read(memory: &GuestMemory, file: &File, offset: u64, pieces: &[(u64, u32)]) -> io::Result<()> {
    let vectors = vectors(memory, pieces)?;
    let done = transfer(file, offset, vectors, Direction::ToRam);
    // Also after an error: part of it may have arrived.
    for slice in slices(memory, pieces) {
        let slice = slice?;
        slice.bitmap().mark_dirty(0, slice.len());
    }
    done
}

/// Fills `pieces` from what the host has in memory of `file`; `false` when that is not all of it, and then some of
/// them may be filled.
pub(crate) fn read_now(
    memory: &GuestMemory,
    file: &File,
    offset: u64,
    pieces: &[(u64, u32)],
) -> io::Result<bool> {
    let vectors = vectors(memory, pieces)?;
    let wanted: usize = vectors.iter().map(|v| v.iov_len).sum();
    let Ok(at) = libc::off_t::try_from(offset) else {
        return Ok(false);
    };
    if vectors.len() > BATCH {
        return Ok(false);
    }
    let (fd, count) = (file.as_raw_fd(), vectors.len() as libc::c_int);
    // SAFETY: as in `transfer`.
    let moved = unsafe { libc::preadv2(fd, vectors.as_ptr(), count, at, libc::RWF_NOWAIT) };
    for slice in slices(memory, pieces) {
        let slice = slice?;
        slice.bitmap().mark_dirty(0, slice.len());
    }
    // Hosts and file systems that cannot tell refuse; the caller then waits for the data.
    Ok(usize::try_from(moved).is_ok_and(|moved| moved == wanted))
}

/// Writes `pieces` to `file` at `offset`.
pub(crate) fn write(memory: &GuestMemory, file: &File, offset: u64, pieces: &[(u64, u32)]) -> io::Result<()> {
    transfer(file, offset, vectors(memory, pieces)?, Direction::FromRam)
}

type Slice<'m> = vm_memory::VolatileSlice<'m, crate::generations::GenerationSlice<'m>>;

fn slices<'m>(
    memory: &'m GuestMemory,
    pieces: &'m [(u64, u32)],
) -> impl Iterator<Item = io::Result<Slice<'m>>> + 'm {
    pieces.iter().flat_map(move |&(gpa, len)| {
        memory
            .ram()
            .get_slices(GuestAddress(gpa), len as usize)
            .map(move |slice| slice.map_err(|_| outside(gpa, len)))
    })
}

fn outside(gpa: u64, len: u32) -> io::Error {
    let len = len.into();
    io::Error::new(io::ErrorKind::InvalidInput, MemoryError::OutOfRange { gpa, len })
}

fn vectors(memory: &GuestMemory, pieces: &[(u64, u32)]) -> io::Result<Vec<libc::iovec>> {
    slices(memory, pieces)
        .map(|slice| {
            let slice = slice?;
            Ok(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            })
        })
        .collect()
}

fn transfer(file: &File, offset: u64, mut vectors: Vec<libc::iovec>, direction: Direction) -> io::Result<()> {
    let mut offset =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut rest = &mut vectors[..];
    while !rest.is_empty() {
        let count = rest.len().min(BATCH);
        let fd = file.as_raw_fd();
        // SAFETY: each vector is a checked part of guest RAM, whose mapping `memory` keeps alive for the call;
        // guest RAM is only ever accessed volatile or by the kernel, so that it changes meanwhile is allowed.
        let moved = unsafe {
            match direction {
                Direction::ToRam => libc::preadv(fd, rest.as_ptr(), count as libc::c_int, offset),
                Direction::FromRam => libc::pwritev(fd, rest.as_ptr(), count as libc::c_int, offset),
            }
        };
        let moved = match usize::try_from(moved) {
            Ok(0) if rest[..count].iter().all(|v| v.iov_len == 0) => 0,
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => moved,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(error),
            },
        };
        offset += moved as libc::off_t;
        rest = advance(rest, moved, count);
    }
    Ok(())
}

/// Drops `moved` bytes from the front of the first `count` vectors, and empty vectors there.
fn advance(rest: &mut [libc::iovec], mut moved: usize, count: usize) -> &mut [libc::iovec] {
    let mut done = 0;
    while done < count && moved >= rest[done].iov_len {
        moved -= rest[done].iov_len;
        done += 1;
    }
    let rest = &mut rest[done..];
    if let (Some(first), 1..) = (rest.first_mut(), moved) {
        first.iov_base = first.iov_base.wrapping_byte_add(moved);
        first.iov_len -= moved;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        file
    }

    #[test]
    fn pieces_are_filled_in_order_and_their_pages_change() {
        let memory = GuestMemory::allocate(&[(0, 0x2000), (0x2000, 0x2000)]).unwrap();
        let bytes: Vec<u8> = (0..9000u32).map(|n| (n % 251) as u8).collect();
        let file = file_of(&bytes);
        // One piece over two regions, one small one before it, an empty one.
        let pieces = [(0x10, 3), (0x100, 0), (0x1800, 0x1000)];
        memory.dma().read_file(&file, 5, &pieces).unwrap();
        let mut small = [0; 3];
        memory.read(0x10, &mut small).unwrap();
        assert_eq!(small, bytes[5..8]);
        let mut large = vec![0; 0x1000];
        memory.read(0x1800, &mut large).unwrap();
        assert_eq!(large, bytes[8..8 + 0x1000]);
        let changed =
            [0, 1, 2, 3].map(|gpn| memory.page(gpn).unwrap().generation.load(Ordering::Relaxed) != 0);
        assert_eq!(changed, [true, true, true, false]);

        let copy = file_of(&[]);
        memory.dma().write_file(&copy, 2, &pieces).unwrap();
        memory.dma().read_file(&copy, 5, &[(0x2800, 0x100)]).unwrap();
        let mut again = vec![0; 0x100];
        memory.read(0x2800, &mut again).unwrap();
        assert_eq!(again, bytes[8..0x108]);
    }

    #[test]
    fn pieces_outside_ram_move_nothing() {
        let memory = GuestMemory::allocate(&[(0, 0x1000)]).unwrap();
        let file = file_of(&[7; 0x2000]);
        let refused = memory
            .dma()
            .read_file(&file, 0, &[(0, 16), (0xFF0, 17)])
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        let mut byte = [0];
        memory.read(0, &mut byte).unwrap();
        assert_eq!(byte, [0]);
        assert!(memory.dma().write_file(&file, 0, &[(u64::MAX - 3, 8)]).is_err());
        let end = memory.dma().read_file(&file, 0x1FFF, &[(0, 2)]).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_the_host_has_in_memory_is_read_without_waiting() {
        let memory = GuestMemory::allocate(&[(0, 0x4000)]).unwrap();
        let file = file_of(&[0x3C; 0x2000]);
        let read = |pieces: &[(u64, u32)], at| memory.dma().read_file_now(&file, at, pieces);
        // A file system may refuse to tell; then nothing is claimed.
        if read(&[(0x10, 0x800), (0x1800, 0x800)], 0x100).unwrap() {
            let mut byte = [0; 2];
            memory.read(0x1FFE, &mut byte).unwrap();
            assert_eq!(byte, [0x3C; 2]);
            assert_ne!(memory.page(1).unwrap().generation.load(Ordering::Relaxed), 0);
        }
        assert!(!read(&[(0, 0x1000)], 0x1800).unwrap(), "past the end");
        assert!(read(&[(0x3FFF, 2)], 0).is_err(), "not RAM");
    }

    #[test]
    fn many_pieces_take_several_calls() {
        let memory = GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap();
        let bytes: Vec<u8> = (0..1000u32 * 16).map(|n| (n / 16) as u8).collect();
        let file = file_of(&bytes);
        let pieces: Vec<_> = (0..1000u64).map(|n| (n * 64, 16)).collect();
        memory.dma().read_file(&file, 0, &pieces).unwrap();
        let mut byte = [0; 2];
        memory.read(999 * 64 + 15, &mut byte).unwrap();
        assert_eq!(byte, [999u32 as u8, 0]);
    }
}
