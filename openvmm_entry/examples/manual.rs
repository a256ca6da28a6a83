// SPDX-License-Identifier: MIT
//! `cargo run -p openvmm_entry --example manual -- FOLDER`: manual pages and completions of `openvmm`.
#![forbid(unsafe_code)]

#[path = "../../igvmtool/examples/shared/manual.rs"]
mod pages;

use std::process::ExitCode;

fn main() -> ExitCode {
    pages::write(openvmm_entry::command())
}
