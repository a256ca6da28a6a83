// SPDX-License-Identifier: MIT
//! The dependency graph, read from `cargo metadata`.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// How one package needs another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// In the program, or in its build script.
    Build,
    /// In its tests only.
    Dev,
}

/// A package.
#[derive(Debug)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Folder of its manifest, relative to the workspace; empty for packages from a registry.
    pub(crate) folder: String,
    /// SPDX expression.
    pub(crate) licence: Option<String>,
    /// Whether it is ours.
    pub(crate) member: bool,
    /// Direct dependencies as cargo resolved them.
    needs: Vec<(String, Kind)>,
}

/// All packages by cargo's id.
#[derive(Debug)]
pub(crate) struct Graph {
    packages: BTreeMap<String, Package>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<RawPackage>,
    workspace_members: Vec<String>,
    workspace_root: String,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct RawPackage {
    id: String,
    name: String,
    manifest_path: String,
    license: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDep>,
}

#[derive(Deserialize)]
struct NodeDep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Deserialize)]
struct DepKind {
    kind: Option<String>,
}

impl Graph {
    /// Parses the output of `cargo metadata --format-version 1`.
    pub(crate) fn parse(json: &str) -> Result<Self> {
        let metadata: Metadata =
            serde_json::from_str(json).context("cargo metadata gave other JSON than expected")?;
        let members: BTreeSet<&String> = metadata.workspace_members.iter().collect();
        let mut packages = BTreeMap::new();
        for raw in metadata.packages {
            let folder = raw
                .manifest_path
                .strip_prefix(&metadata.workspace_root)
                .and_then(|path| path.strip_suffix("Cargo.toml"))
                .unwrap_or_default()
                .trim_matches('/')
                .to_owned();
            let package = Package {
                name: raw.name,
                folder,
                licence: raw.license,
                member: members.contains(&raw.id),
                needs: Vec::new(),
            };
            packages.insert(raw.id, package);
        }
        for node in metadata.resolve.nodes {
            let package = packages
                .get_mut(&node.id)
                .with_context(|| format!("{} is in no package list", node.id))?;
            for dep in node.deps {
                for kind in &dep.dep_kinds {
                    let kind = if kind.kind.as_deref() == Some("dev") {
                        Kind::Dev
                    } else {
                        Kind::Build
                    };
                    package.needs.push((dep.pkg.clone(), kind));
                }
            }
        }
        Ok(Self { packages })
    }

    /// All packages.
    pub(crate) fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// Our packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages().filter(|package| package.member)
    }

    /// Direct dependencies of `package`.
    pub(crate) fn direct<'g>(&'g self, package: &'g Package) -> impl Iterator<Item = (&'g Package, Kind)> {
        package
            .needs
            .iter()
            .filter_map(|(id, kind)| Some((self.packages.get(id)?, *kind)))
    }

    /// What is in the program of `package`, each with the chain of names that leads to it.
    pub(crate) fn closure<'g>(&'g self, package: &'g Package) -> Vec<(&'g Package, String)> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        let mut open = vec![(package, package.name.clone())];
        while let Some((at, chain)) = open.pop() {
            for (need, kind) in self.direct(at) {
                if kind == Kind::Build && seen.insert(&need.name) {
                    let chain = format!("{chain} -> {}", need.name);
                    found.push((need, chain.clone()));
                    open.push((need, chain));
                }
            }
        }
        found
    }
}
