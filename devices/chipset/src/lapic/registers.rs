// SPDX-License-Identifier: MIT
//! The register state of one local APIC (Intel SDM volume 3, chapter 11; APM2 chapter 16).
//!
//! Always true: a pure state machine over register numbers (page offset / 16, x2APIC MSR - 0x800);
//! what a write causes elsewhere is returned as an [`Effect`]. Locks, wake-ups and routing are the
//! parent's.

use super::message::{ApicMessage, DeliveryMode, Destination};
use super::timer::{Mode, Timer};
use super::vectors::VectorSet;
use x86defs::msr::{APIC_BASE_BSP, APIC_BASE_ENABLE, APIC_BASE_X2APIC};

/// Register numbers: xAPIC offset / 16.
pub(crate) mod reg {
    pub(crate) const ID: u32 = 0x02;
    pub(crate) const VERSION: u32 = 0x03;
    pub(crate) const TPR: u32 = 0x08;
    pub(crate) const APR: u32 = 0x09;
    pub(crate) const PPR: u32 = 0x0A;
    pub(crate) const EOI: u32 = 0x0B;
    pub(crate) const LDR: u32 = 0x0D;
    pub(crate) const DFR: u32 = 0x0E;
    pub(crate) const SVR: u32 = 0x0F;
    pub(crate) const ISR: u32 = 0x10;
    pub(crate) const TMR: u32 = 0x18;
    pub(crate) const IRR: u32 = 0x20;
    pub(crate) const IRR_LAST: u32 = 0x27;
    pub(crate) const ESR: u32 = 0x28;
    pub(crate) const ICR: u32 = 0x30;
    pub(crate) const ICR_HIGH: u32 = 0x31;
    pub(crate) const LVT_TIMER: u32 = 0x32;
    pub(crate) const LVT_ERROR: u32 = 0x37;
    pub(crate) const INITIAL_COUNT: u32 = 0x38;
    pub(crate) const CURRENT_COUNT: u32 = 0x39;
    pub(crate) const DIVIDE: u32 = 0x3E;
    pub(crate) const SELF_IPI: u32 = 0x3F;
}

/// Address of the register page after reset.
pub(crate) const DEFAULT_BASE: u64 = 0xFEE0_0000;
/// Version 0x14, six local vector table entries.
const VERSION: u32 = 0x0005_0014;
const LVT_MASKED: u32 = 1 << 16;
const LVT_COUNT: usize = 6;
/// Writable bits per local vector table entry: timer, thermal, performance, LINT0, LINT1, error.
const LVT_WRITABLE: [u32; LVT_COUNT] = [0x7_00FF, 0x1_07FF, 0x1_07FF, 0x1_A7FF, 0x1_A7FF, 0x1_00FF];
/// Local vector table indexes.
pub(crate) const LVT_TIMER: usize = 0;
pub(crate) const LVT_LINT0: usize = 3;
pub(crate) const LVT_LINT1: usize = 4;
const LVT_ERROR: usize = 5;
const SVR_ENABLE: u32 = 1 << 8;
/// ESR: a vector below 16 was sent.
const ESR_SEND_ILLEGAL: u32 = 1 << 5;
/// ESR: a vector below 16 was received.
const ESR_RECEIVE_ILLEGAL: u32 = 1 << 6;
/// ESR: a register that does not exist was accessed.
const ESR_REGISTER: u32 = 1 << 7;

/// What a register write causes outside this local APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// Send an interrupt message.
    Send(ApicMessage),
    /// A level-triggered vector ended: tell the IO-APIC.
    Eoi(u8),
    /// Timer registers changed: arm again.
    Timer,
}

/// What the machine wants of the local APICs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LapicConfig {
    /// The guest may switch to x2APIC mode.
    pub x2apic: bool,
    /// TSC ticks per second when the TSC deadline timer is advertised in CPUID; the guest's TSC is then
    /// the partition's clock at this rate.
    pub tsc_hz: Option<u64>,
    /// After reset the BSP is in virtual wire mode, as firmware leaves it: LINT0 is ExtINT and LINT1 is
    /// NMI (MultiProcessor specification 1.4, section 3.6.2.2). For machines that start without firmware.
    pub virtual_wire: bool,
}

/// One local APIC.
#[derive(Debug)]
pub(crate) struct Registers {
    pub(crate) id: u32,
    config: LapicConfig,
    pub(crate) base: u64,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    pub(crate) isr: VectorSet,
    pub(crate) irr: VectorSet,
    pub(crate) tmr: VectorSet,
    /// Vectors that end when they are taken.
    pub(crate) auto_eoi: VectorSet,
    esr: u32,
    esr_latched: u32,
    icr: u64,
    pub(crate) lvt: [u32; LVT_COUNT],
    pub(crate) timer: Timer,
    pub(crate) init_pending: bool,
    pub(crate) sipi_pending: Option<u8>,
    pub(crate) nmi_pending: bool,
    /// An ExtINT message (not the LINT0 wire) waits for acknowledgement.
    pub(crate) extint_message: bool,
}

