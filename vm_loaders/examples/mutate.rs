// SPDX-License-Identifier: MIT
//! Runs the IGVM mutator: damaged files through reader, check, plan, move, bind and encoder.
//!
//! `cargo run --release -p vm_loaders --example mutate -- [--seed S] [--first N] [--count N]`
//!
//! A failure is a broken promise: a panic, or more memory than a small multiple of the file's headers.
//!
//! Always true: reading, checking and planning one file holds at most [`PER_HEADER_BYTE`] times the file's
//! length plus [`BASE`] of memory at any time. Not here: the damage itself (`mutate/mutator.rs`).

use soak_case::{Cases, Random};
use std::process::ExitCode;
use std::time::Instant;

#[path = "mutate/counting.rs"]
mod counting;
#[path = "mutate/mutator.rs"]
mod mutator;

use counting::measured;
use mutator::{Depth, corpus, mutate, read_and_plan, use_plans};

/// Memory per byte of file: a header of eight bytes costs 12 bytes in the list of headers, a mark, and a
/// step of a plan, and growing vectors double.
const PER_HEADER_BYTE: u64 = 48;
/// Memory whatever the file: a full list of problems.
const BASE: u64 = 2 << 20;

fn run(cases: Cases) -> ExitCode {
    let seed = cases.seed;
    let corpus = corpus();
    let (mut depth, mut most, begin) = (Depth::default(), 0.0_f64, Instant::now());
    let code = cases.run(|case| {
        let mut random = Random::of_case(seed, case);
        let bytes = mutate(&mut random, &corpus[case as usize % corpus.len()]);
        let (used, plans) = measured(|| read_and_plan(&bytes, &mut depth));
        let limit = BASE + PER_HEADER_BYTE * bytes.len() as u64;
        if used > limit {
            return Err(format!("{used} bytes of memory for a file of {}", bytes.len()));
        }
        most = most.max(used as f64 / limit as f64);
        use_plans(&bytes, &plans, &mut depth);
        Ok(())
    });
    println!(
        "{depth:?}, {most:.2} of the memory limit, {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    code
}

fn main() -> ExitCode {
    run(Cases::from_command_line(100_000))
}
