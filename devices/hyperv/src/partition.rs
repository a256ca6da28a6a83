// SPDX-License-Identifier: MIT
//! The interface of one partition: its synthetic registers, ports and connections.
//!
//! Always true: a VP's lock is not held while a connection is called, so a connection may post and signal;
//! the order of locks is partition, VP, local APIC, timer queue.

use crate::hypercall::{CODE, Call, EventPort, Latch, MessagePort, Request};
use crate::overlay::Overlay;
use crate::synic::{Around, Delivery, Message, Synic, Untaken, page};
use crate::timer::{Route, SyntheticTimer};
use crate::tlfs::{HvStatus, MESSAGE_TIMER_EXPIRED, PAGE_ADDRESS, PAGE_ENABLED, TIMERS, msr};
use chipset_device::{
    Clock, MsrHandler, PowerRequest, PowerSink, TimerClient, TimerQueue, VpIndex, VpInterrupts, VpPorts, lock,
};
use guest_memory::DmaMemory;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, Weak};

/// Bit 1 of the hypercall register: no more writes until the next reset.
const HYPERCALL_LOCKED: u64 = 2;
/// Bits 63 and 62 of the crash control register: notify, and a message is in memory.
const CRASH_NOTIFY: u64 = 1 << 63;
const CRASH_MESSAGE: u64 = 1 << 62;
/// Most bytes of a crash message that are read.
const CRASH_MESSAGE_LEN: u64 = 4096;

/// What the interface is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HyperVConfig {
    /// Number of virtual processors.
    pub vp_count: u32,
    /// Physical address width that the guest sees.
    pub phys_bits: u8,
    /// Frequency of the TSC, where it is known.
    pub tsc_hz: Option<u64>,
    /// The TSC is the partition's clock: it starts at 0 and stops with it. Only then is there a reference
    /// TSC page.
    pub tsc_is_clock: bool,
    /// Frequency of the local APIC's timer.
    pub apic_hz: u64,
}

impl HyperVConfig {
    /// Frequency of a TSC that is good for a reference page.
    pub(crate) fn reference_tsc_hz(&self) -> Option<u64> {
        self.tsc_hz.filter(|hz| self.tsc_is_clock && *hz > 10_000_000)
    }

    /// What the TSC is multiplied with, over 2^64, to get units of 100 ns. Rounded up: exact for years,
    /// where rounded down would be one unit late now and then.
    fn reference_scale(&self) -> Option<u64> {
        let hz = u128::from(self.reference_tsc_hz()?);
        Some(((10_000_000u128 << 64) / hz + 1) as u64)
    }
}

/// How the interface reaches the partition.
#[derive(Clone)]
pub struct HyperVWorld {
    /// The partition's clock.
    pub clock: Arc<Clock>,
    /// The partition's deadlines.
    pub timers: Arc<TimerQueue>,
    /// The local APICs.
    pub interrupts: Arc<dyn VpInterrupts>,
    /// Guest RAM.
    pub memory: DmaMemory,
    /// Takes resets and crashes.
    pub power: Arc<dyn PowerSink>,
}

struct Shared {
    guest_os_id: u64,
    hypercall: u64,
    hypercall_page: Overlay,
    reference_tsc: u64,
    tsc_page: Overlay,
    tsc_invariant: u64,
    crash: [u64; 5],
    message_ports: BTreeMap<u32, Arc<dyn MessagePort>>,
    event_ports: BTreeMap<u32, Arc<dyn EventPort>>,
}

struct Vp {
    synic: Synic,
    timers: [SyntheticTimer; TIMERS],
    latch: Latch,
    assist: u64,
    assist_page: Overlay,
}

/// The hypervisor interface of one partition.
pub struct HyperV {
    config: HyperVConfig,
    world: HyperVWorld,
    shared: Mutex<Shared>,
    vps: Vec<Mutex<Vp>>,
}

