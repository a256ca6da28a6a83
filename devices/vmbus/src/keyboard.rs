// SPDX-License-Identifier: MIT
//! The synthetic keyboard (Linux drivers/input/serio/hyperv-keyboard.c): set 1 scan codes as messages.
//!
//! Always true: keys wait here, at most [`MOST`] of them, until the guest's driver has agreed on the version;
//! what finds no room is dropped, the newest first. Not here: what a guest makes of a code.

pub mod layout;

use crate::channel::{ChannelDevice, OpenChannel};
use crate::protocol::Offer;
use crate::ring::{Packet, RingError, word};
use chipset_device::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use uuid::uuid;

/// Keys that wait.
const MOST: usize = 1024;
/// The only version.
const VERSION: u32 = 1 << 16;

/// Message types.
mod message {
    pub(super) const REQUEST: u32 = 1;
    pub(super) const RESPONSE: u32 = 2;
    pub(super) const EVENT: u32 = 3;
}

/// Bits of an event.
const RELEASE: u32 = 2;
const E0: u32 = 4;

/// One movement of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyEvent {
    /// Scan code of set 1, without the release bit.
    pub code: u8,
    /// The code has the prefix E0.
    pub extended: bool,
    /// The key goes up.
    pub release: bool,
}

/// The host's end of a keyboard.
#[derive(Debug, Clone, Default)]
pub struct Keys(Arc<Mutex<VecDeque<KeyEvent>>>);

impl Keys {
    fn lock(&self) -> MutexGuard<'_, VecDeque<KeyEvent>> {
        lock(&self.0)
    }

    /// Puts events in line. They reach the guest when its channel is polled.
    pub fn push(&self, events: impl IntoIterator<Item = KeyEvent>) {
        let mut waiting = self.lock();
        let room = MOST.saturating_sub(waiting.len());
        waiting.extend(events.into_iter().take(room));
    }
}

/// The keyboard.
#[derive(Debug)]
pub struct Keyboard {
    keys: Keys,
    agreed: bool,
}

impl Keyboard {
    /// A keyboard whose keys `keys` presses.
    pub fn new(keys: Keys) -> Self {
        Self { keys, agreed: false }
    }

    fn flush(&self, channel: &mut OpenChannel) -> Result<(), RingError> {
        if !self.agreed {
            return Ok(());
        }
        // The rest follows with the next key; a guest that takes none is not written to without end.
        while channel.waiting() == 0
            && let Some(key) = self.keys.lock().pop_front()
        {
            let release = if key.release { RELEASE } else { 0 };
            let extended = if key.extended { E0 } else { 0 };
            let words = [message::EVENT, key.code.into(), release | extended];
            let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
            channel.send_data(0, &bytes, false)?;
        }
        Ok(())
    }
}

impl ChannelDevice for Keyboard {
    fn offer(&self) -> Offer {
        Offer {
            interface: uuid!("f912ad6d-2b17-48ea-bd65-f927a61c7684"),
            instance: uuid!("d34b2567-b9b6-42b9-8778-0a4ec0b955bf"),
            mmio_megabytes: 0,
            pipe: false,
        }
    }

    fn received(&mut self, channel: &mut OpenChannel, packet: Packet) -> Result<(), RingError> {
        if packet.completion_requested {
            channel.complete(packet.transaction, &[])?;
        }
        if word(&packet.data, 0) == Some(message::REQUEST) {
            let version = word(&packet.data, 4).unwrap_or(0);
            self.agreed = version == VERSION;
            if !self.agreed {
                channel.warn(|| {
                    format!(
                        "the guest's keyboard driver asks for version {version:#x}; there is {VERSION:#x}"
                    )
                });
            }
            let words = [message::RESPONSE, self.agreed.into()];
            let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
            channel.send_data(0, &bytes, false)?;
        }
        self.flush(channel)
    }

    fn closed(&mut self) {
        self.agreed = false;
    }

    fn poll(&mut self, channel: &mut OpenChannel) -> Result<(), RingError> {
        self.flush(channel)
    }

    fn inspect(&self) -> String {
        format!(
            "keyboard agreed {} waiting {}",
            self.agreed,
            self.keys.lock().len()
        )
    }
}
