// SPDX-License-Identifier: MIT
//! What every soak shares: its options, its random numbers, and a loop that names the case that fails.
//!
//! Always true: a case depends on the seed and its own number only, so `--seed S --first N --count 1` repeats
//! it, and `cargo xtask soak` can stop between any two. Not here: the cases, and how many make a full run.

#![forbid(unsafe_code)]

mod log;
mod reached;

pub use log::LogMeter;
pub use reached::Reached;

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Reproducible random numbers: xorshift64*.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of case `number` of `seed`. Seeds and numbers that differ in few bits begin differently.
    pub fn of_case(seed: u64, number: u64) -> Self {
        // The generator stays at zero for ever.
        Self(spread(spread(seed) ^ number).max(1))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `limit`; 0 when there is none.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The low bits of a product are its weakest.
        (self.bits() >> 8) % limit.max(1)
    }

    /// An index into something with `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// An element of a table that is not empty.
    pub fn pick<T: Copy>(&mut self, table: &[T]) -> T {
        table[self.index(table.len())]
    }

    /// Mostly small, sometimes anything.
    pub fn value(&mut self) -> u64 {
        let shift = self.below(64);
        self.bits() >> shift
    }
}

/// The output function of SplitMix64: a bijection under which neighbours lie far apart.
fn spread(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Holds a case to a limit of what it uses.
///
/// # Errors
///
/// When `used` is over `most`: a text that says so.
pub fn at_most(what: &str, used: u64, most: u64) -> Result<(), String> {
    if used > most {
        return Err(format!("{used} {what}, and at most {most} may be"));
    }
    Ok(())
}

/// The case that runs.
static CASE: AtomicU64 = AtomicU64::new(0);

/// Which cases a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cases {
    /// What the random numbers begin with.
    pub seed: u64,
    /// The first case.
    pub first: u64,
    /// How many cases.
    pub count: u64,
}

impl Cases {
    /// Reads `[--seed S] [--first N] [--count N]`.
    ///
    /// # Errors
    ///
    /// A text for the user: an unknown option, or one without a number.
    pub fn parse(given: impl IntoIterator<Item = String>, count: u64) -> Result<Self, String> {
        let mut cases = Self {
            seed: 1,
            first: 0,
            count,
        };
        let mut given = given.into_iter();
        while let Some(name) = given.next() {
            let field = match name.as_str() {
                "--seed" => &mut cases.seed,
                "--first" => &mut cases.first,
                "--count" => &mut cases.count,
                _ => {
                    return Err(format!(
                        "unknown option {name}; there are --seed S, --first N and --count N"
                    ));
                }
            };
            let value = given.next().ok_or_else(|| format!("{name} needs a number"))?;
            *field = value
                .parse()
                .map_err(|_| format!("{name} {value} is not a number"))?;
        }
        Ok(cases)
    }

    /// Reads the command line of this process; a wrong one ends it with exit code 2.
    pub fn from_command_line(count: u64) -> Self {
        Self::parse(std::env::args().skip(1), count).unwrap_or_else(|error| {
            eprintln!("{error}");
            std::process::exit(2);
        })
    }

    /// The numbers of the cases.
    pub fn numbers(self) -> std::ops::Range<u64> {
        self.first..self.first.saturating_add(self.count)
    }

    /// Ends the process when a case takes longer than `limit`.
    #[must_use]
    pub fn limited(self, limit: Duration) -> Self {
        let watch = move || {
            let mut last = (CASE.load(Ordering::Relaxed), Instant::now());
            loop {
                std::thread::sleep(limit / 8);
                let number = CASE.load(Ordering::Relaxed);
                if number != last.0 {
                    last = (number, Instant::now());
                } else if last.1.elapsed() > limit {
                    let seed = self.seed;
                    eprintln!("case {number} hangs; repeat with --seed {seed} --first {number} --count 1");
                    std::process::exit(1);
                }
            }
        };
        std::thread::spawn(watch);
        self
    }

    /// Does `case` with the number of each; stops at the first that fails or panics, and names it.
    pub fn run<E: Display>(self, mut case: impl FnMut(u64) -> Result<(), E>) -> ExitCode {
        let Self { seed, first, count } = self;
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |what| {
            let number = CASE.load(Ordering::Relaxed);
            eprintln!("case {number} panics; repeat with --seed {seed} --first {number} --count 1");
            hook(what);
        }));
        for number in self.numbers() {
            CASE.store(number, Ordering::Relaxed);
            if let Err(reason) = case(number) {
                eprintln!("case {number}: {reason}; repeat with --seed {seed} --first {number} --count 1");
                return ExitCode::FAILURE;
            }
        }
        println!("{count} cases from {first}, seed {seed}: fine");
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cases, String> {
        Cases::parse(line.split_whitespace().map(str::to_owned), 7)
    }

    #[test]
    fn options_are_read_in_any_order_and_have_defaults() {
        let all = parse("--count 3 --seed 5 --first 9").unwrap();
        assert_eq!((all.seed, all.first, all.count), (5, 9, 3));
        assert_eq!(all.numbers(), 9..12);
        let none = parse("").unwrap();
        assert_eq!((none.seed, none.first, none.count), (1, 0, 7));
    }

    #[test]
    fn wrong_options_are_named() {
        for (line, part) in [
            ("--speed 1", "--speed"),
            ("--seed", "--seed needs a number"),
            ("--first -1", "--first -1 is not a number"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn a_case_repeats_and_its_neighbours_differ() {
        let first = |seed, number| Random::of_case(seed, number).bits();
        assert_eq!(first(1, 2), first(1, 2));
        let mut seen: Vec<u64> = (0..1000).map(|number| first(1, number)).collect();
        seen.extend((2..1000).map(|seed| first(seed, 0)));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1998);
    }

    #[test]
    fn numbers_stay_below_their_limit_and_reach_all_of_it() {
        let mut random = Random::of_case(1, 1);
        let mut seen = [0; 10];
        for _ in 0..1000 {
            seen[random.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn a_failing_case_ends_the_run() {
        let mut done = Vec::new();
        let code = parse("--count 5").unwrap().run(|number| {
            done.push(number);
            if number == 2 { Err("broken") } else { Ok(()) }
        });
        assert_eq!(done, [0, 1, 2]);
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    }
}
