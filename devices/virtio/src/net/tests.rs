// SPDX-License-Identifier: MIT
//! Frames over a wire that is a pair of sockets.

use super::*;
use crate::core::VERSION_1;
use crate::testing::Driver;
use std::os::unix::net::UnixDatagram;

const ADDRESS: [u8; 6] = [2, 1, 2, 3, 4, 5];
/// Buffers of the test are here, a page apart.
const BUFFERS: u64 = 0x1000;

/// A started device and the other end of its wire.
fn started(features: u64) -> (Driver, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let tap = Tap::over_datagrams("wire", theirs).unwrap();
    let mut driver = Driver::new(true, |_| Box::new(Net::new(tap, ADDRESS)));
    driver.start(VERSION_1 | features, 2);
    (driver, ours)
}

/// A frame of `len` bytes, header included.
fn frame(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend((HEADER..len).map(|at| at as u8));
    bytes
}

fn give_buffers(driver: &mut Driver, count: u64, len: u32) {
    for n in 0..count {
        driver.submit(RECEIVE, &[(BUFFERS + n * 0x1000, len, true)]);
    }
    driver.notify(RECEIVE as u16);
}

#[test]
fn the_guest_reads_its_address() {
    let (driver, _wire) = started(MAC);
    assert_eq!(driver.read::<6>(0x2000), ADDRESS);
}

#[test]
fn a_frame_waits_for_buffers_and_arrives_with_the_number_of_them() {
    let (mut driver, wire) = started(0);
    wire.send(&frame(100)).unwrap();
    assert_eq!(driver.used(RECEIVE), None);
    give_buffers(&mut driver, 2, 2000);
    assert_eq!(driver.wait_used(RECEIVE).1, 100);
    let mut expected = frame(100);
    expected[BUFFERS_AT] = 1;
    assert_eq!(driver.ram(BUFFERS, 100), expected);
    // The other buffer is there for the next one.
    wire.send(&frame(60)).unwrap();
    assert_eq!(driver.wait_used(RECEIVE).1, 60);
    assert_eq!(driver.ram(BUFFERS + 0x1000 + 59, 2), [59, 0]);
}

#[test]
fn a_frame_takes_several_buffers_when_that_was_agreed_on() {
    let (mut driver, wire) = started(MERGE);
    give_buffers(&mut driver, 2, 100);
    wire.send(&frame(250)).unwrap();
    // Two are not enough: they stay with the device.
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(driver.used(RECEIVE), None);
    driver.submit(RECEIVE, &[(BUFFERS + 0x2000, 100, true)]);
    driver.notify(RECEIVE as u16);
    let parts = [100, 100, 50].map(|len| {
        assert_eq!(driver.wait_used(RECEIVE).1, len);
        len as usize
    });
    let mut expected = frame(250);
    expected[BUFFERS_AT] = 3;
    let pieces = (0u64..).zip(parts);
    let got: Vec<u8> = pieces
        .flat_map(|(n, len)| driver.ram(BUFFERS + n * 0x1000, len))
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn a_frame_that_fits_no_buffer_is_dropped_whole() {
    let (mut driver, wire) = started(0);
    give_buffers(&mut driver, 2, 100);
    wire.send(&frame(101)).unwrap();
    wire.send(&frame(100)).unwrap();
    assert_eq!(driver.wait_used(RECEIVE).1, 0);
    assert_eq!(driver.wait_used(RECEIVE).1, 100);
    assert_eq!(driver.ram(BUFFERS, 100), [0; 100]);
}

#[test]
fn the_guests_frames_go_out_and_bad_ones_are_dropped() {
    let (mut driver, wire) = started(0);
    let bytes = frame(300);
    driver.memory.write(BUFFERS, &bytes).unwrap();
    // Nothing but a header, more than a frame can have, a part outside RAM.
    let outside = crate::testing::RAM - 100;
    for piece in [
        (BUFFERS, HEADER as u32, false),
        (BUFFERS, MAX_FRAME as u32 + 1, false),
        (outside, 300, false),
    ] {
        assert_eq!(driver.transact(SEND, &[piece]), 0);
    }
    let halves = [(BUFFERS, 200, false), (BUFFERS + 200, 100, false)];
    assert_eq!(driver.transact(SEND, &halves), 0);
    let mut got = [0; 400];
    let len = wire.recv(&mut got).unwrap();
    assert!(got[..len] == bytes, "{len}");
}
