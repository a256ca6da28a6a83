// SPDX-License-Identifier: MIT
//! The 8254 interval timer, channels 0 to 2, and port 0x61 (Intel 8254 data sheet).
//!
//! Always true: counts and outputs are functions of the clock at 1.193182 MHz; periodic interrupts stay in
//! phase with the load, and ones that were missed are dropped. Channel 0 drives a line, channel 2's gate
//! and output are at port 0x61.

mod channel;

use channel::{Channel, Mode, ns_at, ticks_at};
use chipset_device::{Clock, Device, InterruptLine, PortDevice, Timed, TimerHandle};
use std::fmt::Write;
use std::sync::{Arc, Mutex};

/// Ports of the 8254 (at 0x40).
pub const PORTS: u16 = 4;
/// Interrupts closer together than this are merged.
const MIN_INTERVAL_NS: u64 = 10_000;
/// Half period of the DRAM refresh signal in bit 4 of port 0x61.
const REFRESH_NS: u64 = 15_085;
const CONTROL: u16 = 3;

/// The 8254.
pub struct Pit {
    channels: [Channel; 3],
    /// Bits 1:0 of port 0x61: speaker data and gate of channel 2.
    speaker: u8,
    clock: Arc<Clock>,
    timer: TimerHandle,
    line: InterruptLine,
}

impl Pit {
    /// The 8254 after power on, channel 0 driving `line`. Connect `timer` to the mutex that it is put in.
    pub fn new(clock: Arc<Clock>, timer: TimerHandle, line: InterruptLine) -> Self {
        let channels = [Channel::new(true), Channel::new(true), Channel::new(false)];
        Self {
            channels,
            speaker: 0,
            clock,
            timer,
            line,
        }
    }

    fn now(&self) -> u64 {
        ticks_at(self.clock.now())
    }

    /// Sets the line of a mode that holds its output, and arms for channel 0's next rising edge after
    /// clock `from`.
    fn update(&mut self, from: u64) {
        let channel = &self.channels[0];
        if channel.mode == Mode::TerminalCount {
            self.line.set(channel.output(self.now()));
        } else {
            self.line.set(false);
        }
        match channel.next_edge(ticks_at(from)) {
            Some(tick) => self.timer.arm(ns_at(tick)),
            None => self.timer.disarm(),
        }
    }

    fn read_back(&mut self, value: u8) {
        let now = self.now();
        for (i, channel) in self.channels.iter_mut().enumerate() {
            if value & (2 << i) == 0 {
                continue;
            }
            if value & 0x20 == 0 {
                channel.latch_count(now);
            }
            if value & 0x10 == 0 {
                channel.latch_status(now);
            }
        }
    }

    fn control(&mut self, value: u8) {
        let now = self.now();
        match usize::from(value >> 6) {
            3 => self.read_back(value),
            n if value & 0x30 == 0 => self.channels[n].latch_count(now),
            n => self.channels[n].set_control(value),
        }
    }

    fn read_speaker(&self) -> u8 {
        let refresh = u8::from(!(self.clock.now() / REFRESH_NS).is_multiple_of(2));
        let output = u8::from(self.channels[2].output(self.now()));
        self.speaker | refresh << 4 | output << 5
    }

    fn write_speaker(&mut self, value: u8) {
        self.speaker = value & 3;
        let now = self.now();
        self.channels[2].set_gate(value & 1 != 0, now);
    }
}

impl Device for Pit {
    fn reset(&mut self) {
        self.channels = [Channel::new(true), Channel::new(true), Channel::new(false)];
        self.speaker = 0;
        self.line.set(false);
        self.timer.disarm();
    }

    fn inspect(&self) -> String {
        let mut out = String::new();
        let now = self.now();
        for (i, c) in self.channels.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "channel{i} mode {:?} reload {} count {} output {}",
                c.mode,
                c.reload(),
                c.count(now),
                c.output(now)
            );
        }
        out
    }
}

impl PortDevice for Pit {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        let now = self.now();
        let value = match self.channels.get_mut(usize::from(offset)) {
            Some(channel) => channel.read(now),
            // The control register is write-only.
            None => 0xFF,
        };
        data.fill(value);
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        let now = self.now();
        if offset == CONTROL {
            self.control(value);
        } else if let Some(channel) = self.channels.get_mut(usize::from(offset)) {
            channel.write(value, now);
        }
        // Latching and the other channels do not disturb channel 0's deadline.
        if offset == 0 || (offset == CONTROL && value >> 6 == 0 && value & 0x30 != 0) {
            self.update(self.clock.now());
        }
    }
}

impl Timed for Pit {
    fn timer_fired(&mut self, _id: u32, now: u64) {
        let channel = &self.channels[0];
        if !channel.has_reached_edge(ticks_at(now)) {
            // Loaded again since the deadline was taken off the queue.
            return;
        }
        if channel.mode == Mode::TerminalCount {
            self.line.set(true);
        } else {
            self.line.pulse();
        }
        if channel.is_periodic() {
            let short = u64::from(channel.reload()) < ticks_at(MIN_INTERVAL_NS);
            let from = if short { now + MIN_INTERVAL_NS } else { now };
            self.update(from);
        }
    }
}

/// Port 0x61: speaker, gate and output of channel 2, refresh toggle.
pub struct SpeakerPort {
    pit: Arc<Mutex<Pit>>,
}

impl SpeakerPort {
    /// The port of `pit`.
    pub fn new(pit: Arc<Mutex<Pit>>) -> Self {
        Self { pit }
    }
}

impl Device for SpeakerPort {
    /// The bits are the 8254's and reset with it.
    fn reset(&mut self) {}
}

impl PortDevice for SpeakerPort {
    fn port_read(&mut self, _offset: u16, data: &mut [u8]) {
        data.fill(crate::lock(&self.pit).read_speaker());
    }

    fn port_write(&mut self, _offset: u16, data: &[u8]) {
        if let Some(&value) = data.first() {
            crate::lock(&self.pit).write_speaker(value);
        }
    }
}

#[cfg(test)]
mod tests;
