// SPDX-License-Identifier: MIT
//! The corpus: every platform, both versions, every feature, three writers.

use crate::build::*;
use crate::program::{Folder, peer, text};
use igvm::{
    IgvmDirectiveHeader as Directive, IgvmFile, IgvmInitializationHeader as Initialization,
    IgvmPlatformHeader, IgvmRevision,
};
use igvm_defs::*;
use launch_plan::*;
use std::path::Path;
use std::process::Command;
use vm_loaders::igvm::{EncodeOptions, FormatVersion, encode};
use vm_loaders::{ovmf, uefi};

/// A file of the corpus.
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

fn sample(name: impl Into<String>, bytes: Vec<u8>) -> Sample {
    let name = name.into();
    Sample { name, bytes }
}

const X64: [Isolation; 6] = [
    Isolation::Native,
    Isolation::Vsm,
    Isolation::Sev,
    Isolation::SevEs,
    Isolation::Snp,
    Isolation::Tdx,
];

/// All samples that need no other program, by all writers that are crates.
pub(crate) fn samples() -> Vec<Sample> {
    let mut all = platforms();
    all.extend(features());
    all.extend(firmware());
    all.extend(vectors());
    all.extend(by_the_crate());
    all
}

/// Every platform, in both format versions where they exist.
fn platforms() -> Vec<Sample> {
    let mut all = Vec::new();
    for isolation in X64 {
        for (format, name) in [(FormatVersion::V1, "v1"), (FormatVersion::V2, "v2")] {
            let plan = builder(Shape::of(isolation)).finish();
            all.push(sample(format!("{isolation}-{name}"), file(&[plan], format)));
        }
    }
    let cca = builder(Shape::of(Isolation::Cca)).finish();
    all.push(sample("cca", file(&[cca], FormatVersion::V2)));
    let arm = Shape {
        arch: Arch::Aarch64,
        parameters: &[ParameterKind::DeviceTree],
        ..Shape::of(Isolation::Vsm)
    };
    all.push(sample(
        "vsm-aarch64-device-tree",
        file(&[builder(arm).finish()], FormatVersion::V2),
    ));
    for (format, name) in [(FormatVersion::V1, "multi-v1"), (FormatVersion::V2, "multi-v2")] {
        let plans: Vec<_> = X64.iter().map(|&one| builder(Shape::of(one)).finish()).collect();
        all.push(sample(name, file(&plans, format)));
    }
    all
}

/// One file for each feature.
fn features() -> Vec<Sample> {
    let mut all = Vec::new();
    for isolation in [Isolation::Native, Isolation::Snp] {
        let large = Shape {
            large: true,
            ..Shape::of(isolation)
        };
        all.push(sample(format!("{isolation}-2mib"), v1(builder(large))));
    }
    let every = Shape {
        parameters: &ParameterKind::ALL,
        ..Shape::of(Isolation::Vsm)
    };
    all.push(sample("vsm-all-parameters", v1(builder(every))));
    let mut initial = builder(Shape::of(Isolation::Native));
    initial
        .import(
            area(
                0x30_0000,
                &[ParameterKind::CommandLine],
                b"console=ttyS0".to_vec(),
            ),
            HERE,
        )
        .unwrap();
    all.push(sample("native-initial-data", v1(initial)));
    let mut ranges = builder(Shape::of(Isolation::Vsm));
    ranges.error_range(0x40_0000, 0x3000, HERE).unwrap();
    let expect = ExpectMemory {
        gpa: 0,
        len: 16 << 20,
        vtl2_protectable: false,
    };
    ranges.expect_memory(expect, HERE).unwrap();
    all.push(sample("vsm-error-range-required-memory", v1(ranges)));
    let mut shared = builder(Shape::of(Isolation::Snp));
    shared
        .import(page(0x13_0000, PageKind::Shared, Some(data(2, 9))), HERE)
        .unwrap();
    all.push(sample("snp-shared", v1(shared)));
    let four = Shape {
        vps: 4,
        ..Shape::of(Isolation::Snp)
    };
    all.push(sample("snp-4-vps", v1(builder(four))));
    all.push(sample("native-relocatable", v1(relocatable())));
    all.extend(endorsed());
    let options = EncodeOptions {
        format: FormatVersion::V2,
        version_string: Some("igvmtool tests".to_owned()),
    };
    let plan = builder(Shape::of(Isolation::Native)).finish();
    all.push(sample(
        "native-version-string",
        encode(&[plan], &options).unwrap().to_vec(),
    ));
    let zeros = PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64));
    all.push(sample("native-empty", v1(zeros)));
    all
}

