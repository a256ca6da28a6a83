// SPDX-License-Identifier: MIT
//! What the model measures: published vectors, Debian's OVMF, and random launches that `launch_digest`
//! predicts. The model shares no code with the predictions.

use crate::rig::*;
use kvm_model::FakeHost;
use kvm_sys::Fd;
use launch_digest::{Options, measure};
use launch_plan::{
    Arch, Contents, Import, Isolation, LaunchPlan, Origin, PageContents, PageKind, PlanBuilder,
    PlatformFacts, StepKind, VpContext, VpState,
};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

const HERE: Origin = Origin::Host("test");
/// Granularity of the guest's RAM here.
const CHUNK: u64 = 2 << 20;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../launch_digest/tests/data")
        .join(name)
}

/// Gives a VP the state of a save area, field by field at the kernel's offsets.
fn load(rig: &Rig, vcpu: Fd, area: &[u8]) {
    let number = |at: usize| le64(area, at);
    // Segments of `struct kvm_sregs` in the order CS, DS, ES, FS, GS, SS, TR, LDT.
    let mut sregs = [0; 0x138];
    for (n, at) in [0x10, 0x30, 0x00, 0x40, 0x50, 0x20, 0x90, 0x70]
        .into_iter()
        .enumerate()
    {
        let attributes = u16::from_le_bytes([area[at + 2], area[at + 3]]);
        let bit = |n: u16| (attributes >> n & 1) as u8;
        let to = &mut sregs[24 * n..24 * n + 24];
        to[..8].copy_from_slice(&area[at + 8..at + 16]);
        to[8..12].copy_from_slice(&area[at + 4..at + 8]);
        to[12..14].copy_from_slice(&area[at..at + 2]);
        let dpl = (attributes >> 5 & 3) as u8;
        to[14..22].copy_from_slice(&[
            (attributes & 15) as u8,
            bit(7),
            dpl,
            bit(10),
            bit(4),
            bit(9),
            bit(11),
            bit(8),
        ]);
    }
    for (to, at) in [(0xC0, 0x60), (0xD0, 0x80)] {
        sregs[to..to + 8].copy_from_slice(&area[at + 8..at + 16]);
        sregs[to + 8..to + 10].copy_from_slice(&area[at + 4..at + 6]);
    }
    for (to, value) in [
        (0xE0, number(0x158)),
        (0xF0, number(0x150)),
        (0xF8, number(0x148)),
        (0x108, number(0xD0) & !0x1000),
    ] {
        sregs[to..to + 8].copy_from_slice(&value.to_le_bytes());
    }
    rig.pointer(vcpu, SET_SREGS, &mut sregs).unwrap();
    let general = [
        0x1F8, 0x318, 0x308, 0x310, 0x330, 0x338, 0x1D8, 0x328, 0x340, 0x348, 0x350, 0x358, 0x360, 0x368,
        0x370, 0x378, 0x178, 0x170,
    ];
    let mut regs: Vec<u8> = general
        .into_iter()
        .flat_map(|at| number(at).to_le_bytes())
        .collect();
    rig.pointer(vcpu, SET_REGS, &mut regs).unwrap();
    let mut debug = structure::<128>(&[(32, &area[0x168..0x170]), (40, &area[0x160..0x168])]);
    rig.pointer(vcpu, SET_DEBUGREGS, &mut debug).unwrap();
    let mut xcrs = structure::<392>(&[(0, &[1]), (16, &area[0x3E8..0x3F0])]);
    rig.pointer(vcpu, 0x4188_AEA7, &mut xcrs).unwrap();
    let mut msrs = structure::<24>(&[(0, &[1]), (8, &0x277u32.to_le_bytes()), (16, &area[0x268..0x270])]);
    assert_eq!(rig.pointer(vcpu, 0x4008_AE89, &mut msrs).unwrap(), 1);
    let mut xsave = structure::<4096>(&[(0, &area[0x410..0x412]), (24, &area[0x408..0x40C]), (512, &[3])]);
    rig.pointer(vcpu, SET_XSAVE, &mut xsave).unwrap();
}