impl HyperV {
    /// The interface after power on.
    pub fn new(config: HyperVConfig, world: HyperVWorld) -> Arc<Self> {
        let mut handles = Vec::new();
        let vps = (0..config.vp_count)
            .map(|vp| {
                let timers = [0, 1, 2, 3].map(|i| {
                    let handle = world.timers.timer(vp * TIMERS as u32 + i);
                    handles.push(handle.clone());
                    SyntheticTimer::new(handle)
                });
                Mutex::new(Vp {
                    synic: Synic::new(),
                    timers,
                    latch: Latch::default(),
                    assist: 0,
                    assist_page: Overlay::default(),
                })
            })
            .collect();
        let shared = Shared {
            guest_os_id: 0,
            hypercall: 0,
            hypercall_page: Overlay::default(),
            reference_tsc: 0,
            tsc_page: Overlay::default(),
            tsc_invariant: 0,
            crash: [0; 5],
            message_ports: BTreeMap::new(),
            event_ports: BTreeMap::new(),
        };
        let hv = Arc::new(Self {
            config,
            world,
            shared: Mutex::new(shared),
            vps,
        });
        let client: Weak<dyn TimerClient> = Arc::downgrade(&(hv.clone() as Arc<dyn TimerClient>));
        handles.iter().for_each(|handle| handle.connect(client.clone()));
        hv
    }

    /// Gives messages that the guest posts to `connection` to `port`, or to nobody.
    pub fn connect_messages(&self, connection: u32, port: Option<Arc<dyn MessagePort>>) {
        let ports = &mut lock(&self.shared).message_ports;
        match port {
            Some(port) => ports.insert(connection, port),
            None => ports.remove(&connection),
        };
    }

    /// Gives events that the guest signals on `connection` to `port`, or to nobody.
    pub fn connect_events(&self, connection: u32, port: Option<Arc<dyn EventPort>>) {
        let ports = &mut lock(&self.shared).event_ports;
        match port {
            Some(port) => ports.insert(connection, port),
            None => ports.remove(&connection),
        };
    }

    /// Sends a message to interrupt source `sint` of `vp`. It waits while the slot is full or the guest has
    /// no message page.
    pub fn post_message(&self, vp: VpIndex, sint: usize, message: Message) {
        if let Some(state) = self.vps.get(vp as usize) {
            lock(state).synic.post(&self.around(vp), sint, message);
        }
    }

    /// Messages that wait for interrupt source `sint` of `vp`.
    pub fn messages_waiting(&self, vp: VpIndex, sint: usize) -> usize {
        self.vps
            .get(vp as usize)
            .map_or(0, |state| lock(state).synic.waiting(sint))
    }

    /// The message that its guest has not taken for longest.
    pub fn untaken(&self) -> Option<Untaken> {
        let untaken = (0..).zip(&self.vps).filter_map(|(vp, state)| {
            let around = self.around(vp);
            lock(state).synic.untaken(&around)
        });
        untaken.min_by_key(|untaken| untaken.since)
    }

    /// Sets event flag `flag` of interrupt source `sint` of `vp`; `false` when the guest has no event page.
    pub fn signal_event(&self, vp: VpIndex, sint: usize, flag: u16) -> bool {
        self.vps
            .get(vp as usize)
            .is_some_and(|state| lock(state).synic.signal(&self.around(vp), sint, flag))
    }

