// SPDX-License-Identifier: MIT
//! Files for isolated launches.

use crate::images;
use launch_plan::{
    Arch, Contents, ExpectMemory, Import, Isolation, LaunchPlan, Origin, PageKind, PlanBuilder,
    PlatformFacts, VpContext, VpState,
};
use std::path::Path;
use vm_loaders::ovmf::{ResetVp, reset_save_area};
use vmm_tests::files::TestFile;
use vmm_tests::programs;
use x86defs::vmsa::KVM_VMSA_GPA;

/// Debian's firmware.
pub(super) const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

const HERE: Origin = Origin::Host("test");

fn builder(isolation: Isolation) -> PlanBuilder<'static> {
    let mut facts = PlatformFacts::new(isolation, Arch::X64);
    facts.policy = match isolation {
        Isolation::Sev => Some(1),
        Isolation::SevEs => Some(5),
        Isolation::Snp => Some(0x3_0000),
        _ => None,
    };
    PlanBuilder::new(facts)
}

fn page(builder: &mut PlanBuilder<'static>, gpa: u64, byte: u8) {
    let import = Import {
        gpa,
        len: 0x2000,
        large: false,
        kind: PageKind::Measured,
        contents: Contents::Bytes(vec![byte; 0x1234].into()),
    };
    builder.import(import, HERE).unwrap();
}

/// A reset save area for `vp`.
pub(super) fn save_area(isolation: Isolation) -> Vec<u8> {
    let start = ResetVp {
        entry: 0xFFFF_FFF0,
        signature: 0x600,
    };
    reset_save_area(isolation, start)
}

/// Adds a context for `vp`, in the form of the platform.
pub(super) fn add_context(builder: &mut PlanBuilder<'static>, isolation: Isolation, vp: u32, page: Vec<u8>) {
    let context = VpContext {
        vp,
        gpa: if isolation == Isolation::Sev {
            0
        } else {
            KVM_VMSA_GPA
        },
        state: VpState::Vmsa(page.into()),
    };
    builder.vp_context(context, HERE).unwrap();
}

/// A small guest for some platforms, with contexts for `vps` where the platform takes them.
pub(super) fn guest(platforms: &[Isolation], vps: u32) -> TestFile {
    let plans: Vec<LaunchPlan<'static>> = platforms
        .iter()
        .map(|&isolation| {
            let mut b = builder(isolation);
            page(&mut b, 0x10_0000, 0x42);
            page(&mut b, 0x20_0000, 0x43);
            if matches!(isolation, Isolation::SevEs | Isolation::Snp) {
                (0..vps).for_each(|vp| add_context(&mut b, isolation, vp, save_area(isolation)));
            }
            b.finish()
        })
        .collect();
    TestFile::new("guest.igvm", &images::igvm(&plans))
}

/// A guest whose contexts are these.
pub(super) fn with_contexts(isolation: Isolation, contexts: Vec<(u32, Vec<u8>)>) -> TestFile {
    let mut b = builder(isolation);
    page(&mut b, 0x10_0000, 0x42);
    for (vp, page) in contexts {
        add_context(&mut b, isolation, vp, page);
    }
    TestFile::new("contexts.igvm", &images::igvm(&[b.finish()]))
}

/// A file with two contexts, whose second is made one more for the first processor.
pub(super) fn second_context_for_the_first_vp(file: &Path) -> TestFile {
    let mut bytes = std::fs::read(file).unwrap();
    let read = vm_loaders::igvm::File::read(&bytes).unwrap();
    let mut contexts = read.headers().iter().filter(|raw| raw.typ == 0x304);
    let second = contexts.next_back().unwrap().content_offset() as usize;
    // gpa u64, mask u32, file offset u32, vp index u16
    bytes[second + 16..second + 18].fill(0);
    bytes[20..24].fill(0);
    let headers_end = {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        word(8) + word(12)
    };
    let checksum = crc32fast::hash(&bytes[..headers_end]);
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    TestFile::new("twice.igvm", &bytes)
}

/// An SNP guest that needs memory.
pub(super) fn with_required_memory(gpa: u64, len: u64) -> TestFile {
    let mut b = builder(Isolation::Snp);
    page(&mut b, 0x10_0000, 0x42);
    let expect = ExpectMemory {
        gpa,
        len,
        vtl2_protectable: false,
    };
    b.expect_memory(expect, HERE).unwrap();
    TestFile::new("required.igvm", &images::igvm(&[b.finish()]))
}

/// An SNP guest without a policy.
pub(super) fn without_policy() -> TestFile {
    let mut b = builder(Isolation::Snp);
    b.plan_mut().facts.policy = None;
    page(&mut b, 0x10_0000, 0x42);
    TestFile::new("policy.igvm", &images::igvm(&[b.finish()]))
}

/// An SNP guest of these pages, each filled with a byte.
pub(super) fn pages(pages: &[(u64, u8)]) -> TestFile {
    let mut b = builder(Isolation::Snp);
    for &(gpa, byte) in pages {
        page(&mut b, gpa, byte);
    }
    TestFile::new("pages.igvm", &images::igvm(&[b.finish()]))
}

/// An SNP guest whose context comes before its pages.
pub(super) fn context_first() -> TestFile {
    let mut b = builder(Isolation::Snp);
    add_context(&mut b, Isolation::Snp, 0, save_area(Isolation::Snp));
    page(&mut b, 0x10_0000, 0x42);
    TestFile::new("first.igvm", &images::igvm(&[b.finish()]))
}

/// An attestation report (version 2) of a guest with a digest in hex and a policy.
pub(super) fn report(digest: &str, policy: u64) -> Vec<u8> {
    let mut report = vec![0; 0x4A0];
    report[0] = 2;
    report[8..16].copy_from_slice(&policy.to_le_bytes());
    for (at, byte) in report[0x90..0xC0].iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).unwrap();
    }
    report
}

/// OVMF for some platforms, made by `igvmtool wrap`; `None` where the firmware is not installed.
pub(super) fn wrapped_ovmf(platforms: &[&str], vps: u32) -> Option<TestFile> {
    if !Path::new(OVMF).exists() {
        return None;
    }
    let file = TestFile::new("ovmf.igvm", &[]);
    let count = vps.to_string();
    let mut args = vec![
        "wrap",
        OVMF,
        "-o",
        file.path().to_str().unwrap(),
        "--vp-count",
        &count,
    ];
    for platform in platforms {
        args.extend(["--platform", platform]);
    }
    let out = programs::run_igvmtool(args);
    assert!(out.status.success(), "{out:?}");
    Some(file)
}
