// SPDX-License-Identifier: MIT
//! VMBus in the firmware's order (msvm-machine section 7): source 2, contact, offers, the SCSI channel, screen and
//! keyboard, unload.
//!
//! Always true: a channel that was opened is closed, and its list of pages taken back. Not here: messages
//! (`hv_message`), rings (`hv_ring`), what devices do (`hv_scsi`, `hv_video`, `hv_keyboard`).

use crate::hv_interface::{EVENT_PAGE, HYPERCALL_PAGE, MESSAGE_PAGE, msr};
use crate::hv_keyboard::Keyboard;
use crate::hv_message::{CONNECTION, Message, SINT, SLOT, VECTOR, WHOLE, ask, expect, kind, take};
use crate::hv_ring::Rings;
use crate::{hv_scsi, hv_video};
use guest_rt::cpu::{cpuid, rdmsr, wrmsr};
use guest_rt::hypercall::call;
use guest_rt::memory;
use guest_rt::report::{check, equal, info};
use guest_rt::trap;
use guest_rt::uefi_blob::Blob;

const AUTO_EOI: u64 = 1 << 17;
const SINT_MASKED: u64 = 1 << 16;
const SIGNAL_EVENT_FAST: u64 = 0x5D | 1 << 16;
/// Offers whose channel number the firmware would take.
const MOST_CHANNELS: u32 = 2048;

const SCSI: [u64; 2] = [0x4D29_04A1_BA61_63D9, 0x7FDC_B1FF_E272_05B6];
const KEYBOARD: [u64; 2] = [0x48EA_2B17_F912_AD6D, 0x8476_1CA6_27F9_65BD];
const VIDEO: [u64; 2] = [0x4AAC_E377_DA0A_7802, 0xF873_10EB_5805_778E];
/// Offer flag: packets have a pipe's header.
const PIPE: u64 = 1 << 4;

/// A list of pages that the host is told of: its number, where it begins, and how many.
struct List {
    number: u32,
    gpa: u64,
    pages: u64,
}

/// One that is only made and taken back; it takes a second message.
const PLAIN_LIST: List = List {
    number: 0x51,
    gpa: 0x90_0000,
    pages: 40,
};
/// Both rings of a channel, as long as the firmware makes them, control pages included.
const SCSI_RINGS: List = List {
    number: 0x52,
    gpa: 0x90_0000,
    pages: 22,
};
const VIDEO_RINGS: List = List {
    number: 0x53,
    gpa: 0x90_0000,
    pages: 22,
};
const KEYBOARD_RINGS: List = List {
    number: 0x54,
    gpa: 0x92_0000,
    pages: 4,
};

/// A channel that was offered.
struct Offer {
    channel: u32,
    connection: u32,
    flags: u64,
    megabytes: u64,
}

/// Those that the firmware takes.
#[derive(Default)]
struct Offers {
    scsi: Option<Offer>,
    keyboard: Option<Offer>,
    video: Option<Offer>,
}

/// The whole of it.
pub(crate) fn check_bus(blob: &Blob<'_>) {
    // Bit 9 of the recommendations: end of interrupt is written to the APIC.
    let by_hand = cpuid(0x4000_0004, 0)[0] >> 9 & 1 == 1;
    let source = u64::from(VECTOR) | if by_hand { 0 } else { AUTO_EOI };
    wrmsr(msr::SINT0 + SINT as u32, source);
    equal("vmbus-source", rdmsr(msr::SINT0 + SINT as u32), source);
    let before = trap::count(VECTOR);
    let target = rdmsr(msr::VP_INDEX) as u32;
    check_versions(target);
    let came = trap::count(VECTOR) - before;
    check("vmbus-interrupts", came >= 3, format_args!("{came}"));
    let offers = check_offers();
    if let Some(scsi) = &offers.scsi {
        check_scsi(scsi);
    }
    if let (Some(video), Some(keyboard)) = (&offers.video, &offers.keyboard) {
        check_console(video, keyboard, blob);
    }
    let unloaded = ask(
        "vmbus-unload",
        &Message::new(kind::UNLOAD),
        kind::UNLOAD_COMPLETE,
        8,
    );
    let after = Message::new(kind::REQUEST_OFFERS).post();
    let silent = unloaded.is_some() && after == 0 && memory::read_u32(MESSAGE_PAGE + SINT * SLOT) == 0;
    check("vmbus-silent-after-unload", silent, format_args!(""));
    wrmsr(msr::SINT0 + SINT as u32, SINT_MASKED);
}

