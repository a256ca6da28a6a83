// SPDX-License-Identifier: MIT
//! Every problem code, provoked once, and the flawless files that none of them is found in.

use crate::raw::*;
use igvm_defs::*;
use launch_plan::{Isolation, ParameterKind};
use std::collections::BTreeSet;
use vm_loaders::igvm::{CODES, Code, File, Header, MAX_PROBLEMS, Problem, Severity};
use zerocopy::FromZeros;

const VSM: IgvmPlatformType = IgvmPlatformType::VSM_ISOLATION;
const SNP: IgvmPlatformType = IgvmPlatformType::SEV_SNP;
const NATIVE: IgvmPlatformType = IgvmPlatformType::NATIVE;
const TDX: IgvmPlatformType = IgvmPlatformType::TDX;

fn problems(bytes: &[u8]) -> Vec<Problem> {
    match File::read(bytes) {
        Ok(file) => file.check(),
        Err(problem) => vec![problem],
    }
}

fn region(gpa: u64) -> IGVM_VHS_RELOCATABLE_REGION {
    IGVM_VHS_RELOCATABLE_REGION {
        compatibility_mask: 1,
        vp_index: 0,
        vtl: 0,
        flags: 0,
        relocation_alignment: 0x1000,
        relocation_region_gpa: gpa,
        relocation_region_size: 0x2000,
        minimum_relocation_gpa: 0,
        maximum_relocation_gpa: 0x100_0000,
    }
}

fn tables(gpa: u64) -> IGVM_VHS_PAGE_TABLE_RELOCATION {
    IGVM_VHS_PAGE_TABLE_RELOCATION {
        compatibility_mask: 1,
        vp_index: 0,
        vtl: 0,
        reserved: 0,
        gpa,
        size: 0x2000,
        used_size: 0x1000,
    }
}

fn corim() -> IGVM_VHS_CORIM_DATA {
    IGVM_VHS_CORIM_DATA {
        compatibility_mask: 1,
        file_offset: 0,
        size_bytes: 4,
        reserved: 0,
    }
}

fn id_block() -> Box<IGVM_VHS_SNP_ID_BLOCK> {
    let mut block = IGVM_VHS_SNP_ID_BLOCK::new_zeroed();
    block.compatibility_mask = 1;
    block.version = 1;
    block.id_key_algorithm = 1;
    block.id_public_key.curve = 2;
    Box::new(block)
}

fn vbs_measurement() -> Box<IGVM_VHS_VBS_MEASUREMENT> {
    let mut measurement = IGVM_VHS_VBS_MEASUREMENT::new_zeroed();
    measurement.compatibility_mask = 1;
    measurement.boot_digest_algo = 1;
    measurement.signing_algo = 1;
    Box::new(measurement)
}

fn cca_policy() -> IGVM_VHS_CCA_POLICY {
    let mut policy = IGVM_VHS_CCA_POLICY::new_zeroed();
    policy.compatibility_mask = 1;
    policy
}

fn vmsa(features: u8) -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[0x3B0] = features;
    page
}

/// A page with one field changed.
fn page_with(change: impl FnOnce(&mut IGVM_VHS_PAGE_DATA)) -> Header<'static> {
    let mut page = page_data(0x10_0000);
    change(&mut page);
    Header::PageData(page)
}

fn required(flags: u32) -> Header<'static> {
    Header::RequiredMemory(IGVM_VHS_REQUIRED_MEMORY {
        gpa: 0,
        compatibility_mask: 1,
        number_of_bytes: 0x1000,
        flags: RequiredMemoryFlags::from(flags),
        reserved: 0,
    })
}

fn of(platform: IgvmPlatformType, build: impl FnOnce(&mut Raw) -> &mut Raw) -> Vec<u8> {
    let mut raw = Raw::of(platform);
    build(&mut raw);
    raw.build()
}

fn fixed(change: impl FnOnce(&mut vm_loaders::igvm::FixedHeader)) -> Vec<u8> {
    Raw::of(VSM).build_with(change)
}

