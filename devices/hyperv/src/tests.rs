// SPDX-License-Identifier: MIT
//! The interface as a guest sees it: registers, pages, hypercalls, messages, timers.

use super::*;
use crate::tlfs::{HvStatus, MESSAGE_TIMER_EXPIRED, msr};
use chipset_device::{
    Clock, MsrHandler, PowerRequest, PowerSink, TimerQueue, VpIndex, VpInterrupts, VpPorts,
};
use guest_memory::{DmaMemory, GuestMemory};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Recorder {
    vectors: Mutex<Vec<(VpIndex, u8)>>,
    automatic: Mutex<Vec<(u8, bool)>>,
    written: Mutex<Vec<(u16, u32)>>,
    power: Mutex<Vec<PowerRequest>>,
    posted: Mutex<Vec<(u32, Vec<u8>)>>,
    signalled: Mutex<Vec<u16>>,
}

impl VpInterrupts for Recorder {
    fn request(&self, vp: VpIndex, vector: u8) {
        self.vectors.lock().unwrap().push((vp, vector));
    }
    fn set_auto_eoi(&self, _: VpIndex, vector: u8, on: bool) {
        self.automatic.lock().unwrap().push((vector, on));
    }
    fn apic_read(&self, _: VpIndex, offset: u16) -> Option<u32> {
        Some(offset.into())
    }
    fn apic_write(&self, _: VpIndex, offset: u16, value: u32) -> bool {
        self.written.lock().unwrap().push((offset, value));
        true
    }
}

impl PowerSink for Recorder {
    fn request(&self, request: PowerRequest) {
        self.power.lock().unwrap().push(request);
    }
}

impl MessagePort for Recorder {
    fn post(&self, kind: u32, payload: &[u8]) -> HvStatus {
        self.posted.lock().unwrap().push((kind, payload.to_vec()));
        HvStatus::Success
    }
}

impl EventPort for Recorder {
    fn signal(&self, flag: u16) -> HvStatus {
        self.signalled.lock().unwrap().push(flag);
        HvStatus::Success
    }
}

const RAM: u64 = 0x10_0000;
const CONFIG: HyperVConfig = HyperVConfig {
    vp_count: 2,
    phys_bits: 39,
    tsc_hz: Some(1_000_000_000),
    tsc_is_clock: true,
    apic_hz: 1_000_000_000,
};

struct Rig {
    hv: Arc<HyperV>,
    seen: Arc<Recorder>,
    memory: DmaMemory,
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
}

impl Rig {
    fn new() -> Self {
        Self::with(CONFIG)
    }

    fn with(config: HyperVConfig) -> Self {
        let seen = Arc::new(Recorder::default());
        let memory = GuestMemory::allocate(&[(0, RAM)]).unwrap().dma();
        let clock = Arc::new(Clock::deterministic());
        let timers = TimerQueue::new();
        let world = HyperVWorld {
            clock: clock.clone(),
            timers: timers.clone(),
            interrupts: seen.clone(),
            memory: memory.clone(),
            power: seen.clone(),
        };
        Self {
            hv: HyperV::new(config, world),
            seen,
            memory,
            clock,
            timers,
        }
    }

    /// A guest with an identity, a hypercall page, and message and event pages.
    fn started() -> Self {
        let rig = Self::new();
        rig.write(msr::GUEST_OS_ID, 1 << 40);
        rig.write(msr::HYPERCALL, 0x1001);
        rig.write(msr::SIMP, 0x2001);
        rig.write(msr::SIEFP, 0x3001);
        rig
    }

    fn write(&self, number: u32, value: u64) {
        assert!(
            self.hv.msr_write(0, number, value),
            "wrmsr {number:#x} {value:#x}"
        );
    }

    fn read(&self, number: u32) -> u64 {
        self.hv.msr_read(0, number).expect("a register")
    }

    fn page(&self, gpa: u64) -> [u8; 4096] {
        let mut page = [0; 4096];
        self.memory.read(gpa, &mut page).unwrap();
        page
    }

