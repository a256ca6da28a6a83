// SPDX-License-Identifier: MIT
//! Synthetic video (Linux drivers/video/fbdev/hyperv_fb.c, "synthvid"): the guest says where in its memory
//! the picture is and how it is arranged.
//!
//! Always true: a picture that is not wholly in RAM is no picture; a guest decides nothing but where it is,
//! its size up to [`MOST_PIXELS`], and when it has changed. It stays when the channel closes, because what firmware
//! has started goes on drawing on firmware's (UEFI 2.10 section 12.9), until a driver puts another there or the
//! machine is reset. Not here: who looks at it, pointers (the guest draws its own).

use crate::channel::{ChannelDevice, OpenChannel};
use crate::protocol::Offer;
use crate::ring::{Packet, RingError, word};
use chipset_device::lock;
use guest_memory::DmaMemory;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use uuid::uuid;

/// Megabytes of address space that a guest may put its picture in.
pub const MEGABYTES: u16 = 8;
/// The same for a driver that takes one block of the guest's own memory: Linux makes none that is larger.
pub const OWN_MEGABYTES: u16 = 4;
/// Pixels of the largest picture.
const MOST_PIXELS: u64 = (MEGABYTES as u64) << 18;
/// Bytes of a pixel; other depths are not shown.
const PIXEL: u32 = 4;
/// The size that the guest is asked for.
const SIZE: (u16, u16) = (1024, 768);
/// What a pipe's data has before it: type and size.
const PIPE_DATA: u32 = 1;
/// Newest version, minor in the upper half; all of this major version are spoken.
const MAJOR: u32 = 3;
/// How a version is accepted. Microsoft's firmware takes no other non-zero value (VideoDxe), Linux any.
const ACCEPTED: u8 = 2;
const NEWEST_MINOR: u32 = 5;

/// Message types.
mod message {
    pub(super) const VERSION_REQUEST: u32 = 1;
    pub(super) const VERSION_RESPONSE: u32 = 2;
    pub(super) const VRAM_LOCATION: u32 = 3;
    pub(super) const VRAM_LOCATION_ACK: u32 = 4;
    pub(super) const SITUATION: u32 = 5;
    pub(super) const SITUATION_ACK: u32 = 6;
    pub(super) const FEATURES: u32 = 9;
    pub(super) const DIRT: u32 = 10;
    pub(super) const BIOS_REQUEST: u32 = 11;
    pub(super) const BIOS_RESPONSE: u32 = 12;
    pub(super) const RESOLUTIONS_REQUEST: u32 = 13;
    pub(super) const RESOLUTIONS_RESPONSE: u32 = 14;
    pub(super) const CAPABILITY_REQUEST: u32 = 15;
    pub(super) const CAPABILITY_RESPONSE: u32 = 16;
}

/// How a picture lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// First byte.
    pub gpa: u64,
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row to the next.
    pub pitch: u32,
}

impl Picture {
    /// Its pixels as they are now, row by row, 0x00RRGGBB; `None` when they are not in `memory`.
    pub fn pixels(&self, memory: &DmaMemory) -> Option<Vec<u32>> {
        let mut pixels = Vec::new();
        let mut row = vec![0; self.width as usize * PIXEL as usize];
        for y in 0..u64::from(self.height) {
            let at = self.gpa.checked_add(y * u64::from(self.pitch))?;
            memory.read(at, &mut row).ok()?;
            let (words, _) = row.as_chunks();
            pixels.extend(words.iter().map(|word| u32::from_le_bytes(*word) & 0xFF_FFFF));
        }
        Some(pixels)
    }
}

