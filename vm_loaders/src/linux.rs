// SPDX-License-Identifier: MIT
//! Direct Linux boot: a kernel, an optional initrd and a command line become a launch plan (Linux
//! x86 boot protocol; PVH, Xen's x86/HVM direct boot ABI).
//!
//! Three forms: bzImage by its 64-bit entry point; an ELF kernel with a PVH note by its 32-bit entry
//! point; an ELF kernel without one by its 64-bit entry point.
//!
//! Always true: kernel and initrd are borrowed, not copied; what the loader adds lies below 1 MiB and
//! the kernel above; ACPI tables lie in the reserved memory below 1 MiB, and their RSDP is handed over;
//! the plan expects all RAM that its memory map promises, so an image built from it fails early in a
//! smaller guest. Not here: real-mode entry, 32-bit kernels, kernels compressed as a whole.

mod boot_params;
mod bzimage;
mod elf;
mod memory;
mod mtrr;
mod pvh;
mod snp;

pub use bzimage::split_setup;
pub use memory::{ACPI_GPA, ACPI_ROOM, COMMAND_LINE_GPA, COMMAND_LINE_ROOM, ZERO_PAGE_GPA};
pub use mtrr::host_registers;
pub use pvh::START_INFO_MAGIC;
pub use snp::{SnpDirect, plan_snp};

use crate::acpi::{self, AcpiSet, SetError};
use crate::uefi::identity_map_4gib;
use launch_plan::{
    Arch, Contents, ExpectMemory, Import, Isolation, LaunchPlan, NativeContext, Origin, PageKind,
    ParameterArea, ParameterKind, ParameterSlot, PlanBuilder, PlanError, PlatformFacts, VpContext, VpState,
};
use memory::{E820Error, GDT_GPA, PAGE_TABLES_GPA};
use openvmm_defs::{GpaRange, MemoryLayout};
use std::borrow::Cow;
use x86defs::paging::{PAGE_SIZE, PTE_A, PTE_D, PTE_P, PTE_W};
use x86defs::state::gpr;
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister, cr0, cr4, efer, rflags};

/// What a guest boots from.
#[derive(Debug, Clone, Copy)]
pub struct LinuxInputs<'a, 'l> {
    /// bzImage or ELF kernel.
    pub kernel: &'a [u8],
    /// Initial RAM disk.
    pub initrd: Option<&'a [u8]>,
    /// Command line, without terminator.
    pub cmdline: &'a str,
    /// RAM, VP count and root complexes for the memory map and the ACPI tables.
    pub layout: &'l MemoryLayout,
    /// The command line is a parameter area with `cmdline` as its initial data, so that a host may
    /// replace it: for images that go into a file.
    pub replaceable_cmdline: bool,
}

