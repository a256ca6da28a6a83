// SPDX-License-Identifier: MIT
//! Builds the configuration blob that Microsoft's UEFI reads at its fixed address (uefi-launch
//! section 3), for `--uefi` and `--igvm type=uefi` alike.
//!
//! Always true: the blob passes [`parse`], which holds the firmware's rules; two blobs of one VM
//! differ in nothing but entropy. ACPI tables are emitted as type 0x16 in the order given; the legacy
//! per-table types are never emitted. Not here: making the ACPI tables (`crate::acpi`), entropy, and
//! where the blob goes (`bind`).

pub mod format;
pub mod parse;

use super::x64;
use format::{ACPI_HEADER_BYTES, ALIGNMENT, ENTROPY_BYTES, HEADER_BYTES, Payload, describe, flags, types};
use openvmm_defs::{GpaRange, MemoryLayout, UefiConsoleMode, UefiSettings};
use uuid::Uuid;
use x86defs::paging::PAGE_SIZE;

/// First byte address of the high MMIO gap's half of the address space.
const FOUR_GIB: u64 = 1 << 32;

/// What a blob says.
#[derive(Debug, Clone, Copy)]
pub struct BlobInputs<'a> {
    /// RAM, MMIO gaps, root complexes, VP count.
    pub layout: &'a MemoryLayout,
    /// Flags and SMBIOS strings.
    pub settings: &'a UefiSettings,
    /// BIOS GUID, made once per VM.
    pub bios_guid: Uuid,
    /// Fresh at each start and reset.
    pub entropy: &'a [u8; ENTROPY_BYTES],
    /// Finished ACPI tables in the order in which they are emitted.
    pub acpi_tables: &'a [Vec<u8>],
}

