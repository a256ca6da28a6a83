// SPDX-License-Identifier: MIT
//! The synthetic network adapter on a tap interface (Linux drivers/net/hyperv; RNDIS, [MS-RNDIS]).
//!
//! Always true: a frame for the guest lies in one section of its receive buffer until the guest gives the
//! section back; without a free one frames wait in the interface. Frames from the guest are sent or dropped
//! before their packet is completed. One channel; no offloads. Not here: RNDIS messages (`rndis`).

use crate::channel::{ChannelDevice, OpenChannel};
use crate::gpadl::Pages;
use crate::protocol::Offer;
use crate::ring::{self, Packet, RingError, packet};
use crate::rndis::{self, Reply};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tap::{HEADER, MAX_FRAME, Offload, Tap};
use uuid::{Uuid, uuid};

const INTERFACE: Uuid = uuid!("f8615163-df3e-46c5-913f-f2d2f965ed0e");
/// Frames in a row before others are let at the bus.
const BATCH: usize = 64;
/// Bytes of a section of the receive buffer and of the send buffer.
const RECEIVE_SECTION: u64 = 2048;
const SEND_SECTION: u64 = 6144;
/// The guest's name of its receive buffer.
const RECEIVE_BUFFER: u16 = 0xCAFE;
/// The packet's data are in the packet's own buffer, not in a section.
const NO_SECTION: u32 = u32::MAX;
/// Bytes of every completion: Linux demands those of the longest from each.
const MESSAGE: usize = 40;
/// Longest run of RNDIS messages that is taken at once.
const MOST_SENT: u64 = 256 << 10;

/// Message types.
mod kind {
    pub(super) const INIT: u32 = 1;
    pub(super) const INIT_COMPLETE: u32 = 2;
    pub(super) const SEND_RECEIVE_BUFFER: u32 = 101;
    pub(super) const SEND_RECEIVE_BUFFER_COMPLETE: u32 = 102;
    pub(super) const REVOKE_RECEIVE_BUFFER: u32 = 103;
    pub(super) const SEND_SEND_BUFFER: u32 = 104;
    pub(super) const SEND_SEND_BUFFER_COMPLETE: u32 = 105;
    pub(super) const REVOKE_SEND_BUFFER: u32 = 106;
    pub(super) const RNDIS: u32 = 107;
    pub(super) const RNDIS_COMPLETE: u32 = 108;
}

/// Protocol versions 1, 2, 4 and 5.
const VERSIONS: [u32; 4] = [0x0002, 0x3_0002, 0x4_0000, 0x5_0000];
/// Statuses.
const SUCCESS: u32 = 1;
const FAILURE: u32 = 2;
const VERSION_TOO_NEW: u32 = 3;
/// Channel types of an RNDIS packet.
const DATA: u32 = 0;
const CONTROL: u32 = 1;

/// Tells the thread that waits for frames whether the guest can take some.
#[derive(Debug, Default)]
pub struct Appetite(AtomicBool);

