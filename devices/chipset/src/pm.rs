// SPDX-License-Identifier: MIT
//! The ACPI fixed hardware block: PM1a event and control, PM timer, GPE0 (ACPI 6.5 section 4.8).
//!
//! Always true: offsets are those of the block; where it sits and how its interrupt is routed is the
//! machine's. The SCI is level triggered and follows enabled status bits while SCI_EN is set.
//! The sleep control register of msvm-machine section 11 (0x405) is the high byte of PM1a control: bit 5
//! there is SLP_EN.

use chipset_device::{
    Clock, Device, InterruptLine, LogBudget, PortDevice, PowerRequest, PowerSink, Timed, TimerHandle,
};
use std::sync::Arc;

/// PM timer frequency in Hz.
pub const PM_TIMER_HZ: u64 = 3_579_545;

const STATUS: u16 = 0;
const ENABLE: u16 = 2;
const CONTROL: u16 = 4;
const TIMER: u16 = 8;

/// PM1 status and enable bits that exist.
const TIMER_CARRY: u16 = 1;
const POWER_BUTTON: u16 = 1 << 8;
const WAKE: u16 = 1 << 15;
const STATUS_BITS: u16 = TIMER_CARRY | 1 << 5 | POWER_BUTTON | 1 << 9 | 1 << 10 | WAKE;
const ENABLE_BITS: u16 = TIMER_CARRY | 1 << 5 | POWER_BUTTON | 1 << 10;
const SCI_EN: u16 = 1;
/// SLP_TYP (bits 12:10) of S5 in the tables of every machine here.
const SLEEP_TYPE_SOFT_OFF: u16 = 0;
const SLP_EN: u16 = 1 << 13;
/// Control bits that read back: SCI_EN, BM_RLD, SLP_TYP.
const CONTROL_BITS: u16 = SCI_EN | 1 << 1 | 7 << 10;

/// Where the parts of a block are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PmLayout {
    /// Length of the block in ports.
    pub len: u16,
    /// Offset of GPE0 status; enable follows after [`PmLayout::gpe_bytes`].
    pub gpe: u16,
    /// Bytes of GPE0 status, 1 to 8.
    pub gpe_bytes: u16,
    /// Width of the PM timer: 24 or 32 bits (FADT flag TMR_VAL_EXT).
    pub timer_bits: u32,
    /// SCI_EN is set after reset (no SMI command port).
    pub acpi_mode: bool,
}

impl PmLayout {
    /// 16 ports, GPE0 at 0xC (msvm-machine section 11).
    pub const HYPERV: Self = Self {
        len: 0x10,
        gpe: 0xC,
        gpe_bytes: 2,
        timer_bits: 32,
        acpi_mode: true,
    };
    /// 128 ports, GPE0 at 0x20 (ICH9).
    pub const ICH9: Self = Self {
        len: 0x80,
        gpe: 0x20,
        gpe_bytes: 8,
        timer_bits: 24,
        acpi_mode: false,
    };
}

#[derive(Debug, Default)]
struct State {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u64,
    gpe_enable: u64,
    /// PM timer ticks up to which carries have been noticed.
    seen_ticks: u64,
}

/// One block.
pub struct PowerManagement {
    layout: PmLayout,
    state: State,
    clock: Arc<Clock>,
    timer: TimerHandle,
    sci: InterruptLine,
    power: Arc<dyn PowerSink>,
    log: LogBudget,
}

impl PowerManagement {
    /// A block after power on. Connect `timer` to the mutex that the block is put in.
    pub fn new(
        layout: PmLayout,
        clock: Arc<Clock>,
        timer: TimerHandle,
        sci: InterruptLine,
        power: Arc<dyn PowerSink>,
    ) -> Self {
        let mut pm = Self {
            layout,
            state: State::default(),
            clock,
            timer,
            sci,
            power,
            log: LogBudget::default(),
        };
        pm.power_on();
        pm
    }

    fn power_on(&mut self) {
        self.state = State {
            seen_ticks: self.ticks(),
            ..State::default()
        };
        if self.layout.acpi_mode {
            self.state.control = SCI_EN;
        }
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self) {
        self.state.status |= POWER_BUTTON;
        self.update();
    }

    /// Raises general purpose event `index`.
    pub fn raise_gpe(&mut self, index: u8) {
        if u16::from(index) < self.layout.gpe_bytes * 8 {
            self.state.gpe_status |= 1 << index;
            self.update();
        }
    }

    fn ticks(&self) -> u64 {
        (u128::from(self.clock.now()) * u128::from(PM_TIMER_HZ) / 1_000_000_000) as u64
    }

    /// The timer register.
    fn timer_value(&self) -> u32 {
        (self.ticks() & ((1 << self.layout.timer_bits) - 1)) as u32
    }

