// SPDX-License-Identifier: MIT
//! The three requests of the tun driver.

use crate::Offload;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const TUN_F_CSUM: libc::c_uint = 1;
const TUN_F_TSO4: libc::c_uint = 2;
const TUN_F_TSO6: libc::c_uint = 4;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Attaches to a tap interface with headers; `name` has at most 15 bytes.
pub(crate) fn attach(fd: &OwnedFd, name: &str) -> io::Result<()> {
    // SAFETY: all zero bytes are a valid `ifreq`: an empty name and an empty union.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// Bytes of the header before each frame.
pub(crate) fn set_header_len(fd: &OwnedFd, len: libc::c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one `int`, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) })
}

/// What received frames may leave to the guest. Segmentation needs checksums.
pub(crate) fn set_offload(fd: &OwnedFd, offload: Offload) -> io::Result<()> {
    let mut flags = 0;
    if offload.checksum {
        flags |= TUN_F_CSUM;
        flags |= if offload.tcp4 { TUN_F_TSO4 } else { 0 };
        flags |= if offload.tcp6 { TUN_F_TSO6 } else { 0 };
    }
    // SAFETY: TUNSETOFFLOAD takes its flags by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}
