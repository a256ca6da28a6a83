// SPDX-License-Identifier: MIT
//! `cargo run -p igvmtool --example manual -- FOLDER`: manual pages and completions of `igvmtool`.

#[path = "shared/manual.rs"]
mod manual;

use std::process::ExitCode;

fn main() -> ExitCode {
    manual::write(igvmtool::command())
}
