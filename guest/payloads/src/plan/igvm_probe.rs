// SPDX-License-Identifier: MIT
//! The plan of `igvm_probe`: one of everything that an IGVM file can ask for.

use super::{add_pages, state};
use guest_protocol::igvm_probe::{self as contract, registers};
use launch_plan::{
    Arch, Contents, ExpectMemory, Import, Isolation, LaunchPlan, NativeContext, Origin, PageKind,
    PageTableRegion, ParameterArea, ParameterKind, ParameterSlot, PlanBuilder, PlanError, PlatformFacts,
    RelocatableRegion, VbsRegister, VbsRegisterName as Name, VbsValue, VpContext, VpState,
};
use x86defs::TableRegister;
use x86defs::paging::{LARGE_PAGE_SIZE, PAGE_SIZE};
use x86defs::state::gpr;

/// What kind of image to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IgvmProbeOptions {
    /// NATIVE or VSM_ISOLATION.
    pub isolation: Isolation,
    /// Native only: entered in 32-bit protected mode with paging off.
    pub entry32: bool,
    /// VSM_ISOLATION only: the region may be moved.
    pub relocatable: bool,
}

impl IgvmProbeOptions {
    /// A fixed image with a 64-bit entry.
    pub const fn new(isolation: Isolation) -> Self {
        Self {
            isolation,
            entry32: false,
            relocatable: false,
        }
    }
}

const BASE: u64 = contract::BASE_GPA;

/// The plan at the file's own addresses.
pub fn igvm_probe_plan(options: IgvmProbeOptions) -> Result<LaunchPlan<'static>, PlanError> {
    let mut builder = PlanBuilder::new(PlatformFacts::new(options.isolation, Arch::X64));
    // The trampoline and whatever else real mode needs; the region; its page tables.
    let tables = BASE + contract::PAGE_TABLES;
    let tables_len = contract::PAGE_TABLE_ROOM * PAGE_SIZE;
    for (gpa, len) in [(0, 0xA_0000), (BASE, contract::REGION_LEN), (tables, tables_len)] {
        let expect = ExpectMemory {
            gpa,
            len,
            vtl2_protectable: false,
        };
        builder.expect_memory(expect, Origin::Host("igvm_probe's memory"))?;
    }
    let measured = PageKind::Measured;
    add_pages(
        &mut builder,
        "igvm_probe",
        BASE,
        measured,
        crate::IGVM_PROBE.into(),
    )?;
    add_pages(
        &mut builder,
        "page tables",
        tables,
        measured,
        state::page_tables(tables).into(),
    )?;
    add_pages(
        &mut builder,
        "gdt",
        BASE + contract::GDT,
        measured,
        state::gdt().into(),
    )?;
    add_contents(&mut builder)?;
    add_parameters(&mut builder)?;
    let state = match (options.isolation, options.entry32) {
        (Isolation::Native, false) => VpState::Native(Box::new(native())),
        (Isolation::Native, true) => VpState::Native(Box::new(native32())),
        _ => VpState::Vbs(vbs()),
    };
    let context = VpContext { vp: 0, gpa: 0, state };
    builder.vp_context(context, Origin::Host("boot processor"))?;
    if options.relocatable {
        make_relocatable(builder.plan_mut());
    }
    Ok(builder.finish())
}

fn make_relocatable(plan: &mut LaunchPlan<'_>) {
    plan.relocatable.push(RelocatableRegion {
        vp: 0,
        vtl: 0,
        is_vtl2: false,
        apply_pc: true,
        apply_gdtr: true,
        alignment: contract::ALIGNMENT,
        gpa: BASE,
        len: contract::REGION_LEN,
        min_gpa: contract::ALIGNMENT,
        max_gpa: 0x8000_0000,
    });
    plan.page_tables = Some(PageTableRegion {
        vp: 0,
        vtl: 0,
        gpa: BASE + contract::PAGE_TABLES,
        len: contract::PAGE_TABLE_ROOM * PAGE_SIZE,
        used: contract::PAGE_TABLE_PAGES * PAGE_SIZE,
    });
}

/// `len` bytes of pattern from an offset on.
fn pattern(offset: u64, len: u64) -> Vec<u8> {
    (offset..offset + len)
        .step_by(8)
        .flat_map(|at| contract::pattern(at).to_le_bytes())
        .collect()
}

fn add_contents(builder: &mut PlanBuilder<'static>) -> Result<(), PlanError> {
    for page in contract::PAGES {
        let kind = match page.kind {
            contract::Kind::Measured => PageKind::Measured,
            contract::Kind::Unmeasured => PageKind::Unmeasured,
            contract::Kind::Shared => PageKind::Shared,
        };
        let contents = match page.pattern {
            0 => Contents::Zero,
            len => Contents::Bytes(pattern(page.offset, len).into()),
        };
        let import = Import {
            gpa: BASE + page.offset,
            len: PAGE_SIZE,
            large: false,
            kind,
            contents,
        };
        builder.import(import, Origin::Host(page.name))?;
    }
    let contract::Area { offset, len } = contract::LARGE_PAGE;
    let large = Import {
        gpa: BASE + offset,
        len: LARGE_PAGE_SIZE,
        large: true,
        kind: PageKind::Measured,
        contents: Contents::Bytes(pattern(offset, len).into()),
    };
    builder.import(large, Origin::Host("large page"))?;
    let contract::Area { offset, len } = contract::ERROR_RANGE;
    builder.error_range(BASE + offset, len, Origin::Host("error range"))
}

