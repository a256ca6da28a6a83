// SPDX-License-Identifier: MIT
//! The local APIC timer: counts down at 1 GHz over a divider (Intel SDM volume 3, section 11.5.4).
//!
//! Always true: the count is a function of the clock, so nothing ticks while nobody looks; periodic
//! deadlines stay in phase with the start, and deadlines that were missed are dropped, not queued.

/// Periodic interrupts closer together than this are merged, so that a guest cannot keep the timer
/// thread busy with a count of one.
const MIN_INTERVAL_NS: u64 = 10_000;

/// How the timer counts (LVT bits 18:17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
}

impl Mode {
    pub(crate) fn from_lvt(lvt: u32) -> Self {
        match (lvt >> 17) & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            _ => Self::TscDeadline,
        }
    }
}

/// Timer registers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timer {
    /// Initial count; 0 is stopped.
    pub(crate) initial: u32,
    /// Divide configuration register, bits 3, 1 and 0.
    pub(crate) divide: u32,
    /// Clock nanoseconds at which the count was `initial`; before zero when the divider was raised early.
    start: i64,
    /// TSC value of the deadline; 0 is disarmed.
    pub(crate) tsc_deadline: u64,
}

impl Timer {
    /// Clock periods for one count: 1 to 128.
    fn divisor(&self) -> u64 {
        let code = (self.divide & 3) | ((self.divide >> 1) & 4);
        if code == 7 { 1 } else { 2 << code }
    }

    /// Nanoseconds since the start.
    fn elapsed(&self, now: u64) -> u64 {
        (now as i64).saturating_sub(self.start).max(0) as u64
    }

    /// The clock `ns` after the start.
    fn after_start(&self, ns: u64) -> u64 {
        self.start.saturating_add_unsigned(ns).max(0) as u64
    }

    fn period(&self) -> u64 {
        u64::from(self.initial) * self.divisor()
    }

    /// Loads the initial count and starts counting.
    pub(crate) fn load(&mut self, initial: u32, now: u64) {
        self.initial = initial;
        self.start = now as i64;
    }

    /// Changes the divider without losing the current count.
    pub(crate) fn set_divide(&mut self, divide: u32, mode: Mode, now: u64) {
        let done = u64::from(self.initial) - u64::from(self.current(mode, now));
        self.divide = divide;
        self.start = now as i64 - (done * self.divisor()) as i64;
    }

    /// The current count register.
    pub(crate) fn current(&self, mode: Mode, now: u64) -> u32 {
        if self.initial == 0 || mode == Mode::TscDeadline {
            return 0;
        }
        let counted = self.elapsed(now) / self.divisor();
        let initial = u64::from(self.initial);
        match mode {
            Mode::Periodic => (initial - counted % initial) as u32,
            _ => initial.saturating_sub(counted) as u32,
        }
    }

    /// Whether a count-down that was started has reached zero at least once.
    pub(crate) fn has_expired(&self, mode: Mode, now: u64) -> bool {
        mode != Mode::TscDeadline && self.initial != 0 && self.elapsed(now) >= self.period()
    }

    /// The next expiry after `now` for a count-down mode.
    pub(crate) fn next_expiry(&self, mode: Mode, now: u64) -> Option<u64> {
        if self.initial == 0 {
            return None;
        }
        let first = self.after_start(self.period());
        match mode {
            Mode::OneShot => (first > now).then_some(first),
            Mode::Periodic if first > now => Some(first),
            Mode::Periodic => {
                let missed = self.elapsed(now) / self.period();
                Some(self.after_start((missed + 1).saturating_mul(self.period())))
            }
            Mode::TscDeadline => None,
        }
    }

    /// The expiry to arm after one at `now`: in phase, but not closer than [`MIN_INTERVAL_NS`].
    pub(crate) fn expiry_after_fire(&self, mode: Mode, now: u64) -> Option<u64> {
        match mode {
            Mode::Periodic if self.period() < MIN_INTERVAL_NS => {
                self.next_expiry(mode, now + MIN_INTERVAL_NS)
            }
            Mode::Periodic => self.next_expiry(mode, now),
            _ => None,
        }
    }
}