/// RAM under everything that the plan imports.
fn ram(plan: &LaunchPlan<'_>) -> Vec<(u64, u64)> {
    let mut chunks = std::collections::BTreeSet::from([0]);
    for step in plan.steps() {
        if let StepKind::Import(import) = &step.kind {
            chunks.extend(import.gpa / CHUNK..(import.gpa + import.len).div_ceil(CHUNK));
        }
    }
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for chunk in chunks {
        match ranges.last_mut() {
            Some((start, len)) if *start + *len == chunk * CHUNK => *len += CHUNK,
            _ => ranges.push((chunk * CHUNK, CHUNK)),
        }
    }
    ranges
}

/// How a plan is launched.
#[derive(Clone, Copy)]
struct How {
    vm_type: u64,
    /// Pages without data go in as ZERO.
    native_zero: bool,
    /// INIT or ES_INIT on a VM of the default type.
    legacy: bool,
}

impl How {
    fn of(isolation: Isolation) -> Self {
        let vm_type = match isolation {
            Isolation::Snp => SNP,
            Isolation::SevEs => SEV_ES,
            _ => SEV,
        };
        Self {
            vm_type,
            native_zero: false,
            legacy: false,
        }
    }
}

fn rig(plan: &LaunchPlan<'_>, how: How) -> Rig {
    let host = if how.legacy {
        FakeHost::linux_6_9()
    } else {
        FakeHost::snp()
    };
    let rig = Rig::over(host, if how.legacy { 0 } else { how.vm_type }, &ram(plan));
    let vm = rig.vm;
    let init = if how.legacy {
        (how.vm_type - SEV) as u32
    } else {
        INIT2
    };
    assert_eq!(rig.command(init, &mut [0; 48]).0, 0);
    for (slot, region) in rig.memory.regions().iter().enumerate() {
        let [gpa, len, host] = [region.gpa, region.len, region.host as u64].map(u64::to_le_bytes);
        let memfd = if how.vm_type == SNP {
            rig.pointer(vm, CREATE_MEMFD, &mut structure::<64>(&[(0, &len)]))
                .unwrap()
        } else {
            rig.pointer(vm, REG_REGION, &mut structure::<16>(&[(0, &host), (8, &len)]))
                .unwrap()
        };
        let flags = if how.vm_type == SNP { 4 } else { 0 };
        let mut argument = structure::<160>(&[
            (0, &[slot as u8]),
            (4, &[flags]),
            (8, &gpa),
            (16, &len),
            (24, &host),
            (40, &memfd.to_le_bytes()),
        ]);
        rig.pointer(vm, SET_REGION2, &mut argument).unwrap();
    }
    rig
}

/// Submits one page of 4 KiB.
fn submit(rig: &Rig, how: How, gpa: u64, kind: PageKind, bytes: Option<&[u8]>) {
    let region = rig
        .memory
        .regions()
        .iter()
        .find(|r| gpa >= r.gpa && gpa - r.gpa < r.len)
        .unwrap();
    let host = region.host as u64 + gpa - region.gpa;
    rig.memory.write(gpa, bytes.unwrap_or(&[])).unwrap();
    if how.vm_type != SNP {
        if kind == PageKind::Measured {
            let mut update = structure::<16>(&[(0, &host.to_le_bytes()), (8, &[0, 16])]);
            assert_eq!(rig.command(3, &mut update), (0, 0));
        }
        return;
    }
    let page_type = match kind {
        PageKind::Measured if how.native_zero && bytes.is_none() => ZERO,
        PageKind::Measured => NORMAL,
        PageKind::Unmeasured => UNMEASURED,
        PageKind::Secrets => SECRETS,
        PageKind::Cpuid | PageKind::CpuidXf => CPUID,
        _ => return,
    };
    assert_eq!(rig.set_private(gpa, 4096, true), 0);
    assert_eq!(rig.update_from(gpa, 4096, page_type, host), (0, 0, 0), "{gpa:#x}");
}

