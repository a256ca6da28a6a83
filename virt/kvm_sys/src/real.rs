// SPDX-License-Identifier: MIT
//! The kernel of this machine.

use crate::request::Number;
use crate::sys::{Fd, Node, Sys};
use std::ffi::CString;
use std::io;
use std::ptr::NonNull;

/// The host's kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealSys;

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

impl Sys for RealSys {
    fn open(&self, node: Node) -> io::Result<Fd> {
        let path = CString::new(node.path())?;
        // SAFETY: the path is a C string that outlives the call.
        check(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) }).map(Fd)
    }

    fn close(&self, fd: Fd) {
        // SAFETY: closing a number that is not a descriptor only fails.
        unsafe { libc::close(fd.0) };
    }

    fn ioctl_value(&self, fd: Fd, request: Number, value: u64) -> io::Result<i32> {
        if request.number >> 30 != 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: a request without a direction in its number takes a number, not a pointer.
        check(unsafe { libc::ioctl(fd.0, request.number.into(), value) })
    }

    unsafe fn ioctl_pointer(&self, fd: Fd, request: Number, argument: *mut u8) -> io::Result<i32> {
        // SAFETY: the caller vouches for the structure behind the pointer.
        check(unsafe { libc::ioctl(fd.0, request.number.into(), argument) })
    }

    fn map(&self, fd: Fd, len: usize) -> io::Result<NonNull<u8>> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.0, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mmap answered address 0"))
    }

    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) {
        // SAFETY: the caller vouches that this is a whole mapping that nobody uses.
        unsafe { libc::munmap(at.as_ptr().cast(), len) };
    }

    unsafe fn discard(&self, at: NonNull<u8>, len: usize) -> io::Result<()> {
        // SAFETY: the caller vouches for the pages and gives up what they hold.
        check(unsafe { libc::madvise(at.as_ptr().cast(), len, libc::MADV_DONTNEED) }).map(drop)
    }

    fn punch(&self, fd: Fd, offset: u64, len: u64) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let number =
            |value: u64| i64::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
        // SAFETY: plain numbers.
        check(unsafe { libc::fallocate(fd.0, mode, number(offset)?, number(len)?) }).map(drop)
    }
}