/// Why a kernel makes no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum LinuxError {
    #[error(
        "not a kernel: neither a bzImage (signature HdrS at offset 0x202) nor an ELF file; it starts with {0:02x?}"
    )]
    NotAKernel(Vec<u8>),
    #[error("the kernel file of {have:#x} bytes is cut off: {what} needs {need:#x} bytes")]
    Truncated {
        what: &'static str,
        have: u64,
        need: u64,
    },
    #[error(
        "the bzImage has boot protocol {}.{}; 2.12 or later is needed (Linux 3.8)",
        .0 >> 8,
        .0 & 0xFF
    )]
    OldProtocol(u16),
    #[error(
        "the bzImage has no 64-bit entry point (xloadflags {0:#x}, bit 0 is clear); a 64-bit kernel is needed"
    )]
    No64BitEntry(u16),
    #[error("the bzImage loads low (a zImage); only kernels that load at 1 MiB or above are supported")]
    LoadsLow,
    #[error("ELF kernel: {0}")]
    Elf(&'static str),
    #[error("ELF kernel: segment {index} at {range} must lie at or above 0x100000")]
    SegmentLow { index: usize, range: GpaRange },
    #[error("ELF kernel: segments {first} and {second} overlap")]
    SegmentsOverlap { first: usize, second: usize },
    #[error("ELF kernel: the entry point {0:#x} lies in no loaded segment")]
    EntryOutside(u64),
    #[error("the kernel needs {needed} but RAM below 4 GiB ends at {end:#x}; -m must be larger")]
    KernelDoesNotFit { needed: GpaRange, end: u64 },
    #[error(
        "the initrd of {len:#x} bytes does not fit between the kernel's end {from:#x} and {limit:#x}; -m must be larger or the initrd smaller"
    )]
    InitrdDoesNotFit { len: u64, from: u64, limit: u64 },
    #[error(
        "sev-snp needs a kernel with a 64-bit entry point; a PVH kernel has a 32-bit one, use its bzImage"
    )]
    SnpNeedsLongEntry,
    #[error("the initrd is empty")]
    EmptyInitrd,
    #[error("the command line is {have} bytes long; this kernel takes at most {limit}")]
    CommandLineTooLong { have: usize, limit: usize },
    #[error("the command line has a NUL byte at offset {0}")]
    CommandLineNul(usize),
    #[error("the first RAM range {0} must start at 0 and reach 1 MiB")]
    NoLowRam(GpaRange),
    #[error(transparent)]
    Map(#[from] E820Error),
    #[error(transparent)]
    Acpi(#[from] SetError),
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What a kernel file says about itself.
#[derive(Debug)]
struct Kernel<'a> {
    /// Pages to import: address and contents.
    parts: Vec<(u64, Cow<'a, [u8]>)>,
    /// Memory that the kernel uses before it reads the memory map.
    range: GpaRange,
    entry: Entry,
    /// Longest command line in bytes, without terminator.
    cmdline_limit: usize,
    /// First address that the initrd may not reach.
    initrd_limit: u64,
    /// Setup header of a bzImage.
    setup_header: Option<&'a [u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// 64-bit mode, RSI = zero page.
    Long(u64),
    /// 32-bit protected mode without paging, EBX = start info.
    Pvh(u32),
}

/// The plan for a kernel: native, one boot processor.
pub fn plan<'a>(inputs: &LinuxInputs<'a, '_>) -> Result<LaunchPlan<'a>, LinuxError> {
    plan_parts(inputs).map(|(plan, _)| plan)
}

/// The plan and how the kernel is entered.
fn plan_parts<'a>(inputs: &LinuxInputs<'a, '_>) -> Result<(LaunchPlan<'a>, Entry), LinuxError> {
    let layout = inputs.layout;
    let low_ram = low_ram(layout)?;
    let kernel = parse_kernel(inputs.kernel)?;
    if !low_ram.contains(&kernel.range) {
        return Err(LinuxError::KernelDoesNotFit {
            needed: kernel.range,
            end: low_ram.end(),
        });
    }
    check_cmdline(inputs.cmdline, kernel.cmdline_limit)?;
    let initrd = place_initrd(inputs.initrd, &kernel, &low_ram)?;
    let acpi = acpi::linux_set(layout, ACPI_GPA as u32, ACPI_ROOM)?;
    let hand_over = HandOver {
        initrd: initrd.map(|(range, _)| range),
        rsdp_gpa: acpi.gpa,
        map: memory::e820(layout)?,
    };

    let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64));
    expect_ram(&mut builder, layout)?;
    add_hand_over(&mut builder, &kernel, &hand_over)?;
    add_cmdline(&mut builder, inputs)?;
    add_acpi(&mut builder, acpi)?;
    for (gpa, contents) in kernel.parts {
        add(&mut builder, gpa, contents, "linux kernel")?;
    }
    if let Some((range, bytes)) = initrd {
        add(&mut builder, range.gpa, Cow::Borrowed(bytes), "initrd")?;
    }
    let context = VpContext {
        vp: 0,
        gpa: 0,
        state: VpState::Native(Box::new(boot_state(kernel.entry))),
    };
    builder.vp_context(context, Origin::Host("linux boot processor"))?;
    Ok((builder.finish(), kernel.entry))
}

/// What the zero page or start info tells the kernel.
#[derive(Debug)]
struct HandOver {
    initrd: Option<GpaRange>,
    rsdp_gpa: u64,
    map: Vec<memory::E820Entry>,
}

