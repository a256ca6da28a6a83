// SPDX-License-Identifier: MIT
//! Named cases: what one is, and how a list of them is run and reported.
//!
//! Always true: every case prints one `case` line; `fail=NAME` on the command line makes the case of that
//! name fail, so that what a harness does with a failure can be tested; a name that does not exist fails
//! the case `arguments`. Not here: the cases.

use guest_rt::protocol::control::argument;
use guest_rt::protocol::flat::FAIL_ARGUMENT;
use guest_rt::report::case;
use guest_rt::text::Ascii;

/// What a case found instead of what it should have.
pub(crate) struct Wrong {
    /// What was looked at.
    pub(crate) what: &'static str,
    /// What it was.
    pub(crate) value: u64,
}

pub(crate) type Outcome = Result<(), Wrong>;

/// Fails a case unless `condition` holds.
pub(crate) fn expect(condition: bool, what: &'static str, value: impl Into<u64>) -> Outcome {
    if condition {
        Ok(())
    } else {
        Err(Wrong {
            what,
            value: value.into(),
        })
    }
}

pub(crate) type Case = (&'static str, fn() -> Outcome);

/// Name of the case that is about the command line itself.
const ARGUMENTS: &str = "arguments";

/// Runs all cases of `groups`.
pub(crate) fn run(groups: &[&[Case]], command_line: &str) {
    let cases = || groups.iter().copied().flatten();
    let fail = argument(command_line, FAIL_ARGUMENT).unwrap_or("");
    let known = |name: &str| cases().any(|(known, _)| *known == name);
    if fail.is_empty() || known(fail) {
        case(ARGUMENTS, true, format_args!(""));
    } else {
        case(
            ARGUMENTS,
            false,
            format_args!("fail={} asks for this", Ascii(fail.as_bytes())),
        );
    }
    for (name, run) in cases() {
        match run() {
            _ if *name == fail => case(name, false, format_args!("the command line asks for this")),
            Ok(()) => case(name, true, format_args!("")),
            Err(wrong) => case(name, false, format_args!("{} is {:#x}", wrong.what, wrong.value)),
        }
    }
}
