// SPDX-License-Identifier: MIT
//! One channel of the 8254: its six modes as functions of elapsed ticks (data sheet section "Mode
//! definitions").

/// Input clock in Hz.
pub(super) const HZ: u64 = 1_193_182;

/// Ticks of the input clock at clock time `ns`.
pub(super) fn ticks_at(ns: u64) -> u64 {
    (u128::from(ns) * u128::from(HZ) / 1_000_000_000) as u64
}

/// The earliest clock time at which `tick` ticks have passed.
pub(super) fn ns_at(tick: u64) -> u64 {
    (u128::from(tick) * 1_000_000_000).div_ceil(u128::from(HZ)) as u64
}

/// Counting modes 0 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    TerminalCount,
    OneShot,
    Rate,
    Square,
    Strobe,
    TriggeredStrobe,
}

impl Mode {
    fn from_control(control: u8) -> Self {
        match control >> 1 & 7 {
            0 => Self::TerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::Rate,
            3 | 7 => Self::Square,
            4 => Self::Strobe,
            _ => Self::TriggeredStrobe,
        }
    }

    /// Whether a rising gate, not the load, starts counting.
    fn is_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::TriggeredStrobe)
    }
}

/// Which bytes of a count are transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Low,
    High,
    Both,
}

/// One channel.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    pub(super) mode: Mode,
    /// Control word bits 5:0, for the status byte.
    control: u8,
    access: Access,
    /// Binary count as written; 0 is the largest.
    count_register: u16,
    /// First byte of a two-byte write.
    low_byte: Option<u8>,
    /// The next read of a two-byte count gives the high byte.
    read_high: bool,
    gate: bool,
    /// Tick at which counting started; `None` before a load or trigger.
    start: Option<u64>,
    /// Ticks counted when the gate stopped modes 0 and 4.
    held: Option<u64>,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// A control word was written and no count yet.
    null_count: bool,
}

impl Channel {
    pub(super) fn new(gate: bool) -> Self {
        Self {
            mode: Mode::TerminalCount,
            control: 0x30,
            access: Access::Both,
            count_register: 0,
            low_byte: None,
            read_high: false,
            gate,
            start: None,
            held: None,
            latched_count: None,
            latched_status: None,
            null_count: true,
        }
    }

    fn is_bcd(&self) -> bool {
        self.control & 1 != 0
    }

    /// Ticks per count-down.
    pub(super) fn reload(&self) -> u32 {
        let max = if self.is_bcd() { 10_000 } else { 0x1_0000 };
        match (self.count_register, self.is_bcd()) {
            (0, _) => max,
            (n, false) => n.into(),
            (n, true) => (0..4)
                .rev()
                .fold(0, |v, i| v * 10 + u32::from(n >> (4 * i) & 0xF).min(9))
                .max(1),
        }
    }

    fn elapsed(&self, now: u64) -> Option<u64> {
        self.held.or_else(|| Some(now.saturating_sub(self.start?)))
    }

    pub(super) fn is_periodic(&self) -> bool {
        matches!(self.mode, Mode::Rate | Mode::Square)
    }

    /// The counter as a binary number.
    pub(super) fn count(&self, now: u64) -> u16 {
        let reload = u64::from(self.reload());
        let Some(elapsed) = self.elapsed(now) else {
            return self.count_register;
        };
        let wrap = if self.is_bcd() { 10_000 } else { 0x1_0000 };
        let count = match self.mode {
            Mode::Rate => reload - elapsed % reload,
            // Decrements by two, once per half of the period.
            Mode::Square => {
                let half = reload.div_ceil(2);
                let phase = elapsed % reload;
                let phase = if phase >= half { phase - half } else { phase };
                (reload & !1).saturating_sub(2 * phase)
            }
            _ => (reload + wrap - elapsed % wrap) % wrap,
        };
        count as u16
    }

