// SPDX-License-Identifier: MIT
//! A PCI function through ECAM: configuration space, BAR 0, capabilities, MSI-X.

#![allow(dead_code, reason = "several payloads share this driver, and none uses all of it")]

use guest_rt::memory;

const COMMAND: u64 = 4;
const BAR0: u64 = 0x10;
const CAPABILITIES: u64 = 0x34;
/// Inside the gap below 4 GiB of every machine here, and further apart than a BAR is long.
const UNPLACED_BARS: u32 = 0xC000_0000;
const BAR_STEP: u32 = 0x10_0000;
const MSIX: u8 = 0x11;
const VENDOR: u8 = 9;

/// A function on the first bus.
pub(crate) struct Function {
    base: u64,
    device: u64,
}

impl Function {
    /// The first function with this vendor (low half) and device id.
    pub(crate) fn find(ecam: u64, id: u32) -> Option<Self> {
        (0..32)
            .map(|device| Self {
                base: ecam + (device << 15),
                device,
            })
            .find(|function| function.read(0) == id)
    }

    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    pub(crate) fn read(&self, offset: u64) -> u32 {
        memory::read_u32(self.base + offset)
    }

    pub(crate) fn write(&self, offset: u64, value: u32) {
        memory::write_u32(self.base + offset, value);
    }

    fn byte(&self, offset: u64) -> u8 {
        memory::read_u8(self.base + offset)
    }

    /// Address and size of BAR 0, which decodes afterwards. One that nobody has placed gets a place of its own
    /// above [`UNPLACED_BARS`], by device number.
    pub(crate) fn bar(&self) -> (u64, u64) {
        self.write(COMMAND, 0);
        let mut before = self.read(BAR0);
        self.write(BAR0, u32::MAX);
        let size = u64::from(!(self.read(BAR0) & !0xF)) + 1;
        if before & !0xF == 0 {
            before |= UNPLACED_BARS + self.device as u32 * BAR_STEP;
        }
        self.write(BAR0, before);
        // Memory and bus master.
        self.write(COMMAND, 6);
        (u64::from(before & !0xF), size)
    }

    /// Where a capability is: MSI-X, or the virtio structure of this type.
    fn capability(&self, id: u8, kind: u8) -> Option<u64> {
        let mut at = u64::from(self.byte(CAPABILITIES));
        // As many as fit.
        for _ in 0..48 {
            if at == 0 {
                return None;
            }
            if self.byte(at) == id && (id != VENDOR || self.byte(at + 3) == kind) {
                return Some(at);
            }
            at = u64::from(self.byte(at + 1));
        }
        None
    }

    /// Where in BAR 0 a virtio structure is, and the doubleword behind its description.
    pub(crate) fn structure(&self, kind: u8) -> Option<(u64, u32)> {
        let at = self.capability(VENDOR, kind)?;
        Some((u64::from(self.read(at + 8)), self.read(at + 16)))
    }

    /// Sends message `n` as interrupt `vector` to this processor, and turns MSI-X on.
    pub(crate) fn open_message(&self, bar: u64, n: u64, vector: u8) -> Option<()> {
        let at = self.capability(MSIX, 0)?;
        let entry = bar + u64::from(self.read(at + 4) & !7) + n * 16;
        memory::write_u32(entry, 0xFEE0_0000 | u32::from(guest_rt::lapic::id()) << 12);
        memory::write_u32(entry + 4, 0);
        memory::write_u32(entry + 8, vector.into());
        memory::write_u32(entry + 12, 0);
        self.write(at, self.read(at) | 1 << 31);
        Some(())
    }
}
