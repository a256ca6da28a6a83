// SPDX-License-Identifier: MIT
//! Decisions, in words.

/// Collects what was decided and why, in order.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    lines: Vec<String>,
    quiet: bool,
}

impl Notes {
    /// Notes that are logged as they are made.
    pub(crate) fn logged() -> Self {
        Self::default()
    }

    /// Notes that the caller shows.
    pub(crate) fn quiet() -> Self {
        Self {
            quiet: true,
            ..Self::default()
        }
    }

    /// Adds a sentence.
    pub(crate) fn add(&mut self, line: impl Into<String>) {
        let line = line.into();
        if !self.quiet {
            tracing::info!("{line}");
        }
        self.lines.push(line);
    }

    /// All sentences.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }
}
