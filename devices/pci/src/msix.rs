// SPDX-License-Identifier: MIT
//! MSI-X: a table of messages in a BAR (PCI Local Bus 3.0 section 6.8.2).
//!
//! Always true: a message that cannot be sent because something masks it becomes a pending bit, and is sent
//! once when nothing masks it any more.

use crate::lock;
use chipset_device::{Device, MmioDevice, MsiTarget};
use std::sync::{Arc, Mutex};

const ENTRY: u64 = 16;
const MASKED: u32 = 1;
/// The largest table.
const MAX_VECTORS: u16 = 2048;

#[derive(Clone, Copy)]
struct Entry {
    address: u64,
    data: u32,
    control: u32,
    pending: bool,
}

const EMPTY: Entry = Entry {
    address: 0,
    data: 0,
    control: MASKED,
    pending: false,
};

struct State {
    table: Vec<Entry>,
    enabled: bool,
    function_mask: bool,
    bus_master: bool,
}

impl State {
    /// Takes the message of `vector` if it can go out; else leaves it pending while MSI-X is enabled.
    fn send(&mut self, vector: usize) -> Option<(u64, u32)> {
        if !self.enabled {
            return None;
        }
        let open = self.bus_master && !self.function_mask;
        let entry = self.table.get_mut(vector)?;
        entry.pending = !(open && entry.control & MASKED == 0);
        (!entry.pending).then_some((entry.address, entry.data))
    }

    /// Messages that were pending and can go out now.
    fn flush(&mut self) -> Vec<(u64, u32)> {
        let waiting: Vec<usize> = (0..self.table.len()).filter(|&v| self.table[v].pending).collect();
        waiting.into_iter().filter_map(|v| self.send(v)).collect()
    }
}

/// The messages of one function.
pub struct Msix {
    state: Mutex<State>,
    vectors: u16,
    target: Arc<dyn MsiTarget>,
}

impl Msix {
    /// A table of `vectors` masked messages (1 to 2048, clamped), sent to `target`.
    pub fn new(vectors: u16, target: Arc<dyn MsiTarget>) -> Arc<Self> {
        let vectors = vectors.clamp(1, MAX_VECTORS);
        let state = State {
            table: vec![EMPTY; vectors.into()],
            enabled: false,
            function_mask: false,
            bus_master: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            vectors,
            target,
        })
    }

    /// Number of messages.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Bytes of the table.
    pub fn table_len(&self) -> u64 {
        u64::from(self.vectors) * ENTRY
    }

    /// Bytes of the pending bits.
    pub fn pending_len(&self) -> u64 {
        u64::from(self.vectors).div_ceil(64) * 8
    }

    /// Whether the guest uses MSI-X; when not, the function uses its interrupt pin.
    pub fn enabled(&self) -> bool {
        lock(&self.state).enabled
    }

    /// Sends message `vector`; numbers without a message are ignored (a guest may have chosen them).
    pub fn trigger(&self, vector: u16) {
        let message = lock(&self.state).send(vector.into());
        self.emit(message);
    }

    fn emit(&self, messages: impl IntoIterator<Item = (u64, u32)>) {
        for (address, data) in messages {
            self.target.signal_msi(address, data);
        }
    }

    pub(crate) fn set_control(&self, enabled: bool, function_mask: bool, bus_master: bool) {
        let messages = {
            let mut s = lock(&self.state);
            (s.enabled, s.function_mask, s.bus_master) = (enabled, function_mask, bus_master);
            s.flush()
        };
        self.emit(messages);
    }

    pub(crate) fn reset(&self) {
        let mut s = lock(&self.state);
        s.table.fill(EMPTY);
        (s.enabled, s.function_mask, s.bus_master) = (false, false, false);
    }

    fn read_dword(&self, offset: u64) -> u32 {
        let s = lock(&self.state);
        let Some(entry) = s.table.get((offset / ENTRY) as usize) else {
            return 0;
        };
        match offset % ENTRY {
            0 => entry.address as u32,
            4 => (entry.address >> 32) as u32,
            8 => entry.data,
            _ => entry.control,
        }
    }

    fn write_dword(&self, offset: u64, value: u32) {
        let message = {
            let mut s = lock(&self.state);
            let vector = (offset / ENTRY) as usize;
            let Some(entry) = s.table.get_mut(vector) else {
                return;
            };
            match offset % ENTRY {
                0 => entry.address = entry.address & !0xFFFF_FFFF | u64::from(value & !3),
                4 => entry.address = entry.address & 0xFFFF_FFFF | u64::from(value) << 32,
                8 => entry.data = value,
                _ => entry.control = value & MASKED,
            }
            if entry.pending { s.send(vector) } else { None }
        };
        self.emit(message);
    }

    fn pending_byte(&self, offset: u64) -> u8 {
        let s = lock(&self.state);
        let first = (offset * 8) as usize;
        (0..8)
            .filter(|i| s.table.get(first + i).is_some_and(|e| e.pending))
            .fold(0, |byte, i| byte | 1 << i)
    }
}

/// The part of a BAR where table and pending bits are: the table at 0, pending bits at
/// [`MsixRegion::pending_offset`].
pub struct MsixRegion {
    msix: Arc<Msix>,
}

impl MsixRegion {
    /// The region of `msix`.
    pub fn new(msix: Arc<Msix>) -> Self {
        Self { msix }
    }

    /// Where the pending bits start: the first page boundary after the table.
    pub fn pending_offset(&self) -> u64 {
        self.msix.table_len().next_multiple_of(0x1000)
    }

    /// Bytes of the region.
    pub fn region_len(&self) -> u64 {
        self.pending_offset() + self.msix.pending_len()
    }
}

impl Device for MsixRegion {
    fn reset(&mut self) {
        self.msix.reset();
    }
}

impl MmioDevice for MsixRegion {
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]) {
        let pending = self.pending_offset();
        for (i, byte) in (offset..).zip(data) {
            *byte = match i.checked_sub(pending) {
                Some(at) => self.msix.pending_byte(at),
                None => self.msix.read_dword(i & !3).to_le_bytes()[(i & 3) as usize],
            };
        }
    }

    fn mmio_write(&mut self, offset: u64, data: &[u8]) {
        // The specification allows aligned 4- and 8-byte accesses; others have no effect.
        if offset & 3 != 0 || offset >= self.pending_offset() {
            return;
        }
        for (i, dword) in data.as_chunks::<4>().0.iter().enumerate() {
            self.msix
                .write_dword(offset + 4 * i as u64, u32::from_le_bytes(*dword));
        }
    }
}

#[cfg(test)]
mod tests;
