// SPDX-License-Identifier: MIT
//! The plan of a `flat` image.
//!
//! Always true: steps come in the order required memory, boot processor, tables, binary, pages, error
//! ranges, parameters; the boot processor's registers are a VBS list (uefi-launch 4.3), which
//! [`super::platform`] turns into a native context if asked.

use super::resources::Resources;
use crate::manifest::{
    EntryMode, FlatContents, FlatImage, FlatPages, FlatParameters, FlatRelocation, RegisterName,
};
use launch_plan::{
    Arch, Contents, ExpectMemory, Import, Isolation, LaunchPlan, Origin, PageKind, PageTableRegion,
    ParameterArea, ParameterSlot, PlanBuilder, PlatformFacts, RelocatableRegion, VbsRegister,
    VbsRegisterName, VbsValue, VpContext, VpState,
};
use std::borrow::Cow;
use vm_loaders::uefi::identity_map_4gib;
use x86defs::paging::{LARGE_PAGE_SIZE, PAGE_SIZE, PTE_A, PTE_D, PTE_P, PTE_W};
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister, cr0, cr4, efer};

/// PML4, PDPT and four page directories.
const TABLE_PAGES: u64 = 6;
const CODE_64: u32 = 0xA09B;
const CODE_32: u32 = 0xC09B;
const DATA: u32 = 0xC093;

/// Builds the plan; the error says which part of the image is wrong.
pub(super) fn plan<'r>(flat: &FlatImage, resources: &'r Resources) -> Result<LaunchPlan<'r>, String> {
    let binary = resources.get(&flat.resource)?;
    let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::X64));
    add(&mut builder, flat, binary, resources).map(|()| builder.finish())
}

fn add<'r>(
    builder: &mut PlanBuilder<'r>,
    flat: &FlatImage,
    binary: &'r [u8],
    resources: &'r Resources,
) -> Result<(), String> {
    let text = |error: launch_plan::PlanError| error.to_string();
    for range in &flat.required_memory {
        let expect = ExpectMemory {
            gpa: range.gpa.0,
            len: range.bytes.0,
            vtl2_protectable: false,
        };
        builder
            .expect_memory(expect, Origin::Host("required_memory"))
            .map_err(text)?;
    }
    let context = VpContext {
        vp: 0,
        gpa: 0,
        state: VpState::Vbs(registers(flat)),
    };
    builder
        .vp_context(context, Origin::Host("flat boot processor"))
        .map_err(text)?;
    let tables = flat.tables_gpa.0;
    let mut put = |what, gpa, kind, contents: Contents<'r>, len| {
        let import = Import {
            gpa,
            len,
            large: false,
            kind,
            contents,
        };
        builder.import(import, Origin::Host(what)).map_err(text)
    };
    put(
        "flat page tables",
        tables,
        PageKind::Measured,
        Contents::Bytes(Cow::Owned(identity_map_4gib(
            tables,
            PTE_P | PTE_W | PTE_A,
            PTE_D,
        ))),
        TABLE_PAGES * PAGE_SIZE,
    )?;
    let gdt = Contents::Bytes(Cow::Owned(gdt(flat.mode)));
    put("flat gdt", gdt_gpa(flat), PageKind::Measured, gdt, PAGE_SIZE)?;
    let len = (binary.len() as u64).next_multiple_of(PAGE_SIZE);
    put(
        "flat binary",
        flat.gpa.0,
        PageKind::Measured,
        Contents::borrowed(binary),
        len,
    )?;
    for pages in &flat.pages {
        add_pages(builder, pages, resources)?;
    }
    for range in &flat.error_ranges {
        let origin = Origin::Host("error_ranges");
        builder
            .error_range(range.gpa.0, range.bytes.0, origin)
            .map_err(text)?;
    }
    for (index, area) in flat.parameters.iter().enumerate() {
        add_parameters(builder, index as u32, area, resources)?;
    }
    if let Some(relocatable) = &flat.relocatable {
        add_relocation(builder.plan_mut(), flat, relocatable);
    }
    Ok(())
}

