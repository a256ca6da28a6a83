// SPDX-License-Identifier: MIT
//! Will a loader take this file, and if not, which of its rules is in the way.
//!
//! Always true: what loaders do is data (`rules`), each row with the source that it was read from; this
//! file only applies rows to a file. A file loads when at least one platform that the loader knows has no
//! obstacle. Not here: what the format demands (`vm_loaders::igvm`, codes), which the profile `spec` adds to.

mod probes;
mod rules;

use launch_plan::{Isolation, LaunchPlan};
pub use rules::{LOADERS, Loader, RULES, Rule, Weight};
use serde::Serialize;
use vm_loaders::igvm::{File, Platform, Problem};

/// How a rule looks at a file.
#[derive(Clone, Copy)]
pub enum Test {
    /// One of these problems was found (their text forms).
    Problem(&'static [&'static str]),
    /// The file has a header of one of these types, whatever its mask.
    AnyHeader(&'static [u32]),
    /// A header of one of these types applies to the platform.
    Header(&'static [u32]),
    /// Looks at the whole file.
    File(fn(&Subject<'_, '_>) -> Option<Hit>),
    /// Looks at a platform and its plan.
    Plan(fn(&LaunchPlan<'_>) -> Option<Hit>),
}

impl std::fmt::Debug for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Problem(codes) => f.debug_tuple("Problem").field(codes).finish(),
            Self::AnyHeader(types) => f.debug_tuple("AnyHeader").field(types).finish(),
            Self::Header(types) => f.debug_tuple("Header").field(types).finish(),
            Self::File(_) => f.write_str("File"),
            Self::Plan(_) => f.write_str("Plan"),
        }
    }
}

/// What a test found: where and what.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Index of the header, if one is to blame.
    pub header: Option<u32>,
    /// What is there, with values.
    pub text: String,
}

/// A file and what is known about it.
pub struct Subject<'s, 'a> {
    /// The file.
    pub file: &'s File<'a>,
    /// Its problems.
    pub problems: &'s [Problem],
    /// Its platforms.
    pub platforms: &'s [Platform],
}

/// A rule that stands in the way, or that a user should know.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Text form of the rule.
    pub rule: &'static str,
    /// `refused`, `crash`, `differs` or `note`.
    pub weight: &'static str,
    /// Index of the header, if one is to blame.
    pub header: Option<u32>,
    /// What is there, and the rule.
    pub message: String,
    /// Where the rule was read.
    pub source: &'static str,
}

/// The answer for one platform.
#[derive(Debug, Clone, Serialize)]
pub struct PlatformAnswer {
    /// The platform.
    pub platform: &'static str,
    /// Whether the loader takes it.
    pub loads: bool,
    /// Obstacles first.
    pub findings: Vec<Finding>,
}

/// The answer for one loader.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// The loader's name.
    pub loader: &'static str,
    /// Whether the file loads there.
    pub loads: bool,
    /// What concerns the file whatever the platform.
    pub findings: Vec<Finding>,
    /// One answer for each platform of the file that the loader knows.
    pub platforms: Vec<PlatformAnswer>,
}

/// Asks a loader about a file. `problems` are those of [`File::check`].
pub fn ask(loader: &'static Loader, file: &File<'_>, problems: &[Problem]) -> Answer {
    let platforms = file.platforms();
    let subject = Subject {
        file,
        problems,
        platforms: &platforms,
    };
    let mut findings = Vec::new();
    for rule in rules_of(loader).filter(|rule| rule.on.is_empty()) {
        findings.extend(file_hit(rule, &subject).map(|hit| finding(rule, hit)));
    }
    let mut answers = Vec::new();
    for platform in platforms
        .iter()
        .filter(|p| loader.platforms.contains(&p.isolation))
    {
        answers.push(platform_answer(loader, &subject, platform));
    }
    if answers.is_empty() {
        let names: Vec<_> = loader.platforms.iter().map(|p| p.name()).collect();
        findings.push(Finding {
            rule: "platform",
            weight: Weight::Refused.name(),
            header: None,
            message: format!(
                "the file has none of the platforms that {} starts: {}",
                loader.title,
                names.join(", ")
            ),
            source: loader.source,
        });
    }
    let blocked = findings.iter().any(Finding::blocks);
    Answer {
        loader: loader.name,
        loads: !blocked && answers.iter().any(|answer| answer.loads),
        findings,
        platforms: answers,
    }
}

impl Finding {
    fn blocks(&self) -> bool {
        self.weight == Weight::Refused.name() || self.weight == Weight::Crash.name()
    }
}

fn rules_of(loader: &'static Loader) -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(|rule| rule.loaders.contains(&loader.name))
}

fn finding(rule: &Rule, hit: Hit) -> Finding {
    Finding {
        rule: rule.id,
        weight: rule.weight.name(),
        header: hit.header,
        message: format!("{}; {}", hit.text, rule.rule),
        source: rule.source,
    }
}

/// The first place where a file breaks a rule that looks at the whole of it.
fn file_hit(rule: &Rule, subject: &Subject<'_, '_>) -> Option<Hit> {
    match rule.test {
        Test::Problem(codes) => {
            let found = subject.problems.iter().find(|p| codes.contains(&p.code.id()))?;
            Some(Hit {
                header: found.header,
                text: format!("{} [{}]", found.message, found.code),
            })
        }
        Test::AnyHeader(types) => header_hit(subject.file, types, None),
        Test::File(look) => look(subject),
        Test::Header(_) | Test::Plan(_) => None,
    }
}

fn header_hit(file: &File<'_>, types: &[u32], mask: Option<u32>) -> Option<Hit> {
    file.headers().iter().enumerate().find_map(|(index, raw)| {
        let applies = types.contains(&raw.typ)
            && mask.is_none_or(|mask| {
                let header = file.decode(raw).ok();
                header.and_then(|h| h.mask()).is_none_or(|own| own & mask != 0)
            });
        applies.then(|| Hit {
            header: u32::try_from(index).ok(),
            text: format!(
                "{} header",
                vm_loaders::igvm::type_name(raw.typ).unwrap_or("unknown")
            ),
        })
    })
}

fn platform_answer(
    loader: &'static Loader,
    subject: &Subject<'_, '_>,
    platform: &Platform,
) -> PlatformAnswer {
    let isolation = platform.isolation;
    let plan = subject.file.plan(isolation).ok();
    let mut findings = Vec::new();
    for rule in rules_of(loader).filter(|rule| rule.on.contains(&isolation)) {
        let hit = match rule.test {
            Test::Header(types) => header_hit(subject.file, types, Some(platform.mask)),
            Test::Plan(look) => plan.as_ref().and_then(look),
            _ => file_hit(rule, subject),
        };
        findings.extend(hit.map(|hit| finding(rule, hit)));
    }
    findings.sort_by_key(|finding| !finding.blocks());
    PlatformAnswer {
        platform: isolation.name(),
        loads: !findings.iter().any(Finding::blocks),
        findings,
    }
}

/// The loader with a name.
pub fn loader(name: &str) -> Option<&'static Loader> {
    LOADERS.iter().find(|loader| loader.name == name)
}

/// All platforms: for rules that do not depend on one.
pub(crate) const EVERY: &[Isolation] = &[
    Isolation::Native,
    Isolation::Vsm,
    Isolation::Sev,
    Isolation::SevEs,
    Isolation::Snp,
    Isolation::Tdx,
    Isolation::Cca,
];