fn add_parameters(builder: &mut PlanBuilder<'static>) -> Result<(), PlanError> {
    use ParameterKind as Kind;
    let values: &[(Kind, u32)] = &[
        (Kind::VpCount, contract::VP_COUNT_AT),
        (Kind::EnvironmentInfo, contract::ENVIRONMENT_AT),
        (Kind::MmioRanges, contract::MMIO_AT),
    ];
    let areas: [(contract::Area, &[(Kind, u32)]); 8] = [
        (contract::VALUES, values),
        (contract::MEMORY_MAP, &[(Kind::MemoryMap, 0)]),
        (contract::COMMAND_LINE, &[(Kind::CommandLine, 0)]),
        (contract::MADT, &[(Kind::Madt, 0)]),
        (contract::SRAT, &[(Kind::Srat, 0)]),
        (contract::SLIT, &[(Kind::Slit, 0)]),
        (contract::PPTT, &[(Kind::Pptt, 0)]),
        (contract::DEVICE_TREE, &[(Kind::DeviceTree, 0)]),
    ];
    for (index, (place, slots)) in (0..).zip(areas) {
        let initial = if place == contract::VALUES {
            vec![contract::INITIAL_BYTE; place.len as usize]
        } else {
            Vec::new()
        };
        let origin = Origin::Host(slots[0].0.name());
        let slot = |&(kind, byte_offset): &(Kind, u32)| ParameterSlot {
            kind,
            byte_offset,
            origin,
        };
        let area = ParameterArea {
            index,
            initial: initial.into(),
            slots: slots.iter().map(slot).collect(),
        };
        let import = Import {
            gpa: BASE + place.offset,
            len: place.len,
            large: false,
            kind: PageKind::Unmeasured,
            contents: Contents::Parameters(Box::new(area)),
        };
        builder.import(import, origin)?;
    }
    Ok(())
}

fn idtr() -> TableRegister {
    let (base, limit) = registers::IDTR;
    TableRegister { base, limit }
}

fn native() -> NativeContext {
    NativeContext {
        gpr: std::array::from_fn(registers::gpr),
        rip: BASE + contract::ENTRY64,
        rflags: registers::NATIVE_RFLAGS,
        idtr: idtr(),
        gdtr: state::gdtr(BASE + contract::GDT),
        cs: state::code(true),
        data: state::data(),
        gs_base: registers::GS_BASE,
        cr0: registers::CR0,
        cr3: BASE + contract::PAGE_TABLES,
        cr4: registers::CR4,
        efer: registers::EFER,
    }
}

/// Paging off; CR3 and GDTR are there for the entry code to use, and ESP points to a stack.
fn native32() -> NativeContext {
    let mut context = NativeContext {
        rip: BASE + contract::ENTRY32,
        cs: state::code(false),
        gs_base: 0,
        cr0: registers::CR0 & !x86defs::cr0::PG,
        cr4: 0,
        efer: 0,
        ..native()
    };
    context.gpr = [0; 16];
    context.gpr[gpr::RSP] = BASE + contract::STACKS.offset + PAGE_SIZE;
    context
}

fn vbs() -> Vec<VbsRegister> {
    let data = VbsValue::Segment(state::data());
    let gprs = [
        (Name::Rbp, gpr::RBP),
        (Name::Rsi, gpr::RSI),
        (Name::Rsp, gpr::RSP),
        (Name::R8, gpr::R8),
        (Name::R9, gpr::R9),
        (Name::R10, gpr::R10),
        (Name::R11, gpr::R11),
        (Name::R12, gpr::R12),
    ];
    let fixed = [
        Name::MtrrFix64k00000,
        Name::MtrrFix16k80000,
        Name::MtrrFix4kE0000,
        Name::MtrrFix4kE8000,
        Name::MtrrFix4kF0000,
        Name::MtrrFix4kF8000,
    ];
    let mut list = vec![
        (Name::Gdtr, VbsValue::Table(state::gdtr(BASE + contract::GDT))),
        (Name::Idtr, VbsValue::Table(idtr())),
        (Name::Ds, data),
        (Name::Es, data),
        (Name::Fs, data),
        (Name::Gs, data),
        (Name::Ss, data),
        (Name::Cs, VbsValue::Segment(state::code(true))),
        (Name::Cr0, VbsValue::U64(registers::CR0)),
        (Name::Cr3, VbsValue::U64(BASE + contract::PAGE_TABLES)),
        (Name::Cr4, VbsValue::U64(registers::CR4)),
        (Name::Efer, VbsValue::U64(registers::EFER)),
        (Name::Pat, VbsValue::U64(registers::PAT)),
        (Name::Rip, VbsValue::U64(BASE + contract::ENTRY64)),
        (Name::Rflags, VbsValue::U64(registers::RFLAGS)),
        (Name::MtrrDefType, VbsValue::U64(registers::MTRR_DEFAULT)),
    ];
    list.extend(gprs.map(|(name, index)| (name, VbsValue::U64(registers::gpr(index)))));
    let values = registers::MTRR_FIXED
        .iter()
        .map(|&(_, value)| VbsValue::U64(value));
    list.extend(fixed.into_iter().zip(values));
    for pair in 0..registers::MTRR_PAIRS {
        let (base, mask) = registers::mtrr_variable(pair);
        list.push((Name::MtrrPhysBase(pair as u8), VbsValue::U64(base)));
        list.push((Name::MtrrPhysMask(pair as u8), VbsValue::U64(mask)));
    }
    list.into_iter()
        .map(|(name, value)| VbsRegister { vtl: 0, name, value })
        .collect()
}
