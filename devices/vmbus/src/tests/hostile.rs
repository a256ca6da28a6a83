// SPDX-License-Identifier: MIT
//! Guests that want the host's memory, its log or a panic.

use super::*;
use crate::channel::{ChannelDevice, MOST_AT_ONCE, OpenChannel};
use crate::ring::RingError;
use crate::video::{Screen, Video};
use crate::{protocol, ring};
use soak_case::LogMeter;
use std::sync::atomic::{AtomicUsize, Ordering};

const HV_STATUS_INSUFFICIENT_BUFFERS: u32 = 0x13;

/// Pipe header, then type and size of the message.
fn video_message(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = body.len() as u32 + 8;
    let words = [1, len, kind, len];
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn a_list_that_is_given_back_for_another_channel_stays() {
    let (_file, disk) = disk(1 << 20);
    let guest = Guest::new(vec![
        Box::new(StorVsp::new(Uuid::nil(), vec![disk])),
        Box::new(IntegrationComponent::new(Component::Heartbeat)),
    ]);
    guest.connect();
    let make = || {
        guest.post(&[8, 0, 1, 9, 16 | 1 << 16, 4096, 0, 0x100, 0]);
        guest.words()
    };
    assert_eq!(make(), [10, 0, 1, 9, 0]);
    // Otherwise the open channel 1 would keep one list more each time.
    guest.post(&[11, 0, 2, 9]);
    assert_eq!(guest.words(), [12, 0, 9]);
    assert_eq!(make(), [10, 0, 1, 9, 0xC000_0001], "the number is taken");
    guest.post(&[11, 0, 1, 9]);
    assert_eq!(guest.words(), [12, 0, 9]);
    assert_eq!(make(), [10, 0, 1, 9, 0]);
}

#[test]
fn answers_that_are_never_taken_do_not_pile_up_without_a_connection() {
    for request in [&[16, 0][..], &[14, 0, 0x0007_0000, 0, 0, 0]] {
        let guest = Guest::new(vec![]);
        let answered = (0..2000).filter(|_| guest.post(request) == 0).count();
        assert!((500..600).contains(&answered), "{answered}");
        assert_eq!(guest.post(request), HV_STATUS_INSUFFICIENT_BUFFERS);
        while guest.take().is_some() {}
        assert_eq!(guest.post(request), 0);
    }
}

#[test]
fn a_picture_of_any_size_is_refused_unless_it_is_ram() {
    let screen = Screen::default();
    let mut guest = Guest::new(vec![Box::new(Video::new(screen.clone(), 8))]);
    guest.connect();
    guest.open();
    let location = [&[0; 8][..], &[1], &DATA.to_le_bytes()].concat();
    let mut show = |offset: u32, width: u32, height: u32, pitch: u32| {
        guest.send(packet::INBAND, 1, &[], &video_message(3, &location));
        let mut body = vec![0; 27];
        (body[8], body[9], body[14]) = (1, 1, 32);
        for (at, value) in [(10, offset), (15, width), (19, height), (23, pitch)] {
            body[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        guest.send(packet::INBAND, 2, &[], &video_message(5, &body));
        while guest.receive().is_some() {}
        screen.picture()
    };
    assert!(show(0, 4, 4, 16).is_some());
    assert_eq!(show(0, u32::MAX, u32::MAX, u32::MAX), None);
    assert_eq!(show(u32::MAX, 1, u32::MAX, u32::MAX), None);
    assert_eq!(show(0, 4, 4, 15), None);
    assert_eq!(show(0, 0, 4, 16), None);
    assert_eq!(show((6 << 20) - 16, 4, 2, 16), None, "the last row is outside");
    assert!(show((6 << 20) - 32, 4, 2, 16).is_some());
}

#[test]
fn a_guest_causes_a_hundred_lines_of_the_log_until_it_is_reset() {
    let meter = LogMeter::default();
    let guest = Guest::new(vec![]);
    let mut part = BusPart(guest.bus.clone());
    tracing::subscriber::with_default(meter.clone(), || {
        for lives in 1..3 {
            (0..1000).for_each(|_| {
                guest.post(&[99, 0]);
            });
            assert_eq!(meter.lines(), lives * 100);
            part.reset();
        }
    });
}

#[test]
fn a_guest_that_does_not_listen_is_asked_to_power_off_as_often_as_its_ring_holds() {
    let mut guest = component(Component::Shutdown);
    (0..1000).for_each(|_| assert!(guest.bus.request_shutdown()));
    let mut asked = 0;
    while guest.receive().is_some() {
        asked += 1;
        guest.signal();
    }
    // Five fit, and one waits.
    assert_eq!(asked, 6);
}

/// A device whose guest fills its ring again as soon as a packet has been taken.
struct Refilled {
    taken: Arc<AtomicUsize>,
    stop: usize,
}

const PACKET: u32 = 24;
const RING_SIZE: u32 = (RING_PAGES as u32 - 1) * 4096;

impl ChannelDevice for Refilled {
    fn offer(&self) -> protocol::Offer {
        IntegrationComponent::new(Component::Heartbeat).offer()
    }
    fn received(&mut self, channel: &mut OpenChannel, packet: ring::Packet) -> Result<(), RingError> {
        assert_eq!(packet.transaction, 0x55);
        let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        if taken < self.stop {
            let read = taken as u32 * PACKET % RING_SIZE;
            let written = (read + RING_SIZE - PACKET) % RING_SIZE;
            channel.memory().write(RINGS, &written.to_le_bytes()).unwrap();
        }
        Ok(())
    }
    fn closed(&mut self) {}
}

#[test]
fn a_ring_that_is_filled_for_ever_leaves_the_bus_to_others_now_and_then() {
    let taken = Arc::new(AtomicUsize::new(0));
    let stop = 2 * MOST_AT_ONCE + 100;
    let mut guest = Guest::new(vec![Box::new(Refilled {
        taken: taken.clone(),
        stop,
    })]);
    guest.connect();
    guest.open();
    let mut packet = [packet::INBAND, 2, 2, 0].map(u16::to_le_bytes).concat();
    packet.extend([0x55, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for at in (0..RING_SIZE).step_by(PACKET as usize) {
        guest.memory.write(guest.ring(1, at.into()), &packet).unwrap();
    }
    let written = (RING_SIZE - PACKET).to_le_bytes();
    guest.memory.write(guest.ring(0, 0), &written).unwrap();
    guest.signal();
    for round in 1..3 {
        assert_eq!(taken.load(Ordering::Relaxed), round * MOST_AT_ONCE);
        assert_eq!(guest.timers.next_deadline(), Some(guest.clock.now()));
        guest.timers.fire_due(guest.clock.now());
    }
    // And then everything that was in the ring when it stopped.
    let in_ring = (RING_SIZE / PACKET - 1) as usize;
    assert_eq!(taken.load(Ordering::Relaxed), stop - 1 + in_ring);
    assert_eq!(guest.timers.next_deadline(), None);
}
