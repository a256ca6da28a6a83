// SPDX-License-Identifier: MIT
//! Runs the IGVM mutator: damaged files through reader, check, plan, move, bind and encoder.
//!
//! `cargo run --release -p vm_loaders --example mutate -- --count N [--seed S] [--first N | --state FILE]`
//!
//! The seed is printed first and the case number on every failure; `--state` keeps seed and progress in a
//! file, and a run with the same file goes on where the last one ended. Exit code 1 is a broken promise: a
//! panic, or more memory than a small multiple of the file's headers.
//!
//! Always true: reading, checking and planning one file holds at most [`PER_HEADER_BYTE`] times the file's
//! length plus [`BASE`] of memory at any time. Not here: the damage itself (`mutate/mutator.rs`).

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[path = "mutate/counting.rs"]
mod counting;
#[path = "mutate/mutator.rs"]
mod mutator;

use counting::{live, peak, start_peak};
use mutator::{Depth, Random, corpus, mutate, read_and_plan, use_plans};

/// Memory per byte of file: a header of eight bytes costs 12 bytes in the list of headers, a mark, and a
/// step of a plan, and growing vectors double.
const PER_HEADER_BYTE: u64 = 48;
/// Memory whatever the file: a full list of problems.
const BASE: u64 = 2 << 20;

static CASE: AtomicU64 = AtomicU64::new(0);

struct Arguments {
    count: u64,
    first: u64,
    seed: Option<u64>,
    state: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        count: 100_000,
        first: 0,
        seed: None,
        state: None,
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().ok_or(format!("{name} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{name} {value} is not a number"))
        };
        match name.as_str() {
            "--count" => arguments.count = number()?,
            "--first" => arguments.first = number()?,
            "--seed" => arguments.seed = Some(number()?),
            "--state" => arguments.state = Some(value.into()),
            _ => {
                return Err(format!(
                    "unknown option {name}; use --count N, --seed S, --first N, --state FILE"
                ));
            }
        }
    }
    Ok(arguments)
}

/// Seed and first case: from the state file if it has them, else from the option or the clock.
fn start(arguments: &Arguments) -> Result<(u64, u64), String> {
    let clock = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |time| time.as_nanos() as u64)
    };
    let fresh = arguments.seed.unwrap_or_else(clock);
    let Some(path) = &arguments.state else {
        return Ok((fresh, arguments.first));
    };
    let Ok(text) = std::fs::read_to_string(path) else {
        return Ok((fresh, 0));
    };
    let numbers: Vec<u64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers[..] {
        [seed, next] if arguments.seed.is_none_or(|asked| asked == seed) => Ok((seed, next)),
        [seed, _] => Err(format!(
            "{} is of seed {seed}; remove it for another",
            path.display()
        )),
        _ => Err(format!(
            "{} is not a state file: it holds a seed and a case number",
            path.display()
        )),
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let (seed, first) = start(arguments)?;
    // A state file counts from the first case ever, a single run from its own.
    let end = match arguments.state {
        Some(_) => arguments.count,
        None => first.saturating_add(arguments.count),
    };
    println!("seed {seed}, cases {first}..{end}");
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("seed {seed} case {}: {info}", CASE.load(Ordering::Relaxed));
    }));
    let corpus = corpus();
    let save = |next: u64| match &arguments.state {
        Some(path) => std::fs::write(path, format!("{seed} {next}\n")).map_err(|error| error.to_string()),
        None => Ok(()),
    };
    let (mut depth, mut most, begin) = (Depth::default(), 0.0_f64, Instant::now());
    for case in first..end {
        CASE.store(case, Ordering::Relaxed);
        let mut random = Random::of_case(seed, case);
        let bytes = mutate(&mut random, &corpus[case as usize % corpus.len()]);
        let before = live();
        start_peak();
        let plans = read_and_plan(&bytes, &mut depth);
        let used = peak() - before;
        let limit = BASE + PER_HEADER_BYTE * bytes.len() as u64;
        if used > limit {
            return Err(format!(
                "seed {seed} case {case}: {used} bytes of memory for a file of {}",
                bytes.len()
            ));
        }
        most = most.max(used as f64 / limit as f64);
        use_plans(&bytes, &plans, &mut depth);
        if case % 10_000 == 9_999 {
            save(case + 1)?;
        }
    }
    save(end.max(first))?;
    println!(
        "{depth:?}, {most:.2} of the memory limit, {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mutate: {error}");
            ExitCode::FAILURE
        }
    }
}
