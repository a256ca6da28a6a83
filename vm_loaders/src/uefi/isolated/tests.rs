// SPDX-License-Identifier: MIT
//! The isolated plans: pages, registers, and code that a disassembler agrees with.

use super::*;
use crate::igvm::{EncodeOptions, File, Severity, encode};
use crate::uefi::firmware::tests::msvm_image;
use launch_plan::StepKind;
use x86defs::vmsa::{offset, sev_features};

const OPTIONS: SnpOptions = SnpOptions {
    policy: 0xB_001F,
    shared_gpa_boundary_bits: 39,
};

fn page_at(plan: &LaunchPlan<'_>, gpa: u64) -> (PageKind, Vec<u8>) {
    let found = plan.pages().find(|(page, _)| page.gpa == gpa);
    let (page, _) = found.unwrap_or_else(|| panic!("no page at {gpa:#x}"));
    let bytes = match page.contents {
        launch_plan::PageContents::Bytes(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    };
    (page.kind, bytes)
}

fn save_area(plan: &LaunchPlan<'_>) -> (u64, Vec<u8>) {
    let (context, _) = plan.vp_contexts().next().unwrap();
    match &context.state {
        VpState::Vmsa(page) => (context.gpa, page.to_vec()),
        other => panic!("{other:?}"),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn both_plans_fit_one_file_without_problems() {
    let image = msvm_image(0x240);
    let plans = [plan_tdx(&image, 0).unwrap(), plan_snp(&image, &OPTIONS).unwrap()];
    let bytes = encode(&plans, &EncodeOptions::default()).unwrap().to_vec();
    let file = File::read(&bytes).unwrap();
    let errors: Vec<_> = file
        .check()
        .into_iter()
        .filter(|problem| problem.severity() == Severity::Error)
        .collect();
    assert_eq!(errors, []);
    for plan in &plans {
        assert_eq!(file.plan(plan.facts.isolation).unwrap(), *plan);
    }
}

#[test]
fn the_save_area_starts_the_acceptance_code_with_the_isolation_leaf() {
    let image = msvm_image(0x240);
    let plan = plan_snp(&image, &OPTIONS).unwrap();
    let (gpa, area) = save_area(&plan);
    assert_eq!(gpa, 0x76_3000);
    assert_eq!(u64_at(&area, offset::RIP), 8);
    assert_eq!(u64_at(&area, offset::R8), 0);
    assert_eq!(u64_at(&area, offset::R8 + 8), 2 | 1 << 5 | 39 << 6);
    assert_eq!(u64_at(&area, offset::R8 + 32), 0x70_9000);
    assert_eq!(u64_at(&area, offset::VIRTUAL_TOM), 1 << 39);
    assert_eq!(u64_at(&area, offset::CR3), 0x70_0000);
    assert_eq!(u64_at(&area, offset::RBP), 0x6E_0000);
    assert_eq!(area[offset::CS..offset::CS + 4], [0x08, 0, 0x9B, 0x0A]);
    assert_eq!(area[offset::DS..offset::DS + 4], [0x10, 0, 0x93, 0x0C]);
    let features = u64_at(&area, offset::SEV_FEATURES);
    assert_eq!(
        features & sev_features::RESTRICTED_INJECTION,
        sev_features::RESTRICTED_INJECTION
    );
    let (_, program) = page_at(&plan, 0);
    let vsm = crate::uefi::plan(&image, ConfigType::Igvm).unwrap();
    let Some(VpState::Vbs(list)) = vsm.vp_contexts().next().map(|(c, _)| c.state.clone()) else {
        panic!("no register list");
    };
    let rip = list
        .iter()
        .find(|r| r.name == launch_plan::VbsRegisterName::Rip)
        .unwrap();
    assert_eq!(rip.value, launch_plan::VbsValue::U64(u64_at(&program, 0)));
}

#[test]
fn the_first_four_gib_are_mapped_a_second_time_at_the_boundary() {
    let image = msvm_image(0x240);
    let plan = plan_snp(&image, &OPTIONS).unwrap();
    let (_, root) = page_at(&plan, 0x70_0000);
    assert_eq!(u64_at(&root, 8), 0x70_A000 | PTE_P | PTE_W | PTE_A);
    let (_, pointers) = page_at(&plan, 0x70_A000);
    assert_eq!(u64_at(&pointers, 24) & !0xFFF, 0x70_E000);
    assert_eq!(u64_at(&pointers, 32), 0);
    let (_, directory) = page_at(&plan, 0x70_B000);
    let leaf = u64_at(&directory, 8);
    assert_eq!(leaf & x86defs::paging::PTE_ADDR, (1 << 39) + LARGE_PAGE_SIZE);
    let error = plan_snp(
        &image,
        &SnpOptions {
            shared_gpa_boundary_bits: 32,
            ..OPTIONS
        },
    );
    let wanted =
        "a shared boundary of 32 bits cannot be mapped beside the first 4 GiB; it must be from 39 to 47";
    assert_eq!(error.unwrap_err().to_string(), wanted);
}

#[test]
fn cpuid_pages_end_the_area() {
    let image = msvm_image(0x240);
    let plan = plan_snp(&image, &OPTIONS).unwrap();
    let (kind, page) = page_at(&plan, 0x76_1000);
    assert_eq!((kind, page[0]), (PageKind::Cpuid, 20));
    assert_eq!(page_at(&plan, 0x76_2000).0, PageKind::CpuidXf);
    let expect = plan.steps().iter().find_map(|step| match step.kind {
        StepKind::ExpectMemory(expect) => Some(expect.len),
        _ => None,
    });
    assert_eq!(expect, Some(0x76_3000));
}

/// The instructions' lengths, by walking from `start`: what an assembler would have made.
#[test]
fn the_reset_page_jumps_to_code_that_ends_in_the_firmware_or_the_mailbox() {
    let image = msvm_image(0x240);
    let plan = plan_tdx(&image, 2).unwrap();
    assert_eq!(
        (plan.facts.policy, plan.facts.shared_gpa_boundary),
        (Some(2), 1 << 47)
    );
    let (_, page) = page_at(&plan, 0xFFFF_F000);
    assert_eq!(page[0xFF0], 0xE9);
    let relative = i32::from_le_bytes(page[0xFF1..0xFF5].try_into().unwrap());
    assert_eq!(0xFF5 + relative, 0x50);
    // The far jump's target is the instruction behind it.
    let far = page
        .windows(1)
        .enumerate()
        .skip(0x50)
        .find(|(_, w)| w[0] == 0xEA)
        .unwrap()
        .0;
    let target = u32::from_le_bytes(page[far + 1..far + 5].try_into().unwrap());
    assert_eq!(target as usize, 0xFFFF_F000 + far + 7);
    assert_eq!(page[far + 5..far + 7], [8, 0]);
    assert_eq!(page[..0x10], [0; 0x10], "the mailbox is empty");
    assert!(plan.vp_contexts().next().is_none());
}