/// Without VMBus nobody takes its messages, so the firmware does without.
pub(crate) fn check_absent() {
    const INVALID_CONNECTION: u64 = 0x12;
    let posted = Message::new(kind::REQUEST_OFFERS).post();
    equal("vmbus-absent", posted, INVALID_CONNECTION);
}

/// A version that is not there, the one that the firmware falls back to, the one that it wants.
fn check_versions(target: u32) {
    for (version, len, supported) in [(0x0063_0000, 20, 0), (0x0003_0000, 16, 1), (0x0006_0000, 20, 1)] {
        // Source, trust level and features; monitor pages; the client's id.
        let contact = Message::new(kind::CONTACT)
            .u32(version)
            .u32(target)
            .u64(0)
            .up_to(56);
        let Some(answer) = ask("vmbus-contact", &contact, kind::VERSION, len) else {
            return;
        };
        equal("vmbus-version-taken", answer.bytes[8].into(), supported);
        if supported == 1 {
            equal("vmbus-connection", answer.u32(12).into(), CONNECTION.into());
        }
    }
}

fn check_offers() -> Offers {
    let posted = Message::new(kind::REQUEST_OFFERS).post();
    equal("vmbus-request-offers", posted, 0);
    let (mut offers, mut seen, mut sound) = (Offers::default(), 0, true);
    loop {
        let Some(answer) = take() else {
            check("vmbus-all-offers", false, format_args!("the host is silent"));
            return offers;
        };
        if answer.u32(0) == kind::ALL_OFFERS {
            equal("vmbus-all-offers", answer.len as u64, 8);
            break;
        }
        let channel = answer.u32(184);
        seen += 1;
        // In ascending order, so no number comes twice.
        sound &= answer.u32(0) == kind::OFFER && answer.len == 196 && channel < MOST_CHANNELS;
        info(
            "vmbus-offer",
            format_args!("{channel} {:016x}-{:016x}", answer.u64(8), answer.u64(16)),
        );
        let slot = match [answer.u64(8), answer.u64(16)] {
            SCSI => &mut offers.scsi,
            KEYBOARD => &mut offers.keyboard,
            VIDEO => &mut offers.video,
            _ => continue,
        };
        *slot = Some(Offer {
            channel,
            connection: answer.u32(192),
            flags: u64::from(answer.u32(56)) & 0xFFFF,
            megabytes: u64::from(answer.u32(56)) >> 16,
        });
    }
    check("vmbus-offers", sound && seen > 0, format_args!("{seen}"));
    offers
}

fn check_scsi(offer: &Offer) {
    if make_list(offer.channel, &PLAIN_LIST) {
        take_back(offer.channel, &PLAIN_LIST);
    }
    if let Some(rings) = open(offer, &SCSI_RINGS) {
        hv_scsi::check_disk(rings);
        close(offer, &SCSI_RINGS);
    }
}

/// Three pictures, each for as long as nobody types enter: a driver's, one that is drawn as firmware draws,
/// without a word, and one that is drawn after the screen's channel is closed.
fn check_console(video: &Offer, keyboard: &Offer, blob: &Blob<'_>) {
    equal("video-is-a-pipe", video.flags & PIPE, PIPE);
    equal("keyboard-is-no-pipe", keyboard.flags & PIPE, 0);
    equal("video-megabytes", video.megabytes, hv_video::FRAME_BYTES >> 20);
    let Some(mut keys) = open(keyboard, &KEYBOARD_RINGS).and_then(Keyboard::start) else {
        return;
    };
    let screen = open(video, &VIDEO_RINGS).and_then(|rings| hv_video::show(rings, blob));
    if let Some(screen) = screen {
        keys.until_enter();
        screen.blit();
        keys.until_enter();
        close(video, &VIDEO_RINGS);
        screen.draw_late();
        keys.until_enter();
    }
    close(keyboard, &KEYBOARD_RINGS);
}