/// The host's end of a screen.
#[derive(Debug, Clone, Default)]
pub struct Screen(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    picture: Mutex<Option<Picture>>,
    changes: AtomicU64,
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, Option<Picture>> {
        lock(&self.0.picture)
    }

    fn set(&self, picture: Option<Picture>) {
        *self.lock() = picture;
        self.0.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The picture; `None` while the guest shows none.
    pub fn picture(&self) -> Option<Picture> {
        *self.lock()
    }
}

/// The adapter.
#[derive(Debug)]
pub struct Video {
    screen: Screen,
    megabytes: u16,
    gpa: Option<u64>,
}

impl Video {
    /// An adapter whose picture is on `screen`; a guest is told to have `megabytes` for it.
    pub fn new(screen: Screen, megabytes: u16) -> Self {
        Self {
            screen,
            megabytes,
            gpa: None,
        }
    }

    fn version(data: &[u8]) -> Option<Vec<u8>> {
        let version = word(data, 0)?;
        let (major, minor) = (version & 0xFFFF, version >> 16);
        let accepted = major == MAJOR && minor <= NEWEST_MINOR;
        let mut body = version.to_le_bytes().to_vec();
        // And one screen.
        body.extend([if accepted { ACCEPTED } else { 0 }, 1]);
        Some(body)
    }

    fn resolutions() -> Vec<u8> {
        let mut body = edid().to_vec();
        // One, the first is the default, and it is a standard one.
        body.extend([1, 0, 1]);
        body.extend(SIZE.0.to_le_bytes());
        body.extend(SIZE.1.to_le_bytes());
        body
    }

    /// Packed: u64 context, u8 whether there is an address, u64 address.
    fn location(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let (context, given) = (data.get(..8)?, *data.get(8)?);
        let gpa = u64::from(word(data, 9)?) | u64::from(word(data, 13)?) << 32;
        self.gpa = (given != 0).then_some(gpa);
        self.screen.set(None);
        Some(context.to_vec())
    }

    /// Packed: u64 context, u8 screens, then of the first: u8 active, u32 offset, u8 depth, u32 width, height
    /// and pitch. Whether it is active does not count: Microsoft's firmware says no, and draws (VideoDxe).
    fn situation(&mut self, data: &[u8], channel: &OpenChannel) -> Option<Vec<u8>> {
        let context = data.get(..8)?.to_vec();
        let depth = *data.get(14)?;
        let [offset, width, height, pitch] =
            [word(data, 10)?, word(data, 15)?, word(data, 19)?, word(data, 23)?];
        let gpa = self.gpa.and_then(|gpa| gpa.checked_add(offset.into()));
        let picture = gpa.map(|gpa| Picture {
            gpa,
            width,
            height,
            pitch,
        });
        let shown = u32::from(depth) == PIXEL * 8;
        let sound = picture.filter(|picture| shown && is_sound(picture, channel.memory()));
        if shown && let (None, Some(gpa)) = (sound, gpa) {
            channel.warn(|| {
                format!(
                    "the guest's picture of {width} x {height} at gpa {gpa:#x}, {pitch:#x} bytes a row, cannot be shown"
                )
            });
        }
        self.screen.set(sound);
        Some(context)
    }
}

fn is_sound(picture: &Picture, memory: &DmaMemory) -> bool {
    let Picture {
        gpa,
        width,
        height,
        pitch,
    } = *picture;
    let row = u64::from(width) * u64::from(PIXEL);
    let fits = width > 0
        && height > 0
        && u64::from(width) * u64::from(height) <= MOST_PIXELS
        && u64::from(pitch) >= row;
    // The last row need not have the bytes up to the next.
    fits && memory.is_ram(gpa, u64::from(pitch) * u64::from(height - 1) + row)
}

/// What the monitor says of itself (VESA E-EDID 1.4): no maker, one mode of [`SIZE`] at 60 Hz (VESA DMT).
fn edid() -> [u8; 128] {
    /// 65 MHz; 1024 + 320 by 768 + 38; front porches and pulses 24, 136, 3, 6; 320 mm by 240 mm.
    const TIMING: [u8; 18] = [
        0x64, 0x19, 0x00, 0x40, 0x41, 0x00, 0x26, 0x30, 0x18, 0x88, 0x36, 0x00, 0x40, 0xF0, 0x10, 0x00, 0x00,
        0x18,
    ];
    let mut edid = [0; 128];
    edid[..8].copy_from_slice(&[0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0]);
    // Maker "OVM" in five-bit letters; made in 2026; version 1.4.
    edid[8..10].copy_from_slice(&[0x3E, 0xCD]);
    edid[17..20].copy_from_slice(&[36, 1, 4]);
    // Digital, 8 bits a colour; 32 cm by 24 cm; gamma 2.2; sRGB, preferred timing first.
    edid[20..25].copy_from_slice(&[0xA0, 32, 24, 120, 0x06]);
    // Established: 1024 x 768 at 60 Hz; no standard timings.
    edid[36] = 0x08;
    edid[38..54].fill(1);
    edid[54..72].copy_from_slice(&TIMING);
    for dummy in [72, 90, 108] {
        edid[dummy + 3] = 0x10;
    }
    let sum = edid.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    edid[127] = sum.wrapping_neg();
    edid
}

fn send(channel: &mut OpenChannel, kind: u32, body: &[u8]) -> Result<(), RingError> {
    let len = body.len() as u32 + 8;
    let words = [PIPE_DATA, len, kind, len];
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.extend_from_slice(body);
    channel.send_data(0, &bytes, false)
}

impl ChannelDevice for Video {
    fn offer(&self) -> Offer {
        Offer {
            interface: uuid!("da0a7802-e377-4aac-8e77-0558eb1073f8"),
            instance: uuid!("5620e0c7-8062-4dce-aeb7-520c7ef76171"),
            mmio_megabytes: self.megabytes,
            pipe: true,
        }
    }

    fn received(&mut self, channel: &mut OpenChannel, packet: Packet) -> Result<(), RingError> {
        if packet.completion_requested {
            channel.complete(packet.transaction, &[])?;
        }
        // Pipe header, then type and size of the message.
        let Some((kind, data)) = word(&packet.data, 8).zip(packet.data.get(16..)) else {
            let text = format!("a video message of {} bytes", packet.data.len());
            return Err(RingError::Contents(text));
        };
        let answer = match kind {
            message::VERSION_REQUEST => Some((message::VERSION_RESPONSE, Self::version(data))),
            message::RESOLUTIONS_REQUEST => Some((message::RESOLUTIONS_RESPONSE, Some(Self::resolutions()))),
            message::CAPABILITY_REQUEST => Some((message::CAPABILITY_RESPONSE, Some(vec![0; 64]))),
            message::VRAM_LOCATION => Some((message::VRAM_LOCATION_ACK, self.location(data))),
            message::SITUATION => Some((message::SITUATION_ACK, self.situation(data, channel))),
            message::BIOS_REQUEST => {
                // The device may be stopped.
                let body = [1_u32, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes);
                Some((message::BIOS_RESPONSE, Some(body.collect())))
            }
            message::DIRT => {
                self.screen.0.changes.fetch_add(1, Ordering::Relaxed);
                None
            }
            _ => None,
        };
        let Some((answer, body)) = answer else {
            return Ok(());
        };
        let Some(body) = body else {
            return Err(RingError::Contents(format!(
                "a video message {kind} of {} bytes",
                data.len()
            )));
        };
        send(channel, answer, &body)?;
        if answer == message::SITUATION_ACK {
            // Say what has changed; no pointers; nothing about the screen that was said already.
            send(channel, message::FEATURES, &[1, 0, 0, 0])?;
        }
        Ok(())
    }

    fn closed(&mut self) {
        self.gpa = None;
    }

    fn reset(&mut self) {
        self.screen.set(None);
    }

    fn inspect(&self) -> String {
        let changes = self.screen.0.changes.load(Ordering::Relaxed);
        match self.screen.picture() {
            Some(p) => format!(
                "video {} x {} at {:#x} changes {changes}",
                p.width, p.height, p.gpa
            ),
            None => format!("video without a picture, changes {changes}"),
        }
    }
}
