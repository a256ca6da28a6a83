// SPDX-License-Identifier: MIT
//! Integration components: shutdown, heartbeat, time synchronisation and key-value pairs (Linux drivers/hv/hv_util.c and
//! include/linux/hyperv.h, "icmsg").
//!
//! Always true: nothing is asked of a guest that has not agreed on a version; one question is open at a
//! time. Not here: file copy and backup.

mod kvp;

use crate::channel::{ChannelDevice, OpenChannel};
use crate::protocol::Offer;
use crate::ring::{Packet, RingError};
use uuid::{Uuid, uuid};

/// What a component does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// Asks the guest to power off.
    Shutdown,
    /// Sees that the guest is alive.
    Heartbeat,
    /// Tells the guest the time.
    TimeSync,
    /// Exchanges key-value pairs.
    Kvp,
}

/// Bytes of the pipe header and of the message header.
const PIPE: usize = 8;
const HEADER: usize = 20;
/// Message types.
const NEGOTIATE: u16 = 0;
/// Flags: part of a transaction, a request.
const REQUEST: u8 = 3;
const RESPONSE: u8 = 4;
/// Version of the frame.
const FRAME: [(u16, u16); 2] = [(1, 0), (3, 0)];
/// Nanoseconds between two heartbeats, and between two looks at the time.
const HEARTBEAT_NS: u64 = 2_000_000_000;
const TIME_NS: u64 = 5_000_000_000;
/// Nanoseconds between two looks at what a guest says of itself.
const KVP_NS: u64 = 10_000_000_000;
/// 100 ns units from 1601 to 1970.
const EPOCH_1601: u64 = 116_444_736_000_000_000;
/// Time flags: set the clock, or a sample to steer it with.
const TIME_SYNC: u8 = 1;
const TIME_SAMPLE: u8 = 2;

impl Component {
    fn interface(self) -> Uuid {
        match self {
            Self::Shutdown => uuid!("0e0b6031-5213-4934-818b-38d90ced39db"),
            Self::Heartbeat => uuid!("57164f39-9115-4e78-ab55-382f3bd5422d"),
            Self::TimeSync => uuid!("9527e630-d0ae-497b-adce-e80ab0175caf"),
            Self::Kvp => uuid!("a9a0f4e7-5a45-4d96-b827-8a841e8c03e6"),
        }
    }

    fn instance(self) -> Uuid {
        match self {
            Self::Shutdown => uuid!("b6650ff7-33bc-4840-8048-e0676786f393"),
            Self::Heartbeat => uuid!("fd149e91-82e0-4a7d-afa6-2a4166cbd7c0"),
            Self::TimeSync => uuid!("2dd1ce17-079e-403c-b352-a1921ee207ee"),
            Self::Kvp => uuid!("242ff919-07db-4180-9c2e-b86cb68c8c55"),
        }
    }

