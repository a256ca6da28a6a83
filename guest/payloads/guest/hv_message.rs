// SPDX-License-Identifier: MIT
//! Messages to and from the host over VMBus' connection (msvm-machine section 7).
//!
//! Always true: a message is taken from its slot once, and the end of a message is told only when another
//! waits; every message that is posted has 240 bytes or fewer. Not here: what is said (`hv_vmbus`).

use crate::hv_interface::{HYPERCALL_PAGE, MESSAGE_PAGE, PARAMETERS, msr};
use core::sync::atomic::{AtomicU32, Ordering};
use guest_rt::cpu::{self, rdmsr, wrmsr};
use guest_rt::hypercall::call;
use guest_rt::memory;
use guest_rt::report::{check, equal};
use guest_rt::trap;

/// The source of interrupts that VMBus uses, and its vector.
pub(crate) const SINT: u64 = 2;
pub(crate) const VECTOR: u8 = 0x41;
/// Bytes of a slot; a message's payload begins behind its 16-byte header.
pub(crate) const SLOT: u64 = 256;
const POST_MESSAGE: u64 = 0x5C;
/// The connection that takes channel messages, and their type.
pub(crate) const CONNECTION: u32 = 1;
const CHANNEL_MESSAGE: u32 = 1;
/// Bytes of a GPADL message, whatever is in it.
pub(crate) const WHOLE: usize = 240;
/// Units of 100 ns in a second, and patience in seconds.
const SECOND: u64 = 10_000_000;
const PATIENCE: u64 = 5;

/// Message types.
pub(crate) mod kind {
    pub(crate) const OFFER: u32 = 1;
    pub(crate) const REQUEST_OFFERS: u32 = 3;
    pub(crate) const ALL_OFFERS: u32 = 4;
    pub(crate) const OPEN: u32 = 5;
    pub(crate) const OPEN_RESULT: u32 = 6;
    pub(crate) const CLOSE: u32 = 7;
    pub(crate) const GPADL_HEADER: u32 = 8;
    pub(crate) const GPADL_BODY: u32 = 9;
    pub(crate) const GPADL_CREATED: u32 = 10;
    pub(crate) const GPADL_TEARDOWN: u32 = 11;
    pub(crate) const GPADL_TORNDOWN: u32 = 12;
    pub(crate) const CONTACT: u32 = 14;
    pub(crate) const VERSION: u32 = 15;
    pub(crate) const UNLOAD: u32 = 16;
    pub(crate) const UNLOAD_COMPLETE: u32 = 17;
}

/// A message to the host, in the making: to the bus, or in a channel.
pub(crate) struct Message {
    bytes: [u8; WHOLE],
    len: usize,
}

impl Message {
    /// One of the bus.
    pub(crate) fn new(kind: u32) -> Self {
        Self::empty().u32(kind).u32(0)
    }

    pub(crate) fn empty() -> Self {
        Self {
            bytes: [0; WHOLE],
            len: 0,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn put(mut self, bytes: &[u8]) -> Self {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.put(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.u32(value as u32).u32((value >> 32) as u32)
    }

    /// Zeros up to `len` bytes.
    pub(crate) fn up_to(mut self, len: usize) -> Self {
        self.len = len;
        self
    }

    /// The status of the call.
    pub(crate) fn post(&self) -> u64 {
        memory::write_u32(PARAMETERS, CONNECTION);
        memory::write_u32(PARAMETERS + 4, 0);
        memory::write_u32(PARAMETERS + 8, CHANNEL_MESSAGE);
        memory::write_u32(PARAMETERS + 12, self.len as u32);
        memory::write(PARAMETERS + 16, self.bytes());
        call(HYPERCALL_PAGE, POST_MESSAGE, PARAMETERS, 0).0 & 0xFFFF
    }
}

/// A message from the host.
pub(crate) struct Answer {
    pub(crate) bytes: [u8; WHOLE],
    pub(crate) len: usize,
}

impl Answer {
    pub(crate) fn u32(&self, at: usize) -> u32 {
        word(&self.bytes, at)
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }
}

/// The u32 at a place; 0 where there is none.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4);
    four.map_or(0, |four| u32::from_le_bytes(four.try_into().unwrap_or_default()))
}

/// Runs with interrupts on until `condition` holds; `false` when it does not come.
pub(crate) fn wait(condition: impl Fn() -> bool) -> bool {
    wait_within(PATIENCE, condition)
}

/// The same with a patience of its own.
pub(crate) fn wait_within(seconds: u64, condition: impl Fn() -> bool) -> bool {
    let end = rdmsr(msr::TIME_REF_COUNT) + seconds * SECOND;
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
pub(crate) fn take() -> Option<Answer> {
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
pub(crate) fn ask(name: &str, message: &Message, answer: u32, len: usize) -> Option<Answer> {
    equal(name, message.post(), 0);
    expect(name, answer, len)
}

pub(crate) fn expect(name: &str, kind: u32, len: usize) -> Option<Answer> {
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
