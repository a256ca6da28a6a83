// SPDX-License-Identifier: MIT
//! The plan's pages, registers and parameter area.

use super::*;
use crate::uefi::firmware::tests::msvm_image;
use launch_plan::{HostValues, ParameterKind, StepKind, check_state};
use x86defs::state::gpr;

fn import_at<'p>(plan: &'p LaunchPlan<'_>, gpa: u64) -> &'p Import<'p> {
    plan.steps()
        .iter()
        .find_map(|step| match &step.kind {
            StepKind::Import(import) if import.gpa == gpa => Some(import),
            _ => None,
        })
        .unwrap()
}

fn bytes<'p>(import: &'p Import<'_>) -> &'p [u8] {
    match &import.contents {
        Contents::Bytes(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

fn entry(table: &[u8], index: usize) -> u64 {
    u64::from_le_bytes(table[index * 8..][..8].try_into().unwrap())
}

#[test]
fn four_parts_lie_where_the_firmware_expects_them() {
    let image = msvm_image(0x240);
    let plan = plan(&image, ConfigType::None).unwrap();
    let ranges: Vec<_> = plan
        .steps()
        .iter()
        .filter_map(|step| match &step.kind {
            StepKind::Import(import) => Some((import.gpa, import.len, import.kind)),
            _ => None,
        })
        .collect();
    let measured = PageKind::Measured;
    assert_eq!(
        ranges,
        [
            (0x10_0000, 0x60_0000, measured),
            (0x70_0000, 0x6000, measured),
            (0x70_6000, 0x1000, measured),
            (0x70_7000, 0x2000, measured)
        ]
    );
    let Contents::Bytes(Cow::Borrowed(borrowed)) = import_at(&plan, 0x10_0000).contents else {
        panic!("the image must be borrowed");
    };
    assert_eq!(borrowed.as_ptr(), image.as_ptr());
    assert_eq!(
        (plan.facts.isolation, plan.facts.arch),
        (Isolation::Vsm, Arch::X64)
    );
}

#[test]
fn memory_up_to_the_blob_is_expected() {
    let image = msvm_image(0x240);
    let plan = plan(&image, ConfigType::None).unwrap();
    let expected: Vec<_> = plan
        .steps()
        .iter()
        .filter_map(|step| match step.kind {
            StepKind::ExpectMemory(expect) => Some((expect.gpa, expect.len)),
            _ => None,
        })
        .collect();
    assert_eq!(expected, [(0, 0x70_9000)]);
}

#[test]
fn page_tables_map_the_first_four_gib_to_themselves() {
    let image = msvm_image(0x240);
    let plan = plan(&image, ConfigType::None).unwrap();
    let tables = bytes(import_at(&plan, 0x70_0000));
    assert_eq!(tables.len(), 0x6000);
    assert_eq!(entry(tables, 0), 0x70_1023);
    assert_eq!(entry(tables, 1), 0);
    assert_eq!(entry(tables, 512), 0x70_2023);
    assert_eq!(entry(tables, 512 + 3), 0x70_5023);
    assert_eq!(entry(tables, 512 + 4), 0);
    assert_eq!(entry(tables, 1024), 0xE3);
    assert_eq!(entry(tables, 1024 + 2047), 0xFFE0_00E3);
}

#[test]
fn gdt_holds_code_and_data() {
    let image = msvm_image(0x240);
    let plan = plan(&image, ConfigType::None).unwrap();
    let gdt = bytes(import_at(&plan, 0x70_6000));
    let entries: Vec<u64> = (0..4).map(|index| entry(gdt, index)).collect();
    assert_eq!(entries, [0, 0x00A0_9B00_0000_FFFF, 0x00C0_9300_0000_FFFF, 0]);
}

#[test]
fn boot_processor_starts_in_the_state_of_section_5_2() {
    let image = msvm_image(0x240);
    let plan = plan(&image, ConfigType::None).unwrap();
    let (context, _) = plan.vp_contexts().next().unwrap();
    assert_eq!(context.vp, 0);
    assert!(!context.state.gives_r12());
    let state = context.state.to_x86().unwrap();
    assert_eq!(check_state(&state), Ok(()));
    assert_eq!(state.rip, 0x10_0000 + find_sec_entry(&image).unwrap());
    assert_eq!(state.cr0, 0x8000_0023);
    assert_eq!(state.cr3, 0x70_0000);
    assert_eq!(state.cr4, 0x660);
    assert_eq!(state.efer, 0xD00);
    assert_eq!(state.gpr[gpr::RBP], 0x6E_0000);
    assert_eq!((state.gdtr.base, state.gdtr.limit), (0x70_6000, 31));
    assert_eq!(
        (state.cs.selector, state.cs.attributes.0, state.cs.limit),
        (8, 0xA09B, u32::MAX)
    );
    for segment in [state.ds, state.es, state.fs, state.gs, state.ss] {
        assert_eq!((segment.selector, segment.attributes.0), (0x10, 0xC093));
    }
    assert_eq!(state.pat, 0x0007_0406_0007_0406);
    assert_eq!(state.mtrr.def_type, 0xC00);
    assert_eq!(state.mtrr.fixed[..2], [0x0606_0606_0606_0606; 2]);
    assert_eq!(state.rflags, 2);
}

#[test]
fn blob_binds_behind_the_image_and_r12_points_to_it() {
    let image = msvm_image(0x240);
    let plan = plan(&image, ConfigType::None).unwrap();
    let mut host = HostValues::new(1);
    host.hand_over = Some(crate::uefi::hand_over(vec![1; 5000]));
    let bound = plan.bind(&host).unwrap();
    assert_eq!(bound.initial_state(0).unwrap().gpr[gpr::R12], 0x70_9000);
    let last = bound.imports().last().unwrap();
    assert_eq!((last.gpa, last.len), (0x70_9000, 0x2000));
}

#[test]
fn igvm_config_type_adds_83_pages() {
    let image = msvm_image(0x240);
    let plan = plan(&image, ConfigType::Igvm).unwrap();
    let info = bytes(import_at(&plan, 0x70_9000));
    assert_eq!(entry(info, 1), 0xF_FFFF);
    let fields: Vec<u32> = info
        .chunks_exact(4)
        .map(|field| u32::from_le_bytes(field.try_into().unwrap()))
        .collect();
    assert_eq!(fields[0], 83);
    assert_eq!(fields[4..16], [1, 2, 1, 3, 20, 23, 20, 43, 20, 0, 63, 20]);
    let parameters: Vec<_> = plan
        .steps()
        .iter()
        .filter_map(|step| match &step.kind {
            StepKind::Import(import) => match &import.contents {
                Contents::Parameters(area) => Some((import.gpa, import.len, area.slots[0].kind)),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(
        parameters,
        [
            (0x70_A000, 0x1000, ParameterKind::VpCount),
            (0x70_B000, 0x1000, ParameterKind::CommandLine),
            (0x70_C000, 0x1_4000, ParameterKind::MemoryMap),
            (0x72_0000, 0x1_4000, ParameterKind::Madt),
            (0x73_4000, 0x1_4000, ParameterKind::Srat),
        ]
    );
    assert_eq!(import_at(&plan, 0x74_8000).kind, PageKind::Unmeasured);
    let expect = plan.steps().iter().find_map(|step| match step.kind {
        StepKind::ExpectMemory(expect) => Some(expect.len),
        _ => None,
    });
    assert_eq!(expect, Some(0x75_C000));
}

#[test]
fn image_without_entry_makes_no_plan() {
    let image = vec![0; 0x60_0000];
    assert!(matches!(
        plan(&image, ConfigType::None),
        Err(UefiError::Firmware(FirmwareError::NoSecEntryPoint { .. }))
    ));
}