/// Why a blob cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BlobError {
    /// A MMIO gap or RAM range that is not made of whole pages.
    #[error("{what} {range} is not page aligned")]
    Unaligned { what: &'static str, range: GpaRange },
    /// A gap on the wrong side of 4 GiB (uefi-launch 3.7).
    #[error("the low MMIO gap {0} must end at or below 4 GiB")]
    LowMmio(GpaRange),
    /// A gap on the wrong side of 4 GiB (uefi-launch 3.7).
    #[error("the high MMIO gap {0} must start at or above 4 GiB")]
    HighMmio(GpaRange),
    /// No RAM at all.
    #[error("the memory layout has no RAM")]
    NoRam,
    /// No processors.
    #[error("the memory layout has no virtual processors")]
    NoProcessors,
    /// A table that is shorter than its header, or whose length field disagrees with its bytes.
    #[error("ACPI table {index} of {bytes} bytes is not a whole table (its length field says {declared})")]
    AcpiTable {
        index: usize,
        bytes: usize,
        declared: usize,
    },
    /// A type number that does not hold a string.
    #[error("structure type {0:#x} does not hold an SMBIOS string")]
    NotAString(u32),
    /// A string that cannot be NUL terminated 8-bit text.
    #[error("SMBIOS string {name} must be printable ASCII, not {text:?}")]
    Text { name: &'static str, text: String },
    /// More bytes than a u32 counts.
    #[error("the configuration blob of {0:#x} bytes does not fit its 32-bit length")]
    TooLarge(usize),
    /// A root complex whose last bus precedes its first.
    #[error("root complex {uid} has last bus {end} below first bus {start}")]
    BusRange { uid: u32, start: u8, end: u8 },
}

/// Builds the blob.
pub fn build(inputs: &BlobInputs<'_>) -> Result<Vec<u8>, BlobError> {
    let mut blob = BlobWriter::new();
    let mut bios = [0; 8];
    bios[..4].copy_from_slice(&x64::IMAGE_PAGES.to_le_bytes());
    blob.structure(types::BIOS_INFORMATION, &bios);
    blob.structure(types::MEMORY_MAP, &memory_map(inputs.layout)?);
    blob.structure(types::BIOS_GUID, &inputs.bios_guid.to_bytes_le());
    blob.structure(types::ENTROPY, inputs.entropy);
    blob.structure(types::MMIO_RANGES, &mmio_ranges(inputs.layout)?);
    blob.structure(
        types::PROCESSOR_INFORMATION,
        &processor_information(inputs.layout)?,
    );
    blob.structure(types::FLAGS, &flag_bits(inputs.settings).to_le_bytes());
    for (structure_type, text) in &inputs.settings.smbios {
        smbios_string(&mut blob, *structure_type, text)?;
    }
    for (index, table) in inputs.acpi_tables.iter().enumerate() {
        check_acpi_table(index, table)?;
        blob.structure(types::ACPI_TABLE, table);
    }
    if let Some(apertures) = apertures(inputs.layout)? {
        blob.structure(types::PCIE_BAR_APERTURES, &apertures);
    }
    blob.finish()
}

/// Appends structures; the count structure comes first and is filled in by [`Self::finish`].
#[derive(Debug)]
pub struct BlobWriter {
    bytes: Vec<u8>,
    count: u32,
}

impl BlobWriter {
    /// A blob that holds its count structure only.
    pub fn new() -> Self {
        let mut writer = Self {
            bytes: Vec::with_capacity(4096),
            count: 0,
        };
        writer.structure(types::STRUCTURE_COUNT, &[0; 8]);
        writer
    }

    /// Appends a structure; the payload is zero-padded to a multiple of 8.
    pub fn structure(&mut self, structure_type: u32, payload: &[u8]) {
        let len = (HEADER_BYTES + payload.len()).next_multiple_of(ALIGNMENT);
        let end = self.bytes.len() + len;
        self.bytes.extend_from_slice(&structure_type.to_le_bytes());
        // A length beyond u32 makes the total too large as well, which `finish` refuses.
        self.bytes.extend_from_slice(&(len as u32).to_le_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(end, 0);
        self.count += 1;
    }

    /// The finished blob.
    pub fn finish(mut self) -> Result<Vec<u8>, BlobError> {
        let total = u32::try_from(self.bytes.len()).map_err(|_| BlobError::TooLarge(self.bytes.len()))?;
        self.bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        self.bytes[12..16].copy_from_slice(&total.to_le_bytes());
        Ok(self.bytes)
    }
}

impl Default for BlobWriter {
    fn default() -> Self {
        Self::new()
    }
}

/// The Flags structure's bits for `settings` (uefi-launch 3.4).
pub fn flag_bits(settings: &UefiSettings) -> u64 {
    let console: u64 = match settings.console_mode {
        UefiConsoleMode::Default => 0,
        UefiConsoleMode::Com1 => 1,
        UefiConsoleMode::Com2 => 2,
        UefiConsoleMode::None => 3,
    };
    let switches = [
        (settings.serial, flags::SERIAL),
        (settings.debug, flags::DEBUGGER),
        (
            settings.tpm,
            flags::TPM | flags::MEASURE_ADDITIONAL_PCRS | flags::TPM_LOCALITY,
        ),
        (settings.battery, flags::BATTERY),
        (settings.disable_frontpage, flags::DISABLE_FRONTPAGE),
        (
            settings.default_boot_always_attempt,
            flags::DEFAULT_BOOT_ALWAYS_ATTEMPT,
        ),
        (settings.memory_protections, 1 << flags::MEMORY_PROTECTION_SHIFT),
        (settings.watchdog, flags::WATCHDOG),
        (!settings.vmbus, flags::VMBUS_DISABLED),
        (settings.pci_preassigned, flags::PCI_PREASSIGNED),
        (settings.force_dma_bounce, flags::FORCE_DMA_BOUNCE),
    ];
    let always = flags::HIBERNATE_LAYOUT | flags::MTRRS_INITIALIZED | (console << flags::CONSOLE_SHIFT);
    switches
        .iter()
        .filter(|(on, _)| *on)
        .fold(always, |bits, (_, flag)| bits | flag)
}

/// Format V5 entries, RAM only (uefi-launch 3.5).
fn memory_map(layout: &MemoryLayout) -> Result<Vec<u8>, BlobError> {
    if layout.ram.iter().all(GpaRange::is_empty) {
        return Err(BlobError::NoRam);
    }
    let mut payload = Vec::with_capacity(layout.ram.len() * format::MEMORY_ENTRY_BYTES);
    for range in layout.ram.iter().filter(|range| !range.is_empty()) {
        pages("RAM", range)?;
        payload.extend_from_slice(&range.gpa.to_le_bytes());
        payload.extend_from_slice(&range.len.to_le_bytes());
        payload.extend_from_slice(&[0; 8]);
    }
    Ok(payload)
}

fn mmio_ranges(layout: &MemoryLayout) -> Result<Vec<u8>, BlobError> {
    let (low, high) = (layout.low_mmio, layout.high_mmio);
    if !low.is_empty() && low.end() > FOUR_GIB {
        return Err(BlobError::LowMmio(low));
    }
    if !high.is_empty() && high.gpa < FOUR_GIB {
        return Err(BlobError::HighMmio(high));
    }
    let mut payload = Vec::with_capacity(32);
    for (what, range) in [("the low MMIO gap", low), ("the high MMIO gap", high)] {
        let (first, count) = pages(what, &range)?;
        payload.extend_from_slice(&first.to_le_bytes());
        payload.extend_from_slice(&count.to_le_bytes());
    }
    Ok(payload)
}

/// First page number and page count of a range.
fn pages(what: &'static str, range: &GpaRange) -> Result<(u64, u64), BlobError> {
    if !range.gpa.is_multiple_of(PAGE_SIZE) || !range.len.is_multiple_of(PAGE_SIZE) {
        return Err(BlobError::Unaligned { what, range: *range });
    }
    Ok((range.gpa / PAGE_SIZE, range.len / PAGE_SIZE))
}

/// One socket, one thread per core: what the machine's CPUID and MADT say as well.
fn processor_information(layout: &MemoryLayout) -> Result<Vec<u8>, BlobError> {
    let count = layout.vp_count;
    if count == 0 {
        return Err(BlobError::NoProcessors);
    }
    let fields = [count, count, count, 1];
    Ok(fields.iter().flat_map(|field| field.to_le_bytes()).collect())
}

fn smbios_string(blob: &mut BlobWriter, structure_type: u32, text: &str) -> Result<(), BlobError> {
    let (name, payload) = describe(structure_type);
    if payload != Payload::Text {
        return Err(BlobError::NotAString(structure_type));
    }
    if !text.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
        let text = text.to_owned();
        return Err(BlobError::Text { name, text });
    }
    if !text.is_empty() {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        blob.structure(structure_type, &bytes);
    }
    Ok(())
}

fn check_acpi_table(index: usize, table: &[u8]) -> Result<(), BlobError> {
    let declared = match table.get(4..8) {
        Some(field) => u32::from_le_bytes([field[0], field[1], field[2], field[3]]) as usize,
        None => 0,
    };
    if table.len() < ACPI_HEADER_BYTES || declared != table.len() {
        let bytes = table.len();
        return Err(BlobError::AcpiTable {
            index,
            bytes,
            declared,
        });
    }
    Ok(())
}

/// One 40-byte entry per root complex (uefi-launch 3.6); nothing without root complexes.
fn apertures(layout: &MemoryLayout) -> Result<Option<Vec<u8>>, BlobError> {
    if layout.root_complexes.is_empty() {
        return Ok(None);
    }
    let mut payload = Vec::with_capacity(layout.root_complexes.len() * format::APERTURE_BYTES);
    for complex in &layout.root_complexes {
        let (uid, start, end) = (complex.uid, complex.start_bus, complex.end_bus);
        if end < start {
            return Err(BlobError::BusRange { uid, start, end });
        }
        payload.extend_from_slice(&complex.segment.to_le_bytes());
        payload.extend_from_slice(&[start, end]);
        payload.extend_from_slice(&uid.to_le_bytes());
        for range in [complex.low_mmio, complex.high_mmio] {
            payload.extend_from_slice(&range.gpa.to_le_bytes());
            payload.extend_from_slice(&range.len.to_le_bytes());
        }
    }
    Ok(Some(payload))
}

#[cfg(test)]
mod tests;
