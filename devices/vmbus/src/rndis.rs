// SPDX-License-Identifier: MIT
//! RNDIS messages of a network adapter ([MS-RNDIS] section 2.2).
//!
//! Always true: offsets and lengths that a guest wrote are checked; what is not supported says so.
//! Not here: where messages come from.

use crate::ring::word;

/// Message types; an answer has the top bit.
const PACKET: u32 = 1;
const INITIALIZE: u32 = 2;
const HALT: u32 = 3;
const QUERY: u32 = 4;
const SET: u32 = 5;
const RESET: u32 = 6;
const KEEP_ALIVE: u32 = 8;
const COMPLETE: u32 = 0x8000_0000;

/// Statuses.
const SUCCESS: u32 = 0;
const NOT_SUPPORTED: u32 = 0xC000_00BB;
const INVALID_DATA: u32 = 0xC001_0015;

/// What can be asked about.
mod oid {
    pub(super) const MAXIMUM_FRAME_SIZE: u32 = 0x0001_0106;
    pub(super) const LINK_SPEED: u32 = 0x0001_0107;
    pub(super) const PACKET_FILTER: u32 = 0x0001_010E;
    pub(super) const MAXIMUM_TOTAL_SIZE: u32 = 0x0001_0111;
    pub(super) const MEDIA_CONNECT_STATUS: u32 = 0x0001_0114;
    pub(super) const CONFIG_PARAMETER: u32 = 0x0001_021B;
    pub(super) const PERMANENT_ADDRESS: u32 = 0x0101_0101;
    pub(super) const CURRENT_ADDRESS: u32 = 0x0101_0102;
    pub(super) const MULTICAST_LIST: u32 = 0x0101_0103;
    pub(super) const OFFLOAD_PARAMETERS: u32 = 0xFC01_020C;
    pub(super) const OFFLOAD_CAPABILITIES: u32 = 0xFC01_020D;
}

/// Payload of a frame, and a frame with its header.
const MTU: u32 = 1500;
const FRAME: u32 = 1514;
/// 10 Gbit/s in units of 100 bit/s.
const SPEED: u32 = 100_000_000;
/// Header of a message, and of a packet message behind it.
const HEADER: usize = 8;
const PACKET_HEADER: usize = 36;
/// Most bytes of an answer to a query.
const MOST_INFO: u32 = 1024;
/// Object type and revision of offload capabilities.
const OFFLOAD_OBJECT: [u8; 2] = [0xA7, 1];

/// What a control message asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// No answer.
    Nothing,
    /// The adapter stops.
    Halt,
    /// An answer.
    Message(Vec<u8>),
    /// An answer, and frames are wanted if the filter is not 0.
    Filter { filter: u32, reply: Vec<u8> },
}

fn message(kind: u32, body: &[u32], rest: &[u8]) -> Vec<u8> {
    let len = HEADER + 4 * body.len() + rest.len();
    let words = [kind, len as u32].into_iter().chain(body.iter().copied());
    let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    bytes.extend_from_slice(rest);
    bytes
}

/// A frame for the guest.
pub(crate) fn packet(frame: &[u8]) -> Vec<u8> {
    let body = [PACKET_HEADER as u32, frame.len() as u32, 0, 0, 0, 0, 0, 0, 0];
    message(PACKET, &body, frame)
}

/// The frames of a run of messages; it ends at the first that is malformed.
pub(crate) fn frames(bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while let Some((frame, len)) = first_frame(rest) {
        frames.push(frame);
        rest = rest.get(len..).unwrap_or_default();
    }
    frames
}

fn first_frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (kind, len) = (word(bytes, 0)?, word(bytes, 4)? as usize);
    let (offset, data) = (word(bytes, 8)? as usize, word(bytes, 12)? as usize);
    let inside = bytes
        .get(..len)
        .filter(|_| kind == PACKET && len >= HEADER + PACKET_HEADER)?;
    let start = offset.checked_add(HEADER)?;
    let frame = inside.get(start..start.checked_add(data)?)?;
    (!frame.is_empty()).then_some((frame, len))
}

/// Answers a control message.
pub(crate) fn answer(bytes: &[u8], mac: [u8; 6]) -> Reply {
    let (Some(kind), Some(id)) = (word(bytes, 0), word(bytes, HEADER)) else {
        return Reply::Nothing;
    };
    match kind {
        // Version 1.0; connectionless; Ethernet; one packet per message; largest transfer; alignment 8.
        INITIALIZE => {
            let body = [id, SUCCESS, 1, 0, 1, 0, 1, 0x4000, 3, 0, 0];
            Reply::Message(message(COMPLETE | INITIALIZE, &body, &[]))
        }
        HALT => Reply::Halt,
        QUERY => Reply::Message(query(bytes, id, mac)),
        SET => set(bytes, id),
        // Status, and that addressing is kept.
        RESET => Reply::Message(message(COMPLETE | RESET, &[SUCCESS, 0], &[])),
        KEEP_ALIVE => Reply::Message(message(COMPLETE | KEEP_ALIVE, &[id, SUCCESS], &[])),
        _ => Reply::Nothing,
    }
}

