// SPDX-License-Identifier: MIT
//! The local APICs of a partition: register pages, x2APIC MSRs, interrupt messages, timers.
//!
//! Always true: no lock is held while another local APIC, the IO-APIC or the wake callback's partition is
//! called with a lock of the same rank; the order is device, router, IO-APIC, local APIC, timer queue.
//! A VP that has something to deal with has a non-zero summary word, and every change of that word from
//! zero is followed by a wake. Local APIC ids are VP indexes.
//! Not here: what INIT and SIPI do to registers of the CPU (the backend), the 8259.

mod message;
mod registers;
mod timer;
mod vectors;

#[cfg(test)]
mod tests;

pub use message::{ApicMessage, DeliveryMode, Destination};
pub use registers::LapicConfig;

use crate::lock;
use chipset_device::{
    Clock, MsiTarget, TimerClient, TimerHandle, TimerQueue, VpEvents, VpIndex, VpInterrupts, VpWake,
};
use registers::{Effect, LVT_LINT1, LVT_TIMER, Registers, reg};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use timer::Mode;
use x86defs::msr;

const EVENT_INIT: u32 = 1;
const EVENT_SIPI: u32 = 2;
const EVENT_NMI: u32 = 4;
const EVENT_INTERRUPT: u32 = 8;
/// Size of the register page.
const PAGE: u64 = 0x1000;

/// Who hears about the end of level-triggered interrupts.
pub trait EoiTarget: Send + Sync {
    /// A local APIC ended `vector`.
    fn end_of_interrupt(&self, vector: u8);
}

/// Who supplies the vector of an ExtINT.
pub trait ExtIntSource: Send + Sync {
    /// INTA cycle: takes the vector.
    fn acknowledge(&self) -> u8;
}

struct Lapic {
    registers: Mutex<Registers>,
    /// EVENT_ bits, a summary of `registers` that is read without the lock.
    events: AtomicU32,
    /// Guest physical address of the register page, or all ones while there is none.
    page: AtomicU64,
    timer: TimerHandle,
}

/// The local APICs of all VPs.
pub struct LapicSet {
    lapics: Vec<Lapic>,
    config: LapicConfig,
    phys_bits: u8,
    clock: Arc<Clock>,
    wake: Arc<dyn VpWake>,
    /// Output of the 8259 pair.
    extint: AtomicBool,
    eoi: OnceLock<Weak<dyn EoiTarget>>,
    pic: OnceLock<Weak<dyn ExtIntSource>>,
}

/// How local APICs reach the rest of the partition.
pub struct LapicWorld {
    /// The partition's clock.
    pub clock: Arc<Clock>,
    /// The partition's deadlines.
    pub timers: Arc<TimerQueue>,
    /// Gets a VP's attention.
    pub wake: Arc<dyn VpWake>,
    /// Physical address width of the guest, for reserved bits of IA32_APIC_BASE.
    pub phys_bits: u8,
}

impl LapicSet {
    /// Local APICs for `count` VPs after power on.
    pub fn new(count: u32, config: LapicConfig, world: LapicWorld) -> Arc<Self> {
        let lapics = (0..count)
            .map(|id| Lapic {
                registers: Mutex::new(Registers::new(id, config)),
                events: AtomicU32::new(0),
                page: AtomicU64::new(registers::DEFAULT_BASE),
                timer: world.timers.timer(id),
            })
            .collect();
        let set = Arc::new(Self {
            lapics,
            config,
            phys_bits: world.phys_bits,
            clock: world.clock,
            wake: world.wake,
            extint: AtomicBool::new(false),
            eoi: OnceLock::new(),
            pic: OnceLock::new(),
        });
        let client: Weak<dyn TimerClient> = Arc::downgrade(&(set.clone() as Arc<dyn TimerClient>));
        for lapic in &set.lapics {
            lapic.timer.connect(client.clone());
        }
        set
    }

    /// Names the IO-APIC. The first call counts.
    pub fn connect_eoi(&self, target: Weak<dyn EoiTarget>) {
        self.eoi.get_or_init(|| target);
    }