/// (code, a file that has it), layout and platforms.
fn file_cases() -> Vec<(Code, Vec<u8>)> {
    let v2 = |change: fn(&mut Raw) -> &mut Raw| {
        let mut raw = Raw::aarch64(VSM);
        change(&mut raw);
        raw.build()
    };
    let mut trailing = Raw::of(VSM).build();
    trailing.push(0);
    let truncated_header = of(VSM, |raw| raw.bytes(0x302, &[0; 24]));
    let mut long = truncated_header.clone();
    let length_field = 24 + 24 + 4;
    long[length_field..length_field + 4].copy_from_slice(&4096u32.to_le_bytes());
    let mut padding = of(NATIVE, |raw| raw.context(0, 0, &native_page()));
    padding[24 + 24 + 8 + 20] = 1;
    let mut gap = Raw::of(VSM);
    gap.fixed.variable_header_offset = 0x40;
    let mut unaligned = Raw::of(VSM);
    unaligned.fixed.variable_header_offset = 28;
    let platform = |change: fn(&mut IGVM_VHS_SUPPORTED_PLATFORM)| {
        let mut header = supported_platform(VSM, 1, 0);
        change(&mut header);
        let mut raw = Raw::empty();
        raw.add(Header::SupportedPlatform(header));
        raw.build()
    };
    vec![
        (Code::TooShort, vec![]),
        (Code::Magic, vec![0; 64]),
        (Code::FormatVersion, {
            let mut file = Raw::of(VSM).build();
            file[4] = 3;
            file
        }),
        (Code::HeaderRange, fixed(|f| f.variable_header_size = u32::MAX)),
        (Code::HeaderRange, fixed(|f| f.variable_header_offset = 8)),
        (Code::HeaderAlignment, unaligned.build()),
        (Code::HeaderTruncated, long),
        (Code::TotalSize, trailing),
        (Code::Checksum, fixed(|f| f.checksum ^= 1)),
        (
            Code::Architecture,
            v2(|raw| {
                raw.fixed.architecture = 7;
                raw
            }),
        ),
        (
            Code::PageSize,
            v2(|raw| {
                raw.fixed.page_size = 0x1_0000;
                raw
            }),
        ),
        (Code::HeaderPadding, padding),
        (Code::HeaderGap, gap.build()),
        (Code::HeaderType, of(VSM, |raw| raw.bytes(0x3FF, &[]))),
        (Code::HeaderTypeRetired, of(VSM, |raw| raw.bytes(0x306, &[]))),
        (
            Code::HeaderOptional,
            of(VSM, |raw| raw.bytes(0x8000_0350, &[1, 2, 3])),
        ),
        (Code::HeaderLength, of(VSM, |raw| raw.bytes(0x302, &[0; 20]))),
        (
            Code::SectionOrder,
            of(VSM, |raw| raw.page(0).platform(NATIVE, 2, 0)),
        ),
        (
            Code::ReservedField,
            of(VSM, |raw| raw.add(page_with(|p| p.flags = 0x80.into()))),
        ),
        (Code::UnusedData, Raw::of(VSM).build()),
        (Code::PlatformNone, Raw::empty().build()),
        (Code::PlatformMask, platform(|p| p.compatibility_mask = 3)),
        (
            Code::PlatformMaskShared,
            of(VSM, |raw| raw.platform(NATIVE, 1, 0)),
        ),
        (
            Code::PlatformType,
            platform(|p| p.platform_type = IgvmPlatformType(9)),
        ),
        (Code::PlatformDuplicate, of(VSM, |raw| raw.platform(VSM, 2, 0))),
        (Code::PlatformVersion, platform(|p| p.platform_version = 2)),
        (Code::PlatformVtl, platform(|p| p.highest_vtl = 1)),
        (
            Code::PlatformVtlUnused,
            platform(|p| (p.platform_type, p.highest_vtl) = (NATIVE, 2)),
        ),
        (
            Code::PlatformArchitecture,
            platform(|p| p.platform_type = IgvmPlatformType::CCA),
        ),
        (Code::PlatformArchitecture, v2(|raw| raw.platform(NATIVE, 2, 0))),
        (
            Code::SharedBoundary,
            platform(|p| (p.platform_type, p.shared_gpa_boundary) = (NATIVE, 1 << 40)),
        ),
        (
            Code::MaskNoPlatform,
            of(VSM, |raw| raw.add(page_with(|p| p.compatibility_mask = 0))),
        ),
        (
            Code::MaskUnknownBit,
            of(VSM, |raw| raw.add(page_with(|p| p.compatibility_mask = 3))),
        ),
        (
            Code::DataRange,
            of(VSM, |raw| raw.add(page_with(|p| p.file_offset = 30))),
        ),
        (
            Code::DataRange,
            of(VSM, |raw| raw.add(page_with(|p| p.file_offset = u32::MAX))),
        ),
        (
            Code::DataRange,
            of(NATIVE, |raw| raw.add(Header::VpContext(vp_context(0, 0)))),
        ),
    ]
}