    /// Makes a hypercall through the ports.
    fn call(&self, control: u64, input: u64, output: u64) -> u64 {
        for (offset, value) in [(0, control), (4, input), (8, output)] {
            self.hv.port_write(0, offset, &(value as u32).to_le_bytes());
            self.hv
                .port_write(0, offset, &((value >> 32) as u32).to_le_bytes());
        }
        let mut halves = [[0; 4]; 2];
        self.hv.port_read(0, 0, &mut halves[0]);
        self.hv.port_read(0, 4, &mut halves[1]);
        u64::from(u32::from_le_bytes(halves[0])) << 32 | u64::from(u32::from_le_bytes(halves[1]))
    }

    /// Moves time to `units` of 100 ns.
    fn pass(&self, units: u64) {
        self.clock.advance_to(units * 100);
        self.timers.fire_due(self.clock.now());
    }

    fn vectors(&self) -> Vec<(VpIndex, u8)> {
        std::mem::take(&mut self.seen.vectors.lock().unwrap())
    }
}

const CODE_POST: u64 = 0x5C;
const CODE_SIGNAL: u64 = 0x5D;

#[test]
fn advertised_privileges_have_registers_behind_them() {
    let rig = Rig::new();
    let leaves = cpuid::leaves(&CONFIG);
    assert_eq!(leaves[0].eax, 0x4000_0006);
    assert_eq!(&leaves[1].eax.to_le_bytes(), b"Hv#1");
    let privileges = leaves[3].eax;
    for (bit, number) in [
        (1, msr::TIME_REF_COUNT),
        (2, msr::SIMP),
        (3, msr::STIMER0_CONFIG),
        (4, msr::ICR),
        (5, msr::HYPERCALL),
        (6, msr::VP_INDEX),
        (9, msr::REFERENCE_TSC),
        (11, msr::TSC_FREQUENCY),
        (15, msr::TSC_INVARIANT_CONTROL),
    ] {
        assert!(privileges & 1 << bit != 0, "bit {bit}");
        assert!(rig.hv.msr_read(0, number).is_some(), "{number:#x}");
    }
}

#[test]
fn without_a_clock_like_tsc_there_is_no_reference_page() {
    let config = HyperVConfig {
        tsc_is_clock: false,
        ..CONFIG
    };
    let rig = Rig::with(config);
    assert_eq!(cpuid::leaves(&config)[3].eax & (1 << 9 | 1 << 15), 0);
    assert!(!rig.hv.msr_write(0, msr::REFERENCE_TSC, 0x1001));
    assert_eq!(rig.hv.msr_read(0, msr::REFERENCE_TSC), None);
    assert_eq!(rig.read(msr::TSC_FREQUENCY), 1_000_000_000, "known all the same");
}

#[test]
fn hypercall_page_needs_an_identity_and_gives_ram_back() {
    let rig = Rig::new();
    rig.memory.write(0x1000, &[0xAA; 4096]).unwrap();
    rig.write(msr::HYPERCALL, 0x1001);
    assert_eq!(rig.read(msr::HYPERCALL), 0x1000, "not enabled");
    rig.write(msr::GUEST_OS_ID, 1);
    rig.write(msr::HYPERCALL, 0x1001);
    assert_eq!(&rig.page(0x1000)[..hypercall::CODE.len()], hypercall::CODE);
    rig.write(msr::GUEST_OS_ID, 0);
    assert_eq!(rig.read(msr::HYPERCALL), 0x1000);
    assert_eq!(rig.page(0x1000), [0xAA; 4096]);
}

#[test]
fn pages_outside_ram_are_refused() {
    let rig = Rig::new();
    rig.write(msr::GUEST_OS_ID, 1);
    for number in [
        msr::HYPERCALL,
        msr::SIMP,
        msr::SIEFP,
        msr::REFERENCE_TSC,
        msr::VP_ASSIST_PAGE,
    ] {
        assert!(!rig.hv.msr_write(0, number, RAM | 1), "{number:#x}");
        assert!(!rig.hv.msr_write(0, number, !0xFFE), "{number:#x}");
    }
}

#[test]
fn locked_hypercall_register_takes_no_more_writes_until_reset() {
    let rig = Rig::started();
    rig.write(msr::HYPERCALL, 0x4003);
    assert!(!rig.hv.msr_write(0, msr::HYPERCALL, 0));
    rig.hv.reset();
    assert_eq!(rig.read(msr::HYPERCALL), 0);
    rig.write(msr::HYPERCALL, 0x5000);
}

