// SPDX-License-Identifier: MIT
//! The seam between the backends and the host: a handful of system calls, without knowledge of what they
//! mean (`spec/sev.md` section 4.1).

use crate::request::Number;
use std::io;
use std::ptr::NonNull;

/// A device node that backends open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// `/dev/kvm`.
    Kvm,
    /// `/dev/sev`.
    Sev,
}

impl Node {
    /// Path of the node.
    pub fn path(self) -> &'static str {
        match self {
            Self::Kvm => "/dev/kvm",
            Self::Sev => "/dev/sev",
        }
    }
}

/// A descriptor of the host or of a model. Has no owner; [`crate::Handle`] closes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fd(pub i32);

/// The host. [`crate::RealSys`] is the kernel; a model of KVM takes its place in tests and with
/// `--sev-model`.
pub trait Sys: Send + Sync {
    /// Opens a device node for reading and writing, close-on-exec.
    fn open(&self, node: Node) -> io::Result<Fd>;

    /// Closes a descriptor. Errors have no consequence and are not reported.
    fn close(&self, fd: Fd);

    /// A request whose argument is a number. Answers the non-negative result.
    fn ioctl_value(&self, fd: Fd, request: Number, value: u64) -> io::Result<i32>;

    /// A request whose argument is a structure.
    ///
    /// # Safety
    /// `argument` must point to the structure that `request` takes, valid for reads and writes of its
    /// whole size (also the part behind a flexible header), and every pointer in it must satisfy what the
    /// request demands.
    unsafe fn ioctl_pointer(&self, fd: Fd, request: Number, argument: *mut u8) -> io::Result<i32>;

    /// Maps `len` bytes of a descriptor, shared, for reading and writing.
    fn map(&self, fd: Fd, len: usize) -> io::Result<NonNull<u8>>;

    /// Ends a mapping.
    ///
    /// # Safety
    /// `at` and `len` must be those of one earlier [`Sys::map`] that nobody uses any more.
    unsafe fn unmap(&self, at: NonNull<u8>, len: usize);
    /// Gives up the contents of whole pages of this process's memory, which read as zeros afterwards.
    ///
    /// # Safety
    /// The pages must be mapped, private and anonymous, and nobody may hold a reference into them.
    unsafe fn discard(&self, at: NonNull<u8>, len: usize) -> io::Result<()>;

    /// Gives up the contents of a range of a descriptor (`FALLOC_FL_PUNCH_HOLE`).
    fn punch(&self, fd: Fd, offset: u64, len: u64) -> io::Result<()>;
}
