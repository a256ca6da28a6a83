// SPDX-License-Identifier: MIT
//! Channel messages: what guest and host say about channels, as bytes (Linux include/linux/hyperv.h,
//! "vmbus_channel_message"; msvm-machine section 7).
//!
//! Always true: a message that is shorter than its type demands is an error with the type's name; longer
//! ones are taken (newer guests send newer structures). Not here: what follows from a message.

use uuid::Uuid;

/// Connections on which guests post messages: the old one, and the one of version 5 and later.
pub const MESSAGE_CONNECTIONS: [u32; 2] = [1, 4];
/// Type of a SynIC message that holds a channel message.
pub const MESSAGE_KIND: u32 = 1;
/// Interrupt source of channel messages and events.
pub const MESSAGE_SINT: u8 = 2;

/// A version of the protocol: major number in the upper half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// Windows 8.1.
    pub const V3_0: Self = Self(0x0003_0000);
    /// Messages name their interrupt source from here on.
    pub const V5_0: Self = Self(0x0005_0000);
    /// Moving a channel to another processor is acknowledged from here on.
    pub const V5_3: Self = Self(0x0005_0003);
    /// Copper.
    pub const V6_0: Self = Self(0x0006_0000);

    /// Whether it is spoken here.
    pub fn is_supported(self) -> bool {
        const SPOKEN: [u32; 8] = [
            0x0003_0000,
            0x0004_0000,
            0x0004_0001,
            0x0005_0000,
            0x0005_0001,
            0x0005_0002,
            0x0005_0003,
            0x0006_0000,
        ];
        SPOKEN.contains(&self.0)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0 >> 16, self.0 & 0xFFFF)
    }
}

/// Message types.
mod kind {
    pub(super) const OFFER: u32 = 1;
    pub(super) const REQUEST_OFFERS: u32 = 3;
    pub(super) const ALL_OFFERS_DELIVERED: u32 = 4;
    pub(super) const OPEN: u32 = 5;
    pub(super) const OPEN_RESULT: u32 = 6;
    pub(super) const CLOSE: u32 = 7;
    pub(super) const GPADL_HEADER: u32 = 8;
    pub(super) const GPADL_BODY: u32 = 9;
    pub(super) const GPADL_CREATED: u32 = 10;
    pub(super) const GPADL_TEARDOWN: u32 = 11;
    pub(super) const GPADL_TORNDOWN: u32 = 12;
    pub(super) const RELID_RELEASED: u32 = 13;
    pub(super) const INITIATE_CONTACT: u32 = 14;
    pub(super) const VERSION_RESPONSE: u32 = 15;
    pub(super) const UNLOAD: u32 = 16;
    pub(super) const UNLOAD_COMPLETE: u32 = 17;
    pub(super) const TL_CONNECT_REQUEST: u32 = 21;
    pub(super) const MODIFY_CHANNEL: u32 = 22;
    pub(super) const MODIFY_CHANNEL_RESPONSE: u32 = 24;
}

/// A message that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Too few bytes.
    #[error("{name} has {len} bytes and needs {need}")]
    Short {
        /// The type's name.
        name: &'static str,
        /// What came.
        len: usize,
        /// What it takes.
        need: usize,
    },
    /// No such type.
    #[error("message type {0} is not known")]
    Unknown(u32),
}

