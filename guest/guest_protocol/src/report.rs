// SPDX-License-Identifier: MIT
//! The report that payloads print on COM1, line by line.
//!
//! ```text
//! start: <payload> abi=1
//! probe: <name>: ok[ <details>]
//! probe: <name>: FAIL <details>
//! case <name>: pass[ <details>]
//! case <name>: FAIL <details>
//! info: <name>: <details>
//! trap: <details>
//! panic: <details>
//! done: <n> ok, <m> failed
//! ```
//! Lines end in CR LF. `<name>` has no colon and no space. `start:` is the first line of every boot and
//! `done:` the last line of a report; a monitor prompt may follow. `trap:` and `panic:` replace `done:`.

use core::fmt;

/// Version of this grammar and of the layout contract, printed in `start:`.
pub const ABI: u32 = 1;
/// Exit code that a payload writes to the test-exit port when something failed.
pub const EXIT_FAILED: u32 = 1;
/// Exit code after an unexpected exception or a panic.
pub const EXIT_TRAP: u32 = 2;

/// One line of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// A payload started.
    Start {
        /// Its name.
        payload: &'a str,
        /// Its [`ABI`].
        abi: u32,
    },
    /// A check, or a named case of `test_suite`.
    Check {
        /// A `case` line of `test_suite`; else a `probe` line.
        is_case: bool,
        /// What was checked.
        name: &'a str,
        /// Whether it holds.
        ok: bool,
        /// Values; may be empty when it holds.
        details: &'a str,
    },
    /// A value that only the host can judge.
    Info {
        /// What it is.
        name: &'a str,
        /// The value.
        details: &'a str,
    },
    /// An unexpected exception; the payload ends.
    Trap(&'a str),
    /// The payload gave up.
    Panic(&'a str),
    /// The end of the report.
    Done {
        /// Checks that hold.
        ok: u32,
        /// Checks that do not.
        failed: u32,
    },
}

impl<'a> Line<'a> {
    /// Reads a line without its line end; `None` when it is not a line of a report.
    pub fn parse(line: &'a str) -> Option<Self> {
        let (head, rest) = line.split_once(": ")?;
        match head {
            "start" => {
                let (payload, abi) = rest.split_once(" abi=")?;
                Some(Self::Start {
                    payload,
                    abi: abi.parse().ok()?,
                })
            }
            "probe" => {
                let (name, rest) = rest.split_once(": ")?;
                check(false, name, rest, "ok")
            }
            "info" => {
                let (name, details) = rest.split_once(": ")?;
                is_name(name).then_some(Self::Info { name, details })
            }
            "trap" => Some(Self::Trap(rest)),
            "panic" => Some(Self::Panic(rest)),
            "done" => {
                let (ok, failed) = rest.split_once(" ok, ")?;
                let failed = failed.strip_suffix(" failed")?;
                Some(Self::Done {
                    ok: ok.parse().ok()?,
                    failed: failed.parse().ok()?,
                })
            }
            _ => check(true, head.strip_prefix("case ")?, rest, "pass"),
        }
    }
}

fn check<'a>(is_case: bool, name: &'a str, rest: &'a str, good: &str) -> Option<Line<'a>> {
    let (verdict, details) = rest.split_once(' ').unwrap_or((rest, ""));
    let ok = verdict == good;
    let known = ok || (verdict == "FAIL" && !details.is_empty());
    (known && is_name(name)).then_some(Line::Check {
        is_case,
        name,
        ok,
        details,
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains([':', ' '])
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Start { payload, abi } => write!(f, "start: {payload} abi={abi}"),
            Self::Check {
                is_case,
                name,
                ok,
                details,
            } => {
                let head = if is_case { "case " } else { "probe: " };
                let verdict = match (ok, is_case) {
                    (false, _) => "FAIL",
                    (true, false) => "ok",
                    (true, true) => "pass",
                };
                let space = if details.is_empty() { "" } else { " " };
                write!(f, "{head}{name}: {verdict}{space}{details}")
            }
            Self::Info { name, details } => write!(f, "info: {name}: {details}"),
            Self::Trap(details) => write!(f, "trap: {details}"),
            Self::Panic(details) => write!(f, "panic: {details}"),
            Self::Done { ok, failed } => write!(f, "done: {ok} ok, {failed} failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_kind_of_line_reads_back_as_written() {
        let check = |is_case, ok, details| Line::Check {
            is_case,
            name: "blob-flags",
            ok,
            details,
        };
        let lines = [
            Line::Start {
                payload: "uefi_probe",
                abi: ABI,
            },
            check(false, true, ""),
            check(false, true, "a=1: b"),
            check(false, false, "0x1 != 0x2"),
            check(true, true, ""),
            check(true, false, "asked for"),
            Line::Info {
                name: "cr3",
                details: "0x700000",
            },
            Line::Trap("vector 14"),
            Line::Panic("no blob"),
            Line::Done { ok: 12, failed: 0 },
        ];
        for line in lines {
            let text = line.to_string();
            assert_eq!(Line::parse(&text), Some(line), "{text}");
        }
    }

    #[test]
    fn other_text_is_no_line() {
        let others = [
            "",
            "probe: x",
            "probe: a b: ok",
            "probe: x: maybe",
            "probe: x: FAIL",
            "done: 1 ok, two failed",
            "start: x",
            "case : pass",
            "[    0.000000] Linux: version",
        ];
        for text in others {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }
}
