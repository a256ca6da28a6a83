// SPDX-License-Identifier: MIT
//! Configuration space of a function with a type 0 header (PCI Local Bus 3.0 chapter 6).
//!
//! Always true: a write changes writable bits only, clears write-one-to-clear bits, then BARs follow their
//! registers and the command register. Reset restores what the function declared.

use crate::bar::Bar;
use crate::msix::Msix;
use chipset_device::Placement;
use std::sync::Arc;

const SIZE: usize = 4096;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3C;
const INTERRUPT_PIN: usize = 0x3D;
/// Where capabilities start.
const FIRST_CAPABILITY: usize = 0x40;
/// Capabilities end where extended configuration space begins.
const CAPABILITIES_END: usize = 0x100;
/// Status: there is a capability list.
const STATUS_CAPABILITIES: u8 = 0x10;
/// Command: I/O, memory, bus master, parity response, SERR, interrupt disable.
const COMMAND_WRITABLE: [u8; 2] = [0x47, 0x05];
/// Status bits that are cleared by writing one.
const STATUS_CLEAR: u8 = 0xF9;

/// Capability id of MSI-X.
const CAP_MSIX: u8 = 0x11;

/// The fixed part of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class code: class, subclass, programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor and subsystem id.
    pub subsystem: (u16, u16),
}

struct BarSlot {
    bar: Bar,
    placement: Option<Box<dyn Placement>>,
    /// Where it is on the bus.
    mapped: Option<u64>,
}

/// 4 KiB of registers.
pub struct ConfigSpace {
    bytes: Box<[u8; SIZE]>,
    writable: Box<[u8; SIZE]>,
    clear: Box<[u8; SIZE]>,
    initial: Box<[u8; SIZE]>,
    bars: Vec<BarSlot>,
    last_capability: usize,
    next_capability: usize,
    /// MSI-X and the offset of its control word.
    msix: Option<(Arc<Msix>, usize)>,
}

impl ConfigSpace {
    /// A header without BARs and capabilities.
    pub fn new(identity: Identity) -> Self {
        let mut config = Self {
            bytes: Box::new([0; SIZE]),
            writable: Box::new([0; SIZE]),
            clear: Box::new([0; SIZE]),
            initial: Box::new([0; SIZE]),
            bars: Vec::new(),
            last_capability: CAPABILITIES,
            next_capability: FIRST_CAPABILITY,
            msix: None,
        };
        let [class, subclass, interface] = identity.class;
        config.set(0x00, &identity.vendor.to_le_bytes());
        config.set(0x02, &identity.device.to_le_bytes());
        config.set(0x08, &[identity.revision, interface, subclass, class]);
        config.set(0x2C, &identity.subsystem.0.to_le_bytes());
        config.set(0x2E, &identity.subsystem.1.to_le_bytes());
        config.set_writable(COMMAND, &COMMAND_WRITABLE);
        config.set_writable(INTERRUPT_LINE, &[0xFF]);
        config.clear[STATUS + 1] = STATUS_CLEAR;
        config
    }

    /// Declares initial bytes. Out of range offsets are a programming error and panic.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.initial[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Declares which bits the guest can write.
    pub fn set_writable(&mut self, offset: usize, bits: &[u8]) {
        self.writable[offset..offset + bits.len()].copy_from_slice(bits);
    }

    /// Declares the interrupt pin: 0 for INTA to 3 for INTD.
    pub fn set_interrupt_pin(&mut self, pin: u8) {
        self.set(INTERRUPT_PIN, &[pin + 1]);
    }

    /// Declares a BAR.
    pub fn add_bar(&mut self, bar: Bar) {
        let (offset, writable) = (usize::from(bar.offset()), bar.writable().to_le_bytes());
        let len = if bar.is_64_bit() { 8 } else { 4 };
        self.set(offset, &bar.flags().to_le_bytes());
        self.set_writable(offset, &writable[..len]);
        self.bars.push(BarSlot {
            bar,
            placement: None,
            mapped: None,
        });
    }

    /// Size of a declared BAR.
    pub fn bar_size(&self, index: u8) -> Option<u64> {
        self.bars
            .iter()
            .find(|s| s.bar.index == index)
            .map(|s| s.bar.size)
    }

    /// The declared BARs, largest first, so that a run of them packs without holes.
    pub(crate) fn bars(&self) -> Vec<Bar> {
        let mut bars: Vec<Bar> = self.bars.iter().map(|slot| slot.bar).collect();
        bars.sort_by_key(|bar| (std::cmp::Reverse(bar.size), bar.index));
        bars
    }

    /// Connects a declared BAR to its place on the bus.
    pub fn connect_bar(&mut self, index: u8, placement: Box<dyn Placement>) {
        if let Some(slot) = self.bars.iter_mut().find(|s| s.bar.index == index) {
            slot.placement = Some(placement);
        }
    }

