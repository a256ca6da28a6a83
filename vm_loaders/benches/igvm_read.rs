// SPDX-License-Identifier: MIT
//! Reading, loading and writing large IGVM files, against the `igvm` crate 0.5.0 and memcpy, in one run.
//!
//! `cargo bench -p vm_loaders` prints, for 64 MiB and 1 GiB of 4 KiB pages: reading and planning (aim: 20
//! times faster than the crate, no anonymous memory for page data), copying a bound plan to huge-page RAM
//! (aim: 0.9 of one memcpy of the same mapping), encoding (aim: 20 times faster than the crate).
//!
//! Always true: times are CPU time of the one thread, so that a busy machine disturbs ratios little; every
//! figure is the best of its runs; page contents are random, so that nothing can be shared. Not here: a
//! verdict; aims are printed beside the figures.

use launch_plan::*;
use memmap2::{Advice, MmapMut, MmapOptions};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use vm_loaders::igvm::{EncodeOptions, File, MappedFile, encode};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
const BASE: u64 = 1 << 20;

/// CPU time of this thread, in seconds.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Anonymous memory of this process, in bytes.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Best CPU time of `runs` runs, in seconds.
fn measure<T>(runs: usize, mut work: impl FnMut() -> T) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..runs {
        let before = cpu_time();
        let result = black_box(work());
        best = best.min(cpu_time() - before);
        drop(result);
    }
    best
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

/// A plan of single pages over `bytes`.
fn plan_over(bytes: &[u8]) -> LaunchPlan<'_> {
    let mut plan = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::X64));
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        let gpa = BASE + (number * PAGE) as u64;
        let contents = Contents::borrowed(page);
        let import = Import {
            gpa,
            len: PAGE as u64,
            large: false,
            kind: PageKind::Measured,
            contents,
        };
        plan.import(import, Origin::Host("bench"))
            .expect("pages do not overlap");
    }
    plan.finish()
}

fn report(what: &str, ours: f64, theirs: f64) {
    println!(
        "  {what:<28} {:>9.2} ms   igvm crate {:>9.1} ms   {:>6.1} times faster (aim 20)",
        ours * 1e3,
        theirs * 1e3,
        theirs / ours
    );
}

fn bench(mebibytes: usize, runs: usize) -> std::io::Result<()> {
    println!("{mebibytes} MiB in pages of 4 KiB");
    let source = random_bytes(mebibytes * MIB);
    let file = tempfile::NamedTempFile::new()?;
    let plans = [plan_over(&source)];
    let options = EncodeOptions::default();
    let write = measure(runs, || {
        let encoded = encode(&plans, &options).map_err(std::io::Error::other)?;
        encoded.write_to(&mut std::fs::File::create(file.path())?)
    });
    drop(plans);
    drop(source);
    let read = measure(runs, || read_and_plan(file.path()));
    let judged = measure(runs.min(2), || their_read(file.path()));
    report("read and plan", read, judged);
    for reader in ["ours", "igvm-crate"] {
        memory_of_child(reader, file.path())?;
    }
    copy(file.path(), runs)?;
    let (_, theirs) = their_read(file.path())?;
    let copy = tempfile::NamedTempFile::new()?;
    let mut serialized = 0.0;
    let their_write = measure(1, || {
        let mut out = Vec::new();
        let begin = cpu_time();
        let result = theirs.serialize(&mut out);
        serialized = cpu_time() - begin;
        std::fs::write(copy.path(), &out).map(|()| result.is_ok())
    });
    report("encode and write a file", write, their_write);
    report("the same, theirs to memory", write, serialized);
    Ok(())
}

fn read_and_plan(path: &Path) -> std::io::Result<(MappedFile, usize, u64)> {
    let mapped = MappedFile::open(path).map_err(std::io::Error::other)?;
    let parsed = File::read(mapped.bytes()).map_err(std::io::Error::other)?;
    let plan = parsed.plan(Isolation::Vsm).map_err(std::io::Error::other)?;
    let steps = plan.steps().len();
    let held = anonymous();
    drop(plan);
    drop(parsed);
    Ok((mapped, steps, held))
}

fn their_read(path: &Path) -> std::io::Result<(Vec<u8>, igvm::IgvmFile)> {
    let bytes = std::fs::read(path)?;
    let file = igvm::IgvmFile::new_from_binary(&bytes, None).map_err(std::io::Error::other)?;
    Ok((bytes, file))
}

/// Anonymous memory is measured in a fresh process: a used heap would hide it.
fn memory_of_child(reader: &str, path: &Path) -> std::io::Result<()> {
    let output = Command::new(std::env::current_exe()?)
        .arg(reader)
        .arg(path)
        .output()?;
    println!(
        "  anonymous memory             {reader}: {}",
        String::from_utf8_lossy(&output.stdout).trim()
    );
    Ok(())
}

/// The child: reads one file and prints what it holds.
fn child(reader: &str, path: &Path) -> std::io::Result<()> {
    let before = anonymous();
    let held = if reader == "ours" {
        read_and_plan(path)?.2
    } else {
        let read = their_read(path)?;
        let held = anonymous();
        drop(read);
        held
    };
    println!("{:.1} MiB", held.saturating_sub(before) as f64 / MIB as f64);
    Ok(())
}

/// Copies a bound plan to RAM, and the same bytes with one memcpy.
fn copy(path: &Path, runs: usize) -> std::io::Result<()> {
    let mapped = MappedFile::open(path).map_err(std::io::Error::other)?;
    let parsed = File::read(mapped.bytes()).map_err(std::io::Error::other)?;
    let plan = parsed.plan(Isolation::Vsm).map_err(std::io::Error::other)?;
    let host = HostValues::new(1);
    let bound = plan.bind(&host).map_err(std::io::Error::other)?;
    let start = parsed.data_start() as usize;
    let data = &mapped.bytes()[start..];
    let mut ram: MmapMut = MmapOptions::new().len(data.len() + BASE as usize).map_anon()?;
    ram.advise(Advice::HugePage)?;
    ram.fill(1);
    let plain = measure(runs, || ram[BASE as usize..].copy_from_slice(data));
    let loaded = measure(runs, || {
        for import in bound.runs() {
            let at = import.gpa as usize;
            let bytes = import.data.unwrap_or(&[]);
            ram[at..at + bytes.len()].copy_from_slice(bytes);
            ram[at + bytes.len()..at + import.len as usize].fill(0);
        }
    });
    assert!(
        &ram[BASE as usize..] == data,
        "the plan copies what the file holds"
    );
    println!(
        "  {:<28} {:>9.2} ms   memcpy {:>9.2} ms   {:>6.2} of memcpy (aim 0.9), {:.1} GB/s",
        "plan to RAM",
        loaded * 1e3,
        plain * 1e3,
        plain / loaded,
        data.len() as f64 / loaded / 1e9
    );
    Ok(())
}

fn main() -> std::io::Result<()> {
    // Cargo passes --bench; a reader and a path make this process the child above.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [reader, path] = &arguments[..] {
        return child(reader, Path::new(path));
    }
    bench(64, 5)?;
    bench(1024, 3)
}
