// SPDX-License-Identifier: MIT
//! Decoding of guest physical addresses outside RAM: a sorted list of windows.
//!
//! Always true: windows never overlap. The list is locked only for the lookup, so a device may move its
//! own window from inside an access.

use super::unclaimed::Unclaimed;
use super::{BusError, Span};
use crate::lock;
use chipset_device::MmioDevice;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

type Shared = Arc<Mutex<dyn MmioDevice>>;

struct Slot {
    name: String,
    len: u64,
    device: Shared,
}

#[derive(Clone)]
struct Window {
    first: u64,
    last: u64,
    slot: usize,
    device: Shared,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Ascending by address.
    windows: Vec<Window>,
}

impl State {
    fn find(&self, gpa: u64) -> Option<&Window> {
        let after = self.windows.partition_point(|w| w.first <= gpa);
        self.windows[..after].last().filter(|w| gpa <= w.last)
    }
}

/// All MMIO windows of a machine.
pub(super) struct MmioMap {
    state: RwLock<State>,
    unclaimed: Unclaimed,
}

impl MmioMap {
    pub(super) fn new() -> Self {
        Self {
            state: RwLock::default(),
            unclaimed: Unclaimed::new("mmio"),
        }
    }

    pub(super) fn add(&self, name: &str, len: u64, device: Shared) -> usize {
        let mut s = self.state.write().unwrap_or_else(PoisonError::into_inner);
        s.slots.push(Slot {
            name: name.to_owned(),
            len,
            device,
        });
        s.slots.len() - 1
    }

    /// Moves slot `id` to `base` with length `len`, or takes it off the bus.
    pub(super) fn map(&self, id: usize, place: Option<Span>) -> Result<(), BusError> {
        let mut s = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = s.slots.get(id) else {
            return Ok(());
        };
        let (name, device) = (slot.name.clone(), slot.device.clone());
        let mut windows: Vec<Window> = s.windows.iter().filter(|w| w.slot != id).cloned().collect();
        if let Some(span) = place {
            let last = span.len.checked_sub(1).and_then(|n| span.first.checked_add(n));
            let Some(last) = last else {
                return Err(BusError::BadMmioRange { name, span });
            };
            if let Some(w) = windows.iter().find(|w| w.first <= last && span.first <= w.last) {
                let other = s.slots.get(w.slot).map_or_else(String::new, |s| s.name.clone());
                return Err(BusError::MmioOverlap { name, span, other });
            }
            let at = windows.partition_point(|w| w.first < span.first);
            windows.insert(
                at,
                Window {
                    first: span.first,
                    last,
                    slot: id,
                    device,
                },
            );
        }
        s.windows = windows;
        Ok(())
    }

    pub(super) fn default_len(&self, id: usize) -> u64 {
        let s = self.state.read().unwrap_or_else(PoisonError::into_inner);
        s.slots.get(id).map_or(0, |s| s.len)
    }

    fn lookup(&self, gpa: u64) -> Option<(Shared, u64, u64)> {
        let s = self.state.read().unwrap_or_else(PoisonError::into_inner);
        s.find(gpa)
            .map(|w| (w.device.clone(), gpa - w.first, w.last - gpa))
    }

    pub(super) fn read(&self, gpa: u64, data: &mut [u8]) {
        match self.lookup(gpa) {
            Some((device, offset, room)) if data.len() as u64 - 1 <= room => {
                lock(&device).mmio_read(offset, data);
            }
            Some((device, offset, room)) => {
                let (head, tail) = data.split_at_mut(room as usize + 1);
                lock(&device).mmio_read(offset, head);
                self.read(gpa.wrapping_add(head.len() as u64), tail);
            }
            None => {
                chipset_device::unclaimed(data);
                self.unclaimed.read(gpa, data.len());
            }
        }
    }

    pub(super) fn write(&self, gpa: u64, data: &[u8]) {
        match self.lookup(gpa) {
            Some((device, offset, room)) if data.len() as u64 - 1 <= room => {
                lock(&device).mmio_write(offset, data);
            }
            Some((device, offset, room)) => {
                let (head, tail) = data.split_at(room as usize + 1);
                lock(&device).mmio_write(offset, head);
                self.write(gpa.wrapping_add(head.len() as u64), tail);
            }
            None => self.unclaimed.write(gpa, data),
        }
    }

    /// One line per mapped window.
    pub(super) fn inspect(&self) -> String {
        let s = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let name = |w: &Window| s.slots.get(w.slot).map_or("", |s| s.name.as_str());
        s.windows
            .iter()
            .map(|w| format!("{:#x}..={:#x} {}\n", w.first, w.last, name(w)))
            .collect()
    }

    pub(super) fn unclaimed(&self) -> &Unclaimed {
        &self.unclaimed
    }
}
