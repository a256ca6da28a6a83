// SPDX-License-Identifier: MIT
//! The MC146818 real-time clock with 128 bytes of CMOS RAM (Motorola MC146818A data sheet; the memory-size
//! bytes as in ovmf-machine section 1.5).
//!
//! Always true: the time is the clock's wall time plus what the guest set; it stands still while the
//! guest holds SET. Flags in register C are worked out when somebody looks or an enabled interrupt is
//! due. RAM and the guest's clock setting survive a reset, as they survive one in a battery-backed part.

mod calendar;

use calendar::TimeRegisters;
use chipset_device::{Clock, Device, InterruptLine, PortDevice, Timed, TimerHandle};
use std::sync::Arc;

/// Ports: index and data (at 0x70).
pub const PORTS: u16 = 2;

const SECOND: u64 = 1_000_000_000;
/// An update takes 1984 us and is announced 244 us before (data sheet table 7).
const UPDATE_NS: u64 = 2_228_000;
/// Alarm bytes from 0xC0 up match everything.
const ANY: u8 = 0xC0;

const A: u8 = 0x0A;
const B: u8 = 0x0B;
const C: u8 = 0x0C;
const D: u8 = 0x0D;
const CENTURY: u8 = 0x32;

const A_UPDATING: u8 = 0x80;
/// Divider field that lets the clock run from 32768 Hz.
const A_RUNNING: u8 = 0x20;
const A_RESET: u8 = 0x26;
const B_SET: u8 = 0x80;
const B_RESET: u8 = 0x02;
/// Interrupt enables of B and flags of C: periodic, alarm, update ended.
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATED: u8 = 0x10;
const INTERRUPTS: u8 = PERIODIC | ALARM | UPDATED;
const C_REQUEST: u8 = 0x80;
/// D: time and RAM are valid.
const D_VALID: u8 = 0x80;

/// What the memory-size bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CmosMemory {
    /// RAM below 4 GiB in bytes, counted from 0.
    pub below_4g: u64,
    /// RAM above 4 GiB in bytes.
    pub above_4g: u64,
}

impl CmosMemory {
    fn write(self, ram: &mut [u8; 128]) {
        let words = [
            (0x15, 640),
            (0x17, (self.below_4g.saturating_sub(1 << 20) >> 10).min(0xFFFF)),
            (0x30, (self.below_4g.saturating_sub(1 << 20) >> 10).min(0xFFFF)),
            (0x34, (self.below_4g.saturating_sub(16 << 20) >> 16).min(0xFFFF)),
        ];
        for (at, value) in words {
            ram[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
        }
        let above = (self.above_4g >> 16).min(0xFF_FFFF) as u32;
        ram[0x5B..0x5E].copy_from_slice(&above.to_le_bytes()[..3]);
    }
}

#[derive(Debug)]
struct State {
    index: u8,
    a: u8,
    b: u8,
    /// Flags of C that have been noticed and not read.
    flags: u8,
    /// Second, minute and hour alarm.
    alarm: [u8; 3],
    /// Wall nanoseconds up to which flags have been noticed.
    seen: u64,
    /// What the registers hold while SET is.
    frozen: Option<TimeRegisters>,
}

/// The real-time clock.
pub struct Rtc {
    state: State,
    ram: [u8; 128],
    /// Guest time minus wall time in seconds.
    offset: i64,
    clock: Arc<Clock>,
    timer: TimerHandle,
    line: InterruptLine,
}

impl Rtc {
    /// The clock at wall time, interrupting on `line`. Connect `timer` to the mutex that it is put in.
    pub fn new(memory: CmosMemory, clock: Arc<Clock>, timer: TimerHandle, line: InterruptLine) -> Self {
        let mut ram = [0; 128];
        memory.write(&mut ram);
        let state = Self::power_on(clock.wall());
        Self {
            state,
            ram,
            offset: 0,
            clock,
            timer,
            line,
        }
    }

    fn power_on(seen: u64) -> State {
        State {
            index: 0,
            a: A_RESET,
            b: B_RESET,
            flags: 0,
            alarm: [0; 3],
            seen,
            frozen: None,
        }
    }

    fn epoch(&self, wall: u64) -> i64 {
        (wall / SECOND) as i64 + self.offset
    }

    fn running(&self) -> bool {
        self.state.a & 0x70 == A_RUNNING && self.state.b & B_SET == 0
    }

    /// Nanoseconds between periodic events, if there are any.
    fn period(&self) -> Option<u64> {
        let shift = match self.state.a & 0xF {
            0 => return None,
            n @ (1 | 2) => n + 6,
            n => n - 1,
        };
        // All sixteen rates divide 15.625 ms or are a multiple of it; 32768 Hz is 30517.578125 ns.
        Some((SECOND << shift) / 32_768)
    }

    fn registers(&self) -> TimeRegisters {
        self.state
            .frozen
            .unwrap_or_else(|| TimeRegisters::from_epoch(self.epoch(self.clock.wall()), self.state.b))
    }

    fn alarm_matches(&self, epoch: i64) -> bool {
        let now = TimeRegisters::from_epoch(epoch, self.state.b);
        let pairs = self.state.alarm.iter().zip([now.second, now.minute, now.hour]);
        pairs
            .into_iter()
            .all(|(&alarm, now)| alarm >= ANY || alarm == now)
    }

