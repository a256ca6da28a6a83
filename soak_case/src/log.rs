// SPDX-License-Identifier: MIT
//! How much a run writes to the log.
//!
//! Always true: what is counted is what users see without a filter, from `info` up; every line is put together
//! as it would be for them. Not here: how much is too much.

use std::fmt::{Debug, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Counts lines instead of writing them.
#[derive(Debug, Clone, Default)]
pub struct LogMeter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    lines: AtomicU64,
    longest: AtomicU64,
}

impl LogMeter {
    /// A meter that the whole process logs to.
    ///
    /// # Panics
    ///
    /// If the process logs elsewhere already.
    pub fn install() -> Self {
        let meter = Self::default();
        tracing::subscriber::set_global_default(meter.clone()).expect("nothing else takes the log");
        meter
    }

    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.0.lines.load(Ordering::Relaxed)
    }

    /// Runs `action`; how many lines it caused, and its result.
    pub fn measured<T>(&self, action: impl FnOnce() -> T) -> (u64, T) {
        let before = self.lines();
        let result = action();
        (self.lines() - before, result)
    }

    /// Bytes of the longest line so far.
    pub fn longest(&self) -> u64 {
        self.0.longest.load(Ordering::Relaxed)
    }
}

/// A line as its fields come.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A string takes everything.
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for LogMeter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lines.fetch_add(1, Ordering::Relaxed);
        self.0.longest.fetch_max(line.0.len() as u64, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_see_is_counted_and_nothing_else() {
        let meter = LogMeter::default();
        tracing::subscriber::with_default(meter.clone(), || {
            tracing::info!(number = 7, "a line");
            tracing::warn!("a line of {}", "many words");
            tracing::debug!("for whoever looks for something");
        });
        assert_eq!(meter.lines(), 2);
        assert!((20..60).contains(&meter.longest()), "{}", meter.longest());
    }
}