/// Initialization headers.
fn initialization_cases() -> Vec<(Code, Vec<u8>)> {
    let sev_es = IgvmPlatformType::SEV_ES;
    let with_region = |change: fn(&mut IGVM_VHS_RELOCATABLE_REGION)| {
        let mut header = region(0x2000);
        change(&mut header);
        of(NATIVE, |raw| {
            raw.add(Header::RelocatableRegion(header))
                .context(0, 0, &native_page())
        })
    };
    let with_tables = |header: IGVM_VHS_PAGE_TABLE_RELOCATION, build: fn(&mut Raw) -> &mut Raw| {
        of(NATIVE, |raw| {
            raw.add(Header::PageTableRelocation(header))
                .context(0, 0, &native_page());
            build(raw)
        })
    };
    let cca = |change: fn(&mut IGVM_VHS_CCA_POLICY)| {
        let mut policy = cca_policy();
        change(&mut policy);
        let mut raw = Raw::aarch64(IgvmPlatformType::CCA);
        raw.add(Header::CcaPolicy(policy));
        raw.build()
    };
    vec![
        (
            Code::PolicyDuplicate,
            of(SNP, |raw| raw.policy(0x30000, 1).policy(0x30000, 1)),
        ),
        (Code::PolicyPlatform, of(NATIVE, |raw| raw.policy(0, 1))),
        (
            Code::PolicyPlatform,
            of(VSM, |raw| raw.add(Header::CcaPolicy(cca_policy()))),
        ),
        (Code::PolicyReserved, of(TDX, |raw| raw.policy(1 << 40, 1))),
        (Code::PolicyMustBeOne, of(SNP, |raw| raw.policy(0, 1))),
        (Code::PolicyMismatch, of(sev_es, |raw| raw.policy(1, 1))),
        (
            Code::PolicyMismatch,
            of(IgvmPlatformType::SEV, |raw| raw.policy(5, 1)),
        ),
        (Code::PolicyMissing, Raw::of(SNP).build()),
        (
            Code::CcaPolicyConflict,
            cca(|p| (p.attributes_required_ones, p.attributes_required_zeroes) = (1, 1)),
        ),
        (
            Code::CcaPolicyValue,
            cca(|p| p.hash_algorithm = CcaHashAlgorithm(9)),
        ),
        (
            Code::RelocationAlignment,
            with_region(|r| r.relocation_alignment = 0),
        ),
        (
            Code::RelocationRegion,
            with_region(|r| r.relocation_region_size = 0x200_0000),
        ),
        (
            Code::RelocationRegion,
            with_region(|r| r.relocation_region_gpa = u64::MAX - 0xFFF),
        ),
        (
            Code::RelocationOverlap,
            of(NATIVE, |raw| {
                raw.add(Header::RelocatableRegion(region(0x2000)));
                raw.add(Header::PageTableRelocation(tables(0x3000)));
                raw.context(0, 0, &native_page())
            }),
        ),
        (Code::RelocationVtl, with_region(|r| r.flags = 1)),
        (
            Code::RelocationContext,
            of(SNP, |raw| raw.add(Header::RelocatableRegion(region(0x2000)))),
        ),
        (
            Code::PageTableRegion,
            with_tables(
                IGVM_VHS_PAGE_TABLE_RELOCATION {
                    used_size: 0x3000,
                    ..tables(0)
                },
                |raw| raw,
            ),
        ),
        (
            Code::PageTableDuplicate,
            of(NATIVE, |raw| {
                raw.add(Header::PageTableRelocation(tables(0)));
                raw.add(Header::PageTableRelocation(tables(0x8000)))
            }),
        ),
        (Code::PageTablePaging, with_tables(tables(0x8000), |raw| raw)),
        (
            Code::PageTableInsert,
            with_tables(tables(0x8000), |raw| raw.area(0, 0x1000).insert(0x9000, 0)),
        ),
        (
            Code::CorimDuplicate,
            of(SNP, |raw| {
                raw.with_data(Header::CorimDocument(corim()), &[1; 4]);
                raw.with_data(Header::CorimDocument(corim()), &[1; 4])
            }),
        ),
        (
            Code::CorimOrder,
            of(SNP, |raw| raw.with_data(Header::CorimSignature(corim()), &[1; 4])),
        ),
        (Code::VersionStringText, of(VSM, |raw| raw.bytes(0x107, &[0xFF]))),
        (
            Code::VersionStringDuplicate,
            of(VSM, |raw| raw.bytes(0x107, b"a").bytes(0x107, b"b")),
        ),
    ]
}

