// SPDX-License-Identifier: MIT
//! Developer flows: `cargo xtask run|test|ci|soak|bench|fuzz|check-deps|docs|guest-disk|build-igvm`.
//!
//! Always true: every command works on a fresh clone without anything set up by hand, prints the
//! commands that it runs, and leaves its output under `out/` or the target directory. What `ci` runs is
//! what CI runs. Not here: what the tests test (`vmm_tests` and the crates), how a file is built
//! (`igvmtool`).
#![forbid(unsafe_code)]

mod bench;
mod build_igvm;
mod check;
mod ci;
mod command;
mod debian;
mod docs;
mod guest_disk;
mod laws;
mod run;
mod soak;
mod stages;
mod test;
mod tools;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Developer flows of the openvmm workspace.
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    flow: Flow,
}

#[derive(Debug, Subcommand)]
enum Flow {
    /// Builds everything and boots a guest on this terminal: the UEFI probe, `ovmf` or `linux`.
    Run(run::Args),
    /// Installs what the tests need, runs them all, counts what was skipped.
    Test(test::Args),
    /// Runs every check that CI runs, with the time of each stage.
    Ci,
    /// Runs a soak at its full count; an interrupted one goes on where it was.
    Soak(soak::Args),
    /// Runs a soak with a fresh seed until the time is up.
    Fuzz(soak::FuzzArgs),
    /// Measures what the project states, against others, in one run.
    Bench(bench::Args),
    /// Checks the laws of the architecture.
    CheckDeps,
    /// Writes manual pages, shell completions and the guide to out/docs.
    Docs,
    /// Makes a disk that UEFI firmware boots, and prints the `openvmm` lines for it.
    GuestDisk(guest_disk::Args),
    /// Builds an IGVM file from a manifest and prints the `openvmm` line that boots it.
    BuildIgvm(build_igvm::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().flow {
        Flow::Run(args) => run::run(&args),
        Flow::Test(args) => test::run(&args),
        Flow::Ci => ci::run(),
        Flow::Soak(args) => soak::run(&args),
        Flow::Fuzz(args) => soak::fuzz(&args),
        Flow::Bench(args) => bench::run(&args),
        Flow::CheckDeps => check::run(),
        Flow::Docs => docs::run(),
        Flow::GuestDisk(args) => guest_disk::run(&args),
        Flow::BuildIgvm(args) => build_igvm::run(&args).map(drop),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
