// SPDX-License-Identifier: MIT
//! `cargo xtask bench`: every figure that the project states, in one run on one machine.
//!
//! Always true: programs of others run in the same run as ours, and one that is not installed is said to
//! be missing; figures of starts are medians. Not here: the aims (`README.md`) and the benches of
//! libraries (`benches` of their crates).

mod start;

use crate::command::Cmd;
use anyhow::Result;

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Starts of each program.
    #[arg(long, default_value_t = 41)]
    starts: usize,
    /// Only the starts, not the files.
    #[arg(long)]
    only_starts: bool,
}

/// Runs them all.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.only_starts {
        Cmd::cargo(["bench", "--locked", "--package", "vm_loaders"]).run()?;
    }
    start::run(args.starts)
}
