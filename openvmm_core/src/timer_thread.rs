// SPDX-License-Identifier: MIT
//! The host thread that fires deadlines.
//!
//! Always true: deadlines fire only between `set_running(true)` and `set_running(false)`, so devices
//! may be reset in between without a late call. Not here: deterministic time, whose backend fires
//! deadlines itself.

use chipset_device::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use virt::{Clock, TimerQueue};

struct Shared {
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
    running: AtomicBool,
    end: AtomicBool,
    firing: Mutex<()>,
}

/// Fires the deadlines of one partition.
pub(crate) struct TimerThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl TimerThread {
    /// Starts the thread, idle.
    pub(crate) fn spawn(clock: Arc<Clock>, timers: Arc<TimerQueue>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            clock,
            timers,
            running: AtomicBool::new(false),
            end: AtomicBool::new(false),
            firing: Mutex::new(()),
        });
        let thread = std::thread::Builder::new().name("timers".into()).spawn({
            let shared = shared.clone();
            move || serve(&shared)
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Follows the clock: call after it was started or stopped. When `running` is false, no deadline
    /// fires after this returns.
    pub(crate) fn set_running(&self, running: bool) {
        self.shared.running.store(running, Ordering::SeqCst);
        drop(lock(&self.shared.firing));
        self.shared.timers.nudge();
    }
}

impl Drop for TimerThread {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        self.shared.timers.nudge();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(shared: &Shared) {
    loop {
        let (deadline, ticket) = shared.timers.watch();
        if shared.end.load(Ordering::SeqCst) {
            return;
        }
        let limit = if shared.running.load(Ordering::SeqCst) {
            deadline.map(|d| Duration::from_nanos(d.saturating_sub(shared.clock.now())))
        } else {
            None
        };
        if limit == Some(Duration::ZERO) {
            fire(shared);
        } else {
            shared.timers.wait_changed(ticket, limit);
        }
    }
}

fn fire(shared: &Shared) {
    let _firing = lock(&shared.firing);
    if shared.running.load(Ordering::SeqCst) {
        shared.timers.fire_due(shared.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipset_device::TimerClient;
    use std::sync::{Weak, mpsc};

    struct Bell(Mutex<mpsc::Sender<u64>>);

    impl TimerClient for Bell {
        fn timer_fired(&self, _id: u32, now: u64) {
            self.0.lock().unwrap().send(now).unwrap();
        }
    }

    #[test]
    fn deadlines_fire_only_while_running() {
        let (clock, timers) = (Arc::new(Clock::host()), TimerQueue::new());
        let (tx, rung) = mpsc::channel();
        let bell = Arc::new(Bell(Mutex::new(tx)));
        let timer = timers.timer(0);
        timer.connect(Arc::downgrade(&bell) as Weak<dyn TimerClient>);
        timer.arm(1_000_000);
        let thread = TimerThread::spawn(clock.clone(), timers).unwrap();
        assert!(rung.recv_timeout(Duration::from_millis(20)).is_err());
        clock.start();
        thread.set_running(true);
        assert!(rung.recv_timeout(Duration::from_secs(10)).unwrap() >= 1_000_000);
        thread.set_running(false);
        clock.stop();
        timer.arm(0);
        assert!(rung.recv_timeout(Duration::from_millis(20)).is_err());
        clock.start();
        thread.set_running(true);
        rung.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
