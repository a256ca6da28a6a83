// SPDX-License-Identifier: MIT
//! What the guest's firmware says, as lines of the host's log.
//!
//! Always true: a line shows no control characters of the guest's and at most [`LONGEST_LINE`] characters; a
//! guest gets [`MOST_LINES`] lines between two resets. Not here: where firmware leaves its text.

/// Characters of a line.
pub(crate) const LONGEST_LINE: usize = 400;
/// Lines between two resets of the machine.
const MOST_LINES: u32 = 20_000;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// The firmware calls it an error or a warning.
    Problem,
    /// Worth a line in every log.
    Notice,
    /// The firmware calls it information.
    Information,
    /// For whoever looks for something.
    Detail,
}

/// The guest's share of the host's log.
#[derive(Debug)]
pub(crate) struct HostLog {
    left: u32,
}

impl Default for HostLog {
    fn default() -> Self {
        Self { left: MOST_LINES }
    }
}

impl HostLog {
    /// One line of the firmware's.
    pub(crate) fn line(&mut self, weight: Weight, text: &str) {
        let Some(left) = self.left.checked_sub(1) else {
            return;
        };
        self.left = left;
        let text = printable(text);
        match weight {
            Weight::Problem => tracing::warn!("firmware: {text}"),
            Weight::Notice => tracing::info!("firmware: {text}"),
            Weight::Information | Weight::Detail => tracing::debug!("firmware: {text}"),
        }
        if left == 0 {
            tracing::warn!("firmware: {MOST_LINES} lines are enough; no more until the next reset");
        }
    }
}

/// The text without control characters, cut to a line's length.
pub(crate) fn printable(text: &str) -> String {
    let mut shown: String = text
        .trim_end()
        .chars()
        .take(LONGEST_LINE)
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '.',
            c => c,
        })
        .collect();
    if text.trim_end().chars().nth(LONGEST_LINE).is_some() {
        shown.push_str("...");
    }
    shown
}
