// SPDX-License-Identifier: MIT
//! `igvmtool diff`: what differs between two files in what they start, one line for each difference.

use crate::compare::{Comparison, compare};
use crate::failure::{Failure, Outcome};
use crate::{opened, progress};
use std::io::Write;
use std::path::PathBuf;

/// Options of `diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The first IGVM file.
    first: PathBuf,
    /// The second IGVM file.
    second: PathBuf,
    /// Also shows the first bytes that differ in each range of pages.
    #[arg(long)]
    bytes: bool,
    /// JSON instead of text (schema version 1).
    #[arg(long)]
    json: bool,
}

/// Compares; a difference is a finding.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let (first, second) = (opened::map(&args.first)?, opened::map(&args.second)?);
    let (a, b) = (opened::read(&first)?, opened::read(&second)?);
    let comparison = progress::during("comparing", || compare(&a, &b));
    if args.json {
        crate::output::json(&comparison)?;
    } else {
        crate::output::stdout(|out| write(out, &comparison, args.bytes))?;
    }
    let outcome = if comparison.equal {
        Outcome::Fine
    } else {
        Outcome::Findings
    };
    opened::finish(&first, outcome)?;
    opened::finish(&second, outcome)
}

fn write(out: &mut impl Write, comparison: &Comparison, bytes: bool) -> std::io::Result<()> {
    for difference in &comparison.differences {
        writeln!(out, "{difference}")?;
        if let (true, Some((first, second))) = (bytes, &difference.bytes) {
            writeln!(out, "  - {first}\n  + {second}")?;
        }
    }
    if comparison.more > 0 {
        writeln!(out, "and {} more differences", comparison.more)?;
    }
    for row in &comparison.digests {
        if row.first == row.second {
            writeln!(
                out,
                "{}: the launch digest is the same: {}",
                row.platform, row.first
            )?;
        } else {
            writeln!(
                out,
                "{}: the launch digest {} becomes {}",
                row.platform, row.first, row.second
            )?;
        }
    }
    if let (true, Some(at)) = (comparison.equal, comparison.first_byte) {
        writeln!(
            out,
            "both start the same guests; the files are stored differently from file offset {at:#x} on"
        )?;
    }
    Ok(())
}
