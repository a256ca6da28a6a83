// SPDX-License-Identifier: MIT
//! One virtual processor's synthetic interrupt controller (TLFS "Synthetic interrupt controller").
//!
//! Always true: a message is in its slot once, or waits here in order; a slot that was full has its pending
//! flag set before the message waits, so the guest's end-of-message brings it. Not here: who sends.

use crate::overlay::Overlay;
use crate::tlfs::{EVENT_FLAGS, PAGE_ADDRESS, PAGE_ENABLED, PAYLOAD_LEN, SINTS, SLOT_LEN};
use chipset_device::{Clock, VpIndex, VpInterrupts};
use guest_memory::DmaMemory;
use std::collections::VecDeque;

const SINT_MASKED: u64 = 1 << 16;
const SINT_AUTO_EOI: u64 = 1 << 17;
const SINT_POLLING: u64 = 1 << 18;
const SINT_BITS: u64 = 0xFF | SINT_MASKED | SINT_AUTO_EOI | SINT_POLLING;
/// Vectors below are exceptions and never interrupts.
const FIRST_VECTOR: u8 = 16;
/// The pending flag of a slot's header: byte 5, bit 0.
const SLOT_PENDING: u64 = 1 << 40;

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    kind: u32,
    payload: Vec<u8>,
}

impl Message {
    /// A message of type `kind`, which is not zero, with at most 240 bytes; `None` otherwise.
    pub fn new(kind: u32, payload: Vec<u8>) -> Option<Self> {
        (kind != 0 && payload.len() <= PAYLOAD_LEN).then_some(Self { kind, payload })
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It is in its slot.
    Done,
    /// The slot is full; the guest will say when it is not.
    Busy,
    /// The guest has no message page.
    Off,
}

/// A message that its guest does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untaken {
    /// Whose it is.
    pub vp: VpIndex,
    /// The interrupt source, which is the number of the slot too.
    pub sint: usize,
    /// What keeps it.
    pub hold: Hold,
    /// Since when nothing has moved there, in nanoseconds of the partition's clock.
    pub since: u64,
    /// Its type.
    pub kind: u32,
    /// The first word of its payload.
    pub head: u32,
    /// Messages that wait for room in the slot; it is the first of them unless it is in the slot.
    pub waiting: usize,
}

/// What keeps a message from being taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is in its slot, which the guest does not empty.
    Slot,
    /// The slot is empty, but the guest has not written EOM.
    EndOfMessage,
    /// The guest has no message page.
    NoPage,
}

/// What the controller acts on.
pub(crate) struct Around<'a> {
    pub(crate) clock: &'a Clock,
    pub(crate) memory: &'a DmaMemory,
    pub(crate) interrupts: &'a dyn VpInterrupts,
    pub(crate) vp: VpIndex,
}

#[derive(Debug)]
pub(crate) struct Synic {
    enabled: bool,
    sints: [u64; SINTS],
    messages: Overlay,
    events: Overlay,
    /// The registers as written; their addresses stay while the pages are off.
    simp: u64,
    siefp: u64,
    waiting: [VecDeque<Message>; SINTS],
    /// When the last message was put into each slot, or the first began to wait for a page.
    moved: [Option<u64>; SINTS],
}

impl Synic {
    pub(crate) fn new() -> Self {
        Self {
            // On from the start: Microsoft's firmware never writes SCONTROL (msvm-machine section 6).
            enabled: true,
            sints: [SINT_MASKED; SINTS],
            messages: Overlay::default(),
            events: Overlay::default(),
            simp: 0,
            siefp: 0,
            waiting: Default::default(),
            moved: [None; SINTS],
        }
    }

    /// Power on; RAM starts anew too.
    pub(crate) fn reset(&mut self) {
        self.messages.forget();
        self.events.forget();
        *self = Self::new();
    }

    pub(crate) fn control(&self) -> u64 {
        self.enabled.into()
    }

    pub(crate) fn set_control(&mut self, value: u64) -> bool {
        self.enabled = value & 1 != 0;
        true
    }

    pub(crate) fn message_page(&self) -> u64 {
        self.simp
    }

    pub(crate) fn event_page(&self) -> u64 {
        self.siefp
    }

    pub(crate) fn set_message_page(&mut self, around: &Around<'_>, value: u64) -> bool {
        let placed = self.messages.place(around.memory, page(value), &[]).is_ok();
        if placed {
            self.simp = value;
        }
        placed
    }

    pub(crate) fn set_event_page(&mut self, around: &Around<'_>, value: u64) -> bool {
        let placed = self.events.place(around.memory, page(value), &[]).is_ok();
        if placed {
            self.siefp = value;
        }
        placed
    }

    pub(crate) fn sint(&self, sint: usize) -> Option<u64> {
        self.sints.get(sint).copied()
    }

    /// `false` for a vector that no interrupt can have.
    pub(crate) fn set_sint(&mut self, around: &Around<'_>, sint: usize, value: u64) -> bool {
        if value & SINT_MASKED == 0 && (value as u8) < FIRST_VECTOR {
            return false;
        }
        let Some(slot) = self.sints.get_mut(sint) else {
            return false;
        };
        let old = std::mem::replace(slot, value & SINT_BITS);
        for vector in [old as u8, value as u8] {
            let automatic = self
                .sints
                .iter()
                .any(|s| s & (SINT_MASKED | SINT_AUTO_EOI) == SINT_AUTO_EOI && *s as u8 == vector);
            around.interrupts.set_auto_eoi(around.vp, vector, automatic);
        }
        true
    }

