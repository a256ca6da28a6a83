// SPDX-License-Identifier: MIT
//! `cargo xtask bench`: every figure that the project states, in one run on one machine.
//!
//! Always true: programs of others run in the same run as ours, and one that is not installed is said to
//! be missing; figures of starts are medians, figures of loops and boots the best of some runs. Not here: the aims (`README.md`) and the benches of
//! libraries (`benches` of their crates).

mod boots;
mod disks;
mod start;

use crate::command::Cmd;
use anyhow::Result;

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Starts of each program.
    #[arg(long, default_value_t = 41)]
    starts: usize,
    /// Boots of each guest with each program.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    boots: u16,
    /// Only these parts, with commas between them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
}

/// A part of the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Reading IGVM files.
    Files,
    /// A file of 3.9 GiB.
    Bigfile,
    /// Launch digests.
    Digests,
    /// Loops on the instruction engine.
    Engine,
    /// Boots of OVMF and Linux on the software CPU.
    Boots,
    /// Reads of virtio disks.
    Disks,
    /// Starts to the guest's first byte.
    Starts,
}

/// Runs them all.
pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    for (part, package) in [
        (Part::Files, "vm_loaders"),
        (Part::Bigfile, "igvmtool"),
        (Part::Digests, "launch_digest"),
        (Part::Engine, "x86emu"),
    ] {
        if wanted(part) {
            Cmd::cargo(["bench", "--locked", "--package", package]).run()?;
        }
    }
    if wanted(Part::Boots) {
        boots::run(args.boots.into())?;
    }
    if wanted(Part::Disks) {
        disks::run(args.boots.into())?;
    }
    if wanted(Part::Starts) {
        start::run(args.starts)?;
    }
    Ok(())
}
