// SPDX-License-Identifier: MIT
//! The `openvmm` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    openvmm_entry::main()
}