/// Opens a channel with two rings of one length.
fn open(offer: &Offer, rings: &List) -> Option<Rings> {
    const ID: u32 = 0x77;
    if !make_list(offer.channel, rings) {
        return None;
    }
    // User data of 120 bytes, and what version 6.0 adds.
    let open = Message::new(kind::OPEN)
        .u32(offer.channel)
        .u32(ID)
        .u32(rings.number)
        .u32(0)
        .u32((rings.pages / 2) as u32)
        .up_to(160);
    let opened = ask("vmbus-open", &open, kind::OPEN_RESULT, 20)?;
    equal("vmbus-open-id", opened.u32(12).into(), ID.into());
    equal("vmbus-open-status", opened.u32(16).into(), 0);
    Some(Rings::new(
        (rings.gpa, rings.pages / 2),
        offer.channel,
        offer.connection,
    ))
}

fn close(offer: &Offer, rings: &List) {
    let message = Message::new(kind::CLOSE).u32(offer.channel);
    equal("vmbus-close", message.post(), 0);
    take_back(offer.channel, rings);
}

/// Tells the host of a list of pages, with as many messages as that takes.
fn make_list(channel: u32, list: &List) -> bool {
    const FIRST: u64 = 26;
    const MORE: u64 = 28;
    let (number, pages) = (list.number, list.pages);
    for word in 0..pages * 512 {
        memory::write_u64(list.gpa + word * 8, 0);
    }
    let range_bytes = (8 + pages * 8) as u32;
    let mut header = Message::new(kind::GPADL_HEADER)
        .u32(channel)
        .u32(number)
        .u32(range_bytes | 1 << 16)
        .u32((pages * 4096) as u32)
        .u32(0);
    for page in 0..pages.min(FIRST) {
        header = header.u64((list.gpa >> 12) + page);
    }
    equal("vmbus-list-header", header.up_to(WHOLE).post(), 0);
    let mut told = FIRST;
    while told < pages {
        let mut body = Message::new(kind::GPADL_BODY).u32(0).u32(number);
        for page in told..pages.min(told + MORE) {
            body = body.u64((list.gpa >> 12) + page);
        }
        equal("vmbus-list-body", body.up_to(WHOLE).post(), 0);
        told += MORE;
    }
    let Some(made) = expect("vmbus-list", kind::GPADL_CREATED, 20) else {
        return false;
    };
    let right = [made.u32(8), made.u32(12), made.u32(16)] == [channel, number, 0];
    check("vmbus-list-status", right, format_args!("{:#x}", made.u32(16)));
    right
}

fn take_back(channel: u32, list: &List) {
    let message = Message::new(kind::GPADL_TEARDOWN).u32(channel).u32(list.number);
    if let Some(gone) = ask("vmbus-list-back", &message, kind::GPADL_TORNDOWN, 12) {
        equal("vmbus-list-gone", gone.u32(8).into(), list.number.into());
    }
}

/// Tells the host that something was put into a ring.
pub(crate) fn signal(connection: u32) -> u64 {
    call(HYPERCALL_PAGE, SIGNAL_EVENT_FAST, connection.into(), 0).0 & 0xFFFF
}

/// Whether the host has told of this channel since the last call.
pub(crate) fn take_event(channel: u32) -> bool {
    let flags = EVENT_PAGE + SINT * SLOT + u64::from(channel / 32 * 4);
    let (set, bit) = (memory::read_u32(flags), 1 << (channel % 32));
    if set & bit != 0 {
        memory::write_u32(flags, set & !bit);
    }
    set & bit != 0
}
