// SPDX-License-Identifier: MIT
//! How much of the host's log a guest can fill.
//!
//! Always true: between two resets of the machine a budget gives out as many lines as it was made with, and the
//! last of them says so. Not here: where lines go.

use std::sync::atomic::{AtomicU32, Ordering};

/// Lines that a guest can cause until the machine is reset.
#[derive(Debug)]
pub struct LogBudget {
    most: u32,
    left: AtomicU32,
}

impl Default for LogBudget {
    /// Ten lines: enough to see what a guest does wrong.
    fn default() -> Self {
        Self::new(10)
    }
}

impl LogBudget {
    /// A budget of `most` lines.
    pub fn new(most: u32) -> Self {
        Self {
            most,
            left: AtomicU32::new(most),
        }
    }

    /// The line to write, if one is left.
    pub fn line(&self, text: impl FnOnce() -> String) -> Option<String> {
        let take = |left: u32| left.checked_sub(1);
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()?;
        let mut text = text();
        if left == 1 {
            text.push_str("; no more of these lines until the machine is reset");
        }
        Some(text)
    }

    /// The machine was reset: all lines again.
    pub fn refill(&self) {
        self.left.store(self.most, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_until_the_machine_is_reset() {
        let budget = LogBudget::new(2);
        let line = || budget.line(|| "a line".into());
        for _ in 0..2 {
            assert_eq!(line().as_deref(), Some("a line"));
            assert_eq!(
                line().as_deref(),
                Some("a line; no more of these lines until the machine is reset")
            );
            assert_eq!((line(), line()), (None, None));
            budget.refill();
        }
    }
}
