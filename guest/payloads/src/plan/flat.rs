// SPDX-License-Identifier: MIT
//! Plans of the flat payloads that need no contract of their own.

use super::{add_pages, state};
use guest_protocol::flat as contract;
use launch_plan::{
    Arch, Contents, ExpectMemory, Import, Isolation, LaunchPlan, NativeContext, Origin, PageKind,
    ParameterArea, ParameterKind, ParameterSlot, PlanBuilder, PlanError, PlatformFacts, VbsRegister,
    VbsRegisterName, VbsValue, VpContext, VpState,
};
use x86defs::paging::PAGE_SIZE;
use x86defs::state::gpr;
use x86defs::{cr0, cr4, efer};

/// A flat payload, linked at [`contract::IMAGE_GPA`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlatPayload {
    /// Named cases, an exit code.
    TestSuite,
    /// Spins.
    Spin,
    /// Crashes.
    TripleFault,
    /// Executes an instruction that no emulator of ring 0 knows.
    UnhandledInstruction,
    /// One byte, then the test-exit port.
    FirstByte,
    /// Drives a virtio block device.
    VirtioProbe,
    /// Every device of the OVMF machine.
    MachineSuite,
    /// A transcript of what the processor does.
    Conformance,
}

impl FlatPayload {
    /// Its memory from the link address on.
    pub const fn bytes(self) -> &'static [u8] {
        match self {
            Self::TestSuite => crate::TEST_SUITE,
            Self::Spin => crate::SPIN,
            Self::TripleFault => crate::TRIPLE_FAULT,
            Self::UnhandledInstruction => crate::UNHANDLED_INSTRUCTION,
            Self::FirstByte => crate::FIRST_BYTE,
            Self::VirtioProbe => crate::VIRTIO_PROBE,
            Self::MachineSuite => crate::MACHINE_SUITE,
            Self::Conformance => crate::CONFORMANCE,
        }
    }
}

const CR0: u64 = cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::PG;
const CR4: u64 = cr4::PAE;
const EFER: u64 = efer::LME | efer::LMA;

/// A plan that starts the payload: NATIVE or VSM_ISOLATION. `test_suite`, `machine_suite`, `virtio_probe` and
/// `conformance` also get a command line and a MADT; the host fills them in. `machine_suite` also gets a firmware
/// image below 4 GiB.
pub fn flat_plan(payload: FlatPayload, isolation: Isolation) -> Result<LaunchPlan<'static>, PlanError> {
    let mut builder = PlanBuilder::new(PlatformFacts::new(isolation, Arch::X64));
    let expect = ExpectMemory {
        gpa: 0,
        len: contract::FREE_END,
        vtl2_protectable: false,
    };
    builder.expect_memory(expect, Origin::Host("flat payload's memory"))?;
    let measured = PageKind::Measured;
    let tables = contract::TABLES_GPA;
    add_pages(
        &mut builder,
        "page tables",
        tables,
        measured,
        state::page_tables(tables).into(),
    )?;
    let gdt = tables + 6 * PAGE_SIZE;
    add_pages(&mut builder, "gdt", gdt, measured, state::gdt().into())?;
    let image = contract::IMAGE_GPA;
    add_pages(
        &mut builder,
        "flat payload",
        image,
        measured,
        payload.bytes().into(),
    )?;
    if payload == FlatPayload::MachineSuite {
        add_pages(
            &mut builder,
            "firmware image",
            contract::MACHINE_FLASH_GPA,
            measured,
            firmware_image().into(),
        )?;
    }
    let mut handed = Vec::new();
    if matches!(
        payload,
        FlatPayload::TestSuite
            | FlatPayload::Conformance
            | FlatPayload::VirtioProbe
            | FlatPayload::MachineSuite
    ) {
        let areas = [
            (
                ParameterKind::CommandLine,
                contract::COMMAND_LINE_GPA,
                PAGE_SIZE,
                gpr::RSI,
            ),
            (ParameterKind::Madt, contract::MADT_GPA, 2 * PAGE_SIZE, gpr::R8),
        ];
        for (index, (kind, gpa, len, register)) in (0..).zip(areas) {
            builder.import(parameter(index, kind, gpa, len), Origin::Host(kind.name()))?;
            handed.push((register, gpa));
        }
    }
    let entry = image + crate::ENTRY64_OFFSET;
    let state = match isolation {
        Isolation::Native => VpState::Native(Box::new(native(entry, gdt, &handed))),
        _ => VpState::Vbs(vbs(entry, gdt, &handed)),
    };
    let context = VpContext { vp: 0, gpa: 0, state };
    builder.vp_context(context, Origin::Host("boot processor"))?;
    Ok(builder.finish())
}

