// SPDX-License-Identifier: MIT
//! The launch plan of Microsoft's UEFI (uefi-launch 5.1, 5.2): what `--uefi` starts and what
//! `igvmtool build` encodes for image `uefi`.
//!
//! Always true: the image is borrowed, never copied; the plan names no RAM beyond what the firmware
//! needs and holds no blob, so 0x709000 stays free for the host's unless `config_type: igvm` puts the
//! parameter area there. R12 is never set here. Not here: isolated variants (`super::isolated`).

use super::firmware::{FirmwareError, find_sec_entry};
use super::isolated::BoundaryError;
use super::parameters::{Extras, Places};
use super::{mtrr, parameters, x64};
use launch_plan::{
    Arch, Contents, ExpectMemory, Import, Isolation, LaunchPlan, Origin, PageKind, PlanBuilder, PlanError,
    PlatformFacts, VbsRegister, VbsRegisterName, VbsValue, VpContext, VpState,
};
use std::borrow::Cow;
use x86defs::paging::{LARGE_PAGE_SIZE, PAGE_BYTES, PAGE_SIZE, PTE_A, PTE_D, PTE_P, PTE_PS, PTE_W};
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister, cr0, cr4, efer};

/// How the firmware gets its configuration (`config_type` in a manifest).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConfigType {
    /// The VMM writes a configuration blob behind the image.
    #[default]
    None,
    /// The image carries a parameter area behind itself that IGVM directives fill (uefi-launch 3.10).
    Igvm,
}

/// Why a firmware image makes no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum UefiError {
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Boundary(#[from] BoundaryError),
}

/// The plan for an image: VSM_ISOLATION, VTL 0, one boot processor.
pub fn plan(image: &[u8], config: ConfigType) -> Result<LaunchPlan<'_>, UefiError> {
    let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::X64));
    steps(&mut builder, image, config, page_tables(), Extras::default())?;
    Ok(builder.finish())
}

/// Adds everything but isolated platforms' own pages and returns the firmware's entry point. A register
/// list is added on VSM_ISOLATION only.
pub(super) fn steps<'a>(
    builder: &mut PlanBuilder<'a>,
    image: &'a [u8],
    config: ConfigType,
    page_tables: Vec<u8>,
    extras: Extras,
) -> Result<u64, UefiError> {
    let entry = x64::IMAGE_GPA + find_sec_entry(image)?;
    let end = match config {
        ConfigType::None => x64::CONFIG_BLOB_GPA,
        ConfigType::Igvm => Places::new(&extras).end_gpa(),
    };
    let expect = ExpectMemory {
        gpa: 0,
        len: end,
        vtl2_protectable: false,
    };
    builder.expect_memory(expect, Origin::Host("uefi memory"))?;
    if builder.plan_mut().facts.isolation == Isolation::Vsm {
        let context = VpContext {
            vp: 0,
            gpa: 0,
            state: VpState::Vbs(registers(entry)),
        };
        builder.vp_context(context, Origin::Host("uefi boot processor"))?;
    }

    let parts = [
        (
            "uefi image",
            x64::IMAGE_GPA,
            x64::IMAGE_SIZE,
            Contents::borrowed(image),
        ),
        (
            "uefi page tables",
            x64::PAGE_TABLES_GPA,
            x64::PAGE_TABLES_SIZE,
            owned(page_tables),
        ),
        ("uefi gdt", x64::GDT_GPA, PAGE_SIZE, owned(gdt())),
        (
            "uefi scratch",
            x64::SCRATCH_GPA,
            x64::SCRATCH_SIZE,
            Contents::Zero,
        ),
    ];
    for (what, gpa, len, contents) in parts {
        let import = Import {
            gpa,
            len,
            large: false,
            kind: PageKind::Measured,
            contents,
        };
        builder.import(import, Origin::Host(what))?;
    }
    if config == ConfigType::Igvm {
        parameters::add(builder, extras)?;
    }
    Ok(entry)
}

pub(super) fn owned(bytes: Vec<u8>) -> Contents<'static> {
    Contents::Bytes(Cow::Owned(bytes))
}

/// PML4, PDPT and four page directories: identity map of 0-4 GiB in 2 MiB pages.
fn page_tables() -> Vec<u8> {
    identity_map_4gib(x64::PAGE_TABLES_GPA, PTE_P | PTE_W | PTE_A, PTE_D)
}

