// SPDX-License-Identifier: MIT
//! `igvmtool inspect`: what a file starts, platform by platform.

use crate::failure::{Failure, Outcome};
use crate::opened;
use launch_plan::size_text;
use std::path::PathBuf;
use vm_loaders::igvm::FormatVersion;

/// Options of `inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The IGVM file.
    file: PathBuf,
}

/// Prints the plans; a platform that has none is a finding.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mapped = opened::map(&args.file)?;
    let file = opened::read(&mapped)?;
    let version = if file.fixed_header().version == FormatVersion::V1 {
        1
    } else {
        2
    };
    let (headers, size) = (file.headers().len(), size_text(mapped.bytes().len() as u64));
    println!(
        "{}: IGVM format {version}, {size}, {headers} headers",
        args.file.display()
    );
    let mut outcome = Outcome::Fine;
    for platform in file.platforms() {
        match file.plan(platform.isolation) {
            Ok(plan) => print!("\n{plan}"),
            Err(refused) => {
                println!("\nplatform {}: {refused}", platform.isolation);
                outcome = Outcome::Findings;
            }
        }
    }
    opened::finish(&mapped, outcome)
}
