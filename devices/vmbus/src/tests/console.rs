// SPDX-License-Identifier: MIT
//! Keyboard and screen, as Microsoft's firmware starts them (its drivers SynthKeyDxe and VideoDxe).

use super::*;
use crate::keyboard::{KeyEvent, Keyboard, Keys};
use crate::video::{MEGABYTES, Picture, Screen, Video};

const PICTURE: Picture = Picture {
    gpa: 0x40_0000,
    width: 32,
    height: 16,
    pitch: 128,
};

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A message in a pipe, as it goes both ways.
fn piped(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = body.len() as u32 + 8;
    [&words(&[1, len, kind, len])[..], body].concat()
}

/// Says where [`PICTURE`] is and what it is, and as Microsoft's firmware does that it is not active.
fn show(guest: &mut Guest) {
    let location = [&[7; 8][..], &[1], &PICTURE.gpa.to_le_bytes()].concat();
    guest.send(packet::INBAND, 2, &[], &piped(3, &location));
    let size = words(&[PICTURE.width, PICTURE.height, PICTURE.pitch]);
    let situation = [&[8; 8][..], &[1, 0, 0, 0, 0, 0, 32], &size].concat();
    guest.send(packet::INBAND, 3, &[], &piped(5, &situation));
}

#[test]
fn screen_is_accepted_with_the_value_that_the_firmware_demands() {
    let mut guest = Guest::new(vec![Box::new(Video::new(Screen::default(), MEGABYTES))]);
    guest.connect();
    guest.open();
    for (version, accepted) in [(0x5_0003_u32, 2), (0x2_0003, 2), (0x6_0003, 0), (0x5_0004, 0)] {
        guest.send(packet::INBAND, 1, &[], &piped(1, &version.to_le_bytes()));
        assert_eq!(guest.receive().unwrap().0, packet::COMPLETION);
        let (_, _, answer) = guest.receive().unwrap();
        let body = [&version.to_le_bytes()[..], &[accepted, 1]].concat();
        assert_eq!(answer[..22], piped(2, &body), "{version:#x}");
    }
}

#[test]
fn picture_outlives_its_channel_until_the_reset() {
    let screen = Screen::default();
    let mut guest = Guest::new(vec![Box::new(Video::new(screen.clone(), MEGABYTES))]);
    guest.connect();
    guest.open();
    assert_eq!(screen.picture(), None);
    show(&mut guest);
    assert_eq!(screen.picture(), Some(PICTURE));
    // The end of boot services.
    assert_eq!(guest.post(&[16, 0]), 0);
    assert_eq!(guest.words(), [17, 0]);
    assert_eq!(screen.picture(), Some(PICTURE));
    // The driver of what was started: its screen is dark until it has said everything.
    guest.connect();
    for control in [0, RING_PAGES] {
        guest.memory.write(guest.ring(control, 0), &[0; 16]).unwrap();
    }
    guest.open();
    let nowhere = [&[7; 8][..], &[0], &[0; 8]].concat();
    guest.send(packet::INBAND, 2, &[], &piped(3, &nowhere));
    assert_eq!(screen.picture(), None);
    show(&mut guest);
    assert_eq!(screen.picture(), Some(PICTURE));
    BusPart(guest.bus.clone()).reset();
    assert_eq!(screen.picture(), None);
}

#[test]
fn keys_wait_for_a_driver_whose_version_is_right() {
    let keys = Keys::default();
    let mut guest = Guest::new(vec![Box::new(Keyboard::new(keys.clone()))]);
    guest.connect();
    guest.open();
    keys.push([KeyEvent {
        code: 0x48,
        extended: true,
        release: true,
    }]);
    guest.bus.poll(0);
    assert_eq!(guest.receive(), None);
    for (version, accepted) in [(0x2_0000, 0), (0x1_0000, 1)] {
        guest.send(packet::INBAND, 1, &[], &words(&[1, version]));
        assert_eq!(guest.receive().unwrap().0, packet::COMPLETION);
        assert_eq!(guest.receive().unwrap().2, words(&[2, accepted]));
    }
    assert_eq!(guest.receive().unwrap().2, words(&[3, 0x48, 6, 0]));
    // The lights are nobody's here.
    guest.send(packet::INBAND, 1, &[], &words(&[4, 2]));
    assert_eq!(guest.receive().unwrap().0, packet::COMPLETION);
    assert_eq!(guest.receive(), None);
}