/// A variable volume without variables, and a page of code that nobody runs (UEFI PI 1.7 volume 3 section 3.2.1).
fn firmware_image() -> Vec<u8> {
    const VOLUME_LEN: u64 = 3 * PAGE_SIZE;
    const VARIABLE_VOLUME: [u8; 16] = [
        0x8D, 0x2B, 0xF1, 0xFF, 0x96, 0x76, 0x8B, 0x4C, 0xA9, 0x85, 0x27, 0x47, 0x07, 0x5B, 0x4F, 0x50,
    ];
    let mut image = vec![0; ((1 << 32) - contract::MACHINE_FLASH_GPA) as usize];
    image[16..32].copy_from_slice(&VARIABLE_VOLUME);
    image[32..40].copy_from_slice(&VOLUME_LEN.to_le_bytes());
    image[40..44].copy_from_slice(b"_FVH");
    image
}

fn parameter(index: u32, kind: ParameterKind, gpa: u64, len: u64) -> Import<'static> {
    let slot = ParameterSlot {
        kind,
        byte_offset: 0,
        origin: Origin::Host(kind.name()),
    };
    let area = ParameterArea {
        index,
        initial: (&[]).into(),
        slots: vec![slot],
    };
    Import {
        gpa,
        len,
        large: false,
        kind: PageKind::Unmeasured,
        contents: Contents::Parameters(Box::new(area)),
    }
}

fn native(entry: u64, gdt: u64, handed: &[(usize, u64)]) -> NativeContext {
    let mut context = NativeContext {
        rip: entry,
        gdtr: state::gdtr(gdt),
        cs: state::code(true),
        data: state::data(),
        cr0: CR0,
        cr3: contract::TABLES_GPA,
        cr4: CR4,
        efer: EFER,
        ..NativeContext::default()
    };
    for &(register, value) in handed {
        context.gpr[register] = value;
    }
    context
}

fn vbs(entry: u64, gdt: u64, handed: &[(usize, u64)]) -> Vec<VbsRegister> {
    use VbsRegisterName as Name;
    let data = VbsValue::Segment(state::data());
    let mut list = vec![
        (Name::Gdtr, VbsValue::Table(state::gdtr(gdt))),
        (Name::Cs, VbsValue::Segment(state::code(true))),
        (Name::Ds, data),
        (Name::Es, data),
        (Name::Fs, data),
        (Name::Gs, data),
        (Name::Ss, data),
        (Name::Cr0, VbsValue::U64(CR0)),
        (Name::Cr3, VbsValue::U64(contract::TABLES_GPA)),
        (Name::Cr4, VbsValue::U64(CR4)),
        (Name::Efer, VbsValue::U64(EFER)),
        (Name::Rip, VbsValue::U64(entry)),
    ];
    list.extend(handed.iter().filter_map(|&(register, value)| {
        let name = match register {
            gpr::RSI => Name::Rsi,
            gpr::R8 => Name::R8,
            _ => return None,
        };
        Some((name, VbsValue::U64(value)))
    }));
    list.into_iter()
        .map(|(name, value)| VbsRegister { vtl: 0, name, value })
        .collect()
}