    /// Sets the carry status when the timer's top bit has changed since the last look (ACPI 4.8.3.1.1).
    fn notice_carry(&mut self) {
        let now = self.ticks();
        let top = self.layout.timer_bits - 1;
        if now >> top != self.state.seen_ticks >> top {
            self.state.status |= TIMER_CARRY;
        }
        self.state.seen_ticks = now;
    }

    fn update(&mut self) {
        let s = &self.state;
        let pending = s.status & s.enable & ENABLE_BITS != 0 || s.gpe_status & s.gpe_enable != 0;
        self.sci.set(pending && s.control & SCI_EN != 0);
        if s.enable & TIMER_CARRY != 0 && s.status & TIMER_CARRY == 0 {
            let top = self.layout.timer_bits - 1;
            let next = ((s.seen_ticks >> top) + 1) << top;
            let ns = (u128::from(next) * 1_000_000_000).div_ceil(u128::from(PM_TIMER_HZ));
            self.timer.arm(ns as u64);
        } else {
            self.timer.disarm();
        }
    }

    fn read_byte(&mut self, offset: u16) -> u8 {
        let half = |value: u16| value.to_le_bytes()[usize::from(offset & 1)];
        match offset {
            STATUS..ENABLE => {
                self.notice_carry();
                half(self.state.status)
            }
            ENABLE..CONTROL => half(self.state.enable),
            // Only the first two bytes of the control register exist; the other two read zero.
            CONTROL | 5 => half(self.state.control),
            6 | 7 => 0,
            TIMER..=0xB => self.timer_value().to_le_bytes()[usize::from(offset & 3)],
            _ => match self.gpe_index(offset) {
                Some((false, i)) => self.state.gpe_status.to_le_bytes()[i],
                Some((true, i)) => self.state.gpe_enable.to_le_bytes()[i],
                None => 0,
            },
        }
    }

    /// Whether `offset` is a GPE0 enable byte, and which byte.
    fn gpe_index(&self, offset: u16) -> Option<(bool, usize)> {
        let i = offset.checked_sub(self.layout.gpe)?;
        let n = self.layout.gpe_bytes;
        (i < 2 * n).then_some((i >= n, usize::from(i % n)))
    }

    fn write_byte(&mut self, offset: u16, value: u8) {
        let shift = (offset & 1) * 8;
        let wide = u16::from(value) << shift;
        let keep = !(0xFF << shift);
        match offset {
            STATUS..ENABLE => self.state.status &= !(wide & STATUS_BITS),
            ENABLE..CONTROL => self.state.enable = (self.state.enable & keep | wide) & ENABLE_BITS,
            CONTROL | 5 => {
                self.state.control = (self.state.control & keep | wide) & CONTROL_BITS;
                if wide & SLP_EN != 0 {
                    self.sleep();
                }
            }
            _ => {
                if let Some((enable, i)) = self.gpe_index(offset) {
                    let (mask, bits) = (0xFFu64 << (8 * i), u64::from(value) << (8 * i));
                    if enable {
                        self.state.gpe_enable = self.state.gpe_enable & !mask | bits;
                    } else {
                        self.state.gpe_status &= !bits;
                    }
                }
            }
        }
    }

    fn sleep(&mut self) {
        let kind = self.state.control >> 10 & 7;
        if kind == SLEEP_TYPE_SOFT_OFF {
            self.power.request(PowerRequest::Shutdown);
        } else {
            // The tables name no other sleep state; a wake at once is what a machine without them does.
            let text = || format!("guest asked for sleep type {kind}; only soft off (0) exists here");
            if let Some(line) = self.log.line(text) {
                tracing::warn!("{line}");
            }
            self.state.status |= WAKE;
        }
    }
}

impl Device for PowerManagement {
    fn reset(&mut self) {
        self.power_on();
        self.update();
        self.log.refill();
    }

    fn inspect(&self) -> String {
        let s = &self.state;
        format!(
            "pm1_status {:#06x}\npm1_enable {:#06x}\npm1_control {:#06x}\ntimer {:#x}\ngpe_status {:#x}\ngpe_enable {:#x}\n",
            s.status,
            s.enable,
            s.control,
            self.timer_value(),
            s.gpe_status,
            s.gpe_enable
        )
    }
}

impl PortDevice for PowerManagement {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        if offset == TIMER && data.len() == 4 {
            data.copy_from_slice(&self.timer_value().to_le_bytes());
            return;
        }
        for (i, byte) in (0..).zip(data) {
            *byte = self.read_byte(offset.wrapping_add(i));
        }
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        for (i, &byte) in (0..).zip(data) {
            self.write_byte(offset.wrapping_add(i), byte);
        }
        self.notice_carry();
        self.update();
    }
}

impl Timed for PowerManagement {
    fn timer_fired(&mut self, _id: u32, _now: u64) {
        self.notice_carry();
        self.update();
    }
}

#[cfg(test)]
mod tests;
