// SPDX-License-Identifier: MIT
//! A device's own thread: it sleeps until a guest rings or something of the host that the device watches is ready.
//!
//! Always true: a ring is never lost; the thread is gone when its [`Worker`] was dropped.
//! Not here: what is done on it.
#![forbid(unsafe_code)]

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A file descriptor of the host that a device waits for.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The descriptor.
    pub fd: Arc<OwnedFd>,
    /// Wake when it can be read.
    pub readable: bool,
    /// Wake when it can be written.
    pub writable: bool,
}

/// Whether a device has done all that it can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for the guest or the host.
    Idle,
    /// There is more; it stopped to let others at its registers.
    More,
}

/// What a device does when it is woken.
pub trait Job: Send + Sync {
    /// Does what can be done now.
    fn work(&self) -> Progress;

    /// What to wait for besides the bell.
    fn watches(&self) -> Vec<Watch> {
        Vec::new()
    }
}

/// Wakes the thread. Ringing it again before the thread woke costs no system call.
#[derive(Debug)]
pub struct Bell {
    event: OwnedFd,
    rung: AtomicBool,
    end: AtomicBool,
}

impl Bell {
    /// A silent bell.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            event: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            rung: AtomicBool::new(false),
            end: AtomicBool::new(false),
        }))
    }

    /// Wakes the thread, also one that is about to sleep.
    pub fn ring(&self) {
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

    fn ended(&self) -> bool {
        self.end.load(Ordering::Acquire)
    }
}

/// The thread of one device.
#[derive(Debug)]
pub struct Worker {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread; hosts show the first 15 characters of `name`.
    pub fn spawn(name: &str, bell: Arc<Bell>, job: Arc<dyn Job>) -> io::Result<Self> {
        let theirs = bell.clone();
        let thread = std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || serve(&theirs, &*job))?;
        Ok(Self {
            bell,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.bell.end.store(true, Ordering::Release);
        self.bell.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a device's thread died; this is a bug in openvmm");
        }
    }
}

fn serve(bell: &Bell, job: &dyn Job) {
    while !bell.ended() {
        if let Err(error) = sleep(bell, &job.watches()) {
            tracing::error!("a device's thread cannot wait for events and stops: {error}");
            return;
        }
        bell.hush();
        while job.work() == Progress::More && !bell.ended() {
            // Lets a VP that waits for the device's registers at them.
            std::thread::yield_now();
        }
    }
}

fn sleep(bell: &Bell, watches: &[Watch]) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::time::{Duration, Instant};

    #[derive(Default)]
    struct Counter {
        rounds: AtomicU32,
        more: AtomicU32,
    }

    impl Job for Counter {
        fn work(&self) -> Progress {
            self.rounds.fetch_add(1, Ordering::SeqCst);
            let more = self.more.load(Ordering::SeqCst);
            self.more.store(more.saturating_sub(1), Ordering::SeqCst);
            if more > 0 { Progress::More } else { Progress::Idle }
        }
    }

    #[test]
    fn every_ring_is_followed_by_work_and_the_thread_ends_with_its_worker() {
        let (bell, job) = (Bell::new().unwrap(), Arc::new(Counter::default()));
        let worker = Worker::spawn("counter", bell.clone(), job.clone()).unwrap();
        for round in 1..200 {
            let before = job.rounds.load(Ordering::SeqCst);
            if round % 50 == 0 {
                job.more.store(3, Ordering::SeqCst);
            }
            bell.ring();
            let end = Instant::now() + Duration::from_secs(20);
            while job.rounds.load(Ordering::SeqCst) == before {
                assert!(Instant::now() < end, "round {round}");
                std::thread::yield_now();
            }
        }
        drop(worker);
        assert_eq!(Arc::strong_count(&job), 1);
    }
}
