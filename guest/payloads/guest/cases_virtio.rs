// SPDX-License-Identifier: MIT
//! Cases about virtio devices on the OVMF machine: what each does for a driver, by interrupt.

use crate::q35::ECAM;
use crate::virtio_blk::{Disk, IOERR, OK};
use crate::virtio_driver::{Driver, Piece, QUEUES_LEN};
use crate::virtio_pci::Function;
use crate::{Case, Outcome, expect};
use guest_rt::memory;
use guest_rt::protocol::flat::{CONSOLE_TEXT, FREE_GPA, NET_GUEST_IP, NET_HOST_IP, SILENT_PORT, VSOCK_PORT};
use guest_rt::time::Deadline;

pub(crate) const BLK: &[Case] = &[("virtio-blk-writes-and-reads-back", blk)];
pub(crate) const RNG: &[Case] = &[("virtio-rng-gives-bytes", rng)];
pub(crate) const CONSOLE: &[Case] = &[("virtio-console-takes-bytes", console)];
pub(crate) const VSOCK: &[Case] = &[
    ("virtio-vsock-refuses-a-port-without-a-listener", vsock_refused),
    ("virtio-vsock-connects-and-exchanges-data", vsock_exchange),
];
pub(crate) const NET: &[Case] = &[("virtio-net-gets-an-answer-from-the-host", net)];

/// Behind the queues and the disk's headers.
const OUT: u64 = FREE_GPA + QUEUES_LEN + 0x1_0000;
const IN: u64 = OUT + 0x1_0000;
const IN_LEN: u32 = 0x1000;

fn piece(gpa: u64, len: u32, writable: bool) -> Piece {
    Piece { gpa, len, writable }
}

/// The device of this type, started with its queues; the case fails without it.
fn start(kind: u32, features: u32, queues: u16) -> Result<Driver, crate::cases::Wrong> {
    let missing = |what| crate::cases::Wrong {
        what,
        value: kind.into(),
    };
    let function = Function::find(ECAM, 0x1040_1AF4 + (kind << 16)).ok_or(missing("absent device"))?;
    let (bar, _) = function.bar();
    Driver::start(&function, bar, features, queues).ok_or(missing("device that took no driver"))
}

