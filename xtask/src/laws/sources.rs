// SPDX-License-Identifier: MIT
//! Laws over single source files: headers, names, lengths.

use super::Violation;
use super::rust_text::{code_only, functions};
use anyhow::{Context, Result};
use std::path::Path;

/// Lines that a file should stay within, and the ceiling that fails the check.
pub(super) const FILE_LINES: (usize, usize) = (500, 800);
/// Lines that a function should stay within, and the ceiling that fails the check.
pub(super) const FUNCTION_LINES: (usize, usize) = (60, 120);

const SPDX: &str = "SPDX-License-Identifier: MIT";

/// One file of ours.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Path relative to the workspace, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

/// The Rust files and manifests of the workspace.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// In path order.
    pub(crate) files: Vec<SourceFile>,
}

impl Sources {
    /// Reads all `.rs` files and `Cargo.toml`s below `root`, without build output and hidden folders.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut sources = Self::default();
        sources.read_folder(root, "")?;
        sources.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(sources)
    }

    fn read_folder(&mut self, root: &Path, folder: &str) -> Result<()> {
        let dir = root.join(folder);
        let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() {
                name.clone()
            } else {
                format!("{folder}/{name}")
            };
            if entry.path().is_dir() {
                if !name.starts_with('.') && !matches!(path.as_str(), "target" | "out") {
                    self.read_folder(root, &path)?;
                }
            } else if name.ends_with(".rs") || name == "Cargo.toml" {
                let text =
                    std::fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
                self.files.push(SourceFile { path, text });
            }
        }
        Ok(())
    }

    /// The Rust files.
    pub(super) fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }
}

/// Names that say nothing about what is inside.
pub(super) fn is_drawer_name(name: &str) -> bool {
    matches!(name, "util" | "utils" | "common" | "misc" | "helpers")
}

pub(super) fn check(sources: &Sources) -> Vec<Violation> {
    let mut broken = Vec::new();
    for file in &sources.files {
        let first = file.text.lines().next().unwrap_or_default();
        if !first.ends_with(SPDX) {
            let what = format!("the first line must be `{SPDX}` in a comment");
            broken.push(violation("spdx-header", &file.path, what));
        }
    }
    for file in sources.rust() {
        check_rust(file, &mut broken);
    }
    broken
}

fn check_rust(file: &SourceFile, broken: &mut Vec<Violation>) {
    let stem = file
        .path
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".rs");
    if stem == "mod" {
        let what = "write `foo.rs` beside `foo/part.rs`".to_owned();
        broken.push(violation("no-mod-rs", &file.path, what));
    }
    if is_drawer_name(stem) {
        let what = "a module must be named after what it is".to_owned();
        broken.push(violation("no-drawer-names", &file.path, what));
    }
    let second = file.text.lines().nth(1).unwrap_or_default();
    let is_test = stem == "tests" || file.path.contains("/tests/");
    if !second.starts_with("//!") && !is_test {
        let what = "the second line must begin the `//!` module doc".to_owned();
        broken.push(violation("module-doc", &file.path, what));
    }
    let lines = file.text.lines().count();
    if lines > FILE_LINES.1 {
        let what = format!("{lines} lines; the ceiling is {}, split it", FILE_LINES.1);
        broken.push(violation("file-length", &file.path, what));
    }
    for function in functions(&code_only(&file.text)) {
        // A table of cases may be as long as there are cases.
        if function.lines > FUNCTION_LINES.1 && !is_test {
            let at = format!("{}:{}", file.path, function.line);
            let what = format!(
                "{} has {} lines; the ceiling is {}, split it",
                function.name, function.lines, FUNCTION_LINES.1
            );
            broken.push(violation("function-length", &at, what));
        }
    }
}

/// What is above the aim, longest first, and the longest of each even when all are within it.
pub(super) fn long_ones(sources: &Sources) -> Vec<String> {
    let mut files: Vec<_> = sources
        .rust()
        .map(|file| (file.text.lines().count(), file.path.clone()))
        .collect();
    let mut all_functions: Vec<_> = sources
        .rust()
        .flat_map(|file| {
            let found = functions(&code_only(&file.text));
            found
                .into_iter()
                .map(|f| (f.lines, format!("{}:{} {}", file.path, f.line, f.name)))
        })
        .collect();
    files.sort_by(|a, b| b.cmp(a));
    all_functions.sort_by(|a, b| b.cmp(a));
    let shown = |list: Vec<(usize, String)>, aim: usize, what: &str| -> Vec<String> {
        let above = list.iter().filter(|(lines, _)| *lines > aim).count().max(1);
        list.into_iter()
            .take(above)
            .map(|(lines, at)| format!("{what} of {lines} lines: {at}"))
            .collect()
    };
    let mut text = shown(files, FILE_LINES.0, "file");
    text.extend(shown(all_functions, FUNCTION_LINES.0, "function"));
    text
}

fn violation(law: &'static str, at: &str, what: String) -> Violation {
    Violation {
        law,
        at: at.to_owned(),
        what,
    }
}
