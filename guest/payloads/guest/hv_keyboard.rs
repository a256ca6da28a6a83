// SPDX-License-Identifier: MIT
//! The synthetic keyboard, as the firmware's driver starts it; what is typed is printed.
//!
//! Always true: a message of the host is a key's and nothing else once the version is agreed on. Not here: what
//! a code means.

use crate::hv_message::{Message, word};
use crate::hv_ring::{INBAND, Rings};
use guest_rt::protocol::screen::ENTER;
use guest_rt::report::{check, equal, info};

const REQUEST: u32 = 1;
const RESPONSE: u32 = 2;
const EVENT: u32 = 3;
const LIGHTS: u32 = 4;
const VERSION: u32 = 1 << 16;
/// Bits of an event.
const RELEASE: u32 = 1 << 1;
const E0: u32 = 1 << 2;
/// Bytes of an event, without what fills its packet.
const EVENT_LEN: usize = 12;
/// How long somebody at a screen may take, in seconds.
const PATIENCE: u64 = 120;

/// A keyboard with a driver.
pub(crate) struct Keyboard(Rings);

impl Keyboard {
    /// Agrees on the version, after one that there is not.
    pub(crate) fn start(mut rings: Rings) -> Option<Self> {
        for (version, accepted) in [(2 << 16, 0), (VERSION, 1)] {
            rings.tell(&Message::empty().u32(REQUEST).u32(version));
            let answer = rings.answer("keyboard-answer")?;
            equal("keyboard-response", word(&answer.data, 0).into(), RESPONSE.into());
            equal("keyboard-accepted", word(&answer.data, 4).into(), accepted);
        }
        // No answer to this one: the next packet is a key's.
        rings.tell(&Message::empty().u32(LIGHTS).u32(2));
        Some(Self(rings))
    }

    /// Prints keys until enter goes up.
    pub(crate) fn until_enter(&mut self) {
        loop {
            let Some(packet) = self.0.receive(PATIENCE) else {
                return check("keyboard-enter", false, format_args!("nobody has typed it"));
            };
            let [kind, code, flags] = [0, 4, 8].map(|at| word(&packet.data, at));
            if packet.kind != INBAND || kind != EVENT || packet.len < EVENT_LEN {
                return check(
                    "keyboard-event",
                    false,
                    format_args!("{kind} of {} bytes", packet.len),
                );
            }
            let way = if flags & RELEASE == 0 { "down" } else { "up" };
            let prefix = if flags & E0 == 0 { "" } else { "e0 " };
            info("key", format_args!("{prefix}{code:02x} {way}"));
            if (code, flags) == (ENTER.into(), RELEASE) {
                return check("keyboard-enter", true, format_args!(""));
            }
        }
    }
}