impl Registers {
    pub(crate) fn new(id: u32, config: LapicConfig) -> Self {
        let mut r = Self {
            id,
            config,
            base: 0,
            tpr: 0,
            ldr: 0,
            dfr: 0,
            svr: 0,
            isr: VectorSet::default(),
            irr: VectorSet::default(),
            tmr: VectorSet::default(),
            auto_eoi: VectorSet::default(),
            esr: 0,
            esr_latched: 0,
            icr: 0,
            lvt: [0; LVT_COUNT],
            timer: Timer::default(),
            init_pending: false,
            sipi_pending: None,
            nmi_pending: false,
            extint_message: false,
        };
        r.power_on();
        r
    }

    /// Power-on state.
    pub(crate) fn power_on(&mut self) {
        self.base = DEFAULT_BASE | APIC_BASE_ENABLE | if self.id == 0 { APIC_BASE_BSP } else { 0 };
        self.init_pending = false;
        self.sipi_pending = None;
        self.auto_eoi = VectorSet::default();
        self.init_registers();
        if self.config.virtual_wire && self.id == 0 {
            self.svr = 0x0F | SVR_ENABLE;
            self.lvt[LVT_LINT0] = 0x700;
            self.lvt[LVT_LINT1] = 0x400;
        }
    }

    /// What INIT does: everything but the id, the base and the mode (SDM 11.4.7.3 and 11.12.5.1).
    pub(crate) fn init_registers(&mut self) {
        self.tpr = 0;
        self.ldr = 0;
        self.dfr = u32::MAX;
        self.svr = 0xFF;
        self.isr = VectorSet::default();
        self.irr = VectorSet::default();
        self.tmr = VectorSet::default();
        self.esr = 0;
        self.esr_latched = 0;
        self.icr = 0;
        self.lvt = [LVT_MASKED; LVT_COUNT];
        self.timer = Timer::default();
        self.nmi_pending = false;
        self.extint_message = false;
    }

    pub(crate) fn enabled(&self) -> bool {
        self.base & APIC_BASE_ENABLE != 0
    }

    pub(crate) fn x2apic(&self) -> bool {
        self.base & APIC_BASE_X2APIC != 0
    }

    fn software_enabled(&self) -> bool {
        self.enabled() && self.svr & SVR_ENABLE != 0
    }

    /// WRMSR of IA32_APIC_BASE; `None` raises #GP (SDM figure 11-27).
    pub(crate) fn set_base(&mut self, value: u64, phys_bits: u8) -> Option<()> {
        let address = (1u64 << phys_bits.clamp(32, 52)) - 0x1000;
        if value & !(address | APIC_BASE_BSP | APIC_BASE_X2APIC | APIC_BASE_ENABLE) != 0 {
            return None;
        }
        let (on, x2) = (value & APIC_BASE_ENABLE != 0, value & APIC_BASE_X2APIC != 0);
        let legal = match (self.enabled(), self.x2apic()) {
            (false, _) => !x2,
            (true, false) => on || !x2,
            (true, true) => on == x2,
        };
        if !legal || (x2 && !self.config.x2apic) {
            return None;
        }
        if self.enabled() && !on {
            self.init_registers();
        }
        self.base = value;
        Some(())
    }

    fn logical_x2(&self) -> u32 {
        (self.id >> 4) << 16 | 1 << (self.id & 15)
    }

    /// Whether a logical destination names this local APIC (SDM 11.6.2.2 to 11.6.2.4).
    pub(crate) fn matches_logical(&self, mda: u32) -> bool {
        if self.x2apic() {
            let own = self.logical_x2();
            return mda >> 16 == own >> 16 && mda & own & 0xFFFF != 0;
        }
        let own = self.ldr >> 24;
        if mda > 0xFF {
            return false;
        }
        match self.dfr >> 28 {
            0xF => own & mda != 0,
            0 => own >> 4 == mda >> 4 && own & mda & 0xF != 0,
            _ => false,
        }
    }

    /// Processor priority (SDM 11.8.3.1).
    pub(crate) fn ppr(&self) -> u8 {
        let isr = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= isr >> 4 {
            self.tpr
        } else {
            isr & 0xF0
        }
    }

    /// The highest vector that the processor priority lets through.
    pub(crate) fn deliverable(&self) -> Option<u8> {
        self.irr
            .highest()
            .filter(|v| self.enabled() && v >> 4 > self.ppr() >> 4)
    }

