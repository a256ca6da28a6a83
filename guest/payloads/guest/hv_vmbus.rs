// SPDX-License-Identifier: MIT
//! VMBus in the firmware's order (msvm-machine section 7): source 2, contact, offers, the SCSI channel, unload.
//!
//! Always true: a message is taken from its slot once, and the end of a message is told only when another
//! waits; every message that is posted has 240 bytes or fewer. Not here: rings (`hv_ring`), disks (`hv_scsi`).

use crate::hv_interface::{EVENT_PAGE, HYPERCALL_PAGE, MESSAGE_PAGE, PARAMETERS, msr};
use crate::hv_ring::Rings;
use crate::hv_scsi;
use core::sync::atomic::{AtomicU32, Ordering};
use guest_rt::cpu::{self, cpuid, rdmsr, wrmsr};
use guest_rt::hypercall::call;
use guest_rt::memory;
use guest_rt::report::{check, equal, info};
use guest_rt::trap;

const SINT: u64 = 2;
const VECTOR: u8 = 0x41;
const AUTO_EOI: u64 = 1 << 17;
const SINT_MASKED: u64 = 1 << 16;
/// Bytes of a slot; a message's payload begins behind its 16-byte header.
const SLOT: u64 = 256;
const POST_MESSAGE: u64 = 0x5C;
const SIGNAL_EVENT_FAST: u64 = 0x5D | 1 << 16;
/// The connection that takes channel messages, and their type.
const CONNECTION: u32 = 1;
const CHANNEL_MESSAGE: u32 = 1;
/// Bytes of a GPADL message, whatever is in it.
const WHOLE: usize = 240;
/// Patience, in units of 100 ns.
const PATIENCE: u64 = 50_000_000;
/// Offers whose channel number the firmware would take.
const MOST_CHANNELS: u32 = 2048;

const SCSI: [u64; 2] = [0x4D29_04A1_BA61_63D9, 0x7FDC_B1FF_E272_05B6];
/// Channel number of the GPADL that is only made and taken back, and of the rings'.
const PLAIN_LIST: u32 = 0x51;
const RING_LIST: u32 = 0x52;
/// Pages of the one that takes a second message.
const PLAIN_PAGES: u64 = 40;
/// Pages of a ring, its control page included.
const RING_PAGES: u64 = 11;
const RINGS: u64 = 0x90_0000;

/// Message types.
mod kind {
    pub(super) const OFFER: u32 = 1;
    pub(super) const REQUEST_OFFERS: u32 = 3;
    pub(super) const ALL_OFFERS: u32 = 4;
    pub(super) const OPEN: u32 = 5;
    pub(super) const OPEN_RESULT: u32 = 6;
    pub(super) const CLOSE: u32 = 7;
    pub(super) const GPADL_HEADER: u32 = 8;
    pub(super) const GPADL_BODY: u32 = 9;
    pub(super) const GPADL_CREATED: u32 = 10;
    pub(super) const GPADL_TEARDOWN: u32 = 11;
    pub(super) const GPADL_TORNDOWN: u32 = 12;
    pub(super) const CONTACT: u32 = 14;
    pub(super) const VERSION: u32 = 15;
    pub(super) const UNLOAD: u32 = 16;
    pub(super) const UNLOAD_COMPLETE: u32 = 17;
}

/// A message to the host, in the making.
struct Message {
    bytes: [u8; WHOLE],
    len: usize,
}

impl Message {
    fn new(kind: u32) -> Self {
        let message = Self {
            bytes: [0; WHOLE],
            len: 0,
        };
        message.u32(kind).u32(0)
    }

    fn u32(mut self, value: u32) -> Self {
        self.bytes[self.len..self.len + 4].copy_from_slice(&value.to_le_bytes());
        self.len += 4;
        self
    }

    fn u64(self, value: u64) -> Self {
        self.u32(value as u32).u32((value >> 32) as u32)
    }

    /// Zeros up to `len` bytes.
    fn up_to(mut self, len: usize) -> Self {
        self.len = len;
        self
    }

    /// The status of the call.
    fn post(&self) -> u64 {
        memory::write_u32(PARAMETERS, CONNECTION);
        memory::write_u32(PARAMETERS + 4, 0);
        memory::write_u32(PARAMETERS + 8, CHANNEL_MESSAGE);
        memory::write_u32(PARAMETERS + 12, self.len as u32);
        memory::write(PARAMETERS + 16, &self.bytes[..self.len]);
        call(HYPERCALL_PAGE, POST_MESSAGE, PARAMETERS, 0).0 & 0xFFFF
    }
}

/// A message from the host.
struct Answer {
    bytes: [u8; WHOLE],
    len: usize,
}

impl Answer {
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes([
            self.bytes[at],
            self.bytes[at + 1],
            self.bytes[at + 2],
            self.bytes[at + 3],
        ])
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }
}

/// Runs with interrupts on until `condition` holds; `false` when it does not come.
pub(crate) fn wait(condition: impl Fn() -> bool) -> bool {
    let end = rdmsr(msr::TIME_REF_COUNT) + PATIENCE;
    cpu::enable_interrupts();
    let mut holds = condition();
    while !holds && rdmsr(msr::TIME_REF_COUNT) < end {
        cpu::relax();
        holds = condition();
    }
    cpu::disable_interrupts();
    holds
}