    /// Sends a message, behind those that wait for the same source already.
    pub(crate) fn post(&mut self, around: &Around<'_>, sint: usize, message: Message) -> Delivery {
        let Some(waiting) = self.waiting.get(sint) else {
            return Delivery::Off;
        };
        let outcome = if waiting.is_empty() {
            self.deliver(around, sint, message.kind, &message.payload)
        } else {
            Delivery::Busy
        };
        if outcome != Delivery::Done {
            // A slot that is full has been so since its message came.
            if outcome == Delivery::Off && self.waiting[sint].is_empty() || self.moved[sint].is_none() {
                self.moved[sint] = Some(around.clock.now());
            }
            self.waiting[sint].push_back(message);
        }
        outcome
    }

    /// The message that has not moved for longest.
    pub(crate) fn untaken(&self, around: &Around<'_>) -> Option<Untaken> {
        (0..SINTS)
            .filter_map(|sint| self.untaken_of(around, sint))
            .min_by_key(|untaken| untaken.since)
    }

    fn untaken_of(&self, around: &Around<'_>, sint: usize) -> Option<Untaken> {
        let since = self.moved[sint]?;
        let page = self.messages.gpa().filter(|_| self.enabled);
        let slot = page.map(|page| page + sint as u64 * SLOT_LEN);
        let word = |at| slot.and_then(|slot| around.memory.read_u32(slot + at).ok());
        let first = self.waiting[sint].front();
        let (hold, kind, head) = match (word(0).filter(|kind| *kind != 0), first) {
            (Some(kind), _) => (Hold::Slot, kind, word(16)?),
            (None, Some(message)) => {
                let head = message
                    .payload
                    .first_chunk()
                    .map_or(0, |head| u32::from_le_bytes(*head));
                let hold = if slot.is_some() {
                    Hold::EndOfMessage
                } else {
                    Hold::NoPage
                };
                (hold, message.kind, head)
            }
            (None, None) => return None,
        };
        Some(Untaken {
            vp: around.vp,
            sint,
            hold,
            since,
            kind,
            head,
            waiting: self.waiting(sint),
        })
    }

    /// Messages that wait for `sint`.
    pub(crate) fn waiting(&self, sint: usize) -> usize {
        self.waiting.get(sint).map_or(0, VecDeque::len)
    }

    /// The guest may have made room: brings what waits.
    pub(crate) fn bring(&mut self, around: &Around<'_>) {
        for sint in 0..SINTS {
            while let Some(message) = self.waiting[sint].pop_front() {
                if self.deliver(around, sint, message.kind, &message.payload) != Delivery::Done {
                    self.waiting[sint].push_front(message);
                    break;
                }
            }
        }
    }

    /// Puts a message into the slot of `sint` if that is empty. The type is written last: a guest that sees
    /// it sees the rest.
    pub(crate) fn deliver(
        &mut self,
        around: &Around<'_>,
        sint: usize,
        kind: u32,
        payload: &[u8],
    ) -> Delivery {
        let Some(page) = self.messages.gpa().filter(|_| self.enabled) else {
            return Delivery::Off;
        };
        let slot = page + sint as u64 * SLOT_LEN;
        let memory = around.memory;
        let full = || memory.read_u32(slot).is_ok_and(|kind| kind != 0);
        if full() && (memory.fetch_or_u64(slot, SLOT_PENDING).is_err() || full()) {
            return Delivery::Busy;
        }
        // Bytes 4 to 15: size, flags, reserved, sender.
        let mut rest = [0; 12 + PAYLOAD_LEN];
        rest[0] = payload.len() as u8;
        rest[12..12 + payload.len()].copy_from_slice(payload);
        let written = memory
            .write(slot + 4, &rest[..12 + payload.len()])
            .and_then(|()| memory.write(slot, &kind.to_le_bytes()));
        if written.is_err() {
            return Delivery::Off;
        }
        self.moved[sint] = Some(around.clock.now());
        self.interrupt(around, sint);
        Delivery::Done
    }

    /// Sets an event flag; `false` when the guest has no event page or there is no such flag.
    pub(crate) fn signal(&self, around: &Around<'_>, sint: usize, flag: u16) -> bool {
        let Some(page) = self.events.gpa().filter(|_| self.enabled) else {
            return false;
        };
        if flag >= EVENT_FLAGS || sint >= SINTS {
            return false;
        }
        let at = page + sint as u64 * SLOT_LEN + u64::from(flag / 64 * 8);
        let bit = 1 << (flag % 64);
        match around.memory.fetch_or_u64(at, bit) {
            Ok(before) => {
                if before & bit == 0 {
                    self.interrupt(around, sint);
                }
                true
            }
            Err(_) => false,
        }
    }

    fn interrupt(&self, around: &Around<'_>, sint: usize) {
        let value = self.sints[sint];
        if value & (SINT_MASKED | SINT_POLLING) == 0 {
            around.interrupts.request(around.vp, value as u8);
        }
    }

    pub(crate) fn inspect(&self) -> String {
        let sints = self
            .sints
            .iter()
            .enumerate()
            .filter(|(_, s)| **s & SINT_MASKED == 0);
        let sints: Vec<_> = sints.map(|(i, s)| format!("{i}={s:#x}")).collect();
        let waiting: usize = self.waiting.iter().map(VecDeque::len).sum();
        format!(
            "simp {:#x} siefp {:#x} sints [{}] messages waiting {waiting}",
            self.simp,
            self.siefp,
            sints.join(" ")
        )
    }
}

/// The page that a register names, if it is enabled.
pub(crate) fn page(value: u64) -> Option<u64> {
    (value & PAGE_ENABLED != 0).then_some(value & PAGE_ADDRESS)
}
