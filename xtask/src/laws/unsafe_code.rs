// SPDX-License-Identifier: MIT
//! Where `unsafe` may stand: in the files that the table in `ARCHITECTURE.md` lists, each use with its
//! reason beside it.
//!
//! clippy's `undocumented_unsafe_blocks` says the same for what cargo compiles; this check also covers
//! the guest payloads, which a build script compiles.

use super::Violation;
use super::rust_text::{code_only, line_of, words};
use super::sources::{SourceFile, Sources};
use std::collections::BTreeSet;

const LAW: &str = "unsafe-is-listed";
const BEGIN: &str = "<!-- unsafe files: begin -->";
const END: &str = "<!-- unsafe files: end -->";
/// How many lines above an unsafe block its SAFETY comment may begin.
const REACH: usize = 12;

pub(super) fn check(sources: &Sources, architecture: &str) -> Vec<Violation> {
    let Some(listed) = listed_files(architecture) else {
        let what = format!("has no table between `{BEGIN}` and `{END}`");
        return vec![Violation {
            law: LAW,
            at: "ARCHITECTURE.md".to_owned(),
            what,
        }];
    };
    let mut broken = Vec::new();
    let mut used = BTreeSet::new();
    for file in sources.rust() {
        let entry = listed.iter().find(|entry| covers(entry, &file.path));
        let code = code_only(&file.text);
        let lines: Vec<usize> = words(&code, "unsafe").map(|at| line_of(&code, at)).collect();
        match entry {
            Some(entry) if !lines.is_empty() || raw_pointer(&code).is_some() => {
                used.insert(entry.clone());
                broken.extend(undocumented(file, &code));
            }
            Some(_) => {}
            None => broken.extend(not_listed(file, &code, &lines)),
        }
    }
    for entry in listed.difference(&used) {
        let what = format!("lists {entry}, which has no unsafe code or raw pointers");
        broken.push(Violation {
            law: LAW,
            at: "ARCHITECTURE.md".to_owned(),
            what,
        });
    }
    broken.extend(crates_that_do_not_forbid(sources, &listed));
    broken
}

/// The first cell of each row, between the markers; an entry that ends in `/` covers a folder.
fn listed_files(architecture: &str) -> Option<BTreeSet<String>> {
    let table = architecture.split_once(BEGIN)?.1.split_once(END)?.0;
    let cells = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    Some(cells.map(|(path, _)| path.to_owned()).collect())
}

fn covers(entry: &str, path: &str) -> bool {
    entry == path || (entry.ends_with('/') && path.starts_with(entry))
}

fn not_listed(file: &SourceFile, code: &str, lines: &[usize]) -> Vec<Violation> {
    let mut broken: Vec<_> = lines
        .first()
        .map(|line| Violation {
            law: LAW,
            at: format!("{}:{line}", file.path),
            what: format!(
                "{} uses of unsafe in a file that ARCHITECTURE.md does not list",
                lines.len()
            ),
        })
        .into_iter()
        .collect();
    broken.extend(raw_pointer(code).map(|at| Violation {
        law: "no-raw-pointers",
        at: format!("{}:{}", file.path, line_of(code, at)),
        what: "a raw pointer type in a file that ARCHITECTURE.md does not list for unsafe code".to_owned(),
    }));
    broken
}

/// Where the first raw pointer type stands.
fn raw_pointer(code: &str) -> Option<usize> {
    ["*mut ", "*const "]
        .into_iter()
        .filter_map(|token| code.find(token))
        .min()
}

/// Unsafe blocks and impls without a SAFETY comment near above.
fn undocumented(file: &SourceFile, code: &str) -> Vec<Violation> {
    let lines: Vec<&str> = file.text.lines().collect();
    words(code, "unsafe")
        .filter(|at| {
            let after = code[at + "unsafe".len()..].trim_start();
            after.starts_with('{') || after.starts_with("impl")
        })
        .map(|at| line_of(code, at))
        .filter(|line| {
            let above = &lines[line.saturating_sub(REACH)..(*line).min(lines.len())];
            !above.iter().any(|text| text.contains("SAFETY:"))
        })
        .map(|line| Violation {
            law: "unsafe-has-a-reason",
            at: format!("{}:{line}", file.path),
            what: "an unsafe block needs a `// SAFETY:` comment".to_owned(),
        })
        .collect()
}

/// A crate without listed files says `#![forbid(unsafe_code)]` in every root.
fn crates_that_do_not_forbid(sources: &Sources, listed: &BTreeSet<String>) -> Vec<Violation> {
    let folders = sources
        .files
        .iter()
        .filter_map(|file| file.path.strip_suffix("/Cargo.toml"));
    let mut broken = Vec::new();
    for folder in folders {
        let prefix = format!("{folder}/");
        if listed.iter().any(|entry| entry.starts_with(&prefix)) {
            continue;
        }
        for root in ["src/lib.rs", "src/main.rs"] {
            let path = format!("{prefix}{root}");
            let forbids = |file: &SourceFile| code_only(&file.text).contains("#![forbid(unsafe_code)]");
            if sources.rust().any(|file| file.path == path && !forbids(file)) {
                let what = "a crate without unsafe code must say #![forbid(unsafe_code)]".to_owned();
                broken.push(Violation {
                    law: "forbid-unsafe",
                    at: path,
                    what,
                });
            }
        }
    }
    broken
}
