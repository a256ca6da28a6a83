// SPDX-License-Identifier: MIT
//! The commands of `igvmtool`: build, look at, compare, check, change, measure and sign IGVM files.
//!
//! A library, so that tests and soaks run in process what the program runs.
//!
//! Always true: exit code 0 is fine, 1 is findings, 2 is a wrong command line or manifest, 3 is a file
//! that could not be read or is not IGVM; every command works on the plan that `vm_loaders` gives, there
//! is no second interpretation of directives. Not here: launching (`openvmm`).
#![forbid(unsafe_code)]

mod build;
mod check;
pub mod compare;
mod diff;
mod extract;
mod failure;
mod inspect;
mod made;
mod manifest;
mod measure;
mod opened;
mod output;
pub mod overview;
pub mod picture;
pub mod portability;
mod progress;
mod sign;
mod unpacked;
mod update;
mod verify;
mod wrap;

use clap::{CommandFactory, Parser, Subcommand};
use failure::exit_code;
use std::ffi::OsString;
use std::process::ExitCode;

/// Builds, shows, checks, measures and signs IGVM files.
#[derive(Debug, Parser)]
#[command(name = "igvmtool", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds a file from a manifest (igvmfilegen's schema; see manifests/README.md).
    Build(build::Args),
    /// Prints what a file starts, platform by platform.
    Inspect(inspect::Args),
    /// Says what differs between two files in what they start; exit code 1 if anything does.
    Diff(diff::Args),
    /// Lists every problem of a file, and says whether loaders take it; exit code 1 if not.
    Check(check::Args),
    /// Takes a file apart: a folder with its payloads and a manifest to edit.
    Extract(extract::ExtractArgs),
    /// Puts a folder of `extract` together again; unchanged, it gives the same file bit for bit.
    Pack(extract::PackArgs),
    /// Changes kernel, firmware, policy, platforms or parameter data of a file and keeps everything else.
    Update(update::Args),
    /// Prints launch digests, and why other tools print other ones.
    Measure(measure::Args),
    /// Gives the SEV-SNP platform of a file a signed ID block.
    Sign(sign::Args),
    /// Says whether a file gives an attestation report or a digest, and if not, why.
    Verify(verify::Args),
    /// Makes an IGVM file of an OVMF image.
    Wrap(wrap::Args),
}

/// The command line as clap knows it: what completions and manual pages are made of.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs a command line, the program's name first, and says how it ended.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let result = match cli.command {
        Command::Build(args) => build::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Extract(args) => extract::extract(&args),
        Command::Pack(args) => extract::pack(&args),
        Command::Update(args) => update::run(&args),
        Command::Measure(args) => measure::run(&args),
        Command::Sign(args) => sign::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Wrap(args) => wrap::run(&args),
    };
    if let Err(failure) = &result {
        eprintln!("igvmtool: {failure}");
    }
    exit_code(&result)
}
