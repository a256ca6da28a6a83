// SPDX-License-Identifier: MIT
//! A flow of named stages: stops at the first failure, ends with a table of times.

use anyhow::{Result, bail};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// What became of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed(Duration),
    Failed(Duration),
    NotRun,
}

/// Runs stages one after another.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    done: Vec<(&'static str, Outcome)>,
    failed: bool,
}

impl Stages {
    /// Runs a stage unless an earlier one failed.
    pub(crate) fn run(&mut self, name: &'static str, stage: impl FnOnce() -> Result<()>) {
        if self.failed {
            self.done.push((name, Outcome::NotRun));
            return;
        }
        eprintln!("\n== {name}");
        let start = Instant::now();
        let result = stage();
        let time = start.elapsed();
        self.done.push(match result {
            Ok(()) => (name, Outcome::Passed(time)),
            Err(error) => {
                eprintln!("xtask: {name}: {error:#}");
                self.failed = true;
                (name, Outcome::Failed(time))
            }
        });
    }

    /// Prints the table; an error if a stage failed.
    pub(crate) fn finish(self) -> Result<()> {
        eprint!("\n{}", self.table());
        match self
            .done
            .iter()
            .find(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
        {
            Some((name, _)) => bail!("stage {name} failed"),
            None => Ok(()),
        }
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let mut total = Duration::ZERO;
        for (name, outcome) in &self.done {
            let (word, time) = match outcome {
                Outcome::Passed(time) => ("passed", *time),
                Outcome::Failed(time) => ("FAILED", *time),
                Outcome::NotRun => ("not run", Duration::ZERO),
            };
            total += time;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<24} {word:<8} {:>8.1} s", time.as_secs_f64());
        }
        let _ = writeln!(text, "{:<24} {:<8} {:>8.1} s", "total", "", total.as_secs_f64());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_after_a_failure_are_not_run() {
        let mut stages = Stages::default();
        stages.run("good", || Ok(()));
        stages.run("bad", || bail!("broken"));
        stages.run("later", || panic!("must not run"));
        let table = stages.table();
        let words: Vec<_> = table
            .lines()
            .map(|line| line.split("  ").next().unwrap())
            .collect();
        assert_eq!(words, ["good", "bad", "later", "total"]);
        assert!(table.contains("FAILED") && table.contains("not run"));
        assert_eq!(stages.finish().unwrap_err().to_string(), "stage bad failed");
    }

    #[test]
    fn all_passed_is_ok() {
        let mut stages = Stages::default();
        stages.run("good", || Ok(()));
        assert!(stages.finish().is_ok());
    }
}