    /// Names the 8259 pair. The first call counts.
    pub fn connect_extint(&self, source: Weak<dyn ExtIntSource>) {
        self.pic.get_or_init(|| source);
    }

    fn get(&self, vp: VpIndex) -> Option<&Lapic> {
        self.lapics.get(vp as usize)
    }

    /// Runs `f` on one local APIC, then brings its summary up to date and wakes the VP if there is news.
    fn with<R>(&self, vp: VpIndex, f: impl FnOnce(&mut Registers) -> R) -> Option<R> {
        let lapic = self.get(vp)?;
        let mut registers = lock(&lapic.registers);
        let result = f(&mut registers);
        let before = lapic.events.load(Ordering::Relaxed);
        let after = self.summary(&registers);
        lapic.events.store(after, Ordering::Release);
        drop(registers);
        if after & !before != 0 {
            self.wake.wake(vp);
        }
        Some(result)
    }

    fn summary(&self, r: &Registers) -> u32 {
        let extint = r.extint_message || (self.extint.load(Ordering::SeqCst) && r.takes_extint());
        let mut events = 0;
        for (on, bit) in [
            (r.init_pending, EVENT_INIT),
            (r.sipi_pending.is_some(), EVENT_SIPI),
            (r.nmi_pending, EVENT_NMI),
            (extint || r.deliverable().is_some(), EVENT_INTERRUPT),
        ] {
            if on {
                events |= bit;
            }
        }
        events
    }

    /// Everything back to power on.
    pub fn reset(&self) {
        self.extint.store(false, Ordering::SeqCst);
        for (vp, lapic) in self.lapics.iter().enumerate() {
            self.with(vp as VpIndex, Registers::power_on);
            lapic.page.store(registers::DEFAULT_BASE, Ordering::Release);
            lapic.timer.disarm();
        }
    }

    /// Sends `message` to the local APICs that it names.
    pub fn deliver(&self, message: ApicMessage) {
        if message.mode == DeliveryMode::LowestPriority
            && !matches!(message.destination, Destination::Itself(_))
        {
            if let Some(vp) = self.lowest_priority(message.destination) {
                self.receive(vp, &message);
            }
            return;
        }
        match message.destination {
            Destination::Itself(vp) | Destination::Physical(vp) => self.receive(vp, &message),
            _ => {
                for vp in 0..self.lapics.len() as VpIndex {
                    if self.is_destination(vp, message.destination) {
                        self.receive(vp, &message);
                    }
                }
            }
        }
    }

    fn is_destination(&self, vp: VpIndex, destination: Destination) -> bool {
        match destination {
            Destination::All => true,
            Destination::AllBut(sender) => vp != sender,
            Destination::Itself(id) | Destination::Physical(id) => vp == id,
            Destination::Logical(mda) => self
                .get(vp)
                .is_some_and(|l| lock(&l.registers).matches_logical(mda)),
        }
    }

    fn lowest_priority(&self, destination: Destination) -> Option<VpIndex> {
        (0..self.lapics.len() as VpIndex)
            .filter(|&vp| self.is_destination(vp, destination))
            .filter_map(|vp| Some((lock(&self.get(vp)?.registers).ppr(), vp)))
            .min()
            .map(|(_, vp)| vp)
    }

    fn receive(&self, vp: VpIndex, message: &ApicMessage) {
        self.with(vp, |r| {
            r.receive(message.mode, message.vector, message.level_triggered);
        });
        if message.mode == DeliveryMode::Init
            && let Some(lapic) = self.get(vp)
        {
            lapic.timer.disarm();
        }
    }

    /// Makes an NMI pending on one VP.
    pub fn inject_nmi(&self, vp: VpIndex) {
        self.with(vp, |r| r.receive(DeliveryMode::Nmi, 0, false));
    }

    /// A pulse on the LINT1 input of every local APIC (the NMI button of virtual wire machines).
    pub fn pulse_lint1(&self) {
        for vp in 0..self.lapics.len() as VpIndex {
            self.with(vp, |r| r.local_event(LVT_LINT1));
        }
    }

