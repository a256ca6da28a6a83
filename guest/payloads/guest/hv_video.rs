// SPDX-License-Identifier: MIT
//! The synthetic screen: started as the firmware's driver starts it, drawn on as firmware and operating systems do
//! (msvm-machine section 7).
//!
//! Always true: the picture is at the beginning of the gap below 4 GiB, where firmware puts it and tells the
//! operating system of it. Not here: keys (`hv_keyboard`), what the pictures are (`guest_protocol::screen`).

use crate::hv_message::{Message, word};
use crate::hv_ring::{Packet, Rings};
use guest_rt::memory;
use guest_rt::protocol::screen::{Block, COPIED, COPY, FILL, FILLED, HEIGHT, LATE, LATE_FILL, WIDTH, first};
use guest_rt::report::{check, equal, info};
use guest_rt::uefi_blob::{Blob, apertures, types};

/// Bytes of the frame buffer, of which the picture takes the first.
pub(crate) const FRAME_BYTES: u64 = 8 << 20;
const PITCH: u32 = WIDTH * 4;
const PIPE_DATA: u32 = 1;
/// Bytes of a message's own header, which both lengths before it count.
const HEADER: u32 = 8;
/// Bytes of the pipe's.
const PIPE_HEADER: usize = 8;

/// Message types.
mod kind {
    pub(super) const VERSION: u32 = 1;
    pub(super) const VERSION_RESPONSE: u32 = 2;
    pub(super) const LOCATION: u32 = 3;
    pub(super) const LOCATION_ACK: u32 = 4;
    pub(super) const SITUATION: u32 = 5;
    pub(super) const SITUATION_ACK: u32 = 6;
    pub(super) const FEATURES: u32 = 9;
    pub(super) const DIRT: u32 = 10;
}

/// The frame buffer of a screen that shows it.
pub(crate) struct Screen(u64);

/// A message in its pipe, with `len` bytes behind its headers.
fn message(kind: u32, len: u32) -> Message {
    let len = len + HEADER;
    Message::empty().u32(PIPE_DATA).u32(len).u32(kind).u32(len)
}

/// The next message of the host, which has this type and at least `len` bytes behind its headers.
fn answer(rings: &mut Rings, name: &str, kind: u32, len: u32) -> Option<Packet> {
    let packet = rings.answer(name)?;
    let [pipe, whole, type_, size] = [0, 4, 8, 12].map(|at| word(&packet.data, at));
    // What the pipe says is in its packet.
    let right = pipe == PIPE_DATA
        && whole >= len + HEADER
        && whole as usize + PIPE_HEADER <= packet.len
        && size == whole
        && type_ == kind;
    check(name, right, format_args!("type {type_} of {whole} bytes"));
    right.then_some(packet)
}

/// Makes the screen show its first picture.
pub(crate) fn show(mut rings: Rings, blob: &Blob<'_>) -> Option<Screen> {
    let frame = frame_buffer(blob)?;
    check_versions(&mut rings)?;
    // The firmware's context of this message is the length.
    let location = message(kind::LOCATION, 17).u64(FRAME_BYTES).put(&[1]).u64(frame);
    rings.tell(&location);
    let there = answer(&mut rings, "video-location", kind::LOCATION_ACK, 8)?;
    equal(
        "video-location-context",
        word(&there.data, 16).into(),
        FRAME_BYTES,
    );
    // One output: on, from the first byte, 32 bits a pixel.
    let situation = message(kind::SITUATION, 27)
        .u64(0x0051)
        // One screen, which is not active: so says the firmware of the one that it draws on.
        .put(&[1, 0, 0, 0, 0, 0, 32])
        .u32(WIDTH)
        .u32(HEIGHT)
        .u32(PITCH);
    rings.tell(&situation);
    let done = answer(&mut rings, "video-situation", kind::SITUATION_ACK, 8)?;
    equal("video-situation-context", word(&done.data, 16).into(), 0x0051);
    let features = answer(&mut rings, "video-features", kind::FEATURES, 4)?;
    equal("video-wants-changes", features.data[16].into(), 1);
    let screen = Screen(frame);
    screen.draw_first();
    // Output 0, one rectangle: all of it.
    let corners = [0, 0, WIDTH, HEIGHT];
    let dirt = message(kind::DIRT, 18).put(&[0, 1]);
    rings.tell(&corners.into_iter().fold(dirt, Message::u32));
    info("screen", format_args!("1"));
    Some(screen)
}

/// Versions that there are not, and the firmware's, 3.5.
fn check_versions(rings: &mut Rings) -> Option<()> {
    /// The only answer that the firmware takes for a yes.
    const YES: u64 = 2;
    for (version, accepted) in [(0x0005_0007, 0), (0x0005_0003, YES)] {
        rings.tell(&message(kind::VERSION, 4).u32(version));
        let answer = answer(rings, "video-version", kind::VERSION_RESPONSE, 6)?;
        equal(
            "video-version-told",
            word(&answer.data, 16).into(),
            version.into(),
        );
        equal("video-version-taken", answer.data[20].into(), accepted);
        equal("video-outputs", answer.data[21].into(), 1);
    }
    Some(())
}

/// Where the firmware puts it: there has to be room, of which nothing is a root complex's, and memory.
fn frame_buffer(blob: &Blob<'_>) -> Option<u64> {
    let ((page, pages), _) = blob.mmio()?;
    let (frame, end) = (page << 12, (page << 12) + FRAME_BYTES);
    check(
        "frame-buffer-gap",
        pages << 12 >= FRAME_BYTES,
        format_args!("{frame:#x}"),
    );
    let clear = apertures(blob.find(types::APERTURES).unwrap_or(&[])).all(|aperture| {
        let (gpa, len) = aperture.low;
        gpa >= end || gpa + len <= frame
    });
    check("frame-buffer-clear-of-bars", clear, format_args!(""));
    for at in [frame, end - 8] {
        memory::write_u64(at, at);
    }
    let kept = [frame, end - 8].into_iter().all(|at| memory::read_u64(at) == at);
    check("frame-buffer-is-memory", kept, format_args!(""));
    kept.then_some(frame)
}

impl Screen {
    fn at(&self, x: u32, y: u32) -> u64 {
        self.0 + u64::from(y * PITCH + x * 4)
    }

    fn draw_first(&self) {
        for y in 0..HEIGHT {
            for x in (0..WIDTH).step_by(2) {
                let two = u64::from(first(x, y)) | u64::from(first(x + 1, y)) << 32;
                memory::write_u64(self.at(x, y), two);
            }
        }
    }

    fn fill(&self, block: Block, colour: u32) {
        for y in block.y..block.y + block.height {
            for x in block.x..block.x + block.width {
                memory::write_u32(self.at(x, y), colour);
            }
        }
    }

    /// Fills and copies as the graphics output protocol's Blt does, which tells nobody.
    pub(crate) fn blit(&self) {
        self.fill(FILLED, FILL);
        for y in 0..COPY.height {
            for x in 0..COPY.width {
                let pixel = memory::read_u32(self.at(COPIED.x + x, COPIED.y + y));
                memory::write_u32(self.at(COPY.x + x, COPY.y + y), pixel);
            }
        }
        info("screen", format_args!("2"));
    }

    /// What an operating system without a driver draws, when the firmware's is gone.
    pub(crate) fn draw_late(&self) {
        self.fill(LATE, LATE_FILL);
        info("screen", format_args!("3"));
    }
}