    /// The output pin.
    pub(super) fn output(&self, now: u64) -> bool {
        let reload = u64::from(self.reload());
        let Some(elapsed) = self.elapsed(now) else {
            return self.mode != Mode::TerminalCount;
        };
        match self.mode {
            Mode::TerminalCount | Mode::OneShot => elapsed >= reload,
            Mode::Rate => !self.gate || elapsed % reload != reload - 1,
            Mode::Square => !self.gate || elapsed % reload < reload.div_ceil(2),
            Mode::Strobe | Mode::TriggeredStrobe => elapsed != reload,
        }
    }

    /// The next tick after `now` at which the output rises.
    pub(super) fn next_edge(&self, now: u64) -> Option<u64> {
        let start = self
            .start
            .filter(|_| self.held.is_none() && (self.gate || !self.is_periodic()))?;
        let reload = u64::from(self.reload());
        if self.is_periodic() {
            let periods = now.saturating_sub(start) / reload + 1;
            return Some(start.saturating_add(periods.saturating_mul(reload)));
        }
        Some(start.saturating_add(reload)).filter(|&edge| edge > now)
    }

    /// Whether the first rising edge since the load has passed.
    pub(super) fn has_reached_edge(&self, now: u64) -> bool {
        self.held.is_none()
            && self
                .start
                .is_some_and(|s| now >= s.saturating_add(self.reload().into()))
    }

    pub(super) fn latch_count(&mut self, now: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.guest_count(now));
        }
    }

    pub(super) fn latch_status(&mut self, now: u64) {
        let status = self.control & 0x3F | u8::from(self.null_count) << 6 | u8::from(self.output(now)) << 7;
        self.latched_status.get_or_insert(status);
    }

    /// The count as the guest reads it: binary or four decimal digits.
    fn guest_count(&self, now: u64) -> u16 {
        let count = self.count(now);
        if !self.is_bcd() {
            return count;
        }
        let digit = |n: u16, d: u16| n / d % 10;
        digit(count, 1000) << 12 | digit(count, 100) << 8 | digit(count, 10) << 4 | digit(count, 1)
    }

    pub(super) fn set_control(&mut self, value: u8) {
        *self = Self {
            mode: Mode::from_control(value),
            control: value & 0x3F,
            access: match value >> 4 & 3 {
                1 => Access::Low,
                2 => Access::High,
                _ => Access::Both,
            },
            ..Self::new(self.gate)
        };
    }

    pub(super) fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self
            .latched_count
            .unwrap_or_else(|| self.guest_count(now))
            .to_le_bytes();
        let (byte, last) = match (self.access, self.read_high) {
            (Access::Low, _) => (low, true),
            (Access::High, _) => (high, true),
            (Access::Both, false) => (low, false),
            (Access::Both, true) => (high, true),
        };
        self.read_high = !last;
        if last {
            self.latched_count = None;
        }
        byte
    }

    pub(super) fn write(&mut self, value: u8, now: u64) {
        let count = match (self.access, self.low_byte.take()) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::Both, Some(low)) => u16::from_le_bytes([low, value]),
            (Access::Both, None) => {
                self.low_byte = Some(value);
                if self.mode == Mode::TerminalCount {
                    // The first byte stops the count and drops the output.
                    self.start = None;
                    self.held = None;
                }
                return;
            }
        };
        self.load(count, now);
    }

    fn load(&mut self, count: u16, now: u64) {
        self.count_register = count;
        self.null_count = false;
        self.held = None;
        if self.mode.is_triggered() {
            self.start = None;
            return;
        }
        self.start = Some(now);
        if !self.gate && !self.is_periodic() {
            self.held = Some(0);
        }
    }

    pub(super) fn set_gate(&mut self, gate: bool, now: u64) {
        let (rising, falling) = (gate && !self.gate, !gate && self.gate);
        self.gate = gate;
        if rising && (self.mode.is_triggered() || self.is_periodic()) && !self.null_count {
            self.start = Some(now);
        } else if rising && let Some(held) = self.held.take() {
            self.start = Some(now.saturating_sub(held));
        } else if falling && matches!(self.mode, Mode::TerminalCount | Mode::Strobe) {
            self.held = self.elapsed(now);
        }
    }
}
