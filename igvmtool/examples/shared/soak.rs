// SPDX-License-Identifier: MIT
//! What both soaks do: damaged files one after another, with a limit on memory.
//!
//! Always true: case `n` of a seed is the same file on every machine. Exit code 1 is a broken promise: a
//! panic, or more memory than [`PER_BYTE`] times the file's length plus [`BASE`].

use soak_case::{Cases, Random};
use std::process::ExitCode;
use std::time::Instant;

#[path = "../../../vm_loaders/examples/mutate/counting.rs"]
mod counting;
#[path = "../../../vm_loaders/examples/mutate/mutator.rs"]
#[allow(dead_code, reason = "the soak of vm_loaders uses all of it")]
mod mutator;

use counting::measured;
use mutator::{corpus, mutate};

/// Memory per byte of file: steps of two plans, an overview's runs and texts.
const PER_BYTE: u64 = 96;
/// Memory whatever the file: a batch of pages that are hashed together, full lists of problems and
/// differences, the pictures' own limits.
const BASE: u64 = 16 << 20;

/// Runs the cases of the command line. `case` gets the damaged and the original file.
pub(crate) fn run(case: impl Fn(&[u8], &[u8])) -> ExitCode {
    let cases = Cases::from_command_line(10_000);
    let corpus = corpus();
    let (mut most, begin) = (0.0_f64, Instant::now());
    let code = cases.run(|number| {
        let original = &corpus[number as usize % corpus.len()];
        let bytes = mutate(&mut Random::of_case(cases.seed, number), original);
        let (used, ()) = measured(|| case(&bytes, original));
        let limit = BASE + PER_BYTE * (bytes.len() + original.len()) as u64;
        if used > limit {
            return Err(format!("{used} bytes of memory for a file of {}", bytes.len()));
        }
        most = most.max(used as f64 / limit as f64);
        Ok(())
    });
    let time = begin.elapsed().as_secs_f64();
    println!("{most:.2} of the memory limit, {time:.1} s");
    code
}