fn query(bytes: &[u8], id: u32, mac: [u8; 6]) -> Vec<u8> {
    let wanted = word(bytes, 12).unwrap_or(0);
    let room = word(bytes, 16).unwrap_or(0).min(MOST_INFO);
    let info = match wanted {
        oid::MAXIMUM_FRAME_SIZE => Some(MTU.to_le_bytes().to_vec()),
        oid::MAXIMUM_TOTAL_SIZE => Some(FRAME.to_le_bytes().to_vec()),
        oid::LINK_SPEED => Some(SPEED.to_le_bytes().to_vec()),
        // Connected.
        oid::MEDIA_CONNECT_STATUS => Some(vec![0; 4]),
        oid::PERMANENT_ADDRESS | oid::CURRENT_ADDRESS => Some(mac.to_vec()),
        // As long as the guest's structure, and nothing in it.
        oid::OFFLOAD_CAPABILITIES if room >= 4 => {
            let mut info = vec![0; room as usize];
            info[..2].copy_from_slice(&OFFLOAD_OBJECT);
            info[2..4].copy_from_slice(&(room as u16).to_le_bytes());
            Some(info)
        }
        _ => None,
    };
    match info {
        Some(info) => {
            let body = [id, SUCCESS, info.len() as u32, 16];
            message(COMPLETE | QUERY, &body, &info)
        }
        None => message(COMPLETE | QUERY, &[id, NOT_SUPPORTED, 0, 0], &[]),
    }
}

fn set(bytes: &[u8], id: u32) -> Reply {
    let reply = |status| message(COMPLETE | SET, &[id, status], &[]);
    match word(bytes, 12).unwrap_or(0) {
        oid::PACKET_FILTER => {
            let at = word(bytes, 20).and_then(|offset| (offset as usize).checked_add(HEADER));
            match at.and_then(|at| word(bytes, at)) {
                Some(filter) => Reply::Filter {
                    filter,
                    reply: reply(SUCCESS),
                },
                None => Reply::Message(reply(INVALID_DATA)),
            }
        }
        oid::MULTICAST_LIST | oid::OFFLOAD_PARAMETERS | oid::CONFIG_PARAMETER => {
            Reply::Message(reply(SUCCESS))
        }
        _ => Reply::Message(reply(NOT_SUPPORTED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn ask(kind: u32, body: &[u32]) -> Reply {
        answer(&message(kind, body, &[]), MAC)
    }

    #[test]
    fn frames_of_a_run_are_found_and_a_malformed_one_ends_it() {
        let mut run = packet(b"first frame!");
        run.extend(packet(b"second"));
        run.extend([1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert_eq!(frames(&run), [&b"first frame!"[..], b"second"]);
        for (at, value) in [(4, u32::MAX), (8, u32::MAX), (12, u32::MAX), (0, 7)] {
            let mut bad = packet(b"frame");
            bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(frames(&bad).is_empty(), "{at}");
        }
    }

    #[test]
    fn address_and_speed_are_told() {
        let Reply::Message(reply) = ask(QUERY, &[7, oid::PERMANENT_ADDRESS, 6, 20, 0]) else {
            panic!("no answer")
        };
        assert_eq!(word(&reply, 8), Some(7));
        assert_eq!(word(&reply, 12), Some(SUCCESS));
        assert_eq!(reply[8 + 16..], MAC);
        let Reply::Message(reply) = ask(QUERY, &[8, 0x1234, 6, 20, 0]) else {
            panic!("no answer")
        };
        assert_eq!(word(&reply, 12), Some(NOT_SUPPORTED));
    }

    #[test]
    fn offload_capabilities_are_empty_but_well_formed() {
        let Reply::Message(reply) = ask(QUERY, &[1, oid::OFFLOAD_CAPABILITIES, 200, 20, 0]) else {
            panic!("no answer")
        };
        assert_eq!(reply[24..28], [0xA7, 1, 200, 0]);
        assert!(reply[28..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn packet_filter_says_whether_frames_are_wanted() {
        let set = |filter| ask(SET, &[1, oid::PACKET_FILTER, 4, 20, 0, filter]);
        assert!(matches!(set(0xB), Reply::Filter { filter: 0xB, .. }));
        let cut = answer(
            &message(SET, &[1, oid::PACKET_FILTER, 4, 0xFFFF_FFFF, 0], &[]),
            MAC,
        );
        assert!(matches!(cut, Reply::Message(reply) if word(&reply, 12) == Some(INVALID_DATA)));
    }

    #[test]
    fn short_messages_have_no_answer() {
        assert_eq!(answer(&[], MAC), Reply::Nothing);
        assert_eq!(answer(&[4, 0, 0, 0, 8, 0, 0, 0], MAC), Reply::Nothing);
        assert_eq!(ask(HALT, &[1]), Reply::Halt);
    }
}
