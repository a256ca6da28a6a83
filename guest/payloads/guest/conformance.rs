// SPDX-License-Identifier: MIT
//! A transcript of what the processor does: page faults, segmentation, transfers, interrupts.
//!
//! Always true: each line is one case and what ended it: vector, error code, where RIP was from the case's
//! first byte, CR2 where the vector has one, and the state that the case is about; nothing in a line depends
//! on time or addresses of the image. `skip=NAME` on the command line leaves a case out whose name begins so.
//! Not here: what is right (the test that compares transcripts).
#![no_std]
#![no_main]

mod conformance_events;
mod conformance_legacy;
mod conformance_paging;
mod conformance_segments;
mod conformance_steps;
mod conformance_system;
mod conformance_transfers;

use core::fmt::{self, Display, Formatter};
use guest_rt::entry::Entry;
use guest_rt::lab::{self, State};
use guest_rt::memory;
use guest_rt::power::End;
use guest_rt::protocol::control::arguments;
use guest_rt::protocol::flat::{FREE_GPA, IMAGE_GPA};
use guest_rt::report::{info, start};

guest_rt::entry!(main);

/// Which cases run, and where their lines go.
pub(crate) struct Transcript {
    command_line: &'static str,
}

impl Transcript {
    /// Whether the case is wanted; the tables are fresh then.
    pub(crate) fn wants(&self, name: &str) -> bool {
        if arguments(self.command_line, "skip").any(|skip| name.starts_with(skip)) {
            return false;
        }
        lab::restore();
        true
    }

    /// Runs a case and prints what ended it.
    pub(crate) fn case(&self, name: &str, make: impl FnOnce() -> State) {
        self.case_with(name, make, |_| Nothing);
    }

    /// The same with more about the state that was left.
    pub(crate) fn case_with<D: Display>(
        &self,
        name: &str,
        make: impl FnOnce() -> State,
        more: impl FnOnce(&State) -> D,
    ) {
        if self.wants(name) {
            let end = make().run();
            info(name, format_args!("{}{}", Event(&end), more(&end)));
        }
    }
}

/// The name of a case.
pub(crate) struct Text {
    bytes: [u8; 64],
    len: usize,
}

impl Text {
    /// Parts with hyphens between them.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut text = Self {
            bytes: [b'-'; 64],
            len: 0,
        };
        for part in parts {
            let from = if text.len == 0 { 0 } else { text.len + 1 };
            text.len = from + part.len();
            text.bytes[from..text.len].copy_from_slice(part.as_bytes());
        }
        text
    }

    pub(crate) fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

/// Prints nothing.
pub(crate) struct Nothing;

impl Display for Nothing {
    fn fmt(&self, _: &mut Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// What ended a case.
pub(crate) struct Event<'a>(pub(crate) &'a State);

impl Display for Event<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(state) = self;
        write!(f, "v{:#x} e{:#x} ", state.vector, state.error)?;
        let code = lab::WINDOW + lab::CODE;
        match state.rip.wrapping_sub(code) {
            _ if state.is_at_entry() => write!(f, "at the iret")?,
            offset if offset < 0x1000 => write!(f, "rip+{offset:#x}")?,
            _ => write!(f, "rip {:#x}", state.rip)?,
        }
        match state.cr2 {
            _ if state.vector != 14 => {}
            IMAGE_GPA..FREE_GPA => write!(f, " cr2 in the image")?,
            cr2 => write!(f, " cr2 {cr2:#x}")?,
        }
        Ok(())
    }
}

/// Selectors and flags that the event pushed.
pub(crate) struct Frame(State);

/// Selectors and flags that the event pushed.
pub(crate) fn frame(state: &State) -> Frame {
    Frame(*state)
}

impl Display for Frame {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(state) = self;
        let (cs, ss, rflags) = (state.cs & 0xFFFF, state.ss & 0xFFFF, state.rflags);
        write!(f, " cs {cs:#x} ss {ss:#x} rflags {rflags:#x}")
    }
}

/// A register that was left.
pub(crate) struct Left(pub(crate) &'static str, pub(crate) u64);

impl Display for Left {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " {} {:#x}", self.0, self.1)
    }
}

fn main(entry: &Entry) -> End {
    start("conformance");
    let command_line = match entry.saved.gpr[6] {
        0 => &[],
        gpa => memory::c_string(gpa, 4096),
    };
    let transcript = Transcript {
        command_line: core::str::from_utf8(command_line).unwrap_or(""),
    };
    conformance_paging::run(&transcript);
    conformance_segments::run(&transcript);
    conformance_transfers::run(&transcript);
    conformance_events::run(&transcript);
    conformance_steps::run(&transcript);
    conformance_system::run(&transcript);
    conformance_legacy::run(&transcript);
    lab::restore();
    End::TestExit
}