fn blk() -> Outcome {
    const LEN: u32 = 0x8000;
    let Some(function) = Function::find(ECAM, 0x1042_1AF4) else {
        return expect(false, "absent device", 2u64);
    };
    let (bar, _) = function.bar();
    let Some(mut disk) = Disk::start(&function, bar) else {
        return expect(false, "device that took no driver", 2u64);
    };
    for at in (0..u64::from(LEN)).step_by(8) {
        memory::write_u64(OUT + at, at.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        memory::write_u64(IN + at, 0);
    }
    let outcomes = [disk.write(8, OUT, LEN), disk.flush(), disk.read(8, IN, LEN)];
    for outcome in outcomes {
        expect(outcome == OK, "status", outcome)?;
    }
    for at in (0..u64::from(LEN)).step_by(8) {
        let (wrote, read) = (memory::read_u64(OUT + at), memory::read_u64(IN + at));
        expect(wrote == read, "offset of the first difference", at)?;
    }
    let beyond = disk.read(disk.sectors(), IN, 512);
    expect(beyond == IOERR, "status past the end", beyond)
}

fn rng() -> Outcome {
    let mut driver = start(4, 0, 1)?;
    (0..8).for_each(|n| memory::write_u64(IN + n * 8, 0));
    let written = driver.transact(0, &[piece(IN, 64, true)]);
    expect(written == Some(64), "bytes", written.unwrap_or(0))?;
    let zeros = (0..8).filter(|n| memory::read_u64(IN + n * 8) == 0).count();
    expect(zeros == 0, "words that stayed zero", zeros as u64)
}

fn console() -> Outcome {
    let mut driver = start(3, 0, 2)?;
    memory::write(OUT, CONSOLE_TEXT.as_bytes());
    let written = driver.transact(1, &[piece(OUT, CONSOLE_TEXT.len() as u32, false)]);
    expect(written == Some(0), "bytes", written.unwrap_or(u32::MAX))
}

/// Receive and send queues.
const RECEIVE: usize = 0;
const SEND: usize = 1;

/// Offsets in a socket packet's header (VIRTIO 1.2 section 5.10.6).
mod packet {
    pub(super) const SOURCE: u64 = 0;
    pub(super) const DESTINATION: u64 = 8;
    pub(super) const SOURCE_PORT: u64 = 16;
    pub(super) const DESTINATION_PORT: u64 = 20;
    pub(super) const LEN: u64 = 24;
    pub(super) const TYPE: u64 = 28;
    pub(super) const OP: u64 = 30;
    pub(super) const CREDIT: u64 = 36;
    pub(super) const HEADER: u64 = 44;
}
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const DATA: u16 = 5;
const GUEST_PORT: u32 = 1234;
const HELLO: &[u8] = b"hello";

/// A packet to the host's port, with data behind it.
fn send(driver: &mut Driver, port: u32, op: u16, data: &[u8]) {
    let guest = memory::read_u64(driver.config);
    (0..6).for_each(|n| memory::write_u64(OUT + n * 8, 0));
    memory::write_u64(OUT + packet::SOURCE, guest);
    memory::write_u64(OUT + packet::DESTINATION, 2);
    memory::write_u32(OUT + packet::SOURCE_PORT, GUEST_PORT);
    memory::write_u32(OUT + packet::DESTINATION_PORT, port);
    memory::write_u32(OUT + packet::LEN, data.len() as u32);
    memory::write_u16(OUT + packet::TYPE, 1);
    memory::write_u16(OUT + packet::OP, op);
    memory::write_u32(OUT + packet::CREDIT, 0x1_0000);
    memory::write(OUT + packet::HEADER, data);
    let len = packet::HEADER as u32 + data.len() as u32;
    driver.submit(SEND, &[piece(OUT, len, false)]);
}

/// The operation of the next packet for the guest, and the length of its data.
fn receive(driver: &mut Driver) -> Option<(u16, u32)> {
    let mut written = None;
    Deadline::in_ms(5000).wait(|| {
        written = driver.finished(RECEIVE);
        written.is_some()
    });
    written?;
    Some((
        memory::read_u16(IN + packet::OP),
        memory::read_u32(IN + packet::LEN),
    ))
}

fn vsock_refused() -> Outcome {
    let mut driver = start(19, 0, 3)?;
    driver.submit(RECEIVE, &[piece(IN, IN_LEN, true)]);
    send(&mut driver, SILENT_PORT, REQUEST, b"");
    let answer = receive(&mut driver);
    expect(
        answer == Some((RESET, 0)),
        "operation",
        answer.map_or(0, |(op, _)| op),
    )
}

/// What the host sends back is what it was sent.
fn vsock_exchange() -> Outcome {
    let mut driver = start(19, 0, 3)?;
    driver.submit(RECEIVE, &[piece(IN, IN_LEN, true)]);
    send(&mut driver, VSOCK_PORT, REQUEST, b"");
    let answer = receive(&mut driver);
    expect(
        answer == Some((RESPONSE, 0)),
        "operation",
        answer.map_or(0, |(op, _)| op),
    )?;
    driver.finished(SEND);
    driver.submit(RECEIVE, &[piece(IN, IN_LEN, true)]);
    send(&mut driver, VSOCK_PORT, DATA, HELLO);
    // The host may tell its credit before it answers.
    for _ in 0..4 {
        let Some((op, len)) = receive(&mut driver) else {
            break;
        };
        if op == DATA {
            let data = memory::bytes(IN + packet::HEADER, HELLO.len());
            return expect(len as usize == HELLO.len() && data == HELLO, "length", len);
        }
        driver.submit(RECEIVE, &[piece(IN, IN_LEN, true)]);
    }
    expect(false, "answers with data", 0u64)
}

/// Asks who has the host's address (RFC 826), until the host's interface is up and answers.
fn net() -> Outcome {
    const MAC: u32 = 1 << 5;
    const HEADER: u64 = 12;
    const ARP_LEN: u64 = 42;
    let mut driver = start(1, MAC, 2)?;
    let frame = OUT + HEADER;
    (0..8).for_each(|n| memory::write_u64(OUT + n * 8, 0));
    memory::write(frame, &[0xFF; 6]);
    let arp = frame + 14;
    memory::write(frame + 12, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    for at in 0..6 {
        let byte = memory::read_u8(driver.config + at);
        memory::write_u8(frame + 6 + at, byte);
        memory::write_u8(arp + 8 + at, byte);
    }
    memory::write(arp + 14, &NET_GUEST_IP);
    memory::write(arp + 24, &NET_HOST_IP);
    driver.submit(RECEIVE, &[piece(IN, IN_LEN, true)]);
    for _ in 0..200 {
        driver.submit(SEND, &[piece(OUT, (HEADER + ARP_LEN) as u32, false)]);
        let answered = Deadline::in_ms(20).wait(|| {
            let Some(len) = driver.finished(RECEIVE) else {
                return false;
            };
            let reply = IN + HEADER + 14;
            let kind = u64::from(len) >= HEADER + ARP_LEN && memory::bytes(reply - 2, 2) == [8, 6];
            let is_answer =
                kind && memory::bytes(reply + 6, 2) == [0, 2] && memory::bytes(reply + 14, 4) == NET_HOST_IP;
            if !is_answer {
                driver.submit(RECEIVE, &[piece(IN, IN_LEN, true)]);
            }
            is_answer
        });
        if answered {
            return Ok(());
        }
        Deadline::in_ms(1000).wait(|| driver.finished(SEND).is_some());
    }
    expect(false, "answers", 0u64)
}
