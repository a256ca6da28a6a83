// SPDX-License-Identifier: MIT
//! `cargo run -p openvmm_entry --example manual -- FOLDER`: manual pages and completions of `openvmm`.

#[path = "../src/backends.rs"]
#[allow(dead_code, reason = "only the command line's definition is used")]
mod backends;
#[path = "../src/cli.rs"]
#[allow(dead_code, reason = "only the command line's definition is used")]
mod cli;
#[path = "../../igvmtool/examples/shared/manual.rs"]
mod manual;

use clap::CommandFactory;
use std::process::ExitCode;

fn main() -> ExitCode {
    manual::write(cli::Cli::command())
}
