// SPDX-License-Identifier: MIT
//! Port decoding: one byte per port names the slot, so a lookup is one load.
//!
//! Always true: slots are only added; where a slot is mapped may change at any time (PMBASE), and the
//! table always names a slot whose device exists.

use super::unclaimed::Unclaimed;
use super::{BusError, Span};
use crate::lock;
use chipset_device::{PortDevice, VpIndex, VpPorts};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// What accesses a port device takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortWidth {
    /// As the guest made them.
    Any,
    /// Bytes; wider accesses become one access per port in ascending order, as on ISA.
    Byte,
}

const NO_SLOT: u8 = 0;
/// Reads all ones and drops writes, without a word in the log.
const ABSORBED: u8 = u8::MAX;
const PORTS: usize = 0x1_0000;
const UNMAPPED: u32 = u32::MAX;

/// Who answers.
#[derive(Clone)]
pub(super) enum Owner {
    /// A device, which does not know who asks.
    Device(Arc<Mutex<dyn PortDevice>>),
    /// A device that does.
    PerVp(Arc<dyn VpPorts>),
}

impl Owner {
    fn read(&self, vp: VpIndex, offset: u16, data: &mut [u8]) {
        match self {
            Self::Device(device) => lock(device).port_read(offset, data),
            Self::PerVp(ports) => ports.port_read(vp, offset, data),
        }
    }

    fn write(&self, vp: VpIndex, offset: u16, data: &[u8]) {
        match self {
            Self::Device(device) => lock(device).port_write(offset, data),
            Self::PerVp(ports) => ports.port_write(vp, offset, data),
        }
    }
}

struct Slot {
    name: String,
    owner: Owner,
    /// First port, or [`UNMAPPED`].
    base: AtomicU32,
    len: u16,
    width: PortWidth,
}

/// All ports of a machine.
pub(super) struct PortMap {
    table: Box<[AtomicU8]>,
    /// Slot n is table value n + 1.
    slots: [OnceLock<Slot>; ABSORBED as usize - 1],
    /// Serialises changes of the map.
    used: Mutex<usize>,
    unclaimed: Unclaimed,
}

impl PortMap {
    pub(super) fn new() -> Self {
        Self {
            table: (0..PORTS).map(|_| AtomicU8::new(NO_SLOT)).collect(),
            slots: [const { OnceLock::new() }; ABSORBED as usize - 1],
            used: Mutex::new(0),
            unclaimed: Unclaimed::new("port"),
        }
    }

    fn slot(&self, id: u8) -> Option<&Slot> {
        self.slots.get(usize::from(id).checked_sub(1)?)?.get()
    }

    fn name(&self, id: u8) -> String {
        self.slot(id)
            .map_or_else(|| "absorbed ports".into(), |s| s.name.clone())
    }

    pub(super) fn add(&self, name: &str, len: u16, width: PortWidth, owner: Owner) -> Result<u8, BusError> {
        let mut used = lock(&self.used);
        let slot = self.slots.get(*used).ok_or(BusError::TooManyDevices {
            limit: self.slots.len(),
        })?;
        slot.get_or_init(|| Slot {
            name: name.to_owned(),
            owner,
            base: AtomicU32::new(UNMAPPED),
            len,
            width,
        });
        *used += 1;
        Ok(*used as u8)
    }

    /// Moves slot `id` to `base`, or takes it off the bus.
    pub(super) fn map(&self, id: u8, base: Option<u16>) -> Result<(), BusError> {
        let changes = lock(&self.used);
        let Some(slot) = self.slot(id) else { return Ok(()) };
        if let Some(base) = base {
            let span = Span {
                first: base.into(),
                len: slot.len.into(),
            };
            let ports = self.range(span, &slot.name)?;
            let taken = ports
                .iter()
                .map(|p| p.load(Ordering::Relaxed))
                .find(|&p| p != NO_SLOT && p != id);
            if let Some(other) = taken {
                return Err(BusError::PortOverlap {
                    name: slot.name.clone(),
                    span,
                    other: self.name(other),
                });
            }
        }
        let old = slot.base.swap(base.map_or(UNMAPPED, u32::from), Ordering::SeqCst);
        if old != UNMAPPED {
            self.fill(old as u16, slot.len, NO_SLOT);
        }
        if let Some(base) = base {
            self.fill(base, slot.len, id);
        }
        drop(changes);
        Ok(())
    }

