// SPDX-License-Identifier: MIT
//! Launch digests of a 256 MiB image against one thread that hashes the same pages with `sha2`, in one run.
//!
//! `cargo bench -p launch_digest` prints wall-clock times, because digests use all processors (aim: SEV-SNP
//! three times faster than the loop on two processors, without anonymous memory for pages).
//!
//! Always true: every figure is the best of its runs; page contents are random. Not here: a verdict; the
//! aim is printed beside the figure.

use launch_digest::{Digest, Options, Profile, measure};
use launch_plan::{
    Arch, Contents, Import, Isolation, LaunchPlan, Origin, PageKind, PlanBuilder, PlatformFacts,
};
use sha2::{Digest as _, Sha256, Sha384};
use std::hint::black_box;
use std::time::Instant;

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
const SIZE: usize = 256 * MIB;
const RUNS: usize = 3;

/// Anonymous memory of this process, in bytes.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Best wall-clock time, in seconds.
fn best(mut work: impl FnMut()) -> f64 {
    let once = |work: &mut dyn FnMut()| {
        let before = Instant::now();
        work();
        before.elapsed().as_secs_f64()
    };
    (0..RUNS).map(|_| once(&mut work)).fold(f64::MAX, f64::min)
}

fn random_bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// A page header per page, as files have it.
fn plan(isolation: Isolation, bytes: &[u8]) -> LaunchPlan<'_> {
    let mut builder = PlanBuilder::new(PlatformFacts {
        policy: Some(0x3_0000),
        ..PlatformFacts::new(isolation, Arch::X64)
    });
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        let import = Import {
            gpa: (MIB + number * PAGE) as u64,
            len: PAGE as u64,
            large: false,
            kind: PageKind::Measured,
            contents: Contents::borrowed(page),
        };
        // Pages beside each other cannot overlap.
        let _ = builder.import(import, Origin::Host("bench"));
    }
    builder.finish()
}

fn digest(plan: &LaunchPlan<'_>) -> Digest {
    let options = Options {
        profile: Profile::FileOrder,
        vp_count: Some(1),
        trace: false,
    };
    measure(plan, &options).map_or(Digest(Vec::new()), |measured| measured.digest)
}

fn main() {
    let bytes = random_bytes(SIZE);
    let mib = |seconds: f64| SIZE as f64 / MIB as f64 / seconds;
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    println!("launch digests of {} MiB on {processors} processors", SIZE / MIB);
    let sha384 = best(|| {
        bytes
            .chunks(PAGE)
            .for_each(|page| _ = black_box(Sha384::digest(page)));
    });
    let sha256 = best(|| {
        bytes
            .chunks(PAGE)
            .for_each(|page| _ = black_box(Sha256::digest(page)));
    });
    println!(
        "  sha2 on one thread: SHA-384 {:.0} MiB/s, SHA-256 {:.0} MiB/s",
        mib(sha384),
        mib(sha256)
    );
    for (isolation, loop_time, aim) in [
        (Isolation::Snp, sha384, "; aim 3 on 2 processors"),
        (Isolation::Tdx, sha384, "; one hash over everything"),
        (Isolation::Sev, sha256, "; one hash over everything"),
        (Isolation::Vsm, sha256, "; a chain of pages"),
    ] {
        let plan = plan(isolation, &bytes);
        let before = anonymous();
        let time = best(|| drop(black_box(digest(&plan))));
        let grown = anonymous().saturating_sub(before);
        println!(
            "  {isolation}: {:.0} MiB/s, {:.1} times the loop{aim}; {} KiB more anonymous memory",
            mib(time),
            loop_time / time,
            grown / 1024
        );
    }
}
