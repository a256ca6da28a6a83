// SPDX-License-Identifier: MIT
//! `measure --against DIGEST` and what `verify` says about a foreign digest: which reading of the file
//! gives it.

use crate::failure::{Failure, Outcome};
use crate::progress;
use launch_digest::{Digest, Explanation, explain};
use launch_plan::{Isolation, LaunchPlan};
use serde::Serialize;

/// Reads a digest in hex.
pub(crate) fn digest(text: &str) -> Result<Digest, String> {
    let bad = || "a digest is an even number of hex digits".to_owned();
    if !text.is_ascii() || text.is_empty() || !text.len().is_multiple_of(2) {
        return Err(bad());
    }
    let byte = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).map_err(|_| bad());
    Ok(Digest(
        (0..text.len()).step_by(2).map(byte).collect::<Result<_, _>>()?,
    ))
}

/// Length of a platform's digest in bytes.
pub(crate) const fn digest_len(isolation: Isolation) -> usize {
    match isolation {
        Isolation::Snp | Isolation::Tdx => 48,
        _ => 32,
    }
}

/// What gives a foreign digest, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    /// The whole of it in one sentence.
    pub(crate) sentence: String,
    /// What differs from a launch through KVM, one clause each; empty when nothing does.
    pub(crate) reasons: Vec<String>,
    /// Profiles that read the file so.
    pub(crate) profiles: Vec<&'static str>,
    pub(crate) vp_count: u32,
    /// The first step that differs from a launch through KVM.
    pub(crate) first_difference: Option<String>,
}

impl Explained {
    fn new(found: &Explanation) -> Self {
        Self {
            sentence: found.to_string(),
            reasons: found.reasons.clone(),
            profiles: found.profiles.iter().map(|profile| profile.name()).collect(),
            vp_count: found.vp_count,
            first_difference: found.difference.as_ref().map(ToString::to_string),
        }
    }

    /// Whether it is the digest of a launch through KVM.
    pub(crate) fn is_kvm(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Looks for what gives `digest`; `None` when the contents must differ.
pub(crate) fn search(
    plan: &LaunchPlan<'_>,
    others: &[LaunchPlan<'_>],
    digest: &Digest,
    vp_count: Option<u32>,
) -> Result<Option<Explained>, Failure> {
    let found = progress::during("searching", || explain(plan, others, digest, vp_count));
    let found = found.map_err(|e| Failure::Usage(e.to_string()))?;
    Ok(found.as_ref().map(Explained::new))
}

/// What is said when nothing explains a digest.
pub(crate) const UNEXPLAINED: &str = "no reading, vp count, save area or missing step that is known explains it: the contents differ; verify \
--against a file that is known to be right names the first step";

/// One platform's answer, as `measure --against --json` prints it (schema version 1).
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    schema: u32,
    platform: &'static str,
    against: String,
    explanation: Option<Explained>,
}

/// Searches one platform after the other. A digest of another length than any platform's is refused.
pub(super) fn answer(
    plans: &[LaunchPlan<'_>],
    wanted: Option<Isolation>,
    digest: &Digest,
    vp_count: Option<u32>,
) -> Result<Vec<Answer>, Failure> {
    let mut answers = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        let isolation = plan.facts.isolation;
        let asked = wanted.is_none_or(|wanted| wanted == isolation);
        if !asked || !super::has_digest(isolation) || digest_len(isolation) != digest.0.len() {
            continue;
        }
        let others: Vec<LaunchPlan<'_>> = plans
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != number)
            .map(|(_, plan)| plan.clone())
            .collect();
        answers.push(Answer {
            schema: super::SCHEMA,
            platform: isolation.name(),
            against: digest.to_string(),
            explanation: search(plan, &others, digest, vp_count)?,
        });
    }
    if answers.is_empty() {
        return Err(Failure::Usage(format!(
            "--against: no platform that was asked for has digests of {} bytes",
            digest.0.len()
        )));
    }
    Ok(answers)
}

/// Prints the answers; fine when one of them is the launch through KVM.
pub(super) fn report(answers: &[Answer], json: bool) -> Result<Outcome, Failure> {
    if json {
        crate::output::json(&answers)?;
    } else {
        crate::output::stdout(|out| {
            use std::io::Write;
            answers.iter().try_for_each(|answer| {
                let text = answer.explanation.as_ref().map(|found| &found.sentence[..]);
                writeln!(out, "{}: {}", answer.platform, text.unwrap_or(UNEXPLAINED))
            })
        })?;
    }
    let kvm = |answer: &Answer| answer.explanation.as_ref().is_some_and(Explained::is_kvm);
    Ok(if answers.iter().any(kvm) {
        Outcome::Fine
    } else {
        Outcome::Findings
    })
}
