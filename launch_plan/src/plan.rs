// SPDX-License-Identifier: MIT
//! The plan's types: facts, steps, contents.

use crate::endorse::Endorsements;
use crate::vp::{VpContext, VpIndex};
use std::borrow::Cow;

/// How a guest is isolated from its host; one plan is for exactly one of these.
/// IGVM platform types of `igvm_defs` 0.5.0 (`IgvmPlatformType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isolation {
    /// No isolation, plain x86 state (`NATIVE`).
    Native,
    /// Hyper-V's VTL-based platform (`VSM_ISOLATION`); what OpenVMM boots when not isolated.
    Vsm,
    /// AMD SEV.
    Sev,
    /// AMD SEV-ES.
    SevEs,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// Arm CCA.
    Cca,
}

impl Isolation {
    /// The name used on command lines and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Vsm => "vsm",
            Self::Sev => "sev",
            Self::SevEs => "sev-es",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Cca => "cca",
        }
    }

    /// Whether a highest VTL above 0 means that the image runs there. NATIVE has no VTLs, and virtfw's
    /// igvm-wrap writes 2 as its highest for plain firmware.
    pub const fn has_vtls(self) -> bool {
        !matches!(self, Self::Native)
    }

    /// Whether the guest's memory or registers are protected from the host by hardware.
    pub const fn is_confidential(self) -> bool {
        !matches!(self, Self::Native | Self::Vsm)
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Guest instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86-64.
    X64,
    /// AArch64.
    Aarch64,
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::X64 => "x64",
            Self::Aarch64 => "aarch64",
        })
    }
}

/// Where a step came from, so that every error and listing can say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A variable header of an IGVM file: its index (from 0, over all headers) and the file offset of
    /// its type field.
    Header {
        /// Index of the variable header.
        index: u32,
        /// File offset of the variable header.
        offset: u32,
    },
    /// Added by a loader or by the host; the text names the part ("firmware image", "config blob").
    Host(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header { index, offset } => write!(f, "header {index} at file offset {offset:#x}"),
            Self::Host(what) => f.write_str(what),
        }
    }
}

/// How imported pages become the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageKind {
    /// Private and part of the launch digest.
    Measured,
    /// Private, contents not part of the launch digest.
    Unmeasured,
    /// Visible to the host.
    Shared,
    /// SEV-SNP secrets page.
    Secrets,
    /// SEV-SNP CPUID page.
    Cpuid,
    /// CPUID page with extended-feature leaves.
    CpuidXf,
}

impl PageKind {
    /// The name used in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Unmeasured => "unmeasured",
            Self::Shared => "shared",
            Self::Secrets => "secrets",
            Self::Cpuid => "cpuid",
            Self::CpuidXf => "cpuid-xf",
        }
    }
}

impl std::fmt::Display for PageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The values that a host can deposit in a parameter area (IGVM headers 0x307-0x313).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParameterKind {
    /// Number of VPs, u32.
    VpCount,
    /// ACPI SRAT.
    Srat,
    /// ACPI MADT.
    Madt,
    /// Low and high MMIO gap, two page ranges.
    MmioRanges,
    /// 24-byte memory map entries, terminated by a zero entry.
    MemoryMap,
    /// NUL-terminated command line.
    CommandLine,
    /// ACPI SLIT.
    Slit,
    /// ACPI PPTT.
    Pptt,
    /// Flattened device tree.
    DeviceTree,
    /// Environment flags, u32.
    EnvironmentInfo,
}

impl ParameterKind {
    /// Every kind, in header type order.
    pub const ALL: [Self; 10] = [
        Self::VpCount,
        Self::Srat,
        Self::Madt,
        Self::MmioRanges,
        Self::MemoryMap,
        Self::CommandLine,
        Self::Slit,
        Self::Pptt,
        Self::DeviceTree,
        Self::EnvironmentInfo,
    ];

    /// The name used in messages and listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VpCount => "VP count",
            Self::Srat => "SRAT",
            Self::Madt => "MADT",
            Self::MmioRanges => "MMIO ranges",
            Self::MemoryMap => "memory map",
            Self::CommandLine => "command line",
            Self::Slit => "SLIT",
            Self::Pptt => "PPTT",
            Self::DeviceTree => "device tree",
            Self::EnvironmentInfo => "environment info",
        }
    }
}

impl std::fmt::Display for ParameterKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One value to deposit in a parameter area. Equality ignores the origin.
#[derive(Debug, Clone, Copy)]
pub struct ParameterSlot {
    /// Which value.
    pub kind: ParameterKind,
    /// Where in the area, in bytes.
    pub byte_offset: u32,
    /// The header that asked for it.
    pub origin: Origin,
}

impl PartialEq for ParameterSlot {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.byte_offset) == (other.kind, other.byte_offset)
    }
}

impl Eq for ParameterSlot {}

/// A parameter area: initial bytes (zero beyond them) and the holes that [`LaunchPlan::bind`] fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterArea<'a> {
    /// The file's index of this area; names the area in messages.
    pub index: u32,
    /// Initial contents; shorter than the area or empty, zero beyond.
    pub initial: Cow<'a, [u8]>,
    /// Values to deposit, in file order.
    pub slots: Vec<ParameterSlot>,
}

