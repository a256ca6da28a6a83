// SPDX-License-Identifier: MIT
//! `cargo xtask run`: from a fresh clone to a guest's report on the terminal.

use crate::build_igvm;
use crate::command::Cmd;
use crate::workspace;
use anyhow::Result;

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// More arguments for openvmm, for example `-p 2`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    openvmm: Vec<String>,
}

/// Builds `uefi_probe` into an IGVM file and boots it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let built = build_igvm::run(&build_igvm::Args::uefi_probe())?;
    let more = if args.openvmm.is_empty() {
        Vec::new()
    } else {
        args.openvmm.clone()
    };
    let mut base = built.openvmm_args();
    if more
        .iter()
        .any(|arg| arg == "-p" || arg.starts_with("--processors"))
    {
        base.truncate(base.len() - 2);
    }
    Cmd::new(&workspace::shown(&built.openvmm), base).args(more).run()
}