    /// Drives LINT0 of every local APIC: the output of the 8259 pair.
    pub fn set_extint(&self, level: bool) {
        if self.extint.swap(level, Ordering::SeqCst) != level {
            for vp in 0..self.lapics.len() as VpIndex {
                self.with(vp, |_| ());
            }
        }
    }

    /// Whether anything waits for `vp`, and takes what can be taken. A SIPI beside an INIT came after it; an
    /// NMI beside one is dropped, because the VP is waiting for a SIPI by then.
    pub fn poll(&self, vp: VpIndex) -> VpEvents {
        let Some(lapic) = self.get(vp) else {
            return VpEvents::default();
        };
        let events = lapic.events.load(Ordering::Acquire);
        if events & (EVENT_INIT | EVENT_SIPI | EVENT_NMI) == 0 {
            return VpEvents {
                interrupt: events & EVENT_INTERRUPT != 0,
                ..Default::default()
            };
        }
        self.with(vp, |r| {
            let (init, nmi) = (
                std::mem::take(&mut r.init_pending),
                std::mem::take(&mut r.nmi_pending),
            );
            VpEvents {
                init,
                sipi: r.sipi_pending.take(),
                nmi: nmi && !init,
                interrupt: self.summary(r) & EVENT_INTERRUPT != 0,
            }
        })
        .unwrap_or_default()
    }

    /// Takes the highest pending vector of `vp`, from the local APIC, else from the 8259 pair.
    pub fn acknowledge(&self, vp: VpIndex) -> Option<u8> {
        enum Taken {
            Vector(u8),
            ExtInt,
            Nothing,
        }
        let taken = self.with(vp, |r| {
            if let Some(v) = r.acknowledge() {
                return Taken::Vector(v);
            }
            let wire = self.extint.load(Ordering::SeqCst) && r.takes_extint();
            if std::mem::take(&mut r.extint_message) || wire {
                Taken::ExtInt
            } else {
                Taken::Nothing
            }
        })?;
        match taken {
            Taken::Vector(v) => Some(v),
            Taken::ExtInt => Some(self.pic.get()?.upgrade()?.acknowledge()),
            Taken::Nothing => None,
        }
    }

    /// CR8: bits 7:4 of the task priority.
    pub fn cr8(&self, vp: VpIndex) -> u8 {
        self.get(vp)
            .and_then(|l| lock(&l.registers).read(reg::TPR, 0))
            .map_or(0, |tpr| (tpr >> 4) as u8)
    }

    /// MOV to CR8.
    pub fn set_cr8(&self, vp: VpIndex, value: u8) {
        self.write_register(vp, reg::TPR, u32::from(value & 0xF) << 4);
    }

    /// Whether `gpa` lies in the register page of `vp`.
    pub fn claims(&self, vp: VpIndex, gpa: u64) -> bool {
        self.get(vp)
            .is_some_and(|l| l.page.load(Ordering::Acquire) == gpa & !(PAGE - 1))
    }