/// What imported pages hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents<'a> {
    /// Zeros.
    Zero,
    /// Bytes, zero-filled to the end of the range. Borrowed from the mapped file wherever possible.
    Bytes(Cow<'a, [u8]>),
    /// Holes for the host to fill; gone after [`LaunchPlan::bind`].
    Parameters(Box<ParameterArea<'a>>),
}

/// Pages that enter the guest at launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import<'a> {
    /// First guest physical byte address, page aligned (2 MiB aligned for a large page).
    pub gpa: u64,
    /// Length in bytes, a multiple of 4 KiB.
    pub len: u64,
    /// A single 2 MiB page: `gpa` and `len` are 2 MiB and the launch may map it as one.
    pub large: bool,
    /// How the pages become the guest's.
    pub kind: PageKind,
    /// What they hold.
    pub contents: Contents<'a>,
}

/// RAM that the image expects; never created, only verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectMemory {
    /// First guest physical byte address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
    /// The range must be protectable by VTL2.
    pub vtl2_protectable: bool,
}

/// One action of a launch.
#[derive(Debug, Clone, PartialEq)]
pub enum StepKind<'a> {
    /// Put pages in the guest.
    Import(Import<'a>),
    /// An error range (IGVM 0x30D): imported as shared zero pages, kept out of the memory map's RAM,
    /// kept through reset and logged when the guest crashes.
    ErrorRange {
        /// First guest physical byte address.
        gpa: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Set a virtual processor's initial state.
    VpContext(Box<VpContext<'a>>),
    /// Verify that RAM exists.
    ExpectMemory(ExpectMemory),
}

/// A step and where it came from. Equality ignores the origin: plans are equal when they start the
/// same guest.
#[derive(Debug, Clone)]
pub struct Step<'a> {
    /// What to do.
    pub kind: StepKind<'a>,
    /// Which header or loader asked for it.
    pub origin: Origin,
}

impl PartialEq for Step<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// Realm policy of an Arm CCA guest (IGVM header 0x106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CcaPolicy {
    /// Attribute bits that must be zero (bit 0 debug, bit 1 shared memory encryption context).
    pub required_zeroes: u64,
    /// Attribute bits that must be one.
    pub required_ones: u64,
    /// Hash algorithm: 0 SHA-256, 1 SHA-512, 2 SHA-384.
    pub hash_algorithm: u8,
    /// Live firmware activation: 0 refused, 1 allowed.
    pub lfa_policy: u8,
}

/// What must be known of the platform before a guest exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformFacts {
    /// The platform.
    pub isolation: Isolation,
    /// Guest instruction set.
    pub arch: Arch,
    /// Highest VTL that the image uses, 0 or 2.
    pub highest_vtl: u8,
    /// First byte address of shared memory (vTOM), 0 when unused.
    pub shared_gpa_boundary: u64,
    /// Guest policy as the platform defines it; `None` when the image carries none.
    pub policy: Option<u64>,
    /// Realm policy, CCA only.
    pub cca_policy: Option<CcaPolicy>,
}

impl PlatformFacts {
    /// Facts of a platform that uses VTL 0 only and carries no policy.
    pub const fn new(isolation: Isolation, arch: Arch) -> Self {
        Self {
            isolation,
            arch,
            highest_vtl: 0,
            shared_gpa_boundary: 0,
            policy: None,
            cca_policy: None,
        }
    }
}

/// A region that moves as one block (IGVM header 0x102).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelocatableRegion {
    /// The VP whose registers move with the region.
    pub vp: VpIndex,
    /// That VP's trust level.
    pub vtl: u8,
    /// The region is VTL2's memory.
    pub is_vtl2: bool,
    /// The VP's instruction pointer moves.
    pub apply_pc: bool,
    /// The VP's GDTR base moves.
    pub apply_gdtr: bool,
    /// Alignment of the new base, in bytes.
    pub alignment: u64,
    /// First byte at the file's addresses.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
    /// Lowest allowed base.
    pub min_gpa: u64,
    /// Highest allowed end (exclusive).
    pub max_gpa: u64,
}

/// Where the page tables live that have to be fixed up when a region moves (IGVM header 0x103).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageTableRegion {
    /// The VP whose CR3 points into the region.
    pub vp: VpIndex,
    /// That VP's trust level.
    pub vtl: u8,
    /// First byte at the file's addresses.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
    /// Bytes in use from the start; the rest is room for more tables.
    pub used: u64,
}

/// One platform's launch, unbound: parameter areas still have holes.
///
/// Equality compares what the guest starts as: facts, endorsements, relocation rules and the sequence
/// of pages and other steps. It ignores origins and how pages are grouped into imports.
#[derive(Debug, Clone)]
pub struct LaunchPlan<'a> {
    /// Facts.
    pub facts: PlatformFacts,
    /// Signed or signable statements about this launch, carried unchanged.
    pub endorsements: Endorsements<'a>,
    /// How the image may be moved; empty for a fixed image and for a plan that is relocated already.
    pub relocatable: Vec<RelocatableRegion>,
    /// The page tables to fix when it moves.
    pub page_tables: Option<PageTableRegion>,
    /// The bytes that most contents are borrowed from, such as a mapped file. Pages that lie side by side
    /// in it can be copied together ([`crate::BoundPlan::runs`]). No part of equality.
    pub source: Option<&'a [u8]>,
    pub(crate) steps: Vec<Step<'a>>,
}

impl<'a> LaunchPlan<'a> {
    /// The steps in launch order.
    pub fn steps(&self) -> &[Step<'a>] {
        &self.steps
    }

    /// The steps in launch order, to be changed and built anew.
    pub fn into_steps(self) -> Vec<Step<'a>> {
        self.steps
    }

    /// The VP contexts in launch order, with their origins.
    pub fn vp_contexts(&self) -> impl Iterator<Item = (&VpContext<'a>, Origin)> {
        self.steps.iter().filter_map(|step| match &step.kind {
            StepKind::VpContext(context) => Some((&**context, step.origin)),
            _ => None,
        })
    }
}