/// Pages and ranges.
fn page_cases() -> Vec<(Code, Vec<u8>)> {
    let error_range = |gpa, size_bytes| {
        of(VSM, |raw| {
            let range = IGVM_VHS_ERROR_RANGE {
                gpa,
                compatibility_mask: 1,
                size_bytes,
            };
            raw.add(Header::ErrorRange(range))
        })
    };
    vec![
        (Code::PageAlignment, of(VSM, |raw| raw.page(0x800))),
        (
            Code::PageAlignment,
            of(VSM, |raw| {
                raw.add(page_with(|p| (p.gpa, p.flags) = (0x1000, 1.into())))
            }),
        ),
        (Code::GpaRange, error_range(0x1000, 0)),
        (Code::GpaRange, error_range(u64::MAX - 0xFFF, 0x2000)),
        (Code::GpaOverlap, of(VSM, |raw| raw.page(0x1000).page(0x1000))),
        (
            Code::GpaOverlap,
            of(VSM, |raw| raw.page(0x1000).area(0, 0x2000).insert(0, 0)),
        ),
        (
            Code::PageType,
            of(VSM, |raw| {
                raw.add(page_with(|p| p.data_type = IgvmPageDataType(4)))
            }),
        ),
        (
            Code::PageTypePlatform,
            of(VSM, |raw| {
                raw.add(page_with(|p| p.data_type = IgvmPageDataType::SECRETS))
            }),
        ),
    ]
}

/// Parameter areas.
fn area_cases() -> Vec<(Code, Vec<u8>)> {
    let areas = |build: fn(&mut Raw) -> &mut Raw| of(VSM, build);
    vec![
        (Code::AreaSize, areas(|raw| raw.area(0, 100))),
        (Code::AreaSize, areas(|raw| raw.area(0, 1 << 63))),
        (
            Code::AreaDuplicate,
            areas(|raw| raw.area(0, 0x1000).area(0, 0x1000)),
        ),
        (
            Code::AreaUnknown,
            areas(|raw| raw.parameter(ParameterKind::MemoryMap, 3, 0)),
        ),
        (Code::AreaUnknown, areas(|raw| raw.insert(0, 3))),
        (
            Code::AreaInserted,
            areas(|raw| raw.area(0, 0x1000).insert(0, 0).insert(0x1000, 0)),
        ),
        (
            Code::AreaInserted,
            areas(|raw| {
                raw.area(0, 0x1000)
                    .insert(0, 0)
                    .parameter(ParameterKind::VpCount, 0, 0)
            }),
        ),
        (Code::AreaUnused, areas(|raw| raw.area(0, 0x1000))),
        (
            Code::ParameterRange,
            areas(|raw| raw.area(0, 0x1000).parameter(ParameterKind::VpCount, 0, 0xFFD)),
        ),
        (
            Code::ParameterOverlap,
            areas(|raw| {
                raw.area(0, 0x1000).parameter(ParameterKind::MemoryMap, 0, 0);
                raw.parameter(ParameterKind::VpCount, 0, 8)
            }),
        ),
    ]
}

