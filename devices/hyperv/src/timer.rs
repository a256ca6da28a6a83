// SPDX-License-Identifier: MIT
//! One synthetic timer (TLFS "Synthetic timers").
//!
//! Always true: a periodic timer keeps its phase; one that is not lazy catches up with at most
//! [`CATCH_UP`] periods, then drops the rest, and no period is shorter than [`SHORTEST`], so a guest
//! cannot keep the host's timer thread busy. Not here: how messages reach the guest.

use chipset_device::TimerHandle;

/// Periods that are caught up after a pause of the host.
const CATCH_UP: u64 = 16;
/// Shortest time between two expirations, in 100 ns.
const SHORTEST: u64 = 500;

const ENABLED: u64 = 1;
const PERIODIC: u64 = 1 << 1;
const LAZY: u64 = 1 << 2;
const AUTO_ENABLE: u64 = 1 << 3;
const DIRECT: u64 = 1 << 12;
const CONFIG_BITS: u64 = 0x1FFF | 0xF << 16;

/// How an expiration reaches the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// An interrupt with this vector.
    Vector(u8),
    /// A message to this interrupt source.
    Sint(usize),
}

/// The timer. Times are in 100 ns of the partition's clock.
pub(crate) struct SyntheticTimer {
    config: u64,
    count: u64,
    due: Option<u64>,
    /// An expiration whose message has not found an empty slot yet.
    pub(crate) undelivered: Option<u64>,
    handle: TimerHandle,
}

impl SyntheticTimer {
    pub(crate) fn new(handle: TimerHandle) -> Self {
        Self {
            config: 0,
            count: 0,
            due: None,
            undelivered: None,
            handle,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.config = 0;
        self.count = 0;
        self.stop();
    }

    pub(crate) fn config(&self) -> u64 {
        self.config
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Writes the configuration; a timer that would send to source 0 without direct mode is not enabled.
    pub(crate) fn set_config(&mut self, value: u64, now: u64) {
        self.config = value & CONFIG_BITS;
        if self.route() == Route::Sint(0) {
            self.config &= !ENABLED;
        }
        self.start(now);
    }

    /// Writes the count: zero stops the timer, another value starts one that is to enable itself.
    pub(crate) fn set_count(&mut self, value: u64, now: u64) {
        self.count = value;
        if value == 0 {
            self.config &= !ENABLED;
        } else if self.config & AUTO_ENABLE != 0 && self.route() != Route::Sint(0) {
            self.config |= ENABLED;
        }
        self.start(now);
    }

    pub(crate) fn route(&self) -> Route {
        if self.config & DIRECT != 0 {
            Route::Vector((self.config >> 4) as u8)
        } else {
            Route::Sint((self.config >> 16) as usize & 0xF)
        }
    }

    fn start(&mut self, now: u64) {
        self.stop();
        if self.config & ENABLED == 0 || self.count == 0 {
            return;
        }
        let due = if self.config & PERIODIC != 0 {
            now.saturating_add(self.count.max(SHORTEST))
        } else {
            self.count
        };
        self.arm(due);
    }

    fn stop(&mut self) {
        self.due = None;
        self.undelivered = None;
        self.handle.disarm();
    }

    fn arm(&mut self, due: u64) {
        self.due = Some(due);
        match due.checked_mul(100) {
            Some(ns) => self.handle.arm(ns),
            // After the end of the clock.
            None => self.handle.disarm(),
        }
    }

    /// The time has come: says for when, and prepares the next time. `None` when it was stopped meanwhile.
    pub(crate) fn expire(&mut self, now: u64) -> Option<u64> {
        let due = self.due.filter(|due| *due <= now)?;
        if self.config & PERIODIC == 0 {
            self.config &= !ENABLED;
            self.due = None;
            return Some(due);
        }
        let period = self.count.max(SHORTEST);
        let missed = (now - due) / period;
        let dropped = if self.config & LAZY != 0 || missed > CATCH_UP {
            missed
        } else {
            0
        };
        self.arm(due.saturating_add((dropped + 1).saturating_mul(period)));
        Some(due)
    }
}
