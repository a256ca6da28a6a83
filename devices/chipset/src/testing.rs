// SPDX-License-Identifier: MIT
//! What the tests of every device need: a clock that they move, and recorders of what devices do.

use crate::lapic::{LapicConfig, LapicSet, LapicWorld};
use crate::lock;
use crate::machine::World;
use crate::uart::SerialIo;
use chipset_device::{
    Clock, InterruptLine, LineTarget, PortDevice, PowerRequest, PowerSink, TimerQueue, VpIndex, VpWake,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// A partition of which only the clock is real.
pub(crate) struct Bench {
    pub(crate) clock: Arc<Clock>,
    pub(crate) timers: Arc<TimerQueue>,
    pub(crate) record: Arc<Record>,
}

/// Everything that devices asked for.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) wakes: Mutex<Vec<VpIndex>>,
    pub(crate) power: Mutex<Vec<PowerRequest>>,
    /// Changes of lines: line and level.
    pub(crate) lines: Mutex<Vec<(u32, bool)>>,
    pub(crate) output: Mutex<Vec<u8>>,
    pub(crate) input: Mutex<VecDeque<u8>>,
}

impl Record {
    /// Changes of lines since the last call.
    pub(crate) fn take_lines(&self) -> Vec<(u32, bool)> {
        std::mem::take(&mut lock(&self.lines))
    }

    /// Rising edges of `line` since the last call; forgets every other change.
    pub(crate) fn take_edges(&self, line: u32) -> usize {
        self.take_lines().iter().filter(|l| **l == (line, true)).count()
    }

    pub(crate) fn level(&self, line: u32) -> bool {
        lock(&self.lines)
            .iter()
            .rev()
            .find(|l| l.0 == line)
            .is_some_and(|l| l.1)
    }
}

impl VpWake for Record {
    fn wake(&self, vp: VpIndex) {
        lock(&self.wakes).push(vp);
    }
}

impl PowerSink for Record {
    fn request(&self, request: PowerRequest) {
        lock(&self.power).push(request);
    }
}

impl LineTarget for Record {
    fn set_line(&self, line: u32, level: bool) {
        if self.level(line) != level {
            lock(&self.lines).push((line, level));
        }
    }
}

impl SerialIo for Record {
    fn output(&self, byte: u8) {
        lock(&self.output).push(byte);
    }

    fn input(&self, buffer: &mut [u8]) -> usize {
        let mut input = lock(&self.input);
        let n = buffer.len().min(input.len());
        buffer
            .iter_mut()
            .zip(input.drain(..n))
            .for_each(|(to, from)| *to = from);
        n
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            clock: Arc::new(Clock::deterministic()),
            timers: TimerQueue::new(),
            record: Arc::new(Record::default()),
        }
    }

    pub(crate) fn world(&self) -> World {
        World {
            clock: self.clock.clone(),
            timers: self.timers.clone(),
            wake: self.record.clone(),
            power: self.record.clone(),
        }
    }

    pub(crate) fn line(&self, line: u32) -> InterruptLine {
        InterruptLine::new(self.record.clone(), line)
    }

    pub(crate) fn lapics(&self, count: u32, config: LapicConfig) -> Arc<LapicSet> {
        let world = LapicWorld {
            clock: self.clock.clone(),
            timers: self.timers.clone(),
            wake: self.record.clone(),
            phys_bits: 39,
        };
        LapicSet::new(count, config, world)
    }

    /// Lets `ns` pass, firing every deadline at its own time.
    pub(crate) fn advance(&self, ns: u64) {
        let end = self.clock.now() + ns;
        while let Some(deadline) = self.timers.next_deadline().filter(|&d| d <= end) {
            self.clock.advance_to(deadline);
            self.timers.fire_due(self.clock.now());
        }
        self.clock.advance_to(end);
    }

    /// Lets `ns` pass with nobody looking, then fires once, as after a host that was busy.
    pub(crate) fn skip(&self, ns: u64) {
        self.clock.advance_to(self.clock.now() + ns);
        self.timers.fire_due(self.clock.now());
    }
}

/// IN of one byte.
pub(crate) fn inb(device: &mut dyn PortDevice, offset: u16) -> u8 {
    let mut data = [0];
    device.port_read(offset, &mut data);
    data[0]
}

/// OUT of one byte.
pub(crate) fn outb(device: &mut dyn PortDevice, offset: u16, value: u8) {
    device.port_write(offset, &[value]);
}
