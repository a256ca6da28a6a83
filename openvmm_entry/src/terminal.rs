// SPDX-License-Identifier: MIT
//! Raw mode of the controlling terminal.
//!
//! Always true: the settings found at start are put back on every way out: normal return, error, signal
//! and panic (a hook restores before the message is printed). Output processing stays on, so log lines
//! come out straight. A stdin that is no terminal is left alone. Not here: reading keys.

use rustix::termios::{self, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use std::sync::{Mutex, PoisonError};

/// The settings to put back; `None` while nothing has been changed.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// Puts the terminal back when dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal(());

impl RawTerminal {
    /// Makes stdin raw when it is a terminal: every key, Ctrl-C included, is a byte.
    pub(crate) fn enter() -> Self {
        if let Ok(original) = termios::tcgetattr(std::io::stdin()) {
            *ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(original);
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                previous(info);
            }));
            raw();
        }
        Self(())
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Every key is a byte for the guest.
pub(crate) fn raw() {
    apply(|t| {
        t.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
        t.input_modes -= InputModes::ICRNL
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::IXON
            | InputModes::ISTRIP
            | InputModes::BRKINT;
        t.special_codes[SpecialCodeIndex::VMIN] = 1;
        t.special_codes[SpecialCodeIndex::VTIME] = 0;
    });
}

/// Lines with editing and echo, for the prompt; Ctrl-C stays a key.
pub(crate) fn lines() {
    apply(|t| {
        t.local_modes |= LocalModes::ICANON | LocalModes::ECHO;
        t.local_modes -= LocalModes::ISIG;
        t.input_modes |= InputModes::ICRNL;
    });
}

/// Puts the terminal back as it was found.
pub(crate) fn restore() {
    apply(|_| {});
}

/// Applies a change of the original settings; nothing when there is no terminal.
fn apply(change: impl FnOnce(&mut Termios)) {
    if let Some(original) = &*ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner) {
        let mut settings = original.clone();
        change(&mut settings);
        // A terminal that has gone away (hangup) has nothing left to restore.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &settings);
    }
}