/// VP contexts.
fn context_cases() -> Vec<(Code, Vec<u8>)> {
    let list = |vtl, registers: &[(u32, u64)]| of(VSM, |raw| raw.context(0, 0, &vbs_list(vtl, registers)));
    vec![
        (
            Code::ContextPlatform,
            of(TDX, |raw| raw.context(0, 0, &native_page())),
        ),
        (
            Code::ContextPlatform,
            of(NATIVE, |raw| {
                let header = IGVM_VHS_VP_CONTEXT {
                    compatibility_mask: 3,
                    ..vp_context(0, 0)
                };
                raw.with_data(Header::VpContext(header), &native_page())
            }),
        ),
        (
            Code::ContextAddress,
            of(NATIVE, |raw| raw.context(0, 0x1000, &native_page())),
        ),
        (
            Code::ContextDuplicate,
            of(NATIVE, |raw| {
                raw.context(0, 0, &native_page()).context(0, 0, &native_page())
            }),
        ),
        (Code::ContextTail, {
            let mut page = native_page();
            page[232] = 1;
            of(NATIVE, |raw| raw.context(0, 0, &page))
        }),
        (Code::ContextRegister, list(0, &[(CR0, 0x10), (CR0, 0x10)])),
        (Code::ContextRegister, list(0, &[(0x1234, 0)])),
        (Code::ContextRegister, list(0, &[])),
        (Code::ContextVtl, list(2, &[(RIP, 0)])),
        (
            Code::ContextVpIndex,
            of(VSM, |raw| raw.context(1, 0, &vbs_list(0, &[(RIP, 0)]))),
        ),
        (Code::ContextState, list(0, &[(CR0, 0x8000_0000)])),
        (Code::VmsaFeatures, of(SNP, |raw| raw.context(0, 0, &vmsa(0)))),
        (
            Code::VmsaFeatures,
            of(IgvmPlatformType::SEV_ES, |raw| raw.context(0, 0, &vmsa(1))),
        ),
    ]
}

/// Memory, endorsements, and too much of anything.
fn other_cases() -> Vec<(Code, Vec<u8>)> {
    vec![
        (Code::RequiredMemoryVtl, of(VSM, |raw| raw.add(required(1)))),
        (
            Code::IdBlockPlatform,
            of(TDX, |raw| raw.add(Header::SnpIdBlock(id_block()))),
        ),
        (
            Code::IdBlockDuplicate,
            of(SNP, |raw| {
                raw.add(Header::SnpIdBlock(id_block()))
                    .add(Header::SnpIdBlock(id_block()))
            }),
        ),
        (Code::IdBlockValue, {
            let mut block = id_block();
            block.id_key_algorithm = 0;
            of(SNP, |raw| raw.add(Header::SnpIdBlock(block)))
        }),
        (
            Code::VbsMeasurementPlatform,
            of(SNP, |raw| raw.add(Header::VbsMeasurement(vbs_measurement()))),
        ),
        (
            Code::VbsMeasurementDuplicate,
            of(VSM, |raw| {
                raw.add(Header::VbsMeasurement(vbs_measurement()));
                raw.add(Header::VbsMeasurement(vbs_measurement()))
            }),
        ),
        (Code::VbsMeasurementValue, {
            let mut measurement = vbs_measurement();
            measurement.boot_digest_algo = 5;
            of(VSM, |raw| raw.add(Header::VbsMeasurement(measurement)))
        }),
        (
            Code::TooManyProblems,
            of(VSM, |raw| {
                for _ in 0..MAX_PROBLEMS + 5 {
                    raw.bytes(0x3FF, &[]);
                }
                raw
            }),
        ),
    ]
}

fn cases() -> Vec<(Code, Vec<u8>)> {
    let mut cases = file_cases();
    cases.extend(initialization_cases());
    cases.extend(page_cases());
    cases.extend(area_cases());
    cases.extend(context_cases());
    cases.extend(other_cases());
    cases
}

#[test]
fn every_code_is_found_where_it_is_provoked() {
    for (code, bytes) in cases() {
        let found = problems(&bytes);
        assert!(
            found.iter().any(|problem| problem.code == code),
            "{code}: found {found:?}"
        );
    }
}

#[test]
fn no_code_is_without_a_case() {
    let mut provoked: BTreeSet<Code> = cases().into_iter().map(|(code, _)| code).collect();
    // Absence of a platform shows only when a plan is asked for.
    provoked.insert(Code::PlatformAbsent);
    let all: BTreeSet<Code> = CODES.iter().map(|info| info.code).collect();
    assert_eq!(provoked, all);
}

