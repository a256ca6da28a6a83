// SPDX-License-Identifier: MIT
//! Notices a guest that spins: the same few instructions for seconds on end.
//!
//! Always true: it only looks at instruction pointers that the scheduler sees anyway, between slices, and
//! says something once for each place. A guest that waits in HLT does not spin. Time is CPU time of the thread
//! that runs the VPs, so that neither a busy host nor a device that waits makes a guest look stuck.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// How long a guest may stay in one place before that is worth a line.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far apart the instructions of a spinning guest may be, in bytes.
const REACH: u64 = 1024;

/// CPU time that this thread has used.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Where a VP has been lately.
#[derive(Debug)]
pub(crate) struct SpinWatch {
    low: u64,
    high: u64,
    since: Duration,
    inside: u32,
    outside: u32,
    reported: bool,
}

impl SpinWatch {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            low: 0,
            high: 0,
            since: now,
            inside: 0,
            outside: 0,
            reported: false,
        }
    }

    /// The VP is idle or was moved: what it did before does not count.
    pub(crate) fn restart(&mut self, rip: u64, now: Duration) {
        *self = Self {
            low: rip,
            high: rip,
            ..Self::new(now)
        };
    }

    /// A sample of the instruction pointer. `Some` is the range of addresses when it is time to say that
    /// the guest spins. One sample in eight may be elsewhere, in an interrupt handler.
    pub(crate) fn sample(&mut self, rip: u64, now: Duration) -> Option<(u64, u64)> {
        let (low, high) = (self.low.min(rip), self.high.max(rip));
        if high - low <= REACH {
            (self.low, self.high) = (low, high);
            self.inside = self.inside.saturating_add(1);
        } else {
            self.outside = self.outside.saturating_add(1);
            if self.outside > self.inside / 8 {
                self.restart(rip, now);
            }
            return None;
        }
        if self.reported || now.saturating_sub(self.since) < PATIENCE {
            return None;
        }
        self.reported = true;
        Some((self.low, self.high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_reported_once_after_ten_seconds() {
        let start = Duration::from_secs(3);
        let at = |ms| start + Duration::from_millis(ms);
        let mut watch = SpinWatch::new(start);
        watch.restart(0x1000, start);
        for i in 0..99 {
            // Every twentieth sample is in an interrupt handler.
            let rip = if i % 20 == 19 { 0xFFFF_0000 } else { 0x1000 + i % 8 };
            assert_eq!(watch.sample(rip, at(i * 100)), None);
        }
        assert_eq!(watch.sample(0x1003, at(10_000)), Some((0x1000, 0x1007)));
        assert_eq!(watch.sample(0x1003, at(30_000)), None);
    }

    #[test]
    fn code_that_moves_on_is_not_a_loop() {
        let start = Duration::from_secs(3);
        let mut watch = SpinWatch::new(start);
        for i in 0..1000u64 {
            let now = start + Duration::from_millis(i * 100);
            assert_eq!(watch.sample(i * 0x800, now), None);
        }
    }

    #[test]
    fn waiting_is_no_cpu_time() {
        let start = thread_time();
        std::thread::sleep(Duration::from_millis(300));
        assert!(thread_time() - start < Duration::from_millis(150));
        let mut x = 1u64;
        while thread_time() - start < Duration::from_millis(200) {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
    }
}
