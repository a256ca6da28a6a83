// SPDX-License-Identifier: MIT
//! Memory of the calling process, reached the way a kernel reaches it.
//!
//! Always true: an address that is not mapped, or not writable, is an EFAULT and never a crash. Not here:
//! what the bytes mean.

use libc::EFAULT;

/// Leave to reach this process's memory by address.
///
/// Only a caller who vouches for the addresses that it passes to ioctls can give it; slots, registered
/// ranges and run structures keep a copy for the time that their addresses are promised to stay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User(());

impl User {
    /// # Safety
    /// Every address that is reached through this was named by a caller who vouched for it (the contract of
    /// `Sys::ioctl_pointer`), or belongs to a mapping of the model.
    pub(crate) unsafe fn vouched() -> Self {
        Self(())
    }

    /// Fills `into` from `address`.
    pub(crate) fn read(self, address: u64, into: &mut [u8]) -> Result<(), i32> {
        let local = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: into.len(),
        };
        let remote = remote(address, into.len());
        // SAFETY: the local part is `into`; the kernel checks the remote part and copies plain bytes.
        let copied =
            unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
        whole(copied, into.len())
    }

    /// Writes `bytes` to `address`.
    pub(crate) fn write(self, address: u64, bytes: &[u8]) -> Result<(), i32> {
        let local = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let remote = remote(address, bytes.len());
        // SAFETY: the local part is only read; the remote part is memory that the giver of this leave
        // vouched for, and the kernel checks that it is mapped and writable.
        let copied =
            unsafe { libc::process_vm_writev(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
        whole(copied, bytes.len())
    }

    /// A structure of `N` bytes.
    pub(crate) fn array<const N: usize>(self, address: u64) -> Result<[u8; N], i32> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// A number at `address`.
    pub(crate) fn u32(self, address: u64) -> Result<u32, i32> {
        self.array(address).map(u32::from_le_bytes)
    }

    /// A number at `address`.
    pub(crate) fn u64(self, address: u64) -> Result<u64, i32> {
        self.array(address).map(u64::from_le_bytes)
    }

    /// Whether every page of a range is mapped for reading and writing, without touching one: pinning in
    /// the kernel looks at the same list.
    pub(crate) fn is_usable(self, address: u64, len: u64) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        len != 0
            && address
                .checked_add(len)
                .is_some_and(|end| covers(&maps, address, end))
    }
}

/// Whether the mappings of `maps` (as `/proc/PID/maps` lists them, by address) cover a range readable and
/// writable.
fn covers(maps: &str, start: u64, end: u64) -> bool {
    let mut reached = start;
    for line in maps.lines() {
        let mut words = line.split(' ');
        let range = words.next().and_then(|range| range.split_once('-'));
        let bound = |text: &str| u64::from_str_radix(text, 16).ok();
        let Some((first, last)) = range.and_then(|(first, last)| Some((bound(first)?, bound(last)?))) else {
            continue;
        };
        let writable = words.next().is_some_and(|leave| leave.starts_with("rw"));
        if reached >= end || first > reached {
            break;
        }
        if last > reached {
            if !writable {
                return false;
            }
            reached = last;
        }
    }
    reached >= end
}

/// New pages of this process, zeroed, for a run structure.
pub(crate) fn map(len: usize) -> Result<u64, i32> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(libc::ENOMEM);
    }
    Ok(at as u64)
}

/// Ends such a mapping.
///
/// # Safety
/// `at` and `len` must be those of one earlier [`map`] that nobody uses any more.
pub(crate) unsafe fn unmap(at: u64, len: usize) {
    // SAFETY: the caller vouches that this is a whole mapping that nobody uses.
    unsafe { libc::munmap(at as *mut libc::c_void, len) };
}

/// Drops the contents of pages that the caller maps.
///
/// # Safety
/// The range must be page aligned, and memory whose contents the caller gives up.
pub(crate) unsafe fn discard(at: u64, len: usize) -> Result<(), i32> {
    // SAFETY: the caller vouches for the range; a bad one is refused by the kernel.
    match unsafe { libc::madvise(at as *mut libc::c_void, len, libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EINVAL)),
    }
}

fn remote(address: u64, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: len,
    }
}

fn whole(copied: isize, wanted: usize) -> Result<(), i32> {
    if usize::try_from(copied) == Ok(wanted) {
        Ok(())
    } else {
        Err(EFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_addresses_fault_and_good_ones_copy() {
        // SAFETY: the addresses below are a mapping of this test, read-only data, and pages that are not mapped.
        let user = unsafe { User::vouched() };
        let at = map(8192).unwrap();
        user.write(at + 4090, &[7; 12]).unwrap();
        assert_eq!(user.array::<12>(at + 4090), Ok([7; 12]));
        assert!(user.is_usable(at, 8192));
        static CONSTANT: [u8; 8] = [1; 8];
        let constant = CONSTANT.as_ptr() as u64;
        assert_eq!(user.array::<8>(constant), Ok([1; 8]));
        assert_eq!(user.write(constant, &[2; 8]), Err(EFAULT));
        // SAFETY: the mapping above, used for the last time.
        unsafe { unmap(at, 8192) };
        assert_eq!(user.u64(at), Err(EFAULT));
        assert_eq!(user.u32(8), Err(EFAULT));
        assert!(!user.is_usable(at, 8192) && !user.is_usable(at, 0) && !user.is_usable(u64::MAX, 2));
        assert!(!user.is_usable(constant, 8), "read-only");
    }

    #[test]
    fn a_range_is_usable_when_writable_mappings_cover_it_without_a_gap() {
        let maps = "1000-3000 rw-p 00000000 00:00 0 [heap]\n3000-4000 rw-s 0 00:01 7 /x\n4000-5000 r--p 0 00:00 0\n\
                    8000-9000 rw-p 0 00:00 0\n";
        for (start, end, usable) in [
            (0x1000, 0x4000, true),
            (0x2FFF, 0x3001, true),
            (0x1000, 0x4001, false),
            (0x4000, 0x4010, false),
            (0x0FFF, 0x2000, false),
            (0x6000, 0x7000, false),
            (0x8000, 0x9000, true),
            (0x8000, 0x9001, false),
        ] {
            assert_eq!(covers(maps, start, end), usable, "{start:#x}..{end:#x}");
        }
        assert!(!covers("", 0x1000, 0x2000));
    }
}
