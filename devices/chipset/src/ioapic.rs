// SPDX-License-Identifier: MIT
//! The IO-APIC: 24 pins at 0xFEC00000, version 0x20 with an EOI register (82093AA data sheet; ICH9 data
//! sheet section 13.5).
//!
//! Always true: a level-triggered pin sends again only after its EOI; edges on a masked pin are lost, as
//! the data sheet says. Polarity bits are kept but wires are "asserted or not", so they change nothing.

use crate::lapic::{ApicMessage, DeliveryMode, Destination, EoiTarget, LapicSet};
use crate::lock;
use chipset_device::{Device, LineTarget, MmioDevice};
use std::fmt::Write;
use std::sync::{Arc, Mutex};

/// Number of pins.
pub const PINS: u32 = 24;
/// Guest physical address of the register window.
pub const GPA: u64 = 0xFEC0_0000;
/// Length of the register window.
pub const LEN: u64 = 0x1000;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;
/// 24 entries, version 0x20.
const VERSION: u32 = (PINS - 1) << 16 | 0x20;
const FIRST_ENTRY: u8 = 0x10;

const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Everything but delivery status and remote IRR.
const WRITABLE: u64 = 0xFF00_0000_0001_AFFF;

#[derive(Debug)]
struct State {
    select: u8,
    id: u32,
    entries: [u64; PINS as usize],
    /// Wires now, one bit per pin.
    level: u32,
}

impl State {
    fn new(level: u32) -> Self {
        Self {
            select: 0,
            id: 0,
            entries: [MASKED; PINS as usize],
            level,
        }
    }

    /// What pin `pin` has to send now that something about it changed; marks it as sent.
    fn service_level(&mut self, pin: usize) -> Option<ApicMessage> {
        let entry = &mut self.entries[pin];
        let ready = *entry & (LEVEL | MASKED | REMOTE_IRR) == LEVEL && self.level & (1 << pin) != 0;
        if !ready {
            return None;
        }
        let message = message(*entry)?;
        if matches!(message.mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority) {
            *entry |= REMOTE_IRR;
        }
        Some(message)
    }

    fn set_line(&mut self, pin: usize, level: bool) -> Option<ApicMessage> {
        let bit = 1 << pin;
        let rising = level && self.level & bit == 0;
        self.level = if level {
            self.level | bit
        } else {
            self.level & !bit
        };
        let entry = self.entries[pin];
        match (entry & LEVEL != 0, rising) {
            (true, _) => self.service_level(pin),
            (false, true) if entry & MASKED == 0 => message(entry),
            _ => None,
        }
    }

    fn read_window(&self) -> u32 {
        match self.select {
            0 | 2 => self.id,
            1 => VERSION,
            n => match self.entry_half(n) {
                Some((pin, high)) => (self.entries[pin] >> (32 * u32::from(high))) as u32,
                None => u32::MAX,
            },
        }
    }

    /// Pin and half of entry register `n`.
    fn entry_half(&self, n: u8) -> Option<(usize, bool)> {
        let n = n.checked_sub(FIRST_ENTRY)?;
        let pin = usize::from(n / 2);
        (pin < self.entries.len()).then_some((pin, n & 1 != 0))
    }

    fn write_window(&mut self, value: u32) -> Option<ApicMessage> {
        if self.select == 0 {
            self.id = value & 0x0F00_0000;
            return None;
        }
        let (pin, high) = self.entry_half(self.select)?;
        let old = self.entries[pin];
        let new = match high {
            true => old & 0xFFFF_FFFF | u64::from(value) << 32,
            false => old & !0xFFFF_FFFF | u64::from(value),
        };
        let mut entry = new & WRITABLE | old & REMOTE_IRR;
        if entry & LEVEL == 0 {
            entry &= !REMOTE_IRR;
        }
        self.entries[pin] = entry;
        self.service_level(pin)
    }
}

/// The message that redirection entry `entry` describes; `None` for a reserved delivery mode.
fn message(entry: u64) -> Option<ApicMessage> {
    Some(ApicMessage {
        destination: Destination::from_xapic((entry >> 56) as u8, entry & (1 << 11) != 0),
        mode: DeliveryMode::from_bits((entry >> 8) as u32)?,
        vector: entry as u8,
        level_triggered: entry & LEVEL != 0,
    })
}

/// The IO-APIC.
pub struct IoApic {
    state: Mutex<State>,
    lapics: Arc<LapicSet>,
}

impl IoApic {
    /// The IO-APIC after power on, hearing EOIs of `lapics`.
    pub fn new(lapics: Arc<LapicSet>) -> Arc<Self> {
        let ioapic = Arc::new(Self {
            state: Mutex::new(State::new(0)),
            lapics,
        });
        let target: Arc<dyn EoiTarget> = ioapic.clone();
        ioapic.lapics.connect_eoi(Arc::downgrade(&target));
        ioapic
    }

    /// Its register window.
    pub fn window(self: &Arc<Self>) -> IoApicWindow {
        IoApicWindow { ioapic: self.clone() }
    }

    /// Changes state and sends what that causes, with the lock held: a later EOI must not overtake.
    fn with(&self, f: impl FnOnce(&mut State) -> Option<ApicMessage>) {
        let mut state = lock(&self.state);
        if let Some(message) = f(&mut state) {
            self.lapics.deliver(message);
        }
    }
}

impl LineTarget for IoApic {
    fn set_line(&self, line: u32, level: bool) {
        if line < PINS {
            self.with(|s| s.set_line(line as usize, level));
        }
    }
}

impl EoiTarget for IoApic {
    fn end_of_interrupt(&self, vector: u8) {
        for pin in 0..PINS as usize {
            self.with(|s| {
                let entry = &mut s.entries[pin];
                if *entry as u8 != vector || *entry & (LEVEL | REMOTE_IRR) != LEVEL | REMOTE_IRR {
                    return None;
                }
                *entry &= !REMOTE_IRR;
                s.service_level(pin)
            });
        }
    }
}

/// The register window on the bus.
pub struct IoApicWindow {
    ioapic: Arc<IoApic>,
}

impl Device for IoApicWindow {
    fn reset(&mut self) {
        let mut state = lock(&self.ioapic.state);
        *state = State::new(state.level);
    }

    fn inspect(&self) -> String {
        let state = lock(&self.ioapic.state);
        let mut out = format!("level {:#x}\n", state.level);
        for (pin, entry) in state.entries.iter().enumerate().filter(|(_, e)| **e != MASKED) {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "pin{pin} {entry:#018x}");
        }
        out
    }
}

impl MmioDevice for IoApicWindow {
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]) {
        let state = lock(&self.ioapic.state);
        let value = match offset & !3 {
            SELECT => u32::from(state.select),
            WINDOW => state.read_window(),
            _ => 0,
        };
        let bytes = value.to_le_bytes();
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = bytes.get((offset & 3) as usize + i).copied().unwrap_or(0);
        }
    }

    fn mmio_write(&mut self, offset: u64, data: &[u8]) {
        // The window takes whole registers; select and EOI are bytes at heart.
        let whole = data.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
        match (offset, whole, data.first()) {
            (SELECT, _, Some(&index)) => lock(&self.ioapic.state).select = index,
            (WINDOW, Some(value), _) => self.ioapic.with(|s| s.write_window(value)),
            (EOI, _, Some(&vector)) => self.ioapic.end_of_interrupt(vector),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
