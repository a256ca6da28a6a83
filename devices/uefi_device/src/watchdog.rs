// SPDX-License-Identifier: MIT
//! A watchdog: the one that runs while the firmware starts the guest (indexes 0x27 to 0x29), and the same
//! again for the guest.
//!
//! Always true: it counts down in steps of its resolution while it is configured and enabled, and asks for a
//! reset when it comes to nothing; suspended, it keeps what is left; started while it runs, it begins again. After the reset the boot status bit says
//! who it was. Not here: the clock and the timer queue's locking.

use crate::device::index;
use chipset_device::{Clock, TimerHandle};
use std::sync::Arc;

/// How a watchdog counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Seconds of one count.
    pub(crate) resolution: u32,
    /// Counts of a watchdog that is started without a number.
    pub(crate) count: u32,
}

impl Pace {
    /// Five minutes, the time that UEFI 7.5 gives a boot option; PEI starts the watchdog without setting a count.
    pub(crate) const FIRMWARE: Self = Self {
        resolution: 5,
        count: 60,
    };
    /// Microsoft's WDAT counts seconds, at least five; drivers set a count before they start it.
    pub(crate) const GUEST: Self = Self {
        resolution: 1,
        count: 300,
    };

    const fn step(self) -> u64 {
        self.resolution as u64 * 1_000_000_000
    }
}

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
    pace: Pace,
    config: u32,
    /// Counts that were last set.
    set: u32,
    /// Counts left while it does not run.
    count: u32,
    /// When it comes to nothing, while it runs.
    deadline: Option<u64>,
    /// It has caused the reset that comes, or the last one.
    bit: bool,
    boot_status: bool,
}

impl Watchdog {
    pub(crate) fn new(clock: Arc<Clock>, timer: TimerHandle, pace: Pace) -> Self {
        Self {
            clock,
            timer,
            pace,
            config: 0,
            set: pace.count,
            count: pace.count,
            deadline: None,
            bit: false,
            boot_status: false,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.timer.disarm();
        self.config = 0;
        self.set = self.pace.count;
        self.count = self.set;
        self.deadline = None;
        self.boot_status = std::mem::take(&mut self.bit);
    }

    /// What a register reads; `None` for an index that is no watchdog's.
    pub(crate) fn read(&self, index: u32) -> Option<u32> {
        match index {
            index::WATCHDOG_CONFIG => Some(self.config()),
            index::WATCHDOG_RESOLUTION => Some(self.pace.resolution),
            index::WATCHDOG_COUNT => Some(self.count()),
            _ => None,
        }
    }

    /// Writes a register; `false` for an index that is not one to write.
    pub(crate) fn write(&mut self, index: u32, value: u32) -> bool {
        match index {
            index::WATCHDOG_CONFIG => self.set_config(value),
            index::WATCHDOG_COUNT => self.set_count(value),
            _ => return false,
        }
        true
    }

    /// For `inspect`.
    pub(crate) fn text(&self) -> String {
        format!("watchdog config {:#x} count {}\n", self.config(), self.count())
    }

    fn config(&self) -> u32 {
        let status = if self.boot_status { config::BOOT_STATUS } else { 0 };
        self.config | status
    }

    fn set_config(&mut self, value: u32) {
        let ran = self.deadline.is_some();
        self.suspend();
        // WDAT's reset action: starting a watchdog that runs gives it all of its time again.
        if ran && value & config::RUNNING == config::RUNNING {
            self.count = self.set;
        }
        self.config = value & config::WRITABLE;
        self.boot_status &= value & config::BOOT_STATUS == 0;
        self.resume();
    }

    /// Counts left, rounded up.
    fn count(&self) -> u32 {
        let Some(deadline) = self.deadline else {
            return self.count;
        };
        let left = deadline.saturating_sub(self.clock.now());
        // At most what was set, a u32.
        left.div_ceil(self.pace.step()) as u32
    }

    fn set_count(&mut self, count: u32) {
        self.suspend();
        self.set = count;
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
            let span = u64::from(self.count).saturating_mul(self.pace.step());
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