/// The digest of a launch of the plan on the model.
fn launch(plan: &LaunchPlan<'_>, how: How) -> String {
    let rig = rig(plan, how);
    let policy = match how.vm_type {
        SNP => plan.facts.policy.unwrap_or(POLICY),
        SEV_ES => 5,
        _ => 1,
    };
    if how.vm_type == SNP {
        assert_eq!(rig.start_with(policy), (0, 0));
    } else {
        assert_eq!(
            rig.command(2, &mut structure::<40>(&[(4, &(policy as u32).to_le_bytes())])),
            (0, 0)
        );
    }
    for step in plan.steps() {
        let StepKind::Import(import) = &step.kind else {
            continue;
        };
        for page in import.pages() {
            let bytes = match &page.contents {
                PageContents::Bytes(bytes) => Some(*bytes),
                _ => None,
            };
            for at in (0..page.size).step_by(4096) {
                let part = bytes
                    .map(|bytes| &bytes[bytes.len().min(at as usize)..bytes.len().min(at as usize + 4096)]);
                submit(&rig, how, page.gpa + at, page.kind, part);
            }
        }
    }
    let mut contexts: Vec<_> = plan.vp_contexts().map(|(context, _)| context).collect();
    contexts.sort_by_key(|context| context.vp);
    for context in contexts {
        if let VpState::Vmsa(area) = &context.state {
            load(&rig, rig.vcpu(context.vp.into()), area);
        }
    }
    if how.vm_type == SNP {
        return hex(&rig.digest());
    }
    if how.vm_type == SEV_ES {
        assert_eq!(rig.command(4, &mut [0; 8]), (0, 0));
    }
    assert_eq!(rig.command(7, &mut [0; 8]), (0, 0));
    hex(&rig.launched().digest)
}

fn page(gpa: u64, kind: PageKind, contents: Contents<'_>) -> Import<'_> {
    Import {
        gpa,
        len: 0x1000,
        large: false,
        kind,
        contents,
    }
}

fn builder(isolation: Isolation) -> PlanBuilder<'static> {
    PlanBuilder::new(PlatformFacts {
        policy: (isolation == Isolation::Snp).then_some(POLICY),
        ..PlatformFacts::new(isolation, Arch::X64)
    })
}

/// P1 to P6 of the vectors' README.
#[test]
fn the_published_record_chain_is_what_the_firmware_computes() {
    let chain = [
        "e6e4d78904d9d6b33c0cbfd121998fd2d11744dae606b3aee35e2a45d6869b60b35c63928a9232bef72d6be386f48ec6",
        "8233fbe1ec826b22907aa9397de357831970a96a08e3783a274d6349194edde812a85313b0916402f33d069e71e1248d",
        "e38aa6d01be592105dece52b841baab5f074b7680817c0db474561fc74b5aa89826cef755d515e57daaabe1f220f70d6",
        "4ab99c5fb84fc4720a053aee17fc63d5ca6ba07716d1f97e2e899de0aa4610d5cfc20f60f19b161b1a7b6e8f245a4f6f",
        "adf702781cc8401038504a836700bf30b87124cea93ef7e2174454dd11b1b9b6d05e1d8e7f8b46ba81813eb777f3236c",
        "47f0778b1d92227de6842bed9fec449ab465cbde34d2a4b4a2ac3d56f12d6f71c737bbb2a5b0ee82421b441ed981ecc8",
    ];
    for (steps, expected) in (1u64..).zip(chain) {
        let rig = Rig::new(SNP);
        assert_eq!(rig.start(), (0, 0));
        rig.set_private(0, RAM, true);
        let kinds = [NORMAL, ZERO, UNMEASURED, SECRETS, CPUID];
        for (n, kind) in (1..=steps).zip(kinds) {
            assert_eq!(rig.update(n * 0x1000, 4096, kind), (0, 0, 0));
        }
        if steps == 6 {
            load(
                &rig,
                rig.vcpu(0),
                &std::fs::read(data("snp-bsp-epycv4.bin")).unwrap(),
            );
        }
        assert_eq!(hex(&rig.digest()), expected, "P{steps}");
    }
}

