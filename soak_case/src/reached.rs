// SPDX-License-Identifier: MIT
//! Whether a run came to what it is for: places behind the first checks that random input could miss for ever.
//!
//! Always true: a run of enough cases that never came to one of its places fails. Not here: what counts.

use crate::Cases;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// Places by name, and how often each was reached.
#[derive(Debug)]
pub struct Reached<const N: usize> {
    places: [(&'static str, AtomicU64); N],
}

impl<const N: usize> Reached<N> {
    /// Nothing was reached yet.
    pub fn new(names: [&'static str; N]) -> Self {
        Self {
            places: names.map(|name| (name, AtomicU64::new(0))),
        }
    }

    /// Place number `place` was reached.
    ///
    /// # Panics
    ///
    /// If there is no such place.
    pub fn count(&self, place: usize) {
        self.places[place].1.fetch_add(1, Ordering::Relaxed);
    }

    /// Prints the counts at the end of a run that ended with `code`. Fails when something was never reached
    /// in at least `enough` cases.
    pub fn finish(&self, code: ExitCode, cases: Cases, enough: u64) -> ExitCode {
        let mut code = code;
        for (name, count) in &self.places {
            let count = count.load(Ordering::Relaxed);
            println!("{name}: {count}");
            if count == 0 && cases.count >= enough && code == ExitCode::SUCCESS {
                eprintln!("{name}: never in {} cases", cases.count);
                code = ExitCode::FAILURE;
            }
        }
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_enough_cases_miss_is_a_failure() {
        let cases = Cases {
            seed: 1,
            first: 0,
            count: 10,
        };
        let reached = Reached::new(["one", "two"]);
        reached.count(0);
        assert_eq!(reached.finish(ExitCode::SUCCESS, cases, 11), ExitCode::SUCCESS);
        assert_eq!(reached.finish(ExitCode::SUCCESS, cases, 10), ExitCode::FAILURE);
        reached.count(1);
        assert_eq!(reached.finish(ExitCode::SUCCESS, cases, 10), ExitCode::SUCCESS);
        assert_eq!(reached.finish(ExitCode::FAILURE, cases, 10), ExitCode::FAILURE);
    }
}