impl Appetite {
    /// Whether frames are wanted.
    pub fn is_hungry(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The adapter.
pub struct NetVsp {
    instance: Uuid,
    tap: Tap,
    mac: [u8; 6],
    appetite: Arc<Appetite>,
    /// Called when the guest becomes able to take frames again.
    bell: Box<dyn Fn() + Send>,
    receive: Option<(Pages, Vec<bool>)>,
    send: Option<Pages>,
    listening: bool,
    frame: Vec<u8>,
    received: u64,
    sent: u64,
    dropped: u64,
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    ring::word(bytes, at).unwrap_or(0)
}

impl NetVsp {
    /// An adapter on `tap` with the address `mac`. `bell` is rung when frames are wanted again.
    pub fn new(instance: Uuid, tap: Tap, mac: [u8; 6], bell: Box<dyn Fn() + Send>) -> io::Result<Self> {
        tap.set_offload(Offload::default())?;
        Ok(Self {
            instance,
            tap,
            mac,
            appetite: Arc::default(),
            bell,
            receive: None,
            send: None,
            listening: false,
            frame: vec![0; MAX_FRAME],
            received: 0,
            sent: 0,
            dropped: 0,
        })
    }

    /// Whether the guest can take frames.
    pub fn appetite(&self) -> Arc<Appetite> {
        self.appetite.clone()
    }

    fn free_section(&self) -> Option<usize> {
        self.receive.as_ref()?.1.iter().position(|used| !used)
    }

    /// Tells the thread whether to wait for frames.
    fn look_for_room(&self) {
        let hungry = self.listening && self.free_section().is_some();
        if self.appetite.0.swap(hungry, Ordering::AcqRel) != hungry && hungry {
            (self.bell)();
        }
    }

    /// Puts an RNDIS message into a section and tells the guest; `false` without a free section.
    fn indicate(&mut self, channel: &mut OpenChannel, kind: u32, message: &[u8]) -> Result<bool, RingError> {
        let Some(section) = self.free_section() else {
            return Ok(false);
        };
        let Some((pages, used)) = &mut self.receive else {
            return Ok(false);
        };
        let at = section as u64 * RECEIVE_SECTION;
        pages.write(channel.memory(), at, message)?;
        used[section] = true;
        // Page set, padding, one range: its length and offset.
        let mut head = u32::from(RECEIVE_BUFFER).to_le_bytes().to_vec();
        head.extend(words(&[1, message.len() as u32, at as u32]));
        head.resize(16, 0);
        let data = words(&[kind::RNDIS, kind, NO_SECTION, 0]);
        let flags = (packet::TRANSFER_PAGES, packet::FLAG_COMPLETION_REQUESTED);
        channel.send(flags, section as u64 + 1, &head, &data)?;
        Ok(true)
    }

    fn complete(channel: &mut OpenChannel, request: &Packet, reply: &[u32]) -> Result<(), RingError> {
        if request.completion_requested {
            let mut bytes = words(reply);
            bytes.resize(MESSAGE, 0);
            channel.complete(request.transaction, &bytes)?;
        }
        Ok(())
    }

    fn receive_buffer(&mut self, channel: &mut OpenChannel, request: &Packet) -> Result<(), RingError> {
        let pages = channel.list(word(&request.data, 4)).cloned();
        let sections = pages.as_ref().map_or(0, |pages| pages.len() / RECEIVE_SECTION);
        let status = if sections == 0 { FAILURE } else { SUCCESS };
        self.receive = pages
            .filter(|_| sections > 0)
            .map(|pages| (pages, vec![false; sections as usize]));
        let size = RECEIVE_SECTION as u32;
        let reply = [
            kind::SEND_RECEIVE_BUFFER_COMPLETE,
            status,
            1,
            0,
            size,
            sections as u32,
            sections as u32 * size,
        ];
        Self::complete(channel, request, &reply)
    }

    fn send_buffer(&mut self, channel: &mut OpenChannel, request: &Packet) -> Result<(), RingError> {
        self.send = channel.list(word(&request.data, 4)).cloned();
        let status = if self.send.is_some() { SUCCESS } else { FAILURE };
        let reply = [kind::SEND_SEND_BUFFER_COMPLETE, status, SEND_SECTION as u32];
        Self::complete(channel, request, &reply)
    }

    /// The bytes of an RNDIS packet of the guest.
    fn sent_bytes(&self, channel: &OpenChannel, request: &Packet) -> Option<Vec<u8>> {
        let (section, len) = (word(&request.data, 8), word(&request.data, 12));
        let mut bytes = Vec::new();
        let mut append = |pages: &Pages, at: u64, len: u64| {
            let from = bytes.len();
            if from as u64 + len > MOST_SENT {
                return None;
            }
            bytes.resize(from + len as usize, 0);
            pages.read(channel.memory(), at, &mut bytes[from..]).ok()
        };
        if section == NO_SECTION {
            for pages in &request.buffers {
                append(pages, 0, pages.len())?;
            }
        } else {
            let at = u64::from(section) * SEND_SECTION;
            append(self.send.as_ref()?, at, u64::from(len))?;
        }
        Some(bytes)
    }

    fn rndis(&mut self, channel: &mut OpenChannel, request: &Packet) -> Result<(), RingError> {
        let bytes = self.sent_bytes(channel, request);
        let status = if bytes.is_some() { SUCCESS } else { FAILURE };
        Self::complete(channel, request, &[kind::RNDIS_COMPLETE, status])?;
        let Some(bytes) = bytes else {
            self.dropped += 1;
            return Ok(());
        };
        if word(&request.data, 4) == CONTROL {
            return self.control(channel, &bytes);
        }
        for frame in rndis::frames(&bytes) {
            let mut whole = vec![0; HEADER];
            whole.extend_from_slice(frame);
            match self.tap.write(&whole) {
                Ok(()) => self.sent += 1,
                Err(_) => self.dropped += 1,
            }
        }
        Ok(())
    }

    fn control(&mut self, channel: &mut OpenChannel, message: &[u8]) -> Result<(), RingError> {
        match rndis::answer(message, self.mac) {
            Reply::Nothing => {}
            Reply::Halt => self.listening = false,
            Reply::Message(reply) => {
                self.indicate(channel, CONTROL, &reply)?;
            }
            Reply::Filter { filter, reply } => {
                self.listening = filter != 0;
                self.indicate(channel, CONTROL, &reply)?;
            }
        }
        Ok(())
    }

    fn pump(&mut self, channel: &mut OpenChannel) -> Result<(), RingError> {
        for _ in 0..BATCH {
            if !self.listening || self.free_section().is_none() {
                break;
            }
            let Ok(len) = self.tap.read(&mut self.frame) else {
                break;
            };
            let frame = self.frame.get(HEADER..len).unwrap_or_default();
            let message = rndis::packet(frame);
            if message.len() as u64 > RECEIVE_SECTION {
                self.dropped += 1;
            } else if self.indicate(channel, DATA, &message)? {
                self.received += 1;
            }
        }
        Ok(())
    }
}

impl ChannelDevice for NetVsp {
    fn offer(&self) -> Offer {
        Offer {
            interface: INTERFACE,
            instance: self.instance,
            mmio_megabytes: 0,
            pipe: false,
        }
    }

    fn received(&mut self, channel: &mut OpenChannel, request: Packet) -> Result<(), RingError> {
        if request.kind == packet::COMPLETION {
            // The guest gives a section back.
            let section = (request.transaction as usize).wrapping_sub(1);
            if let Some(used) = self.receive.as_mut().and_then(|(_, used)| used.get_mut(section)) {
                *used = false;
            }
            self.look_for_room();
            return Ok(());
        }
        match word(&request.data, 0) {
            kind::INIT => {
                let (least, most) = (word(&request.data, 4), word(&request.data, 8));
                let chosen = VERSIONS.iter().rev().find(|v| (least..=most).contains(v));
                let status = if chosen.is_some() {
                    SUCCESS
                } else {
                    VERSION_TOO_NEW
                };
                let reply = [kind::INIT_COMPLETE, chosen.copied().unwrap_or(0), 0, status];
                Self::complete(channel, &request, &reply)?;
            }
            kind::SEND_RECEIVE_BUFFER => self.receive_buffer(channel, &request)?,
            kind::SEND_SEND_BUFFER => self.send_buffer(channel, &request)?,
            kind::REVOKE_RECEIVE_BUFFER => {
                self.receive = None;
                Self::complete(channel, &request, &[])?;
            }
            kind::REVOKE_SEND_BUFFER => {
                self.send = None;
                Self::complete(channel, &request, &[])?;
            }
            kind::RNDIS => self.rndis(channel, &request)?,
            // NDIS version and configuration have no answer; others are not spoken.
            _ => Self::complete(channel, &request, &[])?,
        }
        self.look_for_room();
        Ok(())
    }

    fn closed(&mut self) {
        (self.receive, self.send, self.listening) = (None, None, false);
        self.look_for_room();
    }

    fn poll(&mut self, channel: &mut OpenChannel) -> Result<(), RingError> {
        self.pump(channel)?;
        self.look_for_room();
        Ok(())
    }

    fn inspect(&self) -> String {
        let name = self.tap.name();
        format!(
            "{name} received {} sent {} dropped {}",
            self.received, self.sent, self.dropped
        )
    }
}
