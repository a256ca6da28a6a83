// SPDX-License-Identifier: MIT
//! What both soaks do: damaged files one after another, with a limit on memory.
//!
//! Always true: case `n` of a seed is the same file on every machine. Exit code 1 is a broken promise: a
//! panic, or more memory than [`PER_BYTE`] times the file's length plus [`BASE`].

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[path = "../../../vm_loaders/examples/mutate/counting.rs"]
mod counting;
#[path = "../../../vm_loaders/examples/mutate/mutator.rs"]
#[allow(dead_code, reason = "the soak of vm_loaders uses all of it")]
mod mutator;

use counting::{live, peak, start_peak};
use mutator::{Random, corpus, mutate};

/// Memory per byte of file: steps of two plans, an overview's runs and texts.
const PER_BYTE: u64 = 96;
/// Memory whatever the file: a batch of pages that are hashed together, full lists of problems and
/// differences, the pictures' own limits.
const BASE: u64 = 16 << 20;

static CASE: AtomicU64 = AtomicU64::new(0);

/// The number behind an option.
fn option(name: &str, default: u64) -> Result<u64, String> {
    let given: Vec<String> = std::env::args().collect();
    let Some(at) = given.iter().position(|word| word == name) else {
        return Ok(default);
    };
    let value = given.get(at + 1).ok_or(format!("{name} needs a value"))?;
    value
        .parse()
        .map_err(|_| format!("{name} {value} is not a number"))
}

/// Runs `--count` cases of `--seed` from `--first` on. `case` gets the damaged and the original file.
pub(crate) fn run(case: impl Fn(&[u8], &[u8])) -> ExitCode {
    match cases(&case) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn cases(case: &impl Fn(&[u8], &[u8])) -> Result<(), String> {
    let (seed, first) = (option("--seed", 1)?, option("--first", 0)?);
    let end = first.saturating_add(option("--count", 10_000)?);
    println!("seed {seed}, cases {first}..{end}");
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("seed {seed} case {}: {info}", CASE.load(Ordering::Relaxed));
    }));
    let corpus = corpus();
    let (mut most, begin) = (0.0_f64, Instant::now());
    for number in first..end {
        CASE.store(number, Ordering::Relaxed);
        let original = &corpus[number as usize % corpus.len()];
        let bytes = mutate(&mut Random::of_case(seed, number), original);
        let before = live();
        start_peak();
        case(&bytes, original);
        let used = peak() - before;
        let limit = BASE + PER_BYTE * (bytes.len() + original.len()) as u64;
        if used > limit {
            return Err(format!(
                "seed {seed} case {number}: {used} bytes of memory for a file of {}",
                bytes.len()
            ));
        }
        most = most.max(used as f64 / limit as f64);
    }
    let time = begin.elapsed().as_secs_f64();
    println!("{most:.2} of the memory limit, {time:.1} s");
    Ok(())
}