#[test]
fn published_save_areas_are_built_byte_for_byte() {
    for (name, isolation) in [
        ("snp-bsp-epycv4.bin", Isolation::Snp),
        ("snp-ap-epycv4-eip80b004.bin", Isolation::Snp),
        ("seves-bsp-epycv4.bin", Isolation::SevEs),
    ] {
        let area = std::fs::read(data(name)).unwrap();
        let how = How::of(isolation);
        let plan = builder(isolation).finish();
        let rig = rig(&plan, how);
        load(&rig, rig.vcpu(0), &area);
        if isolation == Isolation::Snp {
            assert_eq!((rig.start(), rig.finish()), ((0, 0), (0, 0)));
        } else {
            assert_eq!(rig.command(2, &mut structure::<40>(&[(4, &[5])])), (0, 0));
            assert_eq!(rig.command(4, &mut [0; 8]), (0, 0));
        }
        assert_eq!(rig.guest().save_area(0).unwrap()[..], area[..], "{name}");
    }
}

#[test]
fn files_of_the_vectors_measure_as_published_for_kvm() {
    let text = std::fs::read_to_string(data("igvm-digests.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut count = 0;
    for (name, digests) in all.as_object().unwrap() {
        for (key, isolation) in [("kvm:snp", Isolation::Snp), ("kvm:seves", Isolation::SevEs)] {
            let Some(expected) = digests[key].as_str() else {
                continue;
            };
            let bytes = std::fs::read(data(name)).unwrap();
            let file = vm_loaders::igvm::File::read(&bytes).unwrap();
            let plan = file.plan(isolation).unwrap();
            assert_eq!(launch(&plan, How::of(isolation)), expected, "{name} {key}");
            count += 1;
        }
    }
    assert_eq!(count, 5);
}

#[test]
fn debians_ovmf_measures_as_published() {
    const NAME: &str = "debians_ovmf_measures_as_published";
    let Ok(image) = std::fs::read("/usr/share/ovmf/OVMF.fd") else {
        println!("skipped: {NAME}: Debian's package ovmf is not installed");
        return;
    };
    let text = std::fs::read_to_string(data("ovmf-digests.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let digest = |isolation, vps, signature, legacy| {
        let options = vm_loaders::ovmf::WrapOptions {
            signature,
            ..vm_loaders::ovmf::WrapOptions::new(isolation, vps)
        };
        let plan = vm_loaders::ovmf::plan(&image, &options).unwrap();
        launch(
            &plan,
            How {
                native_zero: true,
                legacy,
                ..How::of(isolation)
            },
        )
    };
    let expected = |id: &str| {
        let found = all.as_array().unwrap().iter().find(|vector| vector["id"] == id);
        found.unwrap()["expect"].as_str().unwrap().to_owned()
    };
    let (v4, milan) = (0x0080_0F12, 0x00A0_0F11);
    if digest(Isolation::Sev, 1, 0, false) != expected("V01") {
        println!("skipped: {NAME}: the installed OVMF.fd is another version than the vectors'");
        return;
    }
    for (id, isolation, vps, signature) in [
        ("V03", Isolation::SevEs, 1, milan),
        ("V04", Isolation::SevEs, 4, v4),
        ("V06", Isolation::Snp, 1, v4),
        ("V07", Isolation::Snp, 4, milan),
    ] {
        assert_eq!(digest(isolation, vps, signature, false), expected(id), "{id}");
    }
    // V03 after the legacy ES_INIT, which leaves MXCSR and FCW zero.
    let legacy = "1098dfc8c777edbe39cd994cd7c26a9220d9e0791209ab1c26fc073cec1b4845";
    assert_eq!(digest(Isolation::SevEs, 1, milan, true), legacy);
    assert_eq!(digest(Isolation::Sev, 1, 0, true), expected("V01"));
}

/// One page of a random launch.
#[derive(Debug, Clone)]
struct RandomPage {
    kind: PageKind,
    large: bool,
    bytes: Option<Vec<u8>>,
}

fn random_page() -> impl Strategy<Value = RandomPage> {
    let kind = prop_oneof![
        4 => Just(PageKind::Measured),
        2 => Just(PageKind::Unmeasured),
        1 => Just(PageKind::Shared),
        1 => Just(PageKind::Secrets),
    ];
    let bytes = proptest::option::weighted(0.6, proptest::collection::vec(any::<u8>(), 1..4096));
    (kind, proptest::bool::weighted(0.05), bytes).prop_map(|(kind, large, bytes)| RandomPage {
        // A large page is measured and empty, which tools disagree about.
        kind: if large { PageKind::Measured } else { kind },
        large,
        bytes: bytes.filter(|_| !large),
    })
}

/// A save area that KVM can build: KVM's reset state with random registers.
fn random_area(isolation: Isolation, seed: u64) -> Vec<u8> {
    let mut area = launch_digest::kvm_vmsa::reset_state(isolation).to_vec();
    let mut state = seed | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 16).to_le_bytes()
    };
    for at in [0x178, 0x1D8, 0x1F8, 0x308, 0x310, 0x318, 0x150]
        .into_iter()
        .chain((0x328..0x380).step_by(8))
    {
        area[at..at + 8].copy_from_slice(&next());
    }
    for at in [0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x70, 0x90] {
        let random = next();
        area[at..at + 2].copy_from_slice(&random[..2]);
        area[at + 8..at + 16].copy_from_slice(&next());
        area[at + 4..at + 8].copy_from_slice(&random[2..6]);
        // Not a long mode segment: the VP starts without paging.
        let attributes = (u16::from_le_bytes([random[0], random[4]]) & 0xD9F) | 0x80;
        area[at + 2..at + 4].copy_from_slice(&attributes.to_le_bytes());
    }
    area
}

fn random_plan(isolation: Isolation, pages: &[RandomPage], vps: u32, salt: u64) -> LaunchPlan<'static> {
    let mut builder = builder(isolation);
    for (n, random) in pages.iter().enumerate() {
        // An odd factor makes the slots a permutation of 0..32.
        let gpa = (n as u64 * (2 * salt + 1) % 32) * 4 * CHUNK + if random.large { 0 } else { salt * 0x3000 };
        let kind = match random.kind {
            PageKind::Secrets if isolation != Isolation::Snp => PageKind::Unmeasured,
            kind => kind,
        };
        let contents = match &random.bytes {
            Some(bytes) => Contents::Bytes(bytes.clone().into()),
            None => Contents::Zero,
        };
        let mut import = page(gpa, kind, contents);
        if random.large {
            (import.len, import.large) = (CHUNK, true);
        }
        builder.import(import, HERE).unwrap();
    }
    for vp in 0..vps {
        let area = random_area(isolation, salt << 32 | u64::from(vp));
        let context = VpContext {
            vp,
            gpa: 0xFFFF_FFFF_F000,
            state: VpState::Vmsa(area.into()),
        };
        builder.vp_context(context, HERE).unwrap();
    }
    builder.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_launches_measure_what_launch_digest_predicts(
        pages in proptest::collection::vec(random_page(), 1..24),
        vps in 1u32..4,
        salt in 0u64..16,
        platform in 0usize..3,
    ) {
        let isolation = [Isolation::Snp, Isolation::SevEs, Isolation::Sev][platform];
        let vps = if isolation == Isolation::Sev { 0 } else { vps };
        let plan = random_plan(isolation, &pages, vps, salt);
        let predicted = measure(&plan, &Options::default()).unwrap().digest.to_string();
        prop_assert_eq!(launch(&plan, How::of(isolation)), predicted);
    }
}