/// Files with an ID block, a VBS measurement, a CoRIM document and signature.
fn endorsed() -> Vec<Sample> {
    let mut snp = builder(Shape::of(Isolation::Snp));
    let key = IdKey {
        curve: 2,
        qx: [3; 72],
        qy: [4; 72],
    };
    let signature = IdSignature {
        r: [1; 72],
        s: [2; 72],
    };
    snp.plan_mut().endorsements.id_block = Some(Box::new(IdBlock {
        author_key_enabled: 0,
        launch_digest: [7; 48],
        family_id: [1; 16],
        image_id: [2; 16],
        version: 1,
        guest_svn: 9,
        id_key_algorithm: 1,
        author_key_algorithm: 0,
        id_signature: signature,
        id_key: key,
        author_signature: IdSignature {
            r: [0; 72],
            s: [0; 72],
        },
        author_key: IdKey {
            curve: 0,
            qx: [0; 72],
            qy: [0; 72],
        },
    }));
    let mut vsm = builder(Shape::of(Isolation::Vsm));
    vsm.plan_mut().endorsements.vbs_measurement = Some(Box::new(VbsMeasurement {
        version: 1,
        product_id: 2,
        module_id: 3,
        security_version: 4,
        policy_flags: 0,
        digest_algorithm: 1,
        signing_algorithm: 1,
        digest: [5; 64],
        signature: [6; 256],
        public_key: [7; 512],
    }));
    let mut tdx = builder(Shape::of(Isolation::Tdx));
    tdx.plan_mut().endorsements.corim = Some(Corim {
        document: vec![0xD9, 0x01, 0xF5, 0xA1, 0x00, 0x63, b'a', b'b', b'c'].into(),
        signature: Some(vec![0xD2, 0x84, 0x44, 0xA1, 0x01, 0x38, 0x22, 0xA0, 0xF6, 0x41, 0x00].into()),
    });
    vec![
        sample("snp-id-block", v1(snp)),
        sample("vsm-measurement", v1(vsm)),
        sample("tdx-corim", v1(tdx)),
    ]
}

/// A movable image with its page tables.
fn relocatable() -> PlanBuilder<'static> {
    const TABLES: u64 = 8 << 20;
    let mut plan = PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64));
    plan.plan_mut().relocatable = vec![RelocatableRegion {
        vp: 0,
        vtl: 0,
        is_vtl2: false,
        apply_pc: true,
        apply_gdtr: false,
        alignment: 2 << 20,
        gpa: 2 << 20,
        len: 2 << 20,
        min_gpa: 0,
        max_gpa: 1 << 32,
    }];
    plan.plan_mut().page_tables = Some(PageTableRegion {
        vp: 0,
        vtl: 0,
        gpa: TABLES,
        len: 0x8000,
        used: 0x3000,
    });
    let tables = [
        vec![TABLES + 0x1003],
        vec![TABLES + 0x2003],
        vec![0x83, (2 << 20) | 0x83],
    ];
    for (number, entries) in tables.into_iter().enumerate() {
        let bytes = entries
            .iter()
            .flat_map(|entry: &u64| entry.to_le_bytes())
            .collect();
        plan.import(
            page(TABLES + number as u64 * 0x1000, PageKind::Measured, Some(bytes)),
            HERE,
        )
        .unwrap();
    }
    plan.import(page(2 << 20, PageKind::Measured, Some(data(1, 5))), HERE)
        .unwrap();
    let state = NativeContext {
        cr0: 0x8000_0011,
        cr3: TABLES,
        cr4: 0x20,
        efer: 0x500,
        rip: 2 << 20,
        cs: flat(8, 0xA09B),
        data: flat(16, 0xC093),
        ..Default::default()
    };
    let state = VpState::Native(Box::new(state));
    plan.vp_context(VpContext { vp: 0, gpa: 0, state }, HERE).unwrap();
    plan
}

