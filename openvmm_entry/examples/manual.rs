// SPDX-License-Identifier: MIT
//! `cargo run -p openvmm_entry --example manual -- FOLDER`: manual pages and completions of `openvmm`.
//!
//! An example that stands beside the program, because it parses with the program's own definition.
#![forbid(unsafe_code)]
#![allow(
    dead_code,
    unused_imports,
    reason = "only the definition of the command line is used of the program's modules"
)]

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

#[path = "../../igvmtool/examples/shared/manual.rs"]
mod pages;

use clap::CommandFactory;
use std::process::ExitCode;

fn main() -> ExitCode {
    pages::write(cli::Cli::command())
}