    /// Load from the register page; `offset` counts from its first byte. Only the first four bytes of
    /// each 16 exist; the rest reads zero.
    pub fn mmio_read(&self, vp: VpIndex, offset: u64, data: &mut [u8]) {
        let number = (offset >> 4) as u32;
        let value = self.with(vp, |r| match r.read(number, self.now_for(number)) {
            Some(value) => value,
            None => {
                r.bad_register();
                0
            }
        });
        let bytes = u128::from(value.unwrap_or(0)).to_le_bytes();
        let first = (offset & 15) as usize;
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = bytes.get(first + i).copied().unwrap_or(0);
        }
    }

    /// Store to the register page. Registers take aligned stores of four bytes or more (SDM 11.4.1);
    /// others are dropped.
    pub fn mmio_write(&self, vp: VpIndex, offset: u64, data: &[u8]) {
        let Some(&value) = data.first_chunk::<4>() else {
            return;
        };
        if offset & 15 == 0 && !self.write_register(vp, (offset >> 4) as u32, u32::from_le_bytes(value)) {
            self.with(vp, Registers::bad_register);
        }
    }

    /// The clock, if register `number` depends on it; asking the host for the time costs more than the rest
    /// of an access.
    fn now_for(&self, number: u32) -> u64 {
        match number {
            reg::LVT_TIMER | reg::INITIAL_COUNT | reg::CURRENT_COUNT | reg::DIVIDE => self.clock.now(),
            _ => 0,
        }
    }

    fn write_register(&self, vp: VpIndex, number: u32, value: u32) -> bool {
        let now = self.now_for(number);
        let effect = self.with(vp, |r| r.write(number, value, now)).flatten();
        effect.map(|e| self.perform(vp, e, now)).is_some()
    }

    /// What a write at `now` asks of the rest of the partition.
    fn perform(&self, vp: VpIndex, effect: Effect, now: u64) {
        match effect {
            Effect::None => {}
            Effect::Send(message) => self.deliver(message),
            Effect::Eoi(vector) => {
                if let Some(target) = self.eoi.get().and_then(Weak::upgrade) {
                    target.end_of_interrupt(vector);
                }
            }
            Effect::Timer => self.arm(vp, now),
        }
    }

    /// Whether `number` is an MSR of the local APIC, in whatever mode it is.
    pub fn owns_msr(number: u32) -> bool {
        matches!(
            number,
            msr::APIC_BASE | msr::TSC_DEADLINE | msr::X2APIC_BASE..=msr::X2APIC_LAST
        )
    }

    /// RDMSR of an MSR that [`LapicSet::owns_msr`]; `None` raises #GP.
    pub fn msr_read(&self, vp: VpIndex, number: u32) -> Option<u64> {
        let r = lock(&self.get(vp)?.registers);
        match number {
            msr::APIC_BASE => Some(r.base),
            msr::TSC_DEADLINE => {
                self.config.tsc_hz?;
                Some(r.timer.tsc_deadline)
            }
            _ if !r.x2apic() => None,
            _ => match number - msr::X2APIC_BASE {
                reg::ICR => Some(r.icr()),
                n => r.read(n, self.now_for(n)).map(u64::from),
            },
        }
    }

    /// WRMSR of an MSR that [`LapicSet::owns_msr`]; `false` raises #GP.
    pub fn msr_write(&self, vp: VpIndex, number: u32, value: u64) -> bool {
        match number {
            msr::APIC_BASE => self.set_base(vp, value),
            msr::TSC_DEADLINE => self.set_tsc_deadline(vp, value),
            _ => self.x2apic_write(vp, number - msr::X2APIC_BASE, value),
        }
    }

    fn set_base(&self, vp: VpIndex, value: u64) -> bool {
        let Some(lapic) = self.get(vp) else { return false };
        let accepted = self.with(vp, |r| {
            r.set_base(value, self.phys_bits)?;
            let page = if r.enabled() && !r.x2apic() {
                r.base & !(PAGE - 1)
            } else {
                u64::MAX
            };
            lapic.page.store(page, Ordering::Release);
            Some(())
        });
        let accepted = accepted.flatten().is_some();
        if accepted {
            self.arm(vp, self.clock.now());
        }
        accepted
    }

    fn set_tsc_deadline(&self, vp: VpIndex, value: u64) -> bool {
        if self.config.tsc_hz.is_none() {
            return false;
        }
        self.with(vp, |r| {
            if r.timer_mode() == Mode::TscDeadline {
                r.timer.tsc_deadline = value;
            }
        });
        self.arm(vp, self.clock.now());
        true
    }

    fn x2apic_write(&self, vp: VpIndex, number: u32, value: u64) -> bool {
        let now = self.now_for(number);
        let effect = self.with(vp, |r| {
            if !r.x2apic() {
                return None;
            }
            if number == reg::ICR {
                return Some(r.send(value));
            }
            let zero_only = matches!(number, reg::EOI | reg::ESR);
            let value = u32::try_from(value).ok().filter(|&v| !zero_only || v == 0)?;
            r.write(number, value, now)
        });
        effect.flatten().map(|e| self.perform(vp, e, now)).is_some()
    }

    fn tsc_to_ns(&self, tsc: u64) -> u64 {
        let hz = u128::from(self.config.tsc_hz.unwrap_or(1).max(1));
        u64::try_from((u128::from(tsc) * 1_000_000_000).div_ceil(hz)).unwrap_or(u64::MAX)
    }

    /// Arms the host-side deadline from the timer registers. `now` is when they were written: a short
    /// count-down that has ended since must still fire.
    fn arm(&self, vp: VpIndex, now: u64) {
        let Some(lapic) = self.get(vp) else { return };
        let r = lock(&lapic.registers);
        let next = match r.timer_mode() {
            _ if r.timer_masked() => None,
            Mode::TscDeadline if r.timer.tsc_deadline == 0 => None,
            Mode::TscDeadline => Some(self.tsc_to_ns(r.timer.tsc_deadline)),
            mode => r.timer.next_expiry(mode, now),
        };
        match next {
            Some(deadline) => lapic.timer.arm(deadline),
            None => lapic.timer.disarm(),
        }
    }

    /// State of every local APIC.
    pub fn inspect(&self) -> String {
        let mut out = String::new();
        let now = self.clock.now();
        for (vp, lapic) in self.lapics.iter().enumerate() {
            let r = lock(&lapic.registers);
            let list = |set: &vectors::VectorSet| {
                set.iter()
                    .map(|v| format!("{v:#04x}"))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            let mut line = |name: &str, value: String| {
                // Writing to a String cannot fail.
                let _ = writeln!(out, "vp{vp}.{name} {value}");
            };
            line("apic_base", format!("{:#x}", r.base));
            line("ppr", format!("{:#x}", r.ppr()));
            line("irr", list(&r.irr));
            line("isr", list(&r.isr));
            line("lvt", format!("{:#x?}", r.lvt).replace(['\n', ' '], ""));
            line("timer_initial", r.timer.initial.to_string());
            line("timer_current", r.timer.current(r.timer_mode(), now).to_string());
            line("events", format!("{:#x}", lapic.events.load(Ordering::Relaxed)));
        }
        out
    }
}

