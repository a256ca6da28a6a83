// SPDX-License-Identifier: MIT
//! A device's own thread: it sleeps until the driver notifies or something that the device watches is ready.
//!
//! Always true: a notification is never lost; the thread is gone when its [`Worker`] was dropped.

use crate::core::Shared;
use crate::device::Progress;
use crate::lock;
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Wakes the thread. Ringing it again before the thread woke costs no system call.
pub(crate) struct Bell {
    event: OwnedFd,
    rung: AtomicBool,
    end: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            event: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            rung: AtomicBool::new(false),
            end: AtomicBool::new(false),
        })
    }

    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Only a counter at its limit refuses, and then the thread wakes anyway.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    fn hush(&self) {
        // Empty when something else woke the thread.
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        self.rung.swap(false, Ordering::AcqRel);
    }
}

/// The thread of one device.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread of a device that has a bell.
    pub(crate) fn spawn(name: &str, shared: Arc<Shared>) -> io::Result<Self> {
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || {
                if let Some(bell) = &theirs.bell {
                    serve(&theirs, bell);
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(bell) = &self.shared.bell {
            bell.end.store(true, Ordering::Release);
            bell.ring();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a device's thread died; this is a bug in openvmm");
        }
    }
}

fn serve(shared: &Shared, bell: &Bell) {
    while !bell.end.load(Ordering::Acquire) {
        if let Err(error) = sleep(shared, bell) {
            tracing::error!("a device's thread cannot wait for events and stops: {error}");
            return;
        }
        bell.hush();
        while shared.work() == Progress::More && !bell.end.load(Ordering::Acquire) {
            // Lets a VP that waits for the device's registers at them.
            std::thread::yield_now();
        }
    }
}

fn sleep(shared: &Shared, bell: &Bell) -> io::Result<()> {
    let watches = lock(&shared.core).device.watches();
    let mut fds = vec![PollFd::new(&bell.event, PollFlags::IN)];
    fds.extend(watches.iter().map(|watch| {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, watch.readable);
        flags.set(PollFlags::OUT, watch.writable);
        PollFd::new(&watch.fd, flags)
    }));
    match rustix::event::poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