fn low_ram(layout: &MemoryLayout) -> Result<GpaRange, LinuxError> {
    let first = layout.ram.first().copied().unwrap_or_default();
    if first.gpa != 0 || first.len < memory::ONE_MIB {
        return Err(LinuxError::NoLowRam(first));
    }
    Ok(first)
}

fn parse_kernel(bytes: &[u8]) -> Result<Kernel<'_>, LinuxError> {
    if bzimage::is_bzimage(bytes) {
        return bzimage::parse(bytes);
    }
    if bytes.starts_with(elf::MAGIC) {
        return elf::parse(bytes);
    }
    Err(LinuxError::NotAKernel(bytes[..bytes.len().min(4)].to_vec()))
}

/// `len` bytes of the kernel file at `start`.
fn part<'a>(bytes: &'a [u8], start: usize, len: usize, what: &'static str) -> Result<&'a [u8], LinuxError> {
    let end = start.saturating_add(len);
    bytes.get(start..end).ok_or(LinuxError::Truncated {
        what,
        have: bytes.len() as u64,
        need: end as u64,
    })
}

fn check_cmdline(cmdline: &str, limit: usize) -> Result<(), LinuxError> {
    let limit = limit.min(COMMAND_LINE_ROOM as usize - 1);
    if let Some(offset) = cmdline.bytes().position(|byte| byte == 0) {
        return Err(LinuxError::CommandLineNul(offset));
    }
    if cmdline.len() > limit {
        let have = cmdline.len();
        return Err(LinuxError::CommandLineTooLong { have, limit });
    }
    Ok(())
}

/// As high as the kernel allows, so that the kernel has room to grow behind itself.
fn place_initrd<'a>(
    initrd: Option<&'a [u8]>,
    kernel: &Kernel<'_>,
    low_ram: &GpaRange,
) -> Result<Option<(GpaRange, &'a [u8])>, LinuxError> {
    let Some(bytes) = initrd else { return Ok(None) };
    let len = bytes.len() as u64;
    if len == 0 {
        return Err(LinuxError::EmptyInitrd);
    }
    let limit = kernel.initrd_limit.min(low_ram.end());
    let from = kernel.range.end().next_multiple_of(PAGE_SIZE);
    let gpa = limit
        .checked_sub(len)
        .map(|gpa| gpa & !(PAGE_SIZE - 1))
        .filter(|gpa| *gpa >= from)
        .ok_or(LinuxError::InitrdDoesNotFit { len, from, limit })?;
    Ok(Some((GpaRange::new(gpa, len), bytes)))
}

/// REQUIRED_MEMORY counts bytes in 32 bits, so large ranges are expected piece by piece.
fn expect_ram(builder: &mut PlanBuilder<'_>, layout: &MemoryLayout) -> Result<(), PlanError> {
    const PIECE: u64 = 2 << 30;
    for range in layout.ram.iter().filter(|range| !range.is_empty()) {
        let mut gpa = range.gpa;
        while gpa < range.end() {
            let len = (range.end() - gpa).min(PIECE);
            let expect = ExpectMemory {
                gpa,
                len,
                vtl2_protectable: false,
            };
            builder.expect_memory(expect, Origin::Host("linux memory map"))?;
            gpa += len;
        }
    }
    Ok(())
}

fn add_hand_over(
    builder: &mut PlanBuilder<'_>,
    kernel: &Kernel<'_>,
    hand_over: &HandOver,
) -> Result<(), LinuxError> {
    match kernel.entry {
        Entry::Long(_) => {
            let page = boot_params::zero_page(kernel.setup_header, hand_over);
            add(builder, ZERO_PAGE_GPA, page.into(), "linux zero page")?;
            let tables = identity_map_4gib(PAGE_TABLES_GPA, PTE_P | PTE_W | PTE_A, PTE_D);
            add(builder, PAGE_TABLES_GPA, tables.into(), "linux page tables")?;
        }
        Entry::Pvh(_) => {
            let page = pvh::start_info(hand_over);
            add(builder, ZERO_PAGE_GPA, page.into(), "pvh start info")?;
        }
    }
    add(builder, GDT_GPA, gdt(kernel.entry).into(), "linux gdt")?;
    Ok(())
}