/// Six consecutive tables at `gpa` that map 0-4 GiB to itself; every entry carries `flags`, leaves
/// `leaf_flags` as well.
pub fn identity_map_4gib(gpa: u64, flags: u64, leaf_flags: u64) -> Vec<u8> {
    let directories = (0..4).map(|index| (gpa + (2 + index) * PAGE_SIZE) | flags);
    let leaves = (0..2048).map(|index| (index * LARGE_PAGE_SIZE) | flags | leaf_flags | PTE_PS);
    let mut tables = vec![0; 6 * PAGE_BYTES];
    put_entries(&mut tables[..PAGE_BYTES], [(gpa + PAGE_SIZE) | flags]);
    put_entries(&mut tables[PAGE_BYTES..2 * PAGE_BYTES], directories);
    put_entries(&mut tables[2 * PAGE_BYTES..], leaves);
    tables
}

fn put_entries(table: &mut [u8], entries: impl IntoIterator<Item = u64>) {
    for (slot, entry) in table.chunks_exact_mut(8).zip(entries) {
        slot.copy_from_slice(&entry.to_le_bytes());
    }
}

/// Null, 64-bit code, data, null; in memory the limits are 16 bits wide.
fn gdt() -> Vec<u8> {
    let descriptor = |attributes: u64| (attributes << 40) | 0xFFFF;
    [
        0,
        descriptor(CODE_ATTRIBUTES.into()),
        descriptor(DATA_ATTRIBUTES.into()),
        0,
    ]
    .iter()
    .flat_map(|entry: &u64| entry.to_le_bytes())
    .collect()
}

const CODE_ATTRIBUTES: u32 = 0xA09B;
const DATA_ATTRIBUTES: u32 = 0xC093;

/// The boot processor's registers (uefi-launch 5.2). R8-R11 are the hypervisor isolation leaf, all
/// zero when not isolated.
pub(super) fn registers(entry: u64) -> Vec<VbsRegister> {
    use VbsRegisterName as Name;
    let flat = |selector, attributes| {
        VbsValue::Segment(SegmentRegister {
            selector,
            attributes: SegmentAttributes(attributes),
            limit: 0xFFFF_FFFF,
            base: 0,
        })
    };
    let data = flat(0x10, DATA_ATTRIBUTES);
    let gdtr = TableRegister {
        base: x64::GDT_GPA,
        limit: 31,
    };
    let list = [
        (Name::Gdtr, VbsValue::Table(gdtr)),
        (Name::Ds, data),
        (Name::Es, data),
        (Name::Fs, data),
        (Name::Gs, data),
        (Name::Ss, data),
        (Name::Cs, flat(0x08, CODE_ATTRIBUTES)),
        (Name::Cr0, VbsValue::U64(cr0::PG | cr0::NE | cr0::MP | cr0::PE)),
        (Name::Cr3, VbsValue::U64(x64::PAGE_TABLES_GPA)),
        (
            Name::Cr4,
            VbsValue::U64(cr4::PAE | cr4::MCE | cr4::OSFXSR | cr4::OSXMMEXCPT),
        ),
        (Name::Efer, VbsValue::U64(efer::LME | efer::LMA | efer::NXE)),
        (Name::Pat, VbsValue::U64(mtrr::PAT)),
        (Name::Rbp, VbsValue::U64(x64::IMAGE_GPA + x64::SEC_VOLUME_OFFSET)),
        (Name::Rip, VbsValue::U64(entry)),
        (Name::R8, VbsValue::U64(0)),
        (Name::R9, VbsValue::U64(0)),
        (Name::R10, VbsValue::U64(0)),
        (Name::R11, VbsValue::U64(0)),
        (Name::MtrrDefType, VbsValue::U64(mtrr::DEF_TYPE)),
        (Name::MtrrFix64k00000, VbsValue::U64(mtrr::FIXED_WRITE_BACK)),
        (Name::MtrrFix16k80000, VbsValue::U64(mtrr::FIXED_WRITE_BACK)),
    ];
    list.into_iter()
        .map(|(name, value)| VbsRegister { vtl: 0, name, value })
        .collect()
}

#[cfg(test)]
mod tests;