#[test]
fn unknown_registers_fault() {
    let rig = Rig::new();
    for number in [0x4000_0010, 0x4000_0099 + 0x10, 0x4000_01FF, 0x4000_00B8] {
        assert_eq!(rig.hv.msr_read(0, number), None, "{number:#x}");
        assert!(!rig.hv.msr_write(0, number, 0), "{number:#x}");
    }
    assert_eq!(rig.hv.msr_read(2, msr::VP_INDEX), None, "there are two vps");
    assert_eq!(rig.hv.msr_read(1, msr::VP_INDEX), Some(1));
}

#[test]
fn time_counts_100_ns_and_the_page_agrees() {
    let rig = Rig::started();
    rig.write(msr::REFERENCE_TSC, 0x6001);
    let page = rig.page(0x6000);
    assert_eq!(page[0], 1);
    let scale = u128::from(u64::from_le_bytes(page[8..16].try_into().unwrap()));
    for ns in [0, 99, 100, 12_345_678_900, 86_400_000_000_000] {
        rig.clock.advance_to(ns);
        assert_eq!(rig.read(msr::TIME_REF_COUNT), ns / 100);
        assert_eq!(((u128::from(ns) * scale) >> 64) as u64, ns / 100);
    }
}

#[test]
fn hypercalls_are_checked_before_they_are_made() {
    let rig = Rig::started();
    let status = |control, input| rig.call(control, input, 0) as u16;
    assert_eq!(status(0x7777, 0), HvStatus::InvalidHypercallCode as u16);
    assert_eq!(
        status(CODE_POST | 1 << 27, 0),
        HvStatus::InvalidHypercallInput as u16
    );
    assert_eq!(
        status(CODE_POST | 1 << 32, 0),
        HvStatus::InvalidHypercallInput as u16,
        "not a rep call"
    );
    assert_eq!(
        status(CODE_POST | 1 << 16, 0),
        HvStatus::InvalidHypercallInput as u16,
        "not a fast call"
    );
    assert_eq!(status(CODE_POST, 4), HvStatus::InvalidAlignment as u16);
    assert_eq!(status(CODE_POST, 0xFF8), HvStatus::InvalidAlignment as u16);
    assert_eq!(status(CODE_POST, RAM), HvStatus::InvalidParameter as u16);
    assert_eq!(status(0x99, 0), HvStatus::AccessDenied as u16);
    assert_eq!(status(0x08, 0), HvStatus::Success as u16);
    rig.write(msr::HYPERCALL, 0);
    assert_eq!(
        status(0x08, 0),
        HvStatus::InvalidHypercallCode as u16,
        "no page, no calls"
    );
}

#[test]
fn posted_messages_reach_their_connection() {
    let rig = Rig::started();
    let mut input = [0; 24];
    input[0] = 1;
    input[8] = 1;
    input[12] = 8;
    input[16..].copy_from_slice(b"contact!");
    rig.memory.write(0x8000, &input).unwrap();
    assert_eq!(
        rig.call(CODE_POST, 0x8000, 0),
        HvStatus::InvalidConnectionId as u64
    );
    rig.hv.connect_messages(1, Some(rig.seen.clone()));
    assert_eq!(rig.call(CODE_POST, 0x8000, 0), 0);
    assert_eq!(*rig.seen.posted.lock().unwrap(), [(1, b"contact!".to_vec())]);
    rig.memory.write(0x800C, &241u32.to_le_bytes()).unwrap();
    assert_eq!(rig.call(CODE_POST, 0x8000, 0), HvStatus::InvalidParameter as u64);
    rig.hv.connect_messages(1, None);
    assert_eq!(
        rig.call(CODE_POST, 0x8000, 0),
        HvStatus::InvalidParameter as u64,
        "checked first"
    );
}

