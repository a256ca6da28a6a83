// SPDX-License-Identifier: MIT
//! `cargo xtask docs`: manual pages, shell completions and the guide, from the sources.
//!
//! Always true: everything goes below `out/docs`; pages and completions come from the definitions that
//! the programs themselves parse with. mdbook is installed if need be; where it cannot be had the guide
//! is left out, and that is said. Not here: the API documentation (`cargo doc`), checks of the guide's
//! links and command lines (tests of `igvmtool` and `vmm_tests`).

use crate::command::Cmd;
use crate::{tools, workspace};
use anyhow::Result;

/// Packages whose example `manual` writes a program's pages.
const PROGRAMS: &[&str] = &["igvmtool", "openvmm_entry"];

/// Writes everything.
pub(crate) fn run() -> Result<()> {
    let folder = workspace::root().join("out/docs");
    let shown = folder.display().to_string();
    for package in PROGRAMS {
        Cmd::cargo(["run", "--locked", "--quiet", "--package", package])
            .args(["--example", "manual", "--", &shown])
            .run()?;
    }
    tools::install_mdbook();
    guide()?;
    println!("docs: {shown}");
    Ok(())
}

/// Builds the guide.
pub(crate) fn guide() -> Result<()> {
    let Some(mdbook) = tools::mdbook() else {
        println!("docs: the guide is left out");
        return Ok(());
    };
    let output = workspace::root().join("out/docs/guide");
    let guide = workspace::root().join("Guide");
    Cmd::new(&mdbook.display().to_string(), ["build", "--dest-dir"])
        .args([&output.display().to_string(), &guide.display().to_string()])
        .run()
}