    fn range(&self, span: Span, name: &str) -> Result<&[AtomicU8], BusError> {
        let (first, len) = (span.first as usize, span.len as usize);
        self.table
            .get(first..first + len)
            .filter(|p| !p.is_empty())
            .ok_or(BusError::BadPortRange {
                name: name.to_owned(),
                span,
            })
    }

    fn fill(&self, first: u16, len: u16, id: u8) {
        for port in self.table.iter().skip(first.into()).take(len.into()) {
            port.store(id, Ordering::Release);
        }
    }

    /// Takes `len` ports at `first` silently, where nothing claims them yet.
    pub(super) fn absorb(&self, first: u16, len: u16) -> Result<(), BusError> {
        let _changes = lock(&self.used);
        let span = Span {
            first: first.into(),
            len: len.into(),
        };
        for port in self.range(span, "absorbed ports")? {
            if port.load(Ordering::Relaxed) == NO_SLOT {
                port.store(ABSORBED, Ordering::Release);
            }
        }
        Ok(())
    }

    /// The slot at `port` and the offset there, if the whole access of `len` bytes goes to it in one.
    fn whole(&self, port: u16, len: usize) -> Option<(&Slot, u16)> {
        let slot = self.slot(self.table[usize::from(port)].load(Ordering::Acquire))?;
        // A move between the two loads makes this fail, which is one of the two legal outcomes.
        let offset = u32::from(port).checked_sub(slot.base.load(Ordering::Acquire))?;
        let fits = offset as usize + len <= usize::from(slot.len);
        (fits && (len == 1 || slot.width == PortWidth::Any)).then_some((slot, offset as u16))
    }

    fn any_claimed(&self, port: u16, len: usize) -> bool {
        self.table
            .iter()
            .skip(port.into())
            .take(len)
            .any(|p| p.load(Ordering::Relaxed) != NO_SLOT)
    }

    pub(super) fn read(&self, vp: VpIndex, port: u16, data: &mut [u8]) {
        if let Some((slot, offset)) = self.whole(port, data.len()) {
            slot.owner.read(vp, offset, data);
        } else if data.len() > 1 && self.any_claimed(port, data.len()) {
            for (i, byte) in data.chunks_mut(1).enumerate() {
                match port.checked_add(i as u16) {
                    Some(port) => self.read(vp, port, byte),
                    None => chipset_device::unclaimed(byte),
                }
            }
        } else {
            chipset_device::unclaimed(data);
            if self.table[usize::from(port)].load(Ordering::Relaxed) == NO_SLOT {
                self.unclaimed.read(port.into(), data.len());
            }
        }
    }

    pub(super) fn write(&self, vp: VpIndex, port: u16, data: &[u8]) {
        if let Some((slot, offset)) = self.whole(port, data.len()) {
            slot.owner.write(vp, offset, data);
        } else if data.len() > 1 && self.any_claimed(port, data.len()) {
            for (i, byte) in data.chunks(1).enumerate() {
                if let Some(port) = port.checked_add(i as u16) {
                    self.write(vp, port, byte);
                }
            }
        } else if self.table[usize::from(port)].load(Ordering::Relaxed) == NO_SLOT {
            self.unclaimed.write(port.into(), data);
        }
    }

    /// One line per mapped slot.
    pub(super) fn inspect(&self) -> String {
        let slots = self.slots.iter().map_while(OnceLock::get);
        slots
            .filter_map(|s| {
                let base = s.base.load(Ordering::Relaxed);
                (base != UNMAPPED).then(|| format!("{:#06x}+{:#x} {}\n", base, s.len, s.name))
            })
            .collect()
    }

    pub(super) fn unclaimed(&self) -> &Unclaimed {
        &self.unclaimed
    }
}