/// A 128 KiB image in OVMF's shape: SEV metadata (memory, secrets, CPUID), an AP reset block, IGVM
/// metadata (parameter area with memory map and VP count).
pub(crate) fn ovmf_image() -> Vec<u8> {
    const SIZE: usize = 0x2_0000;
    let guid = |text: u128| uuid::Uuid::from_u128(text).to_bytes_le();
    let mut image: Vec<u8> = (0..SIZE).map(|at| (at >> 12) as u8).collect();
    image[32..40].copy_from_slice(&(SIZE as u64).to_le_bytes());
    image[16..20].copy_from_slice(&[0x78, 0xE5, 0x8C, 0x8C]);
    image[40..44].copy_from_slice(b"_FVH");
    let mut at = SIZE - 32;
    let mut put = |bytes: &[u8]| {
        at -= bytes.len();
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&guid(0x96B5_82DE_1FB2_45F7_BAEA_A366_C55A_082D));
    put(&(18u16 + 3 * 22).to_le_bytes());
    for (table, value) in [
        (0x00F7_71DE_1A7E_4FCB_890E_68C7_7E2F_B44E, 0x0080_B004_u32),
        (0xDC88_6566_984A_4798_A75E_5585_A7BF_67CC, 0x1_F000),
        (0x784F_A70E_3176_4677_8A20_04B6_8699_E374, 0x1_E000),
    ] {
        put(&guid(table));
        put(&22u16.to_le_bytes());
        put(&value.to_le_bytes());
    }
    let sev = [
        52, 1, 3, 0x80_0000, 0x2000, 1, 0x80_D000, 0x1000, 2, 0x80_E000, 0x1000, 3u32,
    ];
    let igvm = [
        52, 1, 3, 0x81_0000, 0x1000, 0x100, 0, 192, 0x101, 192, 16, 0x102u32,
    ];
    for (place, magic, words) in [(0x1000, b"ASEV", sev), (0x2000, b"IGVM", igvm)] {
        let bytes: Vec<u8> = magic
            .iter()
            .copied()
            .chain(words.iter().flat_map(|w| w.to_le_bytes()))
            .collect();
        image[place..place + bytes.len()].copy_from_slice(&bytes);
    }
    image
}

/// A 6 MiB image in MSVM.fd's shape: a security volume with one PE core.
pub(crate) fn msvm_image() -> Vec<u8> {
    let mut image = vec![0xFF; uefi::x64::IMAGE_SIZE as usize];
    let volume = uefi::x64::SEC_VOLUME_OFFSET as usize;
    let mut put =
        |at: usize, bytes: &[u8]| image[volume + at..volume + at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0; 72 + 24 + 4 + 0x1000]);
    put(16, &[0x78, 0xE5, 0x8C, 0x8C]);
    put(32, &0x2_0000u64.to_le_bytes());
    put(40, b"_FVH");
    put(48, &72u16.to_le_bytes());
    // A file of type 3 (security core) with one PE32 section (0x10).
    put(72 + 18, &[3]);
    put(72 + 20, &(24 + 4 + 0x1000u32).to_le_bytes()[..3]);
    put(72 + 24, &(4 + 0x1000u32).to_le_bytes()[..3]);
    put(72 + 27, &[0x10]);
    let pe = 72 + 28;
    put(pe, b"MZ");
    put(pe + 0x3C, &0x80u32.to_le_bytes());
    put(pe + 0x80, b"PE\0\0");
    put(pe + 0x80 + 40, &0x240u32.to_le_bytes());
    image
}

/// OVMF and UEFI images by our builders.
fn firmware() -> Vec<Sample> {
    let image = ovmf_image();
    let plan = |isolation, change: fn(&mut ovmf::WrapOptions)| {
        let mut options = ovmf::WrapOptions::new(isolation, 2);
        change(&mut options);
        ovmf::plan(&image, &options).unwrap()
    };
    let mut all = vec![
        sample(
            "ovmf-native-flat32",
            file(
                &[plan(Isolation::Native, |o| o.entry = ovmf::Entry::Flat32)],
                FormatVersion::V1,
            ),
        ),
        sample(
            "ovmf-native-mirror",
            file(&[plan(Isolation::Native, |o| o.mirror = true)], FormatVersion::V2),
        ),
        sample(
            "ovmf-native-and-snp",
            file(
                &[plan(Isolation::Native, |_| {}), plan(Isolation::Snp, |_| {})],
                FormatVersion::V1,
            ),
        ),
    ];
    for isolation in [Isolation::Sev, Isolation::SevEs, Isolation::Snp] {
        all.push(sample(
            format!("ovmf-{isolation}"),
            file(&[plan(isolation, |_| {})], FormatVersion::V1),
        ));
    }
    let msvm = msvm_image();
    for (name, config) in [
        ("uefi-blob", uefi::ConfigType::None),
        ("uefi-parameters", uefi::ConfigType::Igvm),
    ] {
        let plan = uefi::plan(&msvm, config).unwrap();
        all.push(sample(name, file(&[plan], FormatVersion::V1)));
    }
    all
}