#[test]
fn signalled_events_reach_their_connection_fast_and_slow() {
    let rig = Rig::started();
    rig.hv.connect_events(0x10, Some(rig.seen.clone()));
    assert_eq!(rig.call(CODE_SIGNAL | 1 << 16, 0x10 | 3 << 32, 0), 0);
    rig.memory
        .write(0x8000, &(0x10u64 | 5 << 32).to_le_bytes())
        .unwrap();
    assert_eq!(rig.call(CODE_SIGNAL, 0x8000, 0), 0);
    assert_eq!(*rig.seen.signalled.lock().unwrap(), [3, 5]);
    let other = rig.call(CODE_SIGNAL | 1 << 16, 0x11, 0);
    assert_eq!(other, HvStatus::InvalidConnectionId as u64);
}

#[test]
fn vp_indexes_of_apic_ids_are_looked_up() {
    let rig = Rig::started();
    let mut input = [0xFF; 24];
    input[8..].fill(0);
    input[16] = 1;
    rig.memory.write(0x8000, &input).unwrap();
    assert_eq!(rig.call(0x9A | 2 << 32, 0x8000, 0x9000), 2 << 32, "both are done");
    assert_eq!(&rig.page(0x9000)[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    rig.memory.write(0x8010, &[2]).unwrap();
    let unknown = rig.call(0x9A | 2 << 32, 0x8000, 0x9000);
    assert_eq!(unknown, HvStatus::InvalidParameter as u64);
}

#[test]
fn full_slot_makes_messages_wait_for_end_of_message() {
    let rig = Rig::started();
    rig.write(msr::SINT0 + 2, 0x41);
    let message = |byte| Message::new(7, vec![byte; 3]).unwrap();
    rig.hv.post_message(0, 2, message(1));
    rig.hv.post_message(0, 2, message(2));
    rig.hv.post_message(0, 2, message(3));
    assert_eq!(rig.vectors(), [(0, 0x41)]);
    let slot = &rig.page(0x2000)[0x200..0x300];
    assert_eq!(slot[..8], [7, 0, 0, 0, 3, 1, 0, 0], "type, size, pending flag");
    assert_eq!(slot[16..20], [1, 1, 1, 0]);
    assert_eq!(rig.hv.messages_waiting(0, 2), 2);
    rig.write(msr::EOM, 0);
    assert_eq!(rig.vectors(), [], "the slot is still full");
    rig.memory.write(0x2200, &[0; 4]).unwrap();
    rig.write(msr::EOM, 0);
    assert_eq!(rig.page(0x2000)[0x210], 2);
    assert_eq!(rig.hv.messages_waiting(0, 2), 1);
    assert_eq!(rig.vectors(), [(0, 0x41)]);
}

#[test]
fn messages_wait_for_the_message_page() {
    let rig = Rig::new();
    rig.write(msr::SINT0 + 2, 0x41);
    rig.hv.post_message(0, 2, Message::new(7, vec![9]).unwrap());
    assert_eq!(rig.hv.messages_waiting(0, 2), 1);
    rig.write(msr::SIMP, 0x2001);
    assert_eq!(rig.page(0x2000)[0x200], 7);
    assert_eq!(rig.vectors(), [(0, 0x41)]);
}

#[test]
fn message_that_is_not_taken_is_named_with_what_keeps_it() {
    let rig = Rig::started();
    let message = |head| Message::new(1, vec![head, 0, 0, 0, 5]).unwrap();
    let untaken = |hold, since, head, waiting| Untaken {
        vp: 0,
        sint: 2,
        hold,
        since,
        kind: 1,
        head,
        waiting,
    };
    assert_eq!(rig.hv.untaken(), None);
    rig.clock.advance_to(100);
    rig.hv.post_message(0, 2, message(15));
    rig.clock.advance_to(200);
    assert_eq!(rig.hv.untaken(), Some(untaken(Hold::Slot, 100, 15, 0)));
    rig.hv.post_message(0, 2, message(17));
    assert_eq!(rig.hv.untaken(), Some(untaken(Hold::Slot, 100, 15, 1)));
    rig.memory.write(0x2200, &[0; 4]).unwrap();
    assert_eq!(rig.hv.untaken(), Some(untaken(Hold::EndOfMessage, 100, 17, 1)));
    rig.write(msr::EOM, 0);
    assert_eq!(rig.hv.untaken(), Some(untaken(Hold::Slot, 200, 17, 0)));
    rig.memory.write(0x2200, &[0; 4]).unwrap();
    assert_eq!(rig.hv.untaken(), None);
    rig.write(msr::SIMP, 0x2000);
    rig.clock.advance_to(300);
    rig.hv.post_message(0, 2, message(4));
    rig.clock.advance_to(400);
    rig.hv.post_message(0, 2, message(6));
    assert_eq!(rig.hv.untaken(), Some(untaken(Hold::NoPage, 300, 4, 2)));
    rig.hv.reset();
    assert_eq!(rig.hv.untaken(), None);
}

#[test]
fn event_flags_interrupt_once_until_they_are_taken() {
    let rig = Rig::started();
    assert!(rig.hv.signal_event(0, 2, 65), "masked sources keep the flag");
    assert_eq!(rig.vectors(), []);
    rig.write(msr::SINT0 + 2, 0x41);
    assert!(rig.hv.signal_event(0, 2, 65));
    assert_eq!(rig.vectors(), [], "it is set already");
    assert!(rig.hv.signal_event(0, 2, 2047));
    assert_eq!(rig.vectors(), [(0, 0x41)]);
    let flags = &rig.page(0x3000)[0x200..0x300];
    assert_eq!((flags[8], flags[255]), (2, 0x80));
    assert!(!rig.hv.signal_event(0, 2, 2048));
    assert!(!rig.hv.signal_event(1, 2, 0), "vp 1 has no page");
}

#[test]
fn exception_vectors_are_refused_and_automatic_end_is_passed_on() {
    let rig = Rig::new();
    assert!(!rig.hv.msr_write(0, msr::SINT0, 0xF));
    rig.write(msr::SINT0, 0x1_000F);
    rig.write(msr::SINT0 + 1, 0x2_0040);
    assert_eq!(rig.seen.automatic.lock().unwrap().last(), Some(&(0x40, true)));
    rig.write(msr::SINT0 + 1, 0x3_0040);
    assert_eq!(rig.seen.automatic.lock().unwrap().last(), Some(&(0x40, false)));
}

#[test]
fn firmware_timer_ticks_every_10_ms_by_vector() {
    let rig = Rig::new();
    rig.write(msr::STIMER0_CONFIG, 0x140E);
    rig.write(msr::STIMER0_CONFIG + 1, 100_000);
    assert_eq!(rig.read(msr::STIMER0_CONFIG), 0x140F, "it enabled itself");
    rig.pass(99_999);
    assert_eq!(rig.vectors(), []);
    rig.pass(100_000);
    assert_eq!(rig.vectors(), [(0, 0x40)]);
    rig.pass(250_000);
    rig.pass(299_999);
    assert_eq!(
        rig.vectors(),
        [(0, 0x40)],
        "lazy: 200,000 only, and the phase is kept"
    );
    rig.pass(300_000);
    assert_eq!(rig.vectors(), [(0, 0x40)]);
    rig.write(msr::STIMER0_CONFIG + 1, 0);
    rig.pass(1_000_000);
    assert_eq!(rig.vectors(), []);
}

#[test]
fn one_shot_timer_sends_one_message_and_disables_itself() {
    let rig = Rig::started();
    rig.write(msr::SINT0 + 1, 0x50);
    rig.write(msr::STIMER0_CONFIG + 2, 1 << 16 | 1);
    rig.write(msr::STIMER0_CONFIG + 3, 5000);
    rig.pass(5001);
    let slot = &rig.page(0x2000)[0x100..0x200];
    assert_eq!(slot[..4], MESSAGE_TIMER_EXPIRED.to_le_bytes());
    assert_eq!(slot[4], 24);
    assert_eq!(slot[16], 1, "timer index");
    assert_eq!(slot[24..32], 5000u64.to_le_bytes());
    assert_eq!(slot[32..40], 5001u64.to_le_bytes());
    assert_eq!(rig.vectors(), [(0, 0x50)]);
    assert_eq!(rig.read(msr::STIMER0_CONFIG + 2), 1 << 16);
}

#[test]
fn expiration_with_a_full_slot_comes_after_end_of_message() {
    let rig = Rig::started();
    rig.write(msr::SINT0 + 1, 0x50);
    rig.write(msr::STIMER0_CONFIG, 1 << 16 | 2 | 1);
    rig.write(msr::STIMER0_CONFIG + 1, 1000);
    rig.pass(1000);
    rig.pass(2000);
    assert_eq!(rig.vectors().len(), 1);
    rig.memory.write(0x2100, &[0; 4]).unwrap();
    rig.write(msr::EOM, 0);
    assert_eq!(rig.vectors().len(), 1);
    assert_eq!(rig.page(0x2000)[0x118..0x120], 2000u64.to_le_bytes());
}

#[test]
fn timer_to_source_zero_is_not_enabled() {
    let rig = Rig::started();
    rig.write(msr::STIMER0_CONFIG, 1);
    assert_eq!(rig.read(msr::STIMER0_CONFIG), 0);
    rig.write(msr::STIMER0_CONFIG, 8);
    rig.write(msr::STIMER0_CONFIG + 1, 10);
    assert_eq!(rig.read(msr::STIMER0_CONFIG), 8);
}

#[test]
fn shortest_period_does_not_keep_the_host_busy() {
    let rig = Rig::new();
    rig.write(msr::STIMER0_CONFIG, 1 << 12 | 0x40 << 4 | 2 | 1);
    rig.write(msr::STIMER0_CONFIG + 1, 1);
    // Not lazy, and far behind: a handful of catch-ups at most.
    rig.clock.advance_to(1_000_000_000_000);
    let mut rounds = 0;
    while rig.timers.next_deadline().is_some_and(|d| d <= rig.clock.now()) {
        rig.timers.fire_due(rig.clock.now());
        rounds += 1;
        assert!(rounds <= 20);
    }
}

#[test]
fn crash_registers_end_the_run_with_their_message() {
    let rig = Rig::new();
    rig.memory.write(0x9000, b"ASSERT foo.c(12)").unwrap();
    for (i, value) in [1, 2, 3, 0x9000, 16].into_iter().enumerate() {
        rig.write(msr::CRASH_P0 + i as u32, value);
    }
    rig.write(msr::CRASH_CTL, 3 << 62);
    let power = rig.seen.power.lock().unwrap();
    let [PowerRequest::Crash(text)] = &power[..] else {
        panic!("{power:?}")
    };
    assert_eq!(
        text,
        "the guest reported a crash through its crash registers: 0x1 0x2 0x3 0x9000 0x10: ASSERT foo.c(12)"
    );
}

#[test]
fn crash_message_outside_ram_is_named() {
    let rig = Rig::new();
    rig.write(msr::CRASH_P0 + 3, u64::MAX - 5);
    rig.write(msr::CRASH_P4, u64::MAX);
    rig.write(msr::CRASH_CTL, 3 << 62);
    let power = rig.seen.power.lock().unwrap();
    assert!(matches!(&power[..], [PowerRequest::Crash(text)] if text.contains("cannot be read")));
}

#[test]
fn local_apic_registers_are_reached() {
    let rig = Rig::new();
    rig.write(msr::EOI, 0);
    rig.write(msr::ICR, 0x1_0000_0C40);
    rig.write(msr::TPR, 0x30);
    assert_eq!(
        *rig.seen.written.lock().unwrap(),
        [(0xB0, 0), (0x310, 1), (0x300, 0xC40), (0x80, 0x30)]
    );
    assert_eq!(rig.read(msr::ICR), 0x310_0000_0300);
}

#[test]
fn reset_forgets_pages_without_touching_ram() {
    let rig = Rig::started();
    rig.write(msr::STIMER0_CONFIG, 0x140E);
    rig.write(msr::STIMER0_CONFIG + 1, 100_000);
    rig.memory.write(0x2000, &[7; 4096]).unwrap();
    rig.hv.reset();
    assert_eq!(rig.page(0x2000), [7; 4096]);
    for number in [msr::SIMP, msr::SIEFP, msr::STIMER0_CONFIG, msr::GUEST_OS_ID] {
        assert_eq!(rig.read(number), 0);
    }
    assert_eq!(rig.read(msr::SCONTROL), 1);
    assert_eq!(rig.timers.next_deadline(), None);
}
