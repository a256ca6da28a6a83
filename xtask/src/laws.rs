// SPDX-License-Identifier: MIT
//! The laws of the architecture, as functions from facts to violations.
//!
//! Always true: a law reads a [`Graph`] or [`Sources`] value and touches nothing, so each has a negative
//! test with a fixture; every law has a name that `ARCHITECTURE.md` cites beside its invariant. Not here:
//! rules that `rustc` and clippy check already (missing docs, undocumented unsafe blocks).

mod dependencies;
mod graph;
mod licences;
mod rust_text;
mod sources;
mod unsafe_code;

pub(crate) use graph::Graph;
pub(crate) use sources::Sources;

/// A broken law.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    /// The law's name.
    pub(crate) law: &'static str,
    /// The crate or the file and line.
    pub(crate) at: String,
    /// What is wrong and what to do.
    pub(crate) what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.at, self.law, self.what)
    }
}

/// Checks every law over dependencies.
pub(crate) fn check_graph(graph: &Graph) -> Vec<Violation> {
    let mut broken = dependencies::check(graph);
    broken.extend(dependencies::check_names(graph));
    broken.extend(licences::check(graph));
    broken
}

/// Checks every law over source files; `architecture` is the text of `ARCHITECTURE.md`.
pub(crate) fn check_sources(sources: &Sources, architecture: &str) -> Vec<Violation> {
    let mut broken = sources::check(sources);
    broken.extend(unsafe_code::check(sources, architecture));
    broken
}

/// Files and functions that are longer than the aim but below the ceiling.
pub(crate) fn long_ones(sources: &Sources) -> Vec<String> {
    sources::long_ones(sources)
}

#[cfg(test)]
mod tests;
