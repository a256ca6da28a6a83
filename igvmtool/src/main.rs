// SPDX-License-Identifier: MIT
//! `igvmtool`, the program; its commands are in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    igvmtool::run(std::env::args_os())
}