/// The vectors that `vm_loaders` keeps.
fn vectors() -> Vec<Sample> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm_loaders/tests/data/igvm");
    let mut all: Vec<Sample> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            sample(
                path.file_stem().unwrap().to_str().unwrap(),
                std::fs::read(&path).unwrap(),
            )
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn supported(platform_type: IgvmPlatformType, compatibility_mask: u32) -> IgvmPlatformHeader {
    IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask,
        highest_vtl: 0,
        platform_type,
        platform_version: 1,
        shared_gpa_boundary: 0,
    })
}

/// Files that the `igvm` crate writes.
fn by_the_crate() -> Vec<Sample> {
    let page = |gpa, compatibility_mask, data| Directive::PageData {
        gpa,
        compatibility_mask,
        flags: IgvmPageDataFlags::new(),
        data_type: IgvmPageDataType::NORMAL,
        data,
    };
    let directives = |mask| {
        vec![
            // Two pages of the same bytes: the crate stores them once.
            page(0x10_0000, mask, vec![0x90; 4096]),
            page(0x10_1000, mask, vec![0x90; 4096]),
            page(0x10_2000, mask, vec![]),
            Directive::ParameterArea {
                number_of_bytes: 0x1000,
                parameter_area_index: 3,
                initial_data: vec![1; 17],
            },
            Directive::MemoryMap(IGVM_VHS_PARAMETER {
                parameter_area_index: 3,
                byte_offset: 64,
            }),
            Directive::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
                gpa: 0x20_0000,
                compatibility_mask: mask,
                parameter_area_index: 3,
            }),
        ]
    };
    let write = |revision, platforms: Vec<(IgvmPlatformType, u32)>, policy: Option<u64>| {
        let mask = platforms.iter().map(|row| row.1).sum();
        let initialization = policy.map(|policy| Initialization::GuestPolicy {
            policy,
            compatibility_mask: 1,
        });
        let platforms = platforms
            .into_iter()
            .map(|(kind, mask)| supported(kind, mask))
            .collect();
        let file = IgvmFile::new(
            revision,
            platforms,
            initialization.into_iter().collect(),
            directives(mask),
        );
        let mut bytes = Vec::new();
        file.unwrap().serialize(&mut bytes).unwrap();
        bytes
    };
    let v2 = |arch| IgvmRevision::V2 {
        arch,
        page_size: 4096,
    };
    vec![
        sample(
            "crate-native",
            write(IgvmRevision::V1, vec![(IgvmPlatformType::NATIVE, 1)], None),
        ),
        sample(
            "crate-snp",
            write(
                IgvmRevision::V1,
                vec![(IgvmPlatformType::SEV_SNP, 1)],
                Some(0x3_0000),
            ),
        ),
        sample(
            "crate-tdx",
            write(v2(igvm::Arch::X64), vec![(IgvmPlatformType::TDX, 1)], None),
        ),
        sample(
            "crate-cca",
            write(v2(igvm::Arch::AArch64), vec![(IgvmPlatformType::CCA, 1)], None),
        ),
        sample(
            "crate-multi",
            write(
                IgvmRevision::V1,
                vec![
                    (IgvmPlatformType::SEV_SNP, 1),
                    (IgvmPlatformType::TDX, 2),
                    (IgvmPlatformType::VSM_ISOLATION, 8),
                ],
                Some(0xB_0000),
            ),
        ),
    ]
}

/// Files that igvm-wrap makes of the OVMF-shaped image; empty (and said so) without it.
pub(crate) fn wrapped(test: &str) -> Vec<Sample> {
    let Some(wrap) = peer("igvm-wrap", test) else {
        return Vec::new();
    };
    let folder = Folder::new();
    let image = folder.write("fw.fd", ovmf_image());
    let rows: [(&str, &[&str]); 3] = [
        ("wrap-native", &["--native", "--no-snp"]),
        ("wrap-flat32", &["--native", "--flat32"]),
        ("wrap-both", &["--native", "--snp"]),
    ];
    rows.map(|(name, options)| {
        let output = folder.path(name);
        let args = ["--input", &image, "--output", text(&output)];
        let done = Command::new(&wrap).args(args).args(options).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        sample(name, std::fs::read(output).unwrap())
    })
    .into()
}

#[test]
fn corpus_has_forty_files_of_every_platform() {
    let all = samples();
    assert!(all.len() >= 40, "{}", all.len());
    let mut names: Vec<_> = all.iter().map(|sample| &sample.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all.len());
}