fn add_cmdline<'a>(builder: &mut PlanBuilder<'a>, inputs: &LinuxInputs<'a, '_>) -> Result<(), PlanError> {
    let origin = Origin::Host("linux command line");
    let text = Cow::Borrowed(inputs.cmdline.as_bytes());
    if !inputs.replaceable_cmdline {
        // The page's zero fill is the terminator: the length is checked to be below the room, and an
        // unterminated last page is avoided by taking one byte more.
        let len = (text.len() as u64 + 1).next_multiple_of(PAGE_SIZE);
        let import = Import {
            gpa: COMMAND_LINE_GPA,
            len,
            large: false,
            kind: PageKind::Measured,
            contents: Contents::Bytes(text),
        };
        return builder.import(import, origin);
    }
    let area = ParameterArea {
        index: 0,
        initial: text,
        slots: vec![ParameterSlot {
            kind: ParameterKind::CommandLine,
            byte_offset: 0,
            origin,
        }],
    };
    let import = Import {
        gpa: COMMAND_LINE_GPA,
        len: COMMAND_LINE_ROOM,
        large: false,
        kind: PageKind::Unmeasured,
        contents: Contents::Parameters(Box::new(area)),
    };
    builder.import(import, origin)
}

fn add_acpi(builder: &mut PlanBuilder<'_>, set: AcpiSet) -> Result<(), PlanError> {
    add(builder, set.gpa, set.bytes.into(), "acpi tables")
}

/// Adds bytes at a page-aligned address, zero-filled to whole pages.
fn add<'a>(
    builder: &mut PlanBuilder<'a>,
    gpa: u64,
    bytes: Cow<'a, [u8]>,
    what: &'static str,
) -> Result<(), PlanError> {
    let import = Import {
        gpa,
        len: (bytes.len() as u64).next_multiple_of(PAGE_SIZE),
        large: false,
        kind: PageKind::Measured,
        contents: Contents::Bytes(bytes),
    };
    builder.import(import, Origin::Host(what))
}

/// Selectors that the boot protocol fixes: __BOOT_CS and __BOOT_DS.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const CODE_64: u32 = 0xA09B;
const CODE_32: u32 = 0xC09B;
const DATA: u32 = 0xC093;

fn code_attributes(entry: Entry) -> u32 {
    match entry {
        Entry::Long(_) => CODE_64,
        Entry::Pvh(_) => CODE_32,
    }
}

/// Null, null, flat code, flat data.
fn gdt(entry: Entry) -> Vec<u8> {
    let descriptor = |attributes: u32| u64::from(attributes) << 40 | 0x000F_0000_0000_FFFF;
    [0, 0, descriptor(code_attributes(entry)), descriptor(DATA)]
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect()
}

fn boot_state(entry: Entry) -> NativeContext {
    let flat = |selector, attributes| SegmentRegister {
        selector,
        attributes: SegmentAttributes(attributes),
        limit: u32::MAX,
        base: 0,
    };
    let mut context = NativeContext {
        rflags: rflags::RESERVED_ONE,
        gdtr: TableRegister {
            base: GDT_GPA,
            limit: 31,
        },
        cs: flat(CODE_SELECTOR, code_attributes(entry)),
        data: flat(DATA_SELECTOR, DATA),
        cr0: cr0::PE | cr0::ET,
        ..NativeContext::default()
    };
    match entry {
        Entry::Long(rip) => {
            context.rip = rip;
            context.gpr[gpr::RSI] = ZERO_PAGE_GPA;
            context.gpr[gpr::RSP] = memory::STACK_END_GPA;
            context.cr0 |= cr0::PG;
            context.cr3 = PAGE_TABLES_GPA;
            context.cr4 = cr4::PAE;
            context.efer = efer::LME | efer::LMA;
        }
        Entry::Pvh(eip) => {
            context.rip = eip.into();
            context.gpr[gpr::RBX] = ZERO_PAGE_GPA;
        }
    }
    context
}

#[cfg(test)]
mod tests;
