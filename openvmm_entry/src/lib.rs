// SPDX-License-Identifier: MIT
//! What the `openvmm` binary does: boots a guest from an IGVM file, Microsoft's UEFI or a Linux kernel.
//!
//! Always true: a command line that cannot be carried out exits with 2, any other failure with 1, each
//! with one line that holds the whole chain of causes; otherwise the exit code is what the guest's end
//! and the end actions say. Not here: how a VM is built and run (`openvmm_core`).
#![forbid(unsafe_code)]

mod backends;
mod cli;
mod config;
mod console;
mod gdb;
mod logging;
mod run;
mod serial;
mod signals;
mod terminal;

use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// The definition of the command line, for manual pages and completions.
pub fn command() -> clap::Command {
    cli::Cli::command()
}

/// Does what the command line of this process says.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    logging::init();
    match config::from_cli(cli, &|name| std::env::var_os(name)).and_then(run::run) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("openvmm: {error:#}");
            ExitCode::from(if error.is::<config::UsageError>() { 2 } else { 1 })
        }
    }
}