    fn around(&self, vp: VpIndex) -> Around<'_> {
        Around {
            clock: &self.world.clock,
            memory: &self.world.memory,
            interrupts: &*self.world.interrupts,
            vp,
        }
    }

    /// The partition's time in units of 100 ns, as the reference TSC page gives it where there is one.
    fn reference_time(&self) -> u64 {
        let now = self.world.clock.now();
        match (self.config.reference_scale(), self.config.tsc_hz) {
            (Some(scale), Some(hz)) => {
                let tsc = u128::from(now) * u128::from(hz) / 1_000_000_000;
                ((tsc * u128::from(scale)) >> 64) as u64
            }
            _ => now / 100,
        }
    }

    fn set_guest_os_id(&self, value: u64) {
        let mut shared = lock(&self.shared);
        shared.guest_os_id = value;
        if value == 0 && shared.hypercall & HYPERCALL_LOCKED == 0 {
            shared.hypercall &= !PAGE_ENABLED;
            // The page was RAM when it was enabled.
            let _ = shared.hypercall_page.place(&self.world.memory, None, &[]);
        }
    }

    fn set_hypercall(&self, value: u64) -> bool {
        let mut shared = lock(&self.shared);
        if shared.hypercall & HYPERCALL_LOCKED != 0 {
            return false;
        }
        // Without an identity there is no hypercall page (TLFS "Establishing the hypercall interface").
        let value = if shared.guest_os_id == 0 {
            value & !PAGE_ENABLED
        } else {
            value
        };
        let placed = shared
            .hypercall_page
            .place(&self.world.memory, page(value), CODE)
            .is_ok();
        if placed {
            shared.hypercall = value & (PAGE_ADDRESS | PAGE_ENABLED | HYPERCALL_LOCKED);
        }
        placed
    }

    fn set_reference_tsc(&self, value: u64) -> bool {
        let Some(scale) = self.config.reference_scale() else {
            return false;
        };
        // Sequence 1 (zero means that the page is not valid), padding, scale, offset 0.
        let mut contents = [0; 24];
        contents[0] = 1;
        contents[8..16].copy_from_slice(&scale.to_le_bytes());
        let mut shared = lock(&self.shared);
        let placed = shared
            .tsc_page
            .place(&self.world.memory, page(value), &contents)
            .is_ok();
        if placed {
            shared.reference_tsc = value;
        }
        placed
    }

    fn crash(&self, control: u64) {
        if control & CRASH_NOTIFY == 0 {
            return;
        }
        let [p0, p1, p2, p3, p4] = lock(&self.shared).crash;
        let mut text = format!(
            "the guest reported a crash through its crash registers: {p0:#x} {p1:#x} {p2:#x} {p3:#x} {p4:#x}"
        );
        if control & CRASH_MESSAGE != 0 {
            let mut message = vec![0; p4.min(CRASH_MESSAGE_LEN) as usize];
            match self.world.memory.read(p3, &mut message) {
                Ok(()) => {
                    let _ = write!(
                        text,
                        ": {}",
                        String::from_utf8_lossy(&message).trim_end_matches('\0')
                    );
                }
                Err(error) => {
                    let _ = write!(text, "; its message cannot be read: {error}");
                }
            }
        }
        self.world.power.request(PowerRequest::Crash(text));
    }

    fn shared_read(&self, number: u32) -> Option<u64> {
        let shared = lock(&self.shared);
        Some(match number {
            msr::GUEST_OS_ID => shared.guest_os_id,
            msr::HYPERCALL => shared.hypercall,
            msr::RESET => 0,
            msr::REFERENCE_TSC => {
                self.config.reference_tsc_hz()?;
                shared.reference_tsc
            }
            msr::TSC_FREQUENCY => self.config.tsc_hz?,
            msr::APIC_FREQUENCY => {
                self.config.tsc_hz?;
                self.config.apic_hz
            }
            msr::TSC_INVARIANT_CONTROL => {
                self.config.reference_tsc_hz()?;
                shared.tsc_invariant
            }
            msr::CRASH_P0..=msr::CRASH_P4 => shared.crash[(number - msr::CRASH_P0) as usize],
            msr::CRASH_CTL => CRASH_NOTIFY | CRASH_MESSAGE,
            _ => return None,
        })
    }

    /// `None` when the register is not one of the partition's.
    fn shared_write(&self, number: u32, value: u64) -> Option<bool> {
        Some(match number {
            msr::GUEST_OS_ID => {
                self.set_guest_os_id(value);
                true
            }
            msr::HYPERCALL => self.set_hypercall(value),
            msr::RESET => {
                if value & 1 != 0 {
                    self.world.power.request(PowerRequest::Reset);
                }
                true
            }
            msr::REFERENCE_TSC => self.set_reference_tsc(value),
            msr::TSC_INVARIANT_CONTROL => {
                let known = self.config.reference_tsc_hz().is_some() && value & !1 == 0;
                if known {
                    lock(&self.shared).tsc_invariant = value;
                }
                known
            }
            msr::CRASH_P0..=msr::CRASH_P4 => {
                lock(&self.shared).crash[(number - msr::CRASH_P0) as usize] = value;
                true
            }
            msr::CRASH_CTL => {
                self.crash(value);
                true
            }
            _ => return None,
        })
    }

    fn vp_read(&self, vp: VpIndex, number: u32) -> Option<u64> {
        let state = lock(self.vps.get(vp as usize)?);
        Some(match number {
            msr::VP_INDEX => vp.into(),
            msr::TIME_REF_COUNT => self.reference_time(),
            msr::ICR => {
                let half = |offset| self.world.interrupts.apic_read(vp, offset);
                u64::from(half(APIC_ICR_HIGH)?) << 32 | u64::from(half(APIC_ICR)?)
            }
            msr::TPR => self.world.interrupts.apic_read(vp, APIC_TPR)?.into(),
            msr::VP_ASSIST_PAGE => state.assist,
            msr::SCONTROL => state.synic.control(),
            msr::SVERSION => 1,
            msr::SIEFP => state.synic.event_page(),
            msr::SIMP => state.synic.message_page(),
            msr::EOM => 0,
            msr::SINT0..=msr::SINT15 => state.synic.sint((number - msr::SINT0) as usize)?,
            msr::STIMER0_CONFIG..=msr::STIMER3_COUNT => {
                let (timer, count) = timer_register(number);
                let timer = state.timers.get(timer)?;
                if count { timer.count() } else { timer.config() }
            }
            _ => return None,
        })
    }

    fn vp_write(&self, vp: VpIndex, number: u32, value: u64) -> bool {
        let Some(state) = self.vps.get(vp as usize) else {
            return false;
        };
        let (mut state, around) = (lock(state), self.around(vp));
        let apic = |offset, value| self.world.interrupts.apic_write(vp, offset, value);
        match number {
            msr::EOI => apic(APIC_EOI, 0),
            msr::ICR => apic(APIC_ICR_HIGH, (value >> 32) as u32) && apic(APIC_ICR, value as u32),
            msr::TPR => apic(APIC_TPR, value as u32),
            msr::VP_ASSIST_PAGE => {
                let placed = state.assist_page.place(around.memory, page(value), &[]).is_ok();
                if placed {
                    state.assist = value;
                }
                placed
            }
            msr::SIEFP => state.synic.set_event_page(&around, value),
            msr::SINT0..=msr::SINT15 => state
                .synic
                .set_sint(&around, (number - msr::SINT0) as usize, value),
            msr::SCONTROL | msr::SIMP | msr::EOM => {
                let accepted = match number {
                    msr::SCONTROL => state.synic.set_control(value),
                    msr::SIMP => state.synic.set_message_page(&around, value),
                    _ => true,
                };
                state.synic.bring(&around);
                for timer in 0..TIMERS {
                    if let Some(due) = state.timers[timer].undelivered.take() {
                        self.deliver_expiration(&mut state, vp, timer, due);
                    }
                }
                accepted
            }
            msr::STIMER0_CONFIG..=msr::STIMER3_COUNT => {
                let (index, count) = timer_register(number);
                let now = self.reference_time();
                match (state.timers.get_mut(index), count) {
                    (Some(timer), false) => timer.set_config(value, now),
                    (Some(timer), true) => timer.set_count(value, now),
                    (None, _) => return false,
                }
                true
            }
            _ => false,
        }
    }

    fn deliver_expiration(&self, state: &mut Vp, vp: VpIndex, timer: usize, due: u64) {
        let around = self.around(vp);
        match state.timers[timer].route() {
            Route::Vector(vector) => self.world.interrupts.request(vp, vector),
            Route::Sint(sint) => {
                // Timer index, padding, expiration time, delivery time.
                let mut payload = [0; 24];
                payload[0] = timer as u8;
                payload[8..16].copy_from_slice(&due.to_le_bytes());
                payload[16..24].copy_from_slice(&self.reference_time().to_le_bytes());
                let outcome = if state.synic.waiting(sint) == 0 {
                    state
                        .synic
                        .deliver(&around, sint, MESSAGE_TIMER_EXPIRED, &payload)
                } else {
                    Delivery::Busy
                };
                if outcome != Delivery::Done {
                    state.timers[timer].undelivered = Some(due);
                }
            }
        }
    }

    fn hypercall(&self, vp: VpIndex, request: Call) -> u64 {
        if lock(&self.shared).hypercall & PAGE_ENABLED == 0 {
            return HvStatus::InvalidHypercallCode as u64;
        }
        let outcome = request
            .decode(&self.world.memory)
            .and_then(|decoded| self.perform(decoded));
        match outcome {
            Ok(()) => request.all_reps() << 32,
            Err(status) => {
                tracing::debug!(vp, code = request.code(), ?status, "hypercall refused");
                status as u64
            }
        }
    }

    fn perform(&self, request: Request) -> Result<(), HvStatus> {
        let status = match request {
            Request::Nothing => HvStatus::Success,
            Request::Post {
                connection,
                kind,
                payload,
            } => {
                let port = lock(&self.shared).message_ports.get(&connection).cloned();
                port.ok_or(HvStatus::InvalidConnectionId)?.post(kind, &payload)
            }
            Request::Signal { connection, flag } => {
                let port = lock(&self.shared).event_ports.get(&connection).cloned();
                port.ok_or(HvStatus::InvalidConnectionId)?.signal(flag)
            }
            Request::VpIndexes { apic_ids, output } => {
                // Local APIC ids are VP indexes here.
                if apic_ids.iter().any(|id| *id >= self.config.vp_count) {
                    return Err(HvStatus::InvalidParameter);
                }
                let answers: Vec<u8> = apic_ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                let written = self.world.memory.write(output, &answers);
                written.map_or(HvStatus::InvalidParameter, |()| HvStatus::Success)
            }
        };
        match status {
            HvStatus::Success => Ok(()),
            other => Err(other),
        }
    }
}