    /// Declares a capability: `body` follows the id and the next pointer; `writable` says which bits of it
    /// the guest can write (missing bytes: none). Gives its offset, or `None` when there is no room.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<u16> {
        let offset = self.next_capability;
        let end = offset + 2 + body.len();
        if end > CAPABILITIES_END || writable.len() > body.len() {
            return None;
        }
        self.set(offset, &[id, 0]);
        self.set(offset + 2, body);
        self.set_writable(offset + 2, writable);
        let link = if self.last_capability == CAPABILITIES {
            CAPABILITIES
        } else {
            self.last_capability + 1
        };
        self.set(link, &[offset as u8]);
        self.set(STATUS, &[STATUS_CAPABILITIES]);
        self.last_capability = offset;
        self.next_capability = end.next_multiple_of(4);
        Some(offset as u16)
    }

    /// Declares MSI-X with its table and pending bits in BAR `bar` at the given offsets.
    pub fn add_msix(&mut self, msix: Arc<Msix>, bar: u8, table: u32, pending: u32) -> Option<u16> {
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(msix.vectors().saturating_sub(1) & 0x7FF).to_le_bytes());
        body[2..6].copy_from_slice(&(table & !7 | u32::from(bar)).to_le_bytes());
        body[6..].copy_from_slice(&(pending & !7 | u32::from(bar)).to_le_bytes());
        // Function mask and enable.
        let offset = self.add_capability(CAP_MSIX, &body, &[0, 0xC0])?;
        self.msix = Some((msix, usize::from(offset) + 2));
        Some(offset)
    }

    /// Reads bytes; past the end reads all ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.get(usize::from(offset) + i).copied().unwrap_or(0xFF);
        }
    }

    /// A doubleword, for the function's own use.
    pub fn dword(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Whether the guest lets the function read and write memory and send MSIs.
    pub fn bus_master(&self) -> bool {
        self.bytes[COMMAND] & 4 != 0
    }

    /// Whether the guest lets the function drive its interrupt pin.
    pub fn intx_enabled(&self) -> bool {
        self.bytes[COMMAND + 1] & 4 == 0
    }

    /// Writes bytes as the guest does.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let first = usize::from(offset);
        for (i, &value) in data.iter().enumerate() {
            let at = first + i;
            let Some(byte) = self.bytes.get_mut(at) else { break };
            *byte = *byte & !self.writable[at] | value & self.writable[at];
            *byte &= !(value & self.clear[at]);
        }
        let end = first + data.len();
        if (first < 0x28 && end > 0x10) || (first < COMMAND + 2 && end > COMMAND) {
            self.place_bars();
        }
        self.update_msix();
    }

    fn command(&self) -> u16 {
        u16::from_le_bytes([self.bytes[COMMAND], self.bytes[COMMAND + 1]])
    }

    /// The address in a BAR's registers.
    fn bar_base(&self, bar: &Bar) -> u64 {
        let high = if bar.is_64_bit() {
            self.dword(bar.offset() + 4)
        } else {
            0
        };
        (u64::from(high) << 32 | u64::from(self.dword(bar.offset()))) & bar.writable()
    }

    fn place_bars(&mut self) {
        let command = self.command();
        for i in 0..self.bars.len() {
            let bar = self.bars[i].bar;
            let base = self.bar_base(&bar);
            let last = base
                .checked_add(bar.size - 1)
                .filter(|&last| base != 0 && last <= bar.limit());
            let wanted = (command & bar.decode_bit() != 0 && last.is_some()).then_some(base);
            let slot = &mut self.bars[i];
            let (Some(placement), true) = (&slot.placement, slot.mapped != wanted) else {
                continue;
            };
            slot.mapped = match placement.place(wanted.map(|base| (base, bar.size))) {
                Ok(()) => wanted,
                Err(reason) => {
                    // A sizing write or a guest's mistake: nothing decodes until the next write.
                    tracing::debug!(bar = bar.index, "BAR not mapped: {reason}");
                    if slot.mapped.is_some() && placement.place(None).is_err() {
                        tracing::warn!(bar = bar.index, "BAR cannot be taken off the bus");
                    }
                    None
                }
            };
        }
    }

    fn update_msix(&self) {
        if let Some((msix, control)) = &self.msix {
            let high = self.bytes[control + 1];
            msix.set_control(high & 0x80 != 0, high & 0x40 != 0, self.bus_master());
        }
    }

    /// Back to what was declared; BARs leave the bus unless they were declared with an address.
    pub fn reset(&mut self) {
        self.bytes.copy_from_slice(&self.initial[..]);
        self.place_bars();
        if let Some((msix, _)) = &self.msix {
            msix.reset();
        }
    }

    /// The header in a few lines.
    pub fn inspect(&self) -> String {
        let mut out = format!(
            "id {:04x}:{:04x}\nclass {:06x}\ncommand {:#06x}\n",
            self.dword(0) & 0xFFFF,
            self.dword(0) >> 16,
            self.dword(8) >> 8,
            self.command()
        );
        for slot in &self.bars {
            let place = slot
                .mapped
                .map_or_else(|| "unmapped".into(), |at| format!("{at:#x}"));
            out += &format!("bar{} {place} size {:#x}\n", slot.bar.index, slot.bar.size);
        }
        out
    }
}

#[cfg(test)]
mod tests;
