// SPDX-License-Identifier: MIT
//! The report, in the grammar of `guest_protocol::report`.
//!
//! Always true: one line per call, whole lines only, counted. Not here: what is checked.

use crate::serial;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, Ordering};
use guest_protocol::report::{ABI, Line};

static OK: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// Prints one line.
pub fn line(text: fmt::Arguments<'_>) {
    serial::with(|writer| {
        // Writing to the port cannot fail; a formatter that fails cuts the line short.
        let _ = writer.write_fmt(text);
        let _ = writer.write_str("\r\n");
    });
}

/// Prints text without a line end.
pub fn text(text: &str) {
    serial::with(|writer| {
        let _ = writer.write_str(text);
    });
}

/// Begins the report.
pub fn start(payload: &str) {
    line(format_args!("{}", Line::Start { payload, abi: ABI }));
}

/// A value for the host.
pub fn info(name: &str, details: fmt::Arguments<'_>) {
    line(format_args!("info: {name}: {details}"));
}

/// A check's outcome, counted.
pub fn check(name: &str, ok: bool, details: fmt::Arguments<'_>) {
    outcome("probe: ", name, ok, "ok", details);
}

/// A check that two values are equal, counted.
pub fn equal(name: &str, value: u64, expected: u64) {
    if value == expected {
        check(name, true, format_args!("{value:#x}"));
    } else {
        check(name, false, format_args!("{value:#x}, expected {expected:#x}"));
    }
}

/// A case's outcome, counted.
pub fn case(name: &str, ok: bool, details: fmt::Arguments<'_>) {
    outcome("case ", name, ok, "pass", details);
}

fn outcome(head: &str, name: &str, ok: bool, good: &str, details: fmt::Arguments<'_>) {
    let count = if ok { &OK } else { &FAILED };
    count.fetch_add(1, Ordering::Relaxed);
    let verdict = if ok { good } else { "FAIL" };
    if details.as_str() == Some("") {
        line(format_args!("{head}{name}: {verdict}"));
    } else {
        line(format_args!("{head}{name}: {verdict} {details}"));
    }
}

/// How many checks failed so far.
pub fn failed() -> u32 {
    FAILED.load(Ordering::Relaxed)
}

/// Ends the report.
pub fn done() {
    let (ok, failed) = (OK.load(Ordering::Relaxed), failed());
    line(format_args!("{}", Line::Done { ok, failed }));
}