/// The next message, after its interrupt.
fn take() -> Option<Answer> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let slot = MESSAGE_PAGE + SINT * SLOT;
    let before = TAKEN.load(Ordering::Relaxed);
    if !wait(|| memory::read_u32(slot) != 0 && trap::count(VECTOR) != before) {
        return None;
    }
    TAKEN.store(trap::count(VECTOR), Ordering::Relaxed);
    let header = memory::read_u32(slot + 4);
    let len = (header as usize & 0xFF).min(WHOLE);
    let mut answer = Answer {
        bytes: [0; WHOLE],
        len,
    };
    answer.bytes[..len].copy_from_slice(memory::bytes(slot + 16, len));
    memory::write_u32(slot, 0);
    if memory::read_u32(slot + 4) & 0x100 != 0 {
        wrmsr(msr::EOM, 0);
    }
    Some(answer)
}

/// Posts, and checks that what comes back is of this type and at least this long.
fn ask(name: &str, message: &Message, answer: u32, len: usize) -> Option<Answer> {
    equal(name, message.post(), 0);
    expect(name, answer, len)
}

fn expect(name: &str, kind: u32, len: usize) -> Option<Answer> {
    let Some(answer) = take() else {
        check(name, false, format_args!("the host is silent"));
        return None;
    };
    let right = answer.u32(0) == kind && answer.len >= len;
    check(
        name,
        right,
        format_args!("type {} of {} bytes", answer.u32(0), answer.len),
    );
    right.then_some(answer)
}

/// A channel that was offered.
struct Offer {
    channel: u32,
    connection: u32,
}

/// The whole of it.
pub(crate) fn check_bus() {
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
    if let Some(scsi) = check_offers() {
        check_channel(&scsi);
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

/// All offers; the SCSI controller's if there is one.
fn check_offers() -> Option<Offer> {
    let posted = Message::new(kind::REQUEST_OFFERS).post();
    equal("vmbus-request-offers", posted, 0);
    let (mut scsi, mut seen, mut sound) = (None, 0, true);
    loop {
        let Some(answer) = take() else {
            check("vmbus-all-offers", false, format_args!("the host is silent"));
            return None;
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
        if [answer.u64(8), answer.u64(16)] == SCSI {
            let connection = answer.u32(192);
            scsi = Some(Offer { channel, connection });
        }
    }
    check("vmbus-offers", sound && seen > 0, format_args!("{seen}"));
    scsi
}

fn check_channel(offer: &Offer) {
    let channel = offer.channel;
    if make_list(channel, PLAIN_LIST, PLAIN_PAGES) {
        take_back(channel, PLAIN_LIST);
    }
    if !make_list(channel, RING_LIST, 2 * RING_PAGES) {
        return;
    }
    // User data of 120 bytes, and what version 6.0 adds.
    let open = Message::new(kind::OPEN)
        .u32(channel)
        .u32(0x77)
        .u32(RING_LIST)
        .u32(0)
        .u32(RING_PAGES as u32)
        .up_to(160);
    let Some(opened) = ask("vmbus-open", &open, kind::OPEN_RESULT, 20) else {
        return;
    };
    equal("vmbus-open-id", opened.u32(12).into(), 0x77);
    equal("vmbus-open-status", opened.u32(16).into(), 0);
    let rings = Rings::new((RINGS, RING_PAGES), channel, offer.connection);
    hv_scsi::check_disk(rings);
    equal("vmbus-close", Message::new(kind::CLOSE).u32(channel).post(), 0);
    take_back(channel, RING_LIST);
}

/// Tells the host of `pages` pages from [`RINGS`] on, as many messages as it takes.
fn make_list(channel: u32, list: u32, pages: u64) -> bool {
    const FIRST: u64 = 26;
    const MORE: u64 = 28;
    for page in 0..pages * 512 {
        memory::write_u64(RINGS + page * 8, 0);
    }
    let range_bytes = (8 + pages * 8) as u32;
    let mut header = Message::new(kind::GPADL_HEADER)
        .u32(channel)
        .u32(list)
        .u32(range_bytes | 1 << 16)
        .u32((pages * 4096) as u32)
        .u32(0);
    for page in 0..pages.min(FIRST) {
        header = header.u64((RINGS >> 12) + page);
    }
    equal("vmbus-list-header", header.up_to(WHOLE).post(), 0);
    let mut told = FIRST;
    while told < pages {
        let mut body = Message::new(kind::GPADL_BODY).u32(0).u32(list);
        for page in told..pages.min(told + MORE) {
            body = body.u64((RINGS >> 12) + page);
        }
        equal("vmbus-list-body", body.up_to(WHOLE).post(), 0);
        told += MORE;
    }
    let Some(made) = expect("vmbus-list", kind::GPADL_CREATED, 20) else {
        return false;
    };
    let right = [made.u32(8), made.u32(12), made.u32(16)] == [channel, list, 0];
    check("vmbus-list-status", right, format_args!("{:#x}", made.u32(16)));
    right
}

fn take_back(channel: u32, list: u32) {
    let message = Message::new(kind::GPADL_TEARDOWN).u32(channel).u32(list);
    if let Some(gone) = ask("vmbus-list-back", &message, kind::GPADL_TORNDOWN, 12) {
        equal("vmbus-list-gone", gone.u32(8).into(), list.into());
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
