// SPDX-License-Identifier: MIT
//! What a device on the bus is, and what it has while its channel is open.
//!
//! Always true: a device is called on the thread of the VP that signalled, one call at a time; a packet that
//! finds no room waits here in order and goes out when the guest has made some, up to [`MOST_WAITING`];
//! then the device is not called until the guest has caught up. A guest that sends as fast as the device
//! takes keeps it busy for [`MOST_AT_ONCE`] packets only; then others have a turn on the bus.
//! Not here: what devices do.

use crate::gpadl::Pages;
use crate::protocol::Offer;
use crate::ring::{Packet, RingError, Rings, Signal};
use chipset_device::LogBudget;
use guest_memory::DmaMemory;
use std::collections::VecDeque;
use std::sync::Arc;

/// Packets that wait for room before the guest's own are left in their ring.
const MOST_WAITING: usize = 256;
/// Packets that are taken in a row, several times what the rings of drivers hold.
pub(crate) const MOST_AT_ONCE: usize = 1 << 14;

/// A device on the bus.
pub trait ChannelDevice: Send {
    /// How it is offered.
    fn offer(&self) -> Offer;
    /// The guest opened the channel.
    fn opened(&mut self, channel: &mut OpenChannel) -> Result<(), RingError> {
        let _ = channel;
        Ok(())
    }
    /// The guest sent a packet.
    fn received(&mut self, channel: &mut OpenChannel, packet: Packet) -> Result<(), RingError>;
    /// The guest closed the channel, or the machine was reset.
    fn closed(&mut self);
    /// The machine was reset; the channel is closed, if it ever was open.
    fn reset(&mut self) {}
    /// How often [`ChannelDevice::tick`] is called while the channel is open, in nanoseconds.
    fn period(&self) -> Option<u64> {
        None
    }
    /// The period has passed: `now` on the partition's clock, `wall` since the Unix epoch, in nanoseconds.
    fn tick(&mut self, channel: &mut OpenChannel, now: u64, wall: u64) -> Result<(), RingError> {
        let _ = (channel, now, wall);
        Ok(())
    }
    /// Something of the host that the device waits for is ready. Called on a thread of the device's own.
    fn poll(&mut self, channel: &mut OpenChannel) -> Result<(), RingError> {
        let _ = channel;
        Ok(())
    }
    /// Asks the guest to power off; `false` when this device cannot, or its driver is not ready.
    fn request_shutdown(&mut self, channel: &mut OpenChannel) -> Result<bool, RingError> {
        let _ = channel;
        Ok(false)
    }
    /// State for `inspect`.
    fn inspect(&self) -> String {
        String::new()
    }
}

struct Waiting {
    kind: (u16, u16),
    transaction: u64,
    head: Vec<u8>,
    data: Vec<u8>,
}

/// The guest's side of an open channel.
pub struct OpenChannel {
    rings: Rings,
    waiting: VecDeque<Waiting>,
    signal: bool,
    unfinished: bool,
    lists: Vec<(u32, Pages)>,
    log: Arc<LogBudget>,
}

impl OpenChannel {
    pub(crate) fn new(rings: Rings, log: Arc<LogBudget>) -> Self {
        Self {
            rings,
            log,
            waiting: VecDeque::new(),
            signal: false,
            unfinished: false,
            lists: Vec::new(),
        }
    }

    /// Guest memory.
    pub fn memory(&self) -> &DmaMemory {
        self.rings.memory()
    }

    /// A line of the host's log about what the guest does, if the guest has not caused too many.
    pub fn warn(&self, text: impl FnOnce() -> String) {
        if let Some(line) = self.log.line(text) {
            tracing::warn!("vmbus: {line}");
        }
    }

    /// The guest's share of the log.
    pub(crate) fn log(&self) -> &LogBudget {
        &self.log
    }

    /// A list of pages that the guest made for this channel.
    pub fn list(&self, gpadl: u32) -> Option<&Pages> {
        self.lists
            .iter()
            .find(|(number, _)| *number == gpadl)
            .map(|(_, pages)| pages)
    }

    pub(crate) fn add_list(&mut self, gpadl: u32, pages: Pages) {
        self.lists.push((gpadl, pages));
    }

    pub(crate) fn remove_list(&mut self, gpadl: u32) {
        self.lists.retain(|(number, _)| *number != gpadl);
    }

    /// Completes the guest's packet `transaction`.
    pub fn complete(&mut self, transaction: u64, data: &[u8]) -> Result<(), RingError> {
        self.send((crate::ring::packet::COMPLETION, 0), transaction, &[], data)
    }

    /// Sends data; `ask` asks for a completion.
    pub fn send_data(&mut self, transaction: u64, data: &[u8], ask: bool) -> Result<(), RingError> {
        self.send((crate::ring::packet::INBAND, ask.into()), transaction, &[], data)
    }

    /// Sends a packet with words between its descriptor and its data.
    pub fn send(
        &mut self,
        kind: (u16, u16),
        transaction: u64,
        head: &[u8],
        data: &[u8],
    ) -> Result<(), RingError> {
        if self.waiting.is_empty()
            && let Some(signal) = self.rings.send(kind, transaction, head, data)?
        {
            self.signal |= signal == Signal::Needed;
            return Ok(());
        }
        self.waiting.push_back(Waiting {
            kind,
            transaction,
            head: head.to_vec(),
            data: data.to_vec(),
        });
        Ok(())
    }

    /// Packets that wait for room.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn flush(&mut self) -> Result<(), RingError> {
        while let Some(w) = self.waiting.front() {
            let Some(signal) = self.rings.send(w.kind, w.transaction, &w.head, &w.data)? else {
                break;
            };
            self.signal |= signal == Signal::Needed;
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Gives `device` what the guest sent, all of it unless the guest goes on sending.
    pub(crate) fn work(&mut self, device: &mut dyn ChannelDevice) -> Result<(), RingError> {
        self.unfinished = false;
        self.flush()?;
        for _ in 0..MOST_AT_ONCE {
            if self.waiting.len() >= MOST_WAITING {
                return Ok(());
            }
            let Some((packet, signal)) = self.rings.receive()? else {
                return Ok(());
            };
            self.signal |= signal == Signal::Needed;
            device.received(self, packet)?;
        }
        self.unfinished = true;
        Ok(())
    }

    /// Whether the last [`OpenChannel::work`] has left packets for which the guest need not signal again.
    pub(crate) fn unfinished(&self) -> bool {
        self.unfinished
    }

    /// Whether the guest has to be told about what was done since the last call.
    pub(crate) fn take_signal(&mut self) -> bool {
        std::mem::take(&mut self.signal)
    }
}
