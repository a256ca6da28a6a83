// SPDX-License-Identifier: MIT
//! Where things are in guest physical memory.

/// A range of guest physical addresses in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GpaRange {
    /// First byte.
    pub gpa: u64,
    /// Length in bytes; 0 is empty.
    pub len: u64,
}

impl GpaRange {
    /// A range from its first byte and length.
    pub const fn new(gpa: u64, len: u64) -> Self {
        Self { gpa, len }
    }
    /// First byte after the range, saturating at the end of the address space.
    pub const fn end(&self) -> u64 {
        self.gpa.saturating_add(self.len)
    }
    /// Whether the range has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Whether `other` lies wholly inside.
    pub const fn contains(&self, other: &Self) -> bool {
        other.gpa >= self.gpa && other.end() <= self.end()
    }
    /// Whether the ranges share a byte.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.gpa < other.end() && other.gpa < self.end()
    }
}

impl std::fmt::Display for GpaRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}..{:#x}", self.gpa, self.end())
    }
}

/// The machine around the guest: which chipset, where RAM below 4 GiB ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Machine {
    /// COM ports, RTC, PIC/PIT, IO-APIC, PM block; what `Generic` and `type=test` images get.
    Plain,
    /// Linux direct boot: the plain machine with ACPI tables of ours.
    Linux,
    /// Hyper-V generation 2, for Microsoft's UEFI.
    HyperV,
    /// PC compatible with q35-shaped PCI and fw_cfg, for OVMF.
    Ovmf,
}

impl Machine {
    /// First byte address below 4 GiB that is never RAM.
    pub const fn low_ram_limit(self) -> u64 {
        match self {
            Self::HyperV => 0xF800_0000,
            Self::Plain | Self::Linux => 0xC000_0000,
            Self::Ovmf => 0x8000_0000,
        }
    }
    /// The name used in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Linux => "linux",
            Self::HyperV => "hyper-v generation 2",
            Self::Ovmf => "ovmf",
        }
    }
}

/// A PCIe root complex as tables and the UEFI blob describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootComplexLayout {
    /// PCI segment.
    pub segment: u16,
    /// First bus number.
    pub start_bus: u8,
    /// Last bus number.
    pub end_bus: u8,
    /// `_UID` of the host bridge.
    pub uid: u32,
    /// ECAM window of the buses `start_bus..=end_bus`, 1 MiB each.
    pub ecam: GpaRange,
    /// BAR window below 4 GiB.
    pub low_mmio: GpaRange,
    /// BAR window above 4 GiB.
    pub high_mmio: GpaRange,
}

/// Resolved guest physical layout of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLayout {
    /// The machine.
    pub machine: Machine,
    /// RAM, ascending, disjoint, page aligned; the first range starts at 0.
    pub ram: Vec<GpaRange>,
    /// Chipset MMIO gap below 4 GiB (128 MiB from 0xF8000000 on the Hyper-V machine).
    pub low_mmio: GpaRange,
    /// Chipset MMIO gap above RAM; empty without VMBus.
    pub high_mmio: GpaRange,
    /// Registers of a TPM.
    pub tpm: Option<GpaRange>,
    /// Root complexes.
    pub root_complexes: Vec<RootComplexLayout>,
    /// Physical address width that the guest sees.
    pub phys_bits: u8,
    /// Number of virtual processors.
    pub vp_count: u32,
}

impl MemoryLayout {
    /// RAM in bytes.
    pub fn ram_size(&self) -> u64 {
        self.ram.iter().map(|r| r.len).sum()
    }
    /// Whether `range` lies inside one RAM range.
    pub fn is_ram(&self, range: &GpaRange) -> bool {
        self.ram.iter().any(|r| r.contains(range))
    }
}