/// What a guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Begins, with the version that the guest wants.
    InitiateContact {
        /// The version.
        version: Version,
        /// Processor that takes messages.
        target_vp: u32,
        /// Interrupt source of messages, from version 5 on; 0 means the usual one.
        sint: u8,
        /// Trust level of the guest's bus, from version 5 on.
        vtl: u8,
    },
    /// Wants all offers.
    RequestOffers,
    /// Opens a channel.
    Open {
        /// The channel.
        channel: u32,
        /// The guest's number of the attempt.
        open_id: u32,
        /// Memory of the rings.
        gpadl: u32,
        /// Processor that takes the channel's events.
        target_vp: u32,
        /// Page where the ring from host to guest begins.
        downstream_page: u32,
    },
    /// Closes a channel.
    Close {
        /// The channel.
        channel: u32,
    },
    /// Begins a list of pages.
    GpadlHeader {
        /// The channel that it is for.
        channel: u32,
        /// Its number.
        gpadl: u32,
        /// Ranges in it.
        ranges: u16,
        /// 64-bit words of ranges in all messages together.
        words: usize,
        /// The first words.
        first: Vec<u64>,
    },
    /// More of a list of pages.
    GpadlBody {
        /// Its number.
        gpadl: u32,
        /// The words.
        more: Vec<u64>,
    },
    /// Gives a list of pages back.
    GpadlTeardown {
        /// The channel that it was for.
        channel: u32,
        /// Its number.
        gpadl: u32,
    },
    /// Forgets a channel that was taken back.
    RelidReleased {
        /// The channel.
        channel: u32,
    },
    /// Moves a channel's events to another processor.
    ModifyChannel {
        /// The channel.
        channel: u32,
        /// The processor.
        target_vp: u32,
    },
    /// Wants a socket; there are none.
    TlConnect,
    /// Ends.
    Unload,
}

struct Reader<'m> {
    name: &'static str,
    bytes: &'m [u8],
}

impl<'m> Reader<'m> {
    fn new(name: &'static str, bytes: &'m [u8], need: usize) -> Result<Self, ProtocolError> {
        if bytes.len() < need {
            let len = bytes.len();
            return Err(ProtocolError::Short { name, len, need });
        }
        Ok(Self { name, bytes })
    }

    fn u32(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        self.copy(at, &mut word);
        u32::from_le_bytes(word)
    }

    fn u16(&self, at: usize) -> u16 {
        let mut word = [0; 2];
        self.copy(at, &mut word);
        u16::from_le_bytes(word)
    }

    fn copy(&self, at: usize, to: &mut [u8]) {
        debug_assert!(at + to.len() <= self.bytes.len(), "{}", self.name);
        for (i, byte) in to.iter_mut().enumerate() {
            *byte = self.bytes.get(at + i).copied().unwrap_or(0);
        }
    }

    fn words(&self, at: usize) -> Vec<u64> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        rest.as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word))
            .collect()
    }
}

impl Request {
    /// Reads a message.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let number = Reader::new("a channel message", bytes, 8)?.u32(0);
        let read = |name, need| Reader::new(name, bytes, need);
        Ok(match number {
            kind::INITIATE_CONTACT => {
                let r = read("InitiateContact", 24)?;
                Self::InitiateContact {
                    version: Version(r.u32(8)),
                    target_vp: r.u32(12),
                    sint: bytes[16],
                    vtl: bytes[17],
                }
            }
            kind::REQUEST_OFFERS => Self::RequestOffers,
            kind::OPEN => {
                let r = read("OpenChannel", 28)?;
                Self::Open {
                    channel: r.u32(8),
                    open_id: r.u32(12),
                    gpadl: r.u32(16),
                    target_vp: r.u32(20),
                    downstream_page: r.u32(24),
                }
            }
            kind::CLOSE => Self::Close {
                channel: read("CloseChannel", 12)?.u32(8),
            },
            kind::GPADL_HEADER => {
                let r = read("GpadlHeader", 20)?;
                let words = usize::from(r.u16(16)) / 8;
                let mut first = r.words(20);
                first.truncate(words);
                Self::GpadlHeader {
                    channel: r.u32(8),
                    gpadl: r.u32(12),
                    ranges: r.u16(18),
                    words,
                    first,
                }
            }
            kind::GPADL_BODY => {
                let r = read("GpadlBody", 16)?;
                Self::GpadlBody {
                    gpadl: r.u32(12),
                    more: r.words(16),
                }
            }
            kind::GPADL_TEARDOWN => {
                let r = read("GpadlTeardown", 16)?;
                Self::GpadlTeardown {
                    channel: r.u32(8),
                    gpadl: r.u32(12),
                }
            }
            kind::RELID_RELEASED => Self::RelidReleased {
                channel: read("RelIdReleased", 12)?.u32(8),
            },
            kind::MODIFY_CHANNEL => {
                let r = read("ModifyChannel", 16)?;
                Self::ModifyChannel {
                    channel: r.u32(8),
                    target_vp: r.u32(12),
                }
            }
            kind::TL_CONNECT_REQUEST => Self::TlConnect,
            kind::UNLOAD => Self::Unload,
            other => return Err(ProtocolError::Unknown(other)),
        })
    }
}

