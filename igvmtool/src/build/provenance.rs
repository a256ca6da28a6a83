// SPDX-License-Identifier: MIT
//! `--provenance`: which inputs a file was built from, by their SHA-256.
//!
//! Always true: names of resources and the manifest's file name are written, no folders and no time, so
//! that the same inputs give the same bytes anywhere. The record in the file is VERSION_STRING's layout
//! with the optional bit: readers that do not know it skip it, except the `igvm` crate 0.5.0, which
//! refuses every optional header. Not here: trust; nothing is signed.

use super::resources::Resources;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// VERSION_STRING with the optional bit.
pub(super) const RECORD_TYPE: u32 = 0x8000_0107;
/// Version of the JSON's schema.
const SCHEMA: u32 = 1;

/// Inputs of a build.
#[derive(Debug, Serialize)]
pub(super) struct Provenance {
    schema: u32,
    /// Program and version.
    builder: &'static str,
    manifest: Input,
    resources: Vec<Input>,
}

/// An input and its hash.
#[derive(Debug, Serialize)]
struct Input {
    name: String,
    bytes: u64,
    sha256: String,
}

impl Provenance {
    /// Hashes everything.
    pub(super) fn new(manifest: &Path, text: &str, resources: &Resources) -> Self {
        let name = manifest.file_name().unwrap_or(manifest.as_os_str());
        Self {
            schema: SCHEMA,
            builder: concat!("igvmtool ", env!("CARGO_PKG_VERSION")),
            manifest: input(&name.to_string_lossy(), text.as_bytes()),
            resources: resources.iter().map(|(name, bytes)| input(name, bytes)).collect(),
        }
    }

    /// The record's text: one line per input.
    pub(super) fn record(&self) -> String {
        let inputs = std::iter::once(&self.manifest).chain(&self.resources);
        let lines: Vec<String> = inputs
            .map(|it| format!("{} sha256:{}", it.name, it.sha256))
            .collect();
        format!("{}\n{}", self.builder, lines.join("\n"))
    }

    /// Where the JSON of `file` goes.
    pub(super) fn path(file: &Path) -> PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(".provenance.json");
        name.into()
    }
}

fn input(name: &str, bytes: &[u8]) -> Input {
    Input {
        name: name.to_owned(),
        bytes: bytes.len() as u64,
        sha256: launch_digest::Digest(Sha256::digest(bytes).to_vec()).to_string(),
    }
}
