// SPDX-License-Identifier: MIT
//! Time limits for things that another processor or a device does.
//!
//! Always true: based on the TSC, which every machine here has, and never exact: the TSC's rate is not
//! known, so a limit is long enough at 1 GHz and up to five times that. Not here: measuring time.

use crate::cpu;

/// TSC ticks that are at least a millisecond on every machine here.
const TICKS_PER_MS: u64 = 5_000_000;

/// A point in time after which waiting is given up.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(u64);

impl Deadline {
    /// At least `ms` milliseconds from now.
    pub fn in_ms(ms: u64) -> Self {
        Self(cpu::tsc().saturating_add(ms * TICKS_PER_MS))
    }

    /// Whether it is over.
    pub fn is_over(self) -> bool {
        cpu::tsc() >= self.0
    }

    /// Waits until `condition` holds; false when the time was up first.
    pub fn wait(self, mut condition: impl FnMut() -> bool) -> bool {
        loop {
            if condition() {
                return true;
            }
            if self.is_over() {
                return condition();
            }
            cpu::relax();
        }
    }
}