#[test]
fn a_file_with_an_error_is_not_planned() {
    for (code, bytes) in cases() {
        if code.severity() != Severity::Error {
            continue;
        }
        let Ok(file) = File::read(&bytes) else { continue };
        for platform in file.platforms() {
            let refused = file.plan(platform.isolation).unwrap_err();
            assert!(
                refused.problems[0].severity() == Severity::Error,
                "{code}: {refused}"
            );
        }
    }
}

#[test]
fn an_absent_platform_is_named_with_those_that_are_there() {
    let bytes = of(VSM, |raw| raw.page(0));
    let refused = File::read(&bytes).unwrap().plan(Isolation::Snp).unwrap_err();
    assert_eq!(refused.problems[0].code, Code::PlatformAbsent);
    assert!(
        refused
            .to_string()
            .contains("the file has no platform snp; it has vsm"),
        "{refused}"
    );
}

#[test]
fn problems_name_header_offset_and_gpa() {
    let bytes = of(VSM, |raw| raw.page(0x1000).page(0x1000));
    let found = problems(&bytes);
    assert_eq!(
        found[0].to_string(),
        "header 2 (gpa 0x1000, file offset 0x50): 0x1000 bytes overlap gpa 0x1000 of 0x1000 bytes from header 1 at file offset 0x30 on platform vsm [gpa-overlap]"
    );
    assert_eq!(found.len(), 1);
}

#[test]
fn flawless_files_have_no_problems() {
    let plain = of(NATIVE, |raw| {
        raw.page(0x1000).area(0, 0x1000);
        for (kind, offset) in [(ParameterKind::MemoryMap, 0), (ParameterKind::VpCount, 192)] {
            raw.parameter(kind, 0, offset);
        }
        raw.insert(0x2000, 0)
            .add(required(0))
            .context(0, 0, &native_page())
    });
    assert_eq!(problems(&plain), []);
    let snp = of(SNP, |raw| {
        raw.policy(0x30000, 1)
            .with_data(Header::CorimDocument(corim()), &[1; 4]);
        raw.with_data(Header::CorimSignature(corim()), &[2; 4])
            .bytes(0x107, "v1 \u{e4}".as_bytes());
        raw.page(0x1000)
            .context(0, 0xFFFF_FFFF_F000, &vmsa(1))
            .add(Header::SnpIdBlock(id_block()))
    });
    assert_eq!(problems(&snp), []);
    let mut cca = Raw::aarch64(IgvmPlatformType::CCA);
    cca.add(Header::CcaPolicy(cca_policy())).context(0, 0, &[0; 4096]);
    assert_eq!(problems(&cca.build()), []);
}

#[test]
fn a_bare_native_context_is_accepted_before_other_data_and_at_the_end() {
    let context = &native_page()[..232];
    for with_page in [true, false] {
        let bytes = of(NATIVE, |raw| {
            raw.context(0, 0, context);
            if with_page { raw.page(0x1000) } else { raw }
        });
        assert_eq!(problems(&bytes), []);
        let plan = File::read(&bytes).unwrap().plan(Isolation::Native).unwrap();
        let (context, _) = plan.vp_contexts().next().unwrap();
        assert_eq!(context.state.to_x86().unwrap().rip, 0xFFF0);
    }
}

#[test]
fn two_mebibyte_pages_hold_two_mebibytes() {
    let mut page = page_data(2 << 20);
    page.flags = IgvmPageDataFlags::new().with_is_2mb_page(true);
    let data: Vec<u8> = (0..2u32 << 20).map(|n| (n >> 12) as u8 ^ n as u8).collect();
    let bytes = of(VSM, |raw| raw.with_data(Header::PageData(page), &data));
    assert_eq!(problems(&bytes), []);
    let file = File::read(&bytes).unwrap();
    let plan = file.plan(Isolation::Vsm).unwrap();
    let host = launch_plan::HostValues::new(1);
    let bound = plan.bind(&host).unwrap();
    let import = bound.imports().next().unwrap();
    assert!(import.large && import.len == 2 << 20);
    assert!(import.data == Some(&data[..]));
    let short = of(VSM, |raw| raw.with_data(Header::PageData(page), &data[..4096]));
    assert!(
        problems(&short)
            .iter()
            .any(|problem| problem.code == Code::DataRange)
    );
}