    /// Sets the flags of everything that happened since the last look.
    fn notice(&mut self) {
        let (last, now) = (self.state.seen, self.clock.wall());
        self.state.seen = now;
        if let Some(period) = self.period()
            && last / period != now / period
        {
            self.state.flags |= PERIODIC;
        }
        if !self.running() || last / SECOND == now / SECOND {
            return;
        }
        self.state.flags |= UPDATED;
        // A day has every alarm, so looking further back is idle.
        let first = self.epoch(last).saturating_add(1).max(self.epoch(now) - 86_400);
        if (first..=self.epoch(now)).any(|second| self.alarm_matches(second)) {
            self.state.flags |= ALARM;
        }
    }

    /// Drives the line and arms for the next event whose interrupt is enabled.
    fn update(&mut self) {
        let (enabled, flags) = (self.state.b & INTERRUPTS, self.state.flags);
        self.line.set(enabled & flags != 0);
        let waiting = enabled & !flags;
        let mut next = None::<u64>;
        let mut consider = |at: u64| next = Some(next.map_or(at, |n| n.min(at)));
        if waiting & PERIODIC != 0
            && let Some(period) = self.period()
        {
            consider((self.state.seen / period + 1) * period);
        }
        if waiting & (ALARM | UPDATED) != 0 && self.running() {
            consider((self.state.seen / SECOND + 1) * SECOND);
        }
        match next {
            Some(wall) => {
                let epoch = self.clock.wall() - self.clock.now();
                self.timer.arm(wall.saturating_sub(epoch));
            }
            None => self.timer.disarm(),
        }
    }

    fn read_a(&self) -> u8 {
        let into_second = self.clock.wall() % SECOND;
        let updating = self.running() && into_second >= SECOND - UPDATE_NS;
        self.state.a | if updating { A_UPDATING } else { 0 }
    }

    fn read_c(&mut self) -> u8 {
        self.notice();
        let flags = std::mem::take(&mut self.state.flags);
        let request = if flags & self.state.b & INTERRUPTS != 0 {
            C_REQUEST
        } else {
            0
        };
        self.update();
        flags | request
    }

    fn read_register(&mut self, index: u8) -> u8 {
        let time = || self.registers();
        match index {
            0 => time().second,
            2 => time().minute,
            4 => time().hour,
            6 => time().weekday,
            7 => time().day,
            8 => time().month,
            9 => time().year,
            CENTURY => time().century,
            1 | 3 | 5 => self.state.alarm[usize::from(index / 2)],
            A => self.read_a(),
            B => self.state.b,
            C => self.read_c(),
            D => D_VALID,
            _ => self.ram[usize::from(index & 0x7F)],
        }
    }

    /// Changes one time register; without SET the clock goes on from there.
    fn write_time(&mut self, change: impl FnOnce(&mut TimeRegisters)) {
        let mut time = self.registers();
        change(&mut time);
        match &mut self.state.frozen {
            Some(frozen) => *frozen = time,
            None => self.set_time(time),
        }
    }

    fn set_time(&mut self, time: TimeRegisters) {
        self.offset += time.to_epoch(self.state.b) - self.epoch(self.clock.wall());
    }

    fn write_b(&mut self, value: u8) {
        self.notice();
        let was_set = self.state.b & B_SET != 0;
        if value & B_SET != 0 && !was_set {
            self.state.frozen = Some(self.registers());
        }
        self.state.b = value;
        if value & B_SET != 0 {
            // Setting SET clears the update interrupt enable (data sheet, register B).
            self.state.b &= !UPDATED;
        } else if let Some(time) = self.state.frozen.take() {
            self.set_time(time);
        }
        self.update();
    }

    fn write_register(&mut self, index: u8, value: u8) {
        match index {
            0 => self.write_time(|t| t.second = value),
            2 => self.write_time(|t| t.minute = value),
            4 => self.write_time(|t| t.hour = value),
            // The day of the week follows from the date.
            6 => {}
            7 => self.write_time(|t| t.day = value),
            8 => self.write_time(|t| t.month = value),
            9 => self.write_time(|t| t.year = value),
            CENTURY => self.write_time(|t| t.century = value),
            1 | 3 | 5 => {
                self.notice();
                self.state.alarm[usize::from(index / 2)] = value;
                self.update();
            }
            A => {
                self.notice();
                self.state.a = value & !A_UPDATING;
                self.update();
            }
            B => self.write_b(value),
            C | D => {}
            _ => self.ram[usize::from(index & 0x7F)] = value,
        }
    }
}

impl Device for Rtc {
    fn reset(&mut self) {
        self.state = Self::power_on(self.clock.wall());
        self.update();
    }

    fn inspect(&self) -> String {
        let t = TimeRegisters::from_epoch(self.epoch(self.clock.wall()), 2);
        let s = &self.state;
        format!(
            "time {:02x}{:02x}-{:02x}-{:02x} {:02x}:{:02x}:{:02x}\na {:#04x}\nb {:#04x}\nflags {:#04x}\nalarm {:02x?}\n",
            t.century, t.year, t.month, t.day, t.hour, t.minute, t.second, s.a, s.b, s.flags, s.alarm
        )
    }
}

impl PortDevice for Rtc {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        let value = match offset {
            0 => self.state.index,
            _ => self.read_register(self.state.index & 0x7F),
        };
        data.fill(value);
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        match (offset, data.first()) {
            // Bit 7 masks NMIs on a PC; none come through here.
            (0, Some(&index)) => self.state.index = index,
            (_, Some(&value)) => self.write_register(self.state.index & 0x7F, value),
            _ => {}
        }
    }
}

impl Timed for Rtc {
    fn timer_fired(&mut self, _id: u32, _now: u64) {
        self.notice();
        self.update();
    }
}

#[cfg(test)]
mod tests;