impl TimerClient for LapicSet {
    fn timer_fired(&self, vp: u32, now: u64) {
        let Some(lapic) = self.get(vp) else { return };
        self.with(vp, |r| {
            // The guest may have armed again between the queue's decision and this call.
            let due = match r.timer_mode() {
                Mode::TscDeadline => r.timer.tsc_deadline != 0 && self.tsc_to_ns(r.timer.tsc_deadline) <= now,
                mode => r.timer.has_expired(mode, now),
            };
            if !due || r.timer_masked() {
                return;
            }
            r.timer.tsc_deadline = 0;
            r.local_event(LVT_TIMER);
            if let Some(deadline) = r.timer.expiry_after_fire(r.timer_mode(), now) {
                lapic.timer.arm(deadline);
            }
        });
    }
}

impl MsiTarget for LapicSet {
    /// Address 0xFEExxxxx, data as in SDM 11.11.
    fn signal_msi(&self, address: u64, data: u32) {
        let Some(mode) = DeliveryMode::from_bits(data >> 8) else {
            return;
        };
        if address >> 20 != 0xFEE {
            tracing::debug!(address, data, "MSI outside 0xfee00000 dropped");
            return;
        }
        self.deliver(ApicMessage {
            destination: Destination::from_xapic((address >> 12) as u8, address & 4 != 0),
            mode,
            vector: data as u8,
            level_triggered: data & (1 << 15) != 0,
        });
    }
}

impl VpInterrupts for LapicSet {
    fn request(&self, vp: VpIndex, vector: u8) {
        self.with(vp, |r| r.receive(DeliveryMode::Fixed, vector, false));
    }

    fn set_auto_eoi(&self, vp: VpIndex, vector: u8, on: bool) {
        self.with(vp, |r| r.auto_eoi.set(vector, on));
    }

    fn apic_read(&self, vp: VpIndex, offset: u16) -> Option<u32> {
        let number = u32::from(offset >> 4);
        let now = self.now_for(number);
        self.with(vp, |r| r.read(number, now)).flatten()
    }

    fn apic_write(&self, vp: VpIndex, offset: u16, value: u32) -> bool {
        self.write_register(vp, u32::from(offset >> 4), value)
    }
}
