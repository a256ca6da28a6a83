// SPDX-License-Identifier: MIT
//! The header that all tables share, and their checksum (ACPI 6.5 section 5.2.6).
//!
//! Always true: a finished table's bytes sum to zero. Not here: what tables say.

use acpi_tables::{Aml, AmlSink};

/// Length of a table's header.
pub const ACPI_HEADER_BYTES: usize = 36;

/// Who made a table, as its header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker {
    pub(super) oem_id: &'static [u8; 6],
    pub(super) table_id: &'static [u8; 8],
    pub(super) oem_revision: u32,
    pub(super) creator_id: &'static [u8; 4],
    pub(super) creator_revision: u32,
}

/// The header of everything that Microsoft's UEFI gets, and of our own set.
pub(super) const HV: Maker = Maker {
    oem_id: b"HVLITE",
    table_id: b"HVLITETB",
    oem_revision: 0,
    creator_id: b"MSHV",
    creator_revision: 0,
};

/// The header of the SSDT with the root complexes.
pub(super) const SSDT01: Maker = Maker {
    oem_id: b"MSFTVM",
    table_id: b"SSDT01\0\0",
    oem_revision: 1,
    creator_id: b"MSFT",
    creator_revision: 0x0100_0000,
};

/// A table being built.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
}

impl Table {
    pub(super) fn new(signature: &[u8; 4], revision: u8, maker: &Maker) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(signature);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&[revision, 0]);
        bytes.extend_from_slice(maker.oem_id);
        bytes.extend_from_slice(maker.table_id);
        bytes.extend_from_slice(&maker.oem_revision.to_le_bytes());
        bytes.extend_from_slice(maker.creator_id);
        bytes.extend_from_slice(&maker.creator_revision.to_le_bytes());
        Self { bytes }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn aml(&mut self, aml: &dyn Aml) -> &mut Self {
        aml.to_aml_bytes(&mut Sink(&mut self.bytes));
        self
    }

    /// Offset of the next byte.
    pub(super) fn position(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut bytes = self.bytes;
        // Tables are bounded by the VP count and the layout, far below 4 GiB.
        let len = bytes.len() as u32;
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes[9] = checksum(&bytes);
        bytes
    }
}

struct Sink<'b>(&'b mut Vec<u8>);

impl AmlSink for Sink<'_> {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

/// The byte that makes the sum of `bytes` zero.
pub fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}