fn add_pages<'r>(
    builder: &mut PlanBuilder<'r>,
    pages: &FlatPages,
    resources: &'r Resources,
) -> Result<(), String> {
    let size = if pages.large { LARGE_PAGE_SIZE } else { PAGE_SIZE };
    let bytes = contents(&pages.contents, pages.count, size, resources)?;
    for page in 0..if pages.large { pages.count } else { 1 } {
        let len = if pages.large {
            size
        } else {
            length(pages.count, size)?
        };
        let gpa = page
            .checked_mul(size)
            .and_then(|offset| pages.gpa.0.checked_add(offset));
        let gpa = gpa.ok_or_else(|| format!("pages at gpa {:#x} pass the end of memory", pages.gpa.0))?;
        let import = Import {
            gpa,
            len,
            large: pages.large,
            kind: pages.kind.page_kind(),
            contents: part(&bytes, page, size, pages.large),
        };
        builder
            .import(import, Origin::Host("pages"))
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The bytes of one large page, or all of them.
fn part<'r>(bytes: &Option<Cow<'r, [u8]>>, page: u64, size: u64, large: bool) -> Contents<'r> {
    let Some(bytes) = bytes else { return Contents::Zero };
    if !large {
        return Contents::Bytes(bytes.clone());
    }
    let start = usize::try_from(page * size)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let end = start.saturating_add(size as usize).min(bytes.len());
    if start == end {
        Contents::Zero
    } else {
        Contents::Bytes(Cow::Owned(bytes[start..end].to_vec()))
    }
}

fn length(count: u64, size: u64) -> Result<u64, String> {
    // More than this does not fit an IGVM file, whose offsets have 32 bits.
    count
        .checked_mul(size)
        .filter(|&len| len <= 1 << 32)
        .ok_or_else(|| format!("{count} pages are more than 4 GiB"))
}

/// What pages or an area begin with; `None` is all zero.
fn contents<'r>(
    contents: &FlatContents,
    count: u64,
    size: u64,
    resources: &'r Resources,
) -> Result<Option<Cow<'r, [u8]>>, String> {
    let len = length(count, size)?;
    let bytes: Cow<'r, [u8]> = match contents {
        FlatContents::Zero => return Ok(None),
        FlatContents::Fill(value) => vec![*value; len as usize].into(),
        FlatContents::Text(text) => text.clone().into_bytes().into(),
        FlatContents::Resource(name) => resources.get(name)?.into(),
    };
    if bytes.len() as u64 > len {
        return Err(format!(
            "contents of {} bytes do not fit {len} bytes of pages",
            bytes.len()
        ));
    }
    Ok(Some(bytes))
}

fn add_parameters<'r>(
    builder: &mut PlanBuilder<'r>,
    index: u32,
    area: &FlatParameters,
    resources: &'r Resources,
) -> Result<(), String> {
    let origin = Origin::Host("parameters");
    let slots = area.values.iter().map(|value| ParameterSlot {
        kind: value.kind.parameter_kind(),
        byte_offset: value.offset,
        origin,
    });
    let initial = contents(&area.initial, area.count, PAGE_SIZE, resources)?;
    let import = Import {
        gpa: area.gpa.0,
        len: length(area.count, PAGE_SIZE)?,
        large: false,
        kind: PageKind::Unmeasured,
        contents: Contents::Parameters(Box::new(ParameterArea {
            index,
            initial: initial.unwrap_or_default(),
            slots: slots.collect(),
        })),
    };
    builder.import(import, origin).map_err(|error| error.to_string())
}

