// SPDX-License-Identifier: MIT
//! The watchdog that runs while the firmware starts the guest (indexes 0x27 to 0x29).
//!
//! Always true: it counts down in steps of [`RESOLUTION_SECONDS`] while it is configured and enabled, and
//! asks for a reset when it comes to nothing; suspended, it keeps what is left. After the reset the boot
//! status bit tells the firmware who it was. Not here: the clock and the timer queue's locking.

use chipset_device::{Clock, TimerHandle};
use std::sync::Arc;

/// Seconds of one count.
pub(crate) const RESOLUTION_SECONDS: u32 = 5;
/// Five minutes, the time that UEFI 7.5 gives a boot option; PEI starts the watchdog without setting a count.
const DEFAULT_COUNT: u32 = 60;
const STEP: u64 = RESOLUTION_SECONDS as u64 * 1_000_000_000;

/// Bits of the configuration register.
pub(crate) mod config {
    pub(crate) const CONFIGURED: u32 = 1;
    pub(crate) const ENABLED: u32 = 2;
    pub(crate) const ONE_SHOT: u32 = 0x10;
    /// The last reset was this watchdog's; writing it as one clears it.
    pub(crate) const BOOT_STATUS: u32 = 0x100;
    pub(crate) const RUNNING: u32 = CONFIGURED | ENABLED;
    /// What a write changes.
    pub(crate) const WRITABLE: u32 = RUNNING | ONE_SHOT;
}

/// The watchdog.
pub(crate) struct Watchdog {
    clock: Arc<Clock>,
    timer: TimerHandle,
    config: u32,
    /// Counts left while it does not run.
    count: u32,
    /// When it comes to nothing, while it runs.
    deadline: Option<u64>,
    /// It has caused the reset that comes, or the last one.
    bit: bool,
    boot_status: bool,
}

impl Watchdog {
    pub(crate) fn new(clock: Arc<Clock>, timer: TimerHandle) -> Self {
        Self {
            clock,
            timer,
            config: 0,
            count: DEFAULT_COUNT,
            deadline: None,
            bit: false,
            boot_status: false,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.timer.disarm();
        self.config = 0;
        self.count = DEFAULT_COUNT;
        self.deadline = None;
        self.boot_status = std::mem::take(&mut self.bit);
    }

    pub(crate) fn config(&self) -> u32 {
        let status = if self.boot_status { config::BOOT_STATUS } else { 0 };
        self.config | status
    }

    pub(crate) fn set_config(&mut self, value: u32) {
        self.suspend();
        self.config = value & config::WRITABLE;
        self.boot_status &= value & config::BOOT_STATUS == 0;
        self.resume();
    }

    /// Counts left, rounded up.
    pub(crate) fn count(&self) -> u32 {
        let Some(deadline) = self.deadline else {
            return self.count;
        };
        let left = deadline.saturating_sub(self.clock.now());
        // At most what was set, a u32.
        left.div_ceil(STEP) as u32
    }

    pub(crate) fn set_count(&mut self, count: u32) {
        self.suspend();
        self.count = count;
        self.resume();
    }

    fn suspend(&mut self) {
        self.count = self.count();
        self.deadline = None;
        self.timer.disarm();
    }

    fn resume(&mut self) {
        if self.config & config::RUNNING == config::RUNNING && self.count > 0 {
            // Beyond the end of time is never.
            let span = u64::from(self.count).saturating_mul(STEP);
            let deadline = self.clock.now().saturating_add(span);
            self.deadline = Some(deadline);
            self.timer.arm(deadline);
        }
    }

    /// The timer has fired at `now`; whether the machine has to be reset.
    pub(crate) fn expired(&mut self, now: u64) -> bool {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return false;
        }
        self.deadline = None;
        self.count = 0;
        self.bit = true;
        true
    }
}
