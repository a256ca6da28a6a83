// SPDX-License-Identifier: MIT
//! One stream between a port of the guest and a Unix socket.
//!
//! Always true: at most [`BUFFER`] bytes of the guest's wait for the host, and the host's bytes stay in its socket
//! until the guest has credit for them.

use super::header::{Header, SHUT_RECEIVE, SHUT_SEND};
use crate::pieces::Pieces;
use guest_memory::DmaMemory;
use io_thread::Watch;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Bytes that the guest may send ahead of what the host took.
const BUFFER: u32 = 256 << 10;
/// Most bytes of one packet to the guest.
const MOST_DATA: usize = 64 << 10;

/// What the host has for the guest.
pub(super) enum Received {
    Nothing,
    Data(Vec<u8>),
    /// The host sends no more.
    End,
    Broken,
}

/// The stream and its accounts.
pub(super) struct Connection {
    stream: UnixStream,
    fd: Arc<OwnedFd>,
    /// Both ends have agreed.
    open: bool,
    /// The guest's bytes that the host has not taken.
    waiting: VecDeque<u8>,
    /// Bytes taken by the host, and how many of them the guest knows of.
    forwarded: u32,
    told: u32,
    pub(super) owes_credit: bool,
    /// The guest's room, what it has taken of it, and what was sent.
    peer_room: u32,
    peer_forwarded: u32,
    sent: u32,
    host_ended: bool,
    guest_sends: bool,
    guest_receives: bool,
}

impl Connection {
    fn new(stream: UnixStream, fd: Arc<OwnedFd>, open: bool) -> Self {
        Self {
            stream,
            fd,
            open,
            waiting: VecDeque::new(),
            forwarded: 0,
            told: 0,
            owes_credit: false,
            peer_room: 0,
            peer_forwarded: 0,
            sent: 0,
            host_ended: false,
            guest_sends: true,
            guest_receives: true,
        }
    }

    /// A connection that the host begins.
    pub(super) fn calling(stream: UnixStream, fd: Arc<OwnedFd>) -> Self {
        Self::new(stream, fd, false)
    }

    /// A connection that the guest has begun.
    pub(super) fn called(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let fd = Arc::new(stream.try_clone()?.into());
        Ok(Self::new(stream, fd, true))
    }

    /// A header with this end's account.
    pub(super) fn stamped(&self, header: Header) -> Header {
        Header {
            buf_alloc: BUFFER,
            fwd_cnt: self.forwarded,
            ..header
        }
    }

    /// The guest's account.
    pub(super) fn credit(&mut self, header: &Header) {
        self.peer_room = header.buf_alloc;
        self.peer_forwarded = header.fwd_cnt;
    }

    fn available(&self) -> u32 {
        let unread = self.sent.wrapping_sub(self.peer_forwarded);
        self.peer_room.saturating_sub(unread)
    }

    /// The guest has accepted; `false` when nothing was asked of it or the caller is gone.
    pub(super) fn accepted(&mut self, port: u32) -> bool {
        // Short enough for an empty socket buffer.
        let told = !self.open && self.stream.write_all(format!("OK {port}\n").as_bytes()).is_ok();
        self.open = true;
        told
    }

    /// Takes data of the guest; `false` when it is more than its credit or cannot be read.
    pub(super) fn take(&mut self, ram: &DmaMemory, data: &Pieces) -> bool {
        let len = data.total();
        if !self.open || !self.guest_sends || self.waiting.len() as u64 + len > u64::from(BUFFER) {
            return false;
        }
        let mut bytes = vec![0; len as usize];
        let read = data.read(ram, &mut bytes).is_ok();
        self.waiting.extend(bytes);
        read
    }

    pub(super) fn guest_shuts(&mut self, flags: u32) {
        self.guest_sends &= flags & SHUT_SEND == 0;
        self.guest_receives &= flags & SHUT_RECEIVE == 0;
    }

    /// Writes what the host takes; `false` when the connection is over.
    pub(super) fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            let (first, _) = self.waiting.as_slices();
            match self.stream.write(first) {
                Ok(count) => {
                    self.waiting.drain(..count);
                    self.forwarded = self.forwarded.wrapping_add(count as u32);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        if !self.guest_sends {
            if !self.guest_receives || self.host_ended {
                return false;
            }
            // The host may have gone already, which reading will show.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        true
    }

    /// Whether the guest should be told of the room that came free.
    pub(super) fn wants_update(&self) -> bool {
        self.open && (self.owes_credit || self.forwarded.wrapping_sub(self.told) >= BUFFER / 4)
    }

    pub(super) fn updated(&mut self) {
        self.told = self.forwarded;
        self.owes_credit = false;
    }

    /// Reads at most `room` bytes of the host's, as far as the guest's credit goes.
    pub(super) fn receive(&mut self, room: usize) -> Received {
        let room = room.min(MOST_DATA).min(self.available() as usize);
        if !self.open || self.host_ended || !self.guest_receives || room == 0 {
            return Received::Nothing;
        }
        let mut data = vec![0; room];
        match self.stream.read(&mut data) {
            Ok(0) => {
                self.host_ended = true;
                Received::End
            }
            Ok(count) => {
                data.truncate(count);
                self.sent = self.sent.wrapping_add(count as u32);
                // Every packet carries the account.
                self.updated();
                Received::Data(data)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Received::Nothing
            }
            Err(_) => Received::Broken,
        }
    }

    /// What to wait for.
    pub(super) fn watch(&self, guest_has_buffers: bool) -> Option<Watch> {
        let readable =
            guest_has_buffers && self.open && !self.host_ended && self.guest_receives && self.available() > 0;
        let writable = !self.waiting.is_empty();
        (readable || writable).then(|| Watch {
            fd: self.fd.clone(),
            readable,
            writable,
        })
    }
}
