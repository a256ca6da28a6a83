// SPDX-License-Identifier: MIT
//! Licences of everything that we link or test with, against an allow list.
//!
//! `deny.toml` says the same to `cargo deny`, which `cargo xtask ci` also runs when it is installed; this
//! check needs nothing but `cargo metadata`.

use super::Violation;
use super::graph::Graph;

const LAW: &str = "licences";

/// Licences that need no more than their notice, as `deny.toml` lists them.
pub(super) const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub(super) fn check(graph: &Graph) -> Vec<Violation> {
    let mut broken = Vec::new();
    for package in graph.packages() {
        let what = match &package.licence {
            None => "has no license field".to_owned(),
            Some(licence) if package.member && licence != "MIT" => {
                format!("is `{licence}`; our crates are MIT")
            }
            Some(licence) if !is_allowed(licence) => {
                format!("is `{licence}`, which the allow list does not cover")
            }
            Some(_) => continue,
        };
        broken.push(Violation {
            law: LAW,
            at: package.name.clone(),
            what,
        });
    }
    broken
}

/// Whether an SPDX expression can be satisfied from the allow list. The old `A/B` means `A OR B`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let allowed = either(&mut rest);
    allowed && rest.is_empty()
}

fn either(rest: &mut &[&str]) -> bool {
    let mut allowed = both(rest);
    while let [word, tail @ ..] = *rest
        && word.eq_ignore_ascii_case("OR")
    {
        *rest = tail;
        allowed |= both(rest);
    }
    allowed
}

fn both(rest: &mut &[&str]) -> bool {
    let mut allowed = term(rest);
    while let [word, tail @ ..] = *rest
        && word.eq_ignore_ascii_case("AND")
    {
        *rest = tail;
        allowed &= term(rest);
    }
    allowed
}

fn term(rest: &mut &[&str]) -> bool {
    match *rest {
        ["(", tail @ ..] => {
            *rest = tail;
            let allowed = either(rest);
            match *rest {
                [")", tail @ ..] => {
                    *rest = tail;
                    allowed
                }
                _ => false,
            }
        }
        [id, "WITH", exception, tail @ ..] => {
            *rest = tail;
            ALLOWED.contains(&format!("{id} WITH {exception}").as_str())
        }
        [id, tail @ ..] => {
            *rest = tail;
            ALLOWED.contains(id)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn expressions_are_evaluated() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0-only",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in [
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "",
            "(MIT",
            "MIT MIT",
            "GPL-2.0 WITH MIT",
        ] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn deny_toml_lists_the_same_licences() {
        let text = include_str!("../../../deny.toml");
        let list = text
            .split("allow = [")
            .nth(1)
            .and_then(|rest| rest.split(']').next())
            .unwrap();
        let listed: Vec<_> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(listed, super::ALLOWED);
    }
}
