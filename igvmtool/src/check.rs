// SPDX-License-Identifier: MIT
//! `igvmtool check`: every problem of a file, each with its code, place and rule.

use crate::failure::{Failure, Outcome};
use crate::opened;
use std::path::PathBuf;
use vm_loaders::igvm::Severity;

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The IGVM file.
    file: PathBuf,
}

/// Prints the problems; errors are findings, notes and warnings are not.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mapped = opened::map(&args.file)?;
    let file = opened::read(&mapped)?;
    let problems = file.check();
    for problem in &problems {
        println!("{}: {problem}", problem.severity());
    }
    let errors = problems
        .iter()
        .filter(|problem| problem.severity() == Severity::Error)
        .count();
    println!(
        "{}: {errors} errors, {} others",
        args.file.display(),
        problems.len() - errors
    );
    opened::finish(
        &mapped,
        if errors == 0 {
            Outcome::Fine
        } else {
            Outcome::Findings
        },
    )
}
