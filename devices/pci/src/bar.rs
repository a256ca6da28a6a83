// SPDX-License-Identifier: MIT
//! Base address registers (PCI Local Bus 3.0 section 6.2.5.1).

/// What a BAR decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// Memory anywhere below 4 GiB.
    Memory32,
    /// Memory anywhere; takes two registers.
    Memory64 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Ports.
    Io,
}

/// A BAR as a function declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Register number, 0 to 5 (0 to 4 for 64-bit memory).
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Size in bytes: a power of two, at least 16 for memory and 4 for ports.
    pub size: u64,
}

impl Bar {
    /// The smallest legal size that holds `len` bytes.
    pub fn size_for(kind: BarKind, len: u64) -> u64 {
        let least = if kind == BarKind::Io { 4 } else { 16 };
        len.max(least).checked_next_power_of_two().unwrap_or(1 << 63)
    }

    /// Whether a memory BAR is 64 bits wide; `None` for ports.
    pub(crate) fn memory_width(&self) -> Option<bool> {
        (self.kind != BarKind::Io).then(|| self.is_64_bit())
    }

    pub(crate) fn is_64_bit(&self) -> bool {
        matches!(self.kind, BarKind::Memory64 { .. })
    }

    /// Offset of its first register.
    pub(crate) fn offset(&self) -> u16 {
        0x10 + 4 * u16::from(self.index)
    }

    /// Read-only low bits.
    pub(crate) fn flags(&self) -> u32 {
        match self.kind {
            BarKind::Memory32 => 0,
            BarKind::Memory64 { prefetchable } => 4 | u32::from(prefetchable) << 3,
            BarKind::Io => 1,
        }
    }

    /// Address bits that the guest can set.
    pub(crate) fn writable(&self) -> u64 {
        let mask = !(self.size - 1);
        match self.kind {
            BarKind::Memory64 { .. } => mask,
            BarKind::Memory32 => mask & 0xFFFF_FFFF,
            // Ports are 16 bits wide, but software sizes the register with 32.
            BarKind::Io => mask & 0xFFFF_FFFF,
        }
    }

    /// Bit of the command register that turns decoding on.
    pub(crate) fn decode_bit(&self) -> u16 {
        if self.kind == BarKind::Io { 1 } else { 2 }
    }

    /// The last address that it may decode, or where it cannot be.
    pub(crate) fn limit(&self) -> u64 {
        match self.kind {
            BarKind::Memory64 { .. } => u64::MAX,
            BarKind::Memory32 => 0xFFFF_FFFF,
            BarKind::Io => 0xFFFF,
        }
    }
}