    fn versions(self) -> &'static [(u16, u16)] {
        match self {
            Self::Shutdown => &[(1, 0), (3, 0), (3, 1), (3, 2)],
            Self::Heartbeat => &[(1, 0), (3, 0)],
            Self::TimeSync => &[(1, 0), (3, 0), (4, 0)],
            Self::Kvp => &[(3, 0), (4, 0), (5, 0)],
        }
    }

    fn message(self) -> u16 {
        match self {
            Self::Shutdown => 3,
            Self::Heartbeat => 1,
            Self::TimeSync => 4,
            Self::Kvp => 2,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Negotiating,
    Ready { frame: (u16, u16), version: (u16, u16) },
}

/// One component.
#[derive(Debug)]
pub struct IntegrationComponent {
    component: Component,
    phase: Phase,
    transaction: u8,
    /// A question that is not answered yet.
    asked: bool,
    /// Heartbeats that were answered, and the last sequence number.
    answered: u64,
    sequence: u64,
    synchronised: bool,
    exchange: kvp::Exchange,
}

impl IntegrationComponent {
    /// A component that is not open.
    pub fn new(component: Component) -> Self {
        Self {
            component,
            phase: Phase::Closed,
            transaction: 0,
            asked: false,
            answered: 0,
            sequence: 0,
            synchronised: false,
            exchange: kvp::Exchange::default(),
        }
    }

    fn send(
        &mut self,
        channel: &mut OpenChannel,
        kind: u16,
        (frame, version): ((u16, u16), (u16, u16)),
        body: &[u8],
    ) -> Result<(), RingError> {
        self.transaction = self.transaction.wrapping_add(1);
        let mut bytes = vec![0; PIPE + HEADER];
        let mut put = |at: usize, half: u16| bytes[at..at + 2].copy_from_slice(&half.to_le_bytes());
        put(4, (HEADER + body.len()) as u16);
        put(PIPE, frame.0);
        put(PIPE + 2, frame.1);
        put(PIPE + 4, kind);
        put(PIPE + 6, version.0);
        put(PIPE + 8, version.1);
        put(PIPE + 10, body.len() as u16);
        bytes[PIPE + 16] = self.transaction;
        bytes[PIPE + 17] = REQUEST;
        bytes.extend_from_slice(body);
        self.asked = true;
        channel.send_data(self.transaction.into(), &bytes, false)
    }

    fn ask(&mut self, channel: &mut OpenChannel, body: &[u8]) -> Result<(), RingError> {
        match self.phase {
            Phase::Ready { frame, version } => {
                self.send(channel, self.component.message(), (frame, version), body)
            }
            Phase::Closed | Phase::Negotiating => Ok(()),
        }
    }

    fn negotiate(&mut self, channel: &mut OpenChannel) -> Result<(), RingError> {
        let versions = self.component.versions();
        let mut body = Vec::new();
        for half in [FRAME.len() as u16, versions.len() as u16, 0, 0] {
            body.extend_from_slice(&half.to_le_bytes());
        }
        for (major, minor) in FRAME.iter().chain(versions) {
            body.extend_from_slice(&major.to_le_bytes());
            body.extend_from_slice(&minor.to_le_bytes());
        }
        self.phase = Phase::Negotiating;
        self.send(channel, NEGOTIATE, ((1, 0), (1, 0)), &body)
    }

    /// The guest's choice: one version of each kind, or none.
    fn negotiated(&mut self, channel: &OpenChannel, body: &[u8]) {
        let half = |at: usize| body.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        let pair = |at| Some((half(at)?, half(at + 2)?));
        let chosen = (half(0) == Some(1) && half(2) == Some(1))
            .then(|| Some((pair(8)?, pair(12)?)))
            .flatten();
        self.phase = match chosen {
            Some((frame, version)) => Phase::Ready { frame, version },
            None => {
                channel.warn(|| format!("the guest speaks no version of {:?}", self.component));
                Phase::Closed
            }
        };
    }

    /// Asks what comes next in the exchange of key-value pairs.
    fn exchange(&mut self, channel: &mut OpenChannel) -> Result<(), RingError> {
        match self.exchange.question() {
            Some(question) if self.component == Component::Kvp => self.ask(channel, &question),
            _ => Ok(()),
        }
    }

    /// Asks the guest to power off now; `false` when its driver is not ready.
    fn shut_down(&mut self, channel: &mut OpenChannel) -> Result<bool, RingError> {
        if !matches!(self.phase, Phase::Ready { .. }) {
            return Ok(false);
        }
        // A guest that takes nothing is asked once.
        if channel.waiting() > 0 {
            return Ok(true);
        }
        // Reason: planned; no time; forced; no text.
        let mut body = vec![0; 12 + 2048];
        body[..4].copy_from_slice(&0x8000_0000u32.to_le_bytes());
        body[8] = 1;
        self.ask(channel, &body)?;
        Ok(true)
    }

    fn time(&self, wall_ns: u64, reference: u64) -> Vec<u8> {
        let parent = EPOCH_1601 + wall_ns / 100;
        let flags = if self.synchronised { TIME_SAMPLE } else { TIME_SYNC };
        let mut body = parent.to_le_bytes().to_vec();
        if matches!(self.phase, Phase::Ready { version, .. } if version.0 >= 4) {
            body.extend_from_slice(&reference.to_le_bytes());
            body.extend_from_slice(&[flags, 0, 0, 0, 0, 0, 0, 0]);
        } else {
            body.extend_from_slice(&[0; 16]);
            body.push(flags);
        }
        body
    }
}

impl ChannelDevice for IntegrationComponent {
    fn offer(&self) -> Offer {
        Offer {
            interface: self.component.interface(),
            instance: self.component.instance(),
            mmio_megabytes: 0,
            pipe: true,
        }
    }

    fn opened(&mut self, channel: &mut OpenChannel) -> Result<(), RingError> {
        self.negotiate(channel)
    }

    fn received(&mut self, channel: &mut OpenChannel, packet: Packet) -> Result<(), RingError> {
        let data = &packet.data;
        if data.len() < PIPE + HEADER {
            let text = format!("an integration message of {} bytes", data.len());
            return Err(RingError::Contents(text));
        }
        if data[PIPE + 17] & RESPONSE == 0 || data[PIPE + 16] != self.transaction || !self.asked {
            return Ok(());
        }
        self.asked = false;
        let kind = u16::from_le_bytes([data[PIPE + 4], data[PIPE + 5]]);
        if kind == NEGOTIATE {
            self.negotiated(channel, &data[PIPE + HEADER..]);
        } else {
            self.answered += 1;
            self.synchronised = true;
            if self.component == Component::Kvp {
                let status = [12, 13, 14, 15].map(|at| data[PIPE + at]);
                self.exchange
                    .answered(u32::from_le_bytes(status), &data[PIPE + HEADER..]);
            }
        }
        self.exchange(channel)
    }

    fn closed(&mut self) {
        *self = Self::new(self.component);
    }

    fn period(&self) -> Option<u64> {
        match self.component {
            Component::Shutdown => None,
            Component::Heartbeat => Some(HEARTBEAT_NS),
            Component::TimeSync => Some(TIME_NS),
            Component::Kvp => Some(KVP_NS),
        }
    }

    fn tick(&mut self, channel: &mut OpenChannel, now: u64, wall: u64) -> Result<(), RingError> {
        // A guest that does not answer is not asked again and again.
        if self.asked {
            return Ok(());
        }
        let body = match self.component {
            Component::Shutdown => return Ok(()),
            Component::Heartbeat => {
                self.sequence += 1;
                let mut body = vec![0; 40];
                body[..8].copy_from_slice(&self.sequence.to_le_bytes());
                body
            }
            Component::TimeSync => self.time(wall, now / 100),
            Component::Kvp => {
                self.exchange.again();
                return self.exchange(channel);
            }
        };
        self.ask(channel, &body)
    }

    fn request_shutdown(&mut self, channel: &mut OpenChannel) -> Result<bool, RingError> {
        if self.component != Component::Shutdown {
            return Ok(false);
        }
        self.shut_down(channel)
    }

    fn inspect(&self) -> String {
        let pairs = match self.component {
            Component::Kvp => self.exchange.text(),
            _ => String::new(),
        };
        format!(
            "{:?} {:?} answered {}{pairs}",
            self.component, self.phase, self.answered
        )
    }
}
