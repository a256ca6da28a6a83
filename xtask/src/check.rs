// SPDX-License-Identifier: MIT
//! `cargo xtask check-deps`: the laws of the architecture over this workspace.

use crate::command::Cmd;
use crate::laws::{self, Graph, Sources};
use crate::workspace;
use anyhow::{Context, Result, bail};

/// Checks everything, prints every violation.
pub(crate) fn run() -> Result<()> {
    let metadata = Cmd::cargo([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ]);
    let graph = Graph::parse(&metadata.output()?)?;
    let root = workspace::root();
    let sources = Sources::read(&root)?;
    let path = root.join("ARCHITECTURE.md");
    let architecture =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;

    for line in laws::long_ones(&sources) {
        println!("note: {line}");
    }
    let packages = graph.packages().count();
    let members = graph.members().count();
    println!(
        "note: {members} crates of ours on {} from the registry",
        packages - members
    );

    let mut broken = laws::check_graph(&graph);
    broken.extend(laws::check_sources(&sources, &architecture));
    broken.sort();
    for violation in &broken {
        println!("{violation}");
    }
    if !broken.is_empty() {
        bail!("{} violations of the architecture's laws", broken.len());
    }
    println!("check-deps: every law holds over {} files", sources.files.len());
    Ok(())
}