    /// Whether the 8259's output reaches the processor through LINT0.
    pub(crate) fn takes_extint(&self) -> bool {
        !self.enabled() || self.lvt[LVT_LINT0] & (LVT_MASKED | 0x700) == 0x700
    }

    /// Moves the highest deliverable vector into service, where it stays only if the guest ends it.
    pub(crate) fn acknowledge(&mut self) -> Option<u8> {
        let v = self.deliverable()?;
        self.irr.set(v, false);
        self.isr.set(v, !self.auto_eoi.has(v));
        Some(v)
    }

    /// Receives a message that is addressed to this local APIC.
    pub(crate) fn receive(&mut self, mode: DeliveryMode, vector: u8, level_triggered: bool) {
        match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => self.request(vector, level_triggered),
            DeliveryMode::Smi => {}
            DeliveryMode::Nmi => self.nmi_pending = true,
            DeliveryMode::Init => {
                self.init_registers();
                self.sipi_pending = None;
                self.init_pending = true;
            }
            DeliveryMode::Startup => self.sipi_pending = Some(vector),
            DeliveryMode::ExtInt => self.extint_message = self.enabled(),
        }
    }

    fn request(&mut self, vector: u8, level_triggered: bool) {
        if !self.software_enabled() {
            return;
        }
        if vector < 16 {
            self.error(ESR_RECEIVE_ILLEGAL);
            return;
        }
        self.irr.set(vector, true);
        self.tmr.set(vector, level_triggered);
    }

    fn error(&mut self, bit: u32) {
        let new = self.esr_latched & bit == 0;
        self.esr_latched |= bit;
        let lvt = self.lvt[LVT_ERROR];
        let vector = lvt as u8;
        if new && lvt & LVT_MASKED == 0 && vector >= 16 && self.software_enabled() {
            self.irr.set(vector, true);
            self.tmr.set(vector, false);
        }
    }

    /// An event of local vector table entry `index` (timer expiry, LINT pulse).
    pub(crate) fn local_event(&mut self, index: usize) {
        let lvt = self.lvt[index];
        if lvt & LVT_MASKED != 0 {
            return;
        }
        let mode = if index == LVT_TIMER { 0 } else { lvt >> 8 };
        match DeliveryMode::from_bits(mode) {
            Some(DeliveryMode::Fixed) => self.request(lvt as u8, false),
            Some(mode @ (DeliveryMode::Nmi | DeliveryMode::Init)) => self.receive(mode, 0, false),
            _ => {}
        }
    }

    pub(crate) fn timer_mode(&self) -> Mode {
        Mode::from_lvt(self.lvt[LVT_TIMER])
    }

    pub(crate) fn timer_masked(&self) -> bool {
        self.lvt[LVT_TIMER] & LVT_MASKED != 0
    }

    /// Reads register `number`; `None` when there is none that can be read.
    pub(crate) fn read(&self, number: u32, now: u64) -> Option<u32> {
        Some(match number {
            reg::ID if self.x2apic() => self.id,
            reg::ID => self.id << 24,
            reg::VERSION => VERSION,
            reg::TPR => self.tpr.into(),
            reg::APR if !self.x2apic() => 0,
            reg::PPR => self.ppr().into(),
            reg::EOI if !self.x2apic() => 0,
            reg::LDR if self.x2apic() => self.logical_x2(),
            reg::LDR => self.ldr,
            reg::DFR if !self.x2apic() => self.dfr,
            reg::SVR => self.svr,
            reg::ISR..reg::TMR => self.isr.word(number - reg::ISR),
            reg::TMR..reg::IRR => self.tmr.word(number - reg::TMR),
            reg::IRR..=reg::IRR_LAST => self.irr.word(number - reg::IRR),
            reg::ESR => self.esr,
            reg::ICR => self.icr as u32,
            reg::ICR_HIGH if !self.x2apic() => (self.icr >> 32) as u32,
            reg::LVT_TIMER..=reg::LVT_ERROR => self.lvt[(number - reg::LVT_TIMER) as usize],
            reg::INITIAL_COUNT => self.timer.initial,
            reg::CURRENT_COUNT => self.timer.current(self.timer_mode(), now),
            reg::DIVIDE => self.timer.divide,
            _ => return None,
        })
    }

    /// Reads the 64-bit interrupt command register (x2APIC).
    pub(crate) fn icr(&self) -> u64 {
        self.icr
    }

    /// Notes an access to a register that does not exist (xAPIC mode only reports it through ESR).
    pub(crate) fn bad_register(&mut self) {
        self.error(ESR_REGISTER);
    }

    /// Writes register `number`; `None` when there is none that can be written.
    pub(crate) fn write(&mut self, number: u32, value: u32, now: u64) -> Option<Effect> {
        match number {
            reg::ID if !self.x2apic() => {}
            reg::TPR => self.tpr = value as u8,
            reg::EOI => return Some(self.end_of_interrupt()),
            reg::LDR if !self.x2apic() => self.ldr = value & 0xFF00_0000,
            reg::DFR if !self.x2apic() => self.dfr = value | 0x0FFF_FFFF,
            reg::SVR => self.set_spurious(value),
            reg::ESR => self.esr = std::mem::take(&mut self.esr_latched),
            reg::ICR => return Some(self.send(self.icr & !0xFFFF_FFFF | u64::from(value))),
            reg::ICR_HIGH if !self.x2apic() => {
                self.icr = u64::from(value & 0xFF00_0000) << 32 | self.icr & 0xFFFF_FFFF;
            }
            reg::LVT_TIMER..=reg::LVT_ERROR => return Some(self.set_lvt(number, value)),
            reg::INITIAL_COUNT => {
                if self.timer_mode() != Mode::TscDeadline {
                    self.timer.load(value, now);
                }
                return Some(Effect::Timer);
            }
            reg::DIVIDE => {
                self.timer.set_divide(value & 0xB, self.timer_mode(), now);
                return Some(Effect::Timer);
            }
            reg::SELF_IPI if self.x2apic() => {
                return Some(self.send_self(value as u8));
            }
            // Read-only registers of the xAPIC page take writes without effect.
            _ if !self.x2apic() && self.read(number, now).is_some() => {}
            _ => return None,
        }
        Some(Effect::None)
    }

    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.isr.highest() else {
            return Effect::None;
        };
        self.isr.set(vector, false);
        if self.tmr.has(vector) {
            Effect::Eoi(vector)
        } else {
            Effect::None
        }
    }

    fn set_spurious(&mut self, value: u32) {
        self.svr = value & 0x3FF;
        if value & SVR_ENABLE == 0 {
            for lvt in &mut self.lvt {
                *lvt |= LVT_MASKED;
            }
        }
    }

    fn set_lvt(&mut self, number: u32, value: u32) -> Effect {
        let index = (number - reg::LVT_TIMER) as usize;
        let mut value = value & LVT_WRITABLE[index];
        if self.svr & SVR_ENABLE == 0 {
            value |= LVT_MASKED;
        }
        if index != LVT_TIMER {
            self.lvt[index] = value;
            return Effect::None;
        }
        if self.config.tsc_hz.is_none() {
            value &= !(1 << 18);
        }
        let deadline = |lvt: u32| Mode::from_lvt(lvt) == Mode::TscDeadline;
        if deadline(value) != deadline(self.lvt[LVT_TIMER]) {
            self.timer.tsc_deadline = 0;
            self.timer.initial = 0;
        }
        self.lvt[LVT_TIMER] = value;
        Effect::Timer
    }

    /// The SELF IPI register: a fixed vector that leaves ICR alone (SDM 11.12.11).
    fn send_self(&mut self, vector: u8) -> Effect {
        if vector < 16 {
            self.error(ESR_SEND_ILLEGAL);
            return Effect::None;
        }
        let (destination, mode) = (Destination::Itself(self.id), DeliveryMode::Fixed);
        Effect::Send(ApicMessage {
            destination,
            mode,
            vector,
            level_triggered: false,
        })
    }

    /// Writes the interrupt command register as a whole and says what to send (SDM 11.6.1).
    pub(crate) fn send(&mut self, icr: u64) -> Effect {
        let low = icr as u32;
        // Delivery status (bit 12) always reads idle.
        self.icr = icr & !0x1000;
        let Some(mode) = DeliveryMode::from_bits(low >> 8) else {
            return Effect::None;
        };
        let level_triggered = low & (1 << 15) != 0;
        if mode == DeliveryMode::Init && level_triggered && low & (1 << 14) == 0 {
            // INIT level de-assert only ever synchronised arbitration ids.
            return Effect::None;
        }
        let fixed = matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
        let vector = low as u8;
        if fixed && vector < 16 {
            self.error(ESR_SEND_ILLEGAL);
            return Effect::None;
        }
        let logical = low & (1 << 11) != 0;
        let destination = match (low >> 18) & 3 {
            0 if self.x2apic() => Destination::from_x2apic((icr >> 32) as u32, logical),
            0 => Destination::from_xapic((icr >> 56) as u8, logical),
            1 if fixed => Destination::Itself(self.id),
            // The shorthand self is invalid for anything but a vector.
            1 => return Effect::None,
            2 if fixed => Destination::All,
            2 => return Effect::None,
            _ => Destination::AllBut(self.id),
        };
        if mode == DeliveryMode::ExtInt {
            return Effect::None;
        }
        // IPIs are edge triggered whatever bit 15 says (SDM table 11-3).
        Effect::Send(ApicMessage {
            destination,
            mode,
            vector,
            level_triggered: false,
        })
    }
}
