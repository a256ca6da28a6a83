// SPDX-License-Identifier: MIT
//! Tap interfaces of Linux hosts: Ethernet frames in and out of a file descriptor (Linux
//! Documentation/networking/tuntap.rst).
//!
//! Always true: reads and writes never block; every frame has the 12-byte header of virtio-net (VIRTIO 1.2
//! section 5.1.6) before it, in which the host and the guest agree on checksums and segmentation.
//! Not here: making bridges, addresses and routes; network devices.

mod ioctl;

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

/// Bytes of the header before each frame.
pub const HEADER: usize = 12;
/// The largest frame with its header: 64 KiB of segmented payload and what is around it.
pub const MAX_FRAME: usize = HEADER + 65_550;

const DEVICE: &str = "/dev/net/tun";

/// What a guest lets the host leave to it, for frames that it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// Checksums may be missing.
    pub checksum: bool,
    /// TCP over IPv4 may be longer than a frame.
    pub tcp4: bool,
    /// TCP over IPv6 may be longer than a frame.
    pub tcp6: bool,
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No tun driver, or no right to use it.
    #[error("tap {name}: {DEVICE}: {error}")]
    Device {
        /// The interface.
        name: String,
        /// The host's answer.
        error: io::Error,
    },
    /// Interface names have 1 to 15 bytes.
    #[error("tap {0:?}: an interface name has 1 to 15 characters, none of them / or space")]
    Name(String),
    /// The interface is in use, belongs to someone else or is no tap.
    #[error(
        "tap {name}: {error}; make it with ip tuntap add {name} mode tap, and check that nobody else uses it"
    )]
    Attach {
        /// The interface.
        name: String,
        /// The host's answer.
        error: io::Error,
    },
}

/// An attached interface.
#[derive(Debug)]
pub struct Tap {
    fd: Arc<OwnedFd>,
    name: String,
    /// The fd is one of the tun driver, which takes its requests.
    is_interface: bool,
}

impl Tap {
    /// Attaches to interface `name`; one that does not exist is made, which takes CAP_NET_ADMIN, and goes away with
    /// this handle.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let bad = |c: char| c == '/' || c.is_whitespace() || c == '\0';
        if name.is_empty() || name.len() > 15 || name.contains(bad) {
            return Err(TapError::Name(name.to_owned()));
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(DEVICE, flags, Mode::empty()).map_err(|errno| TapError::Device {
            name: name.to_owned(),
            error: errno.into(),
        })?;
        let fail = |error| TapError::Attach {
            name: name.to_owned(),
            error,
        };
        ioctl::attach(&fd, name).map_err(fail)?;
        ioctl::set_header_len(&fd, HEADER as i32).map_err(fail)?;
        Ok(Self {
            fd: Arc::new(fd),
            name: name.to_owned(),
            is_interface: true,
        })
    }

    /// Frames that come and go over a datagram socket, one with its header in each message, for tests that may not
    /// make interfaces. The other end leaves nothing to the guest.
    pub fn over_datagrams(name: &str, socket: UnixDatagram) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            fd: Arc::new(socket.into()),
            name: name.to_owned(),
            is_interface: false,
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The descriptor, to wait for frames.
    pub fn fd(&self) -> Arc<OwnedFd> {
        self.fd.clone()
    }

    /// Says what the guest takes.
    pub fn set_offload(&self, offload: Offload) -> io::Result<()> {
        if self.is_interface {
            ioctl::set_offload(&self.fd, offload)?;
        }
        Ok(())
    }

    /// The next frame with its header; `WouldBlock` when there is none.
    pub fn read(&self, frame: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::io::read(&*self.fd, &mut *frame)
        })?)
    }

    /// Sends a frame with its header.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        let sent = rustix::io::retry_on_intr(|| rustix::io::write(&*self.fd, frame))?;
        if sent == frame.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in ["", "sixteen-letters-", "a b", "a/b", "a\0"] {
            assert!(matches!(Tap::open(name), Err(TapError::Name(_))), "{name:?}");
        }
    }
}