/// Local APIC registers that have a synthetic one too.
const APIC_TPR: u16 = 0x80;
const APIC_EOI: u16 = 0xB0;
const APIC_ICR: u16 = 0x300;
const APIC_ICR_HIGH: u16 = 0x310;

/// Which timer, and whether its count.
fn timer_register(number: u32) -> (usize, bool) {
    let offset = number - msr::STIMER0_CONFIG;
    ((offset / 2) as usize, offset % 2 == 1)
}

impl MsrHandler for HyperV {
    fn msr_read(&self, vp: VpIndex, number: u32) -> Option<u64> {
        self.shared_read(number).or_else(|| self.vp_read(vp, number))
    }

    fn msr_write(&self, vp: VpIndex, number: u32, value: u64) -> bool {
        self.shared_write(number, value)
            .unwrap_or_else(|| self.vp_write(vp, number, value))
    }

    fn reset(&self) {
        for state in &self.vps {
            let mut state = lock(state);
            state.synic.reset();
            state.timers.iter_mut().for_each(SyntheticTimer::reset);
            state.latch = Latch::default();
            state.assist = 0;
            state.assist_page.forget();
        }
        let mut shared = lock(&self.shared);
        shared.guest_os_id = 0;
        shared.hypercall = 0;
        shared.hypercall_page.forget();
        shared.reference_tsc = 0;
        shared.tsc_page.forget();
        shared.tsc_invariant = 0;
        shared.crash = [0; 5];
    }

