// SPDX-License-Identifier: MIT
//! The one clock of a partition, in nanoseconds since it was created.
//!
//! Always true: never goes back, stops while paused. Either the host's monotonic clock or a counter
//! that a deterministic backend advances with the instruction count. TSC, PM timer, LAPIC timer, PIT,
//! RTC and the Hyper-V reference counter all derive from it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// 2026-01-01T00:00:00Z in seconds since the Unix epoch: where deterministic time starts.
const DETERMINISTIC_EPOCH_SECONDS: u64 = 1_767_225_600;

#[derive(Debug)]
enum Source {
    /// `base` nanoseconds had passed when the clock was last resumed; `since` is `None` while paused.
    Host(Mutex<HostTime>),
    Counter(AtomicU64),
}

#[derive(Debug)]
struct HostTime {
    base: u64,
    since: Option<Instant>,
}

/// The partition's clock.
#[derive(Debug)]
pub struct Clock {
    source: Source,
    /// Wall-clock nanoseconds since the Unix epoch at clock 0.
    epoch: u64,
}

impl Clock {
    /// A clock that follows the host, created stopped.
    pub fn host() -> Self {
        let epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64);
        Self {
            source: Source::Host(Mutex::new(HostTime { base: 0, since: None })),
            epoch,
        }
    }

    /// A clock that only [`Clock::advance_to`] moves; its wall time starts at 2026-01-01.
    pub fn deterministic() -> Self {
        Self {
            source: Source::Counter(AtomicU64::new(0)),
            epoch: DETERMINISTIC_EPOCH_SECONDS * 1_000_000_000,
        }
    }

    /// Whether time is a counter rather than the host's.
    pub fn is_deterministic(&self) -> bool {
        matches!(self.source, Source::Counter(_))
    }

    /// Nanoseconds of running time since creation.
    pub fn now(&self) -> u64 {
        match &self.source {
            Source::Host(t) => {
                let t = t.lock().unwrap_or_else(|e| e.into_inner());
                t.base + t.since.map_or(0, |s| s.elapsed().as_nanos() as u64)
            }
            Source::Counter(c) => c.load(Ordering::Relaxed),
        }
    }

    /// Wall-clock nanoseconds since the Unix epoch; stops while paused like everything else.
    pub fn wall(&self) -> u64 {
        self.epoch + self.now()
    }

    /// Moves a deterministic clock forward to `ns`; earlier values and host clocks are left alone.
    pub fn advance_to(&self, ns: u64) {
        if let Source::Counter(c) = &self.source {
            c.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// Lets a host clock run.
    pub fn start(&self) {
        if let Source::Host(t) = &self.source {
            let mut t = t.lock().unwrap_or_else(|e| e.into_inner());
            t.since.get_or_insert_with(Instant::now);
        }
    }

    /// Stops a host clock.
    pub fn stop(&self) {
        if let Source::Host(t) = &self.source {
            let mut t = t.lock().unwrap_or_else(|e| e.into_inner());
            if let Some(s) = t.since.take() {
                t.base += s.elapsed().as_nanos() as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_clock_stands_still_until_started() {
        let c = Clock::host();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert_eq!(c.now(), 0);
        c.start();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(c.now() >= 2_000_000);
        c.stop();
        let t = c.now();
        assert_eq!(c.now(), t);
    }

    #[test]
    fn deterministic_clock_never_goes_back() {
        let c = Clock::deterministic();
        c.advance_to(500);
        c.advance_to(100);
        assert_eq!(c.now(), 500);
        assert_eq!(c.wall() - c.now(), 1_767_225_600_000_000_000);
    }
}