fn add_relocation(plan: &mut LaunchPlan<'_>, flat: &FlatImage, relocation: &FlatRelocation) {
    plan.relocatable.push(RelocatableRegion {
        vp: 0,
        vtl: 0,
        is_vtl2: false,
        apply_pc: true,
        apply_gdtr: true,
        alignment: relocation.alignment.0,
        gpa: relocation.gpa.0,
        len: relocation.bytes.0,
        min_gpa: relocation.min_gpa.0,
        max_gpa: relocation.max_gpa.0,
    });
    if flat.mode == EntryMode::Long {
        plan.page_tables = Some(PageTableRegion {
            vp: 0,
            vtl: 0,
            gpa: flat.tables_gpa.0,
            len: TABLE_PAGES * PAGE_SIZE,
            used: TABLE_PAGES * PAGE_SIZE,
        });
    }
}

fn gdt_gpa(flat: &FlatImage) -> u64 {
    flat.tables_gpa.0.saturating_add(TABLE_PAGES * PAGE_SIZE)
}

fn registers(flat: &FlatImage) -> Vec<VbsRegister> {
    use VbsRegisterName as Name;
    let long = flat.mode == EntryMode::Long;
    let flat_segment = |selector, attributes| {
        let attributes = SegmentAttributes(attributes);
        VbsValue::Segment(SegmentRegister {
            selector,
            attributes,
            limit: 0xFFFF_FFFF,
            base: 0,
        })
    };
    let code = flat_segment(0x08, if long { CODE_64 } else { CODE_32 });
    let data = flat_segment(0x10, DATA);
    let gdtr = TableRegister {
        base: gdt_gpa(flat),
        limit: 0x1F,
    };
    let paging = if long { cr0::PG } else { 0 };
    let mut list = vec![
        (Name::Gdtr, VbsValue::Table(gdtr)),
        (Name::Cs, code),
        (Name::Ds, data),
        (Name::Es, data),
        (Name::Fs, data),
        (Name::Gs, data),
        (Name::Ss, data),
        (
            Name::Cr0,
            VbsValue::U64(cr0::PE | cr0::MP | cr0::ET | cr0::NE | paging),
        ),
        (Name::Cr3, VbsValue::U64(if long { flat.tables_gpa.0 } else { 0 })),
        (Name::Cr4, VbsValue::U64(if long { cr4::PAE } else { 0 })),
        (
            Name::Efer,
            VbsValue::U64(if long { efer::LME | efer::LMA } else { 0 }),
        ),
        (Name::Rip, VbsValue::U64(flat.entry.unwrap_or(flat.gpa).0)),
        (Name::Rflags, VbsValue::U64(x86defs::rflags::RESERVED_ONE)),
    ];
    list.extend(
        flat.registers
            .iter()
            .map(|r| (vbs_name(r.name), VbsValue::U64(r.value.0))),
    );
    list.into_iter()
        .map(|(name, value)| VbsRegister { vtl: 0, name, value })
        .collect()
}

const fn vbs_name(name: RegisterName) -> VbsRegisterName {
    match name {
        RegisterName::Rbp => VbsRegisterName::Rbp,
        RegisterName::Rsi => VbsRegisterName::Rsi,
        RegisterName::Rsp => VbsRegisterName::Rsp,
        RegisterName::R8 => VbsRegisterName::R8,
        RegisterName::R9 => VbsRegisterName::R9,
        RegisterName::R10 => VbsRegisterName::R10,
        RegisterName::R11 => VbsRegisterName::R11,
        RegisterName::R12 => VbsRegisterName::R12,
    }
}

/// Null, code, data, null.
fn gdt(mode: EntryMode) -> Vec<u8> {
    let code = if mode == EntryMode::Long { CODE_64 } else { CODE_32 };
    // Base 0; the limit's upper four bits stand between the attribute's two parts.
    let entry = |attributes: u32| (u64::from(attributes) << 40) | 0x000F_0000_0000_FFFF;
    [0, entry(code), entry(DATA), 0]
        .iter()
        .flat_map(|entry: &u64| entry.to_le_bytes())
        .collect()
}