    fn inspect(&self) -> String {
        let shared = lock(&self.shared);
        let mut out = format!(
            "guest_os_id {:#x}\nhypercall {:#x}\nreference_tsc {:#x}\nreference_time {}\n",
            shared.guest_os_id,
            shared.hypercall,
            shared.reference_tsc,
            self.reference_time()
        );
        drop(shared);
        for (vp, state) in self.vps.iter().enumerate() {
            let state = lock(state);
            let _ = writeln!(out, "vp {vp} {}", state.synic.inspect());
            for (i, timer) in state.timers.iter().enumerate().filter(|(_, t)| t.config() != 0) {
                let (config, count) = (timer.config(), timer.count());
                let _ = writeln!(out, "vp {vp} timer {i} config {config:#x} count {count}");
            }
        }
        out
    }
}

impl VpPorts for HyperV {
    fn port_read(&self, vp: VpIndex, offset: u16, data: &mut [u8]) {
        let state = self.vps.get(vp as usize).filter(|_| data.len() == 4);
        let Some(state) = state else {
            return chipset_device::unclaimed(data);
        };
        let value = match offset {
            0 => {
                let request = lock(state).latch.call();
                let result = self.hypercall(vp, request);
                lock(state).latch.finish(result);
                (result >> 32) as u32
            }
            4 => lock(state).latch.result() as u32,
            _ => u32::MAX,
        };
        data.copy_from_slice(&value.to_le_bytes());
    }

    fn port_write(&self, vp: VpIndex, offset: u16, data: &[u8]) {
        if let (Some(state), Ok(half)) = (self.vps.get(vp as usize), data.try_into()) {
            lock(state).latch.write(offset, u32::from_le_bytes(half));
        }
    }
}

impl TimerClient for HyperV {
    fn timer_fired(&self, id: u32, _now: u64) {
        let (vp, timer) = (id / TIMERS as u32, id as usize % TIMERS);
        let Some(state) = self.vps.get(vp as usize) else {
            return;
        };
        let mut state = lock(state);
        let now = self.reference_time();
        if let Some(due) = state.timers[timer].expire(now) {
            self.deliver_expiration(&mut state, vp, timer, due);
        }
    }
}
