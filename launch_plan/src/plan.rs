// SPDX-License-Identifier: MIT
//! The plan's types: facts, steps, contents.

use crate::vp::VpContext;
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

    /// Whether the guest's memory or registers are protected from the host by hardware.
    pub const fn is_confidential(self) -> bool {
        !matches!(self, Self::Native | Self::Vsm)
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

/// The eleven values that a host can deposit in a parameter area (IGVM headers 0x307-0x313).
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

/// One value to deposit in a parameter area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterSlot {
    /// Which value.
    pub kind: ParameterKind,
    /// Where in the area, in bytes.
    pub byte_offset: u32,
    /// The header that asked for it.
    pub origin: Origin,
}

/// A parameter area: initial bytes (zero beyond them) and the holes that [`LaunchPlan::bind`] fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterArea<'a> {
    /// The file's index of this area.
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

/// A step and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Step<'a> {
    /// What to do.
    pub kind: StepKind<'a>,
    /// Which header or loader asked for it.
    pub origin: Origin,
}

/// What must be known of the platform before a guest exists.
#[derive(Debug, Clone, PartialEq)]
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
}

/// One platform's launch, unbound: parameter areas still have holes.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchPlan<'a> {
    /// Facts.
    pub facts: PlatformFacts,
    pub(crate) steps: Vec<Step<'a>>,
}

impl<'a> LaunchPlan<'a> {
    /// The steps in launch order.
    pub fn steps(&self) -> &[Step<'a>] {
        &self.steps
    }
}