/// What a channel is, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Which driver it is for.
    pub interface: Uuid,
    /// Which device it is.
    pub instance: Uuid,
    /// MMIO that the device wants, in MiB.
    pub mmio_megabytes: u16,
    /// Data packets begin with a pipe header.
    pub pipe: bool,
}

/// The channel can be read and written like a pipe.
const FLAG_NAMED_PIPE: u16 = 0x10;
/// Pipe mode: messages, not bytes.
const PIPE_MESSAGES: u32 = 4;

/// What a message of the host is called (Linux include/linux/hyperv.h); `None` for other numbers.
pub fn name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        kind::OFFER => "OfferChannel",
        kind::ALL_OFFERS_DELIVERED => "AllOffersDelivered",
        kind::OPEN_RESULT => "OpenResult",
        kind::GPADL_CREATED => "GpadlCreated",
        kind::GPADL_TORNDOWN => "GpadlTorndown",
        kind::VERSION_RESPONSE => "VersionResponse",
        kind::UNLOAD_COMPLETE => "UnloadComplete",
        kind::MODIFY_CHANNEL_RESPONSE => "ModifyChannelResponse",
        _ => return None,
    })
}

fn message(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    put32(&mut bytes, 0, number);
    bytes
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// The whole offer structure, 196 bytes.
pub fn offer(offer: &Offer, channel: u32, connection: u32) -> Vec<u8> {
    let mut m = message(kind::OFFER, 196);
    m[8..24].copy_from_slice(&offer.interface.to_bytes_le());
    m[24..40].copy_from_slice(&offer.instance.to_bytes_le());
    if offer.pipe {
        put16(&mut m, 56, FLAG_NAMED_PIPE);
        put32(&mut m, 60, PIPE_MESSAGES);
    }
    put16(&mut m, 58, offer.mmio_megabytes);
    put32(&mut m, 184, channel);
    // No monitor page; an interrupt of its own.
    put16(&mut m, 190, 1);
    put32(&mut m, 192, connection);
    m
}

/// AllOffersDelivered.
pub fn all_offers_delivered() -> Vec<u8> {
    message(kind::ALL_OFFERS_DELIVERED, 8)
}

/// VersionResponse, as long as the version asked for demands.
pub fn version_response(version: Version, accepted: bool, connection: u32) -> Vec<u8> {
    let mut m = message(
        kind::VERSION_RESPONSE,
        if version >= Version::V6_0 { 20 } else { 16 },
    );
    m[8] = accepted.into();
    put32(&mut m, 12, connection);
    m
}

/// OpenResult; 0 is success.
pub fn open_result(channel: u32, open_id: u32, status: u32) -> Vec<u8> {
    let mut m = message(kind::OPEN_RESULT, 20);
    put32(&mut m, 8, channel);
    put32(&mut m, 12, open_id);
    put32(&mut m, 16, status);
    m
}

/// GpadlCreated; 0 is success.
pub fn gpadl_created(channel: u32, gpadl: u32, status: u32) -> Vec<u8> {
    let mut m = message(kind::GPADL_CREATED, 20);
    put32(&mut m, 8, channel);
    put32(&mut m, 12, gpadl);
    put32(&mut m, 16, status);
    m
}

/// GpadlTorndown.
pub fn gpadl_torndown(gpadl: u32) -> Vec<u8> {
    let mut m = message(kind::GPADL_TORNDOWN, 12);
    put32(&mut m, 8, gpadl);
    m
}

/// ModifyChannelResponse; 0 is success.
pub fn modify_channel_response(channel: u32, status: u32) -> Vec<u8> {
    let mut m = message(kind::MODIFY_CHANNEL_RESPONSE, 16);
    put32(&mut m, 8, channel);
    put32(&mut m, 12, status);
    m
}

/// UnloadComplete.
pub fn unload_complete() -> Vec<u8> {
    message(kind::UNLOAD_COMPLETE, 8)
}
