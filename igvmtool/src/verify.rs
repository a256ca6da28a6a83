// SPDX-License-Identifier: MIT
//! `igvmtool verify`: does this file give this attestation report, or this digest, and if not, why.

use crate::failure::{Failure, Outcome};
use crate::measure::against::{Explained, UNEXPLAINED, search};
use crate::measure::platform;
use crate::sign::bytes;
use crate::{opened, progress};
use launch_digest::report::Report;
use launch_digest::{Digest, Options, Profile, Reading, first_difference, id_block, measure};
use launch_plan::{Isolation, LaunchPlan};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Options of `verify`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("expected").required(true).multiple(true)))]
pub(crate) struct Args {
    /// The IGVM file.
    file: PathBuf,
    /// A SEV-SNP attestation report (1184 bytes). Its own signature is not checked.
    #[arg(long, group = "expected", conflicts_with = "digest")]
    report: Option<PathBuf>,
    /// A launch digest in hex.
    #[arg(long, group = "expected", value_parser = crate::measure::against::digest)]
    digest: Option<Digest>,
    /// Another IGVM file that is known to be right: names the first step that differs from it.
    #[arg(long, group = "expected")]
    against: Option<PathBuf>,
    /// The platform to measure: snp, sev-es, sev, tdx or vbs.
    #[arg(long, default_value = "snp", value_parser = platform)]
    platform: Isolation,
    /// Virtual processors of the guest. Default: one for each context in the file.
    #[arg(long)]
    vp_count: Option<u32>,
    /// JSON instead of text (schema version 1).
    #[arg(long)]
    json: bool,
}

/// The answer as `--json` prints it (schema version 1).
#[derive(Serialize)]
struct Answer {
    schema: u32,
    platform: &'static str,
    matches: bool,
    findings: Vec<String>,
    /// What gives the digest of the report or of `--digest`; absent when nothing known does, or when it
    /// was not asked for.
    explanation: Option<Explained>,
}

/// Compares and explains; a mismatch is a finding.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mapped = opened::map(&args.file)?;
    let file = opened::read(&mapped)?;
    let plan = opened::plan(&mapped, &file, args.platform)?;
    let mut others = Vec::new();
    for platform in file.platforms() {
        if platform.isolation != args.platform {
            others.push(opened::plan(&mapped, &file, platform.isolation)?);
        }
    }
    let mut answer = Answer {
        schema: 1,
        platform: args.platform.name(),
        matches: false,
        findings: Vec::new(),
        explanation: None,
    };
    if let Some(path) = &args.report {
        let report = Report::read(&bytes(path)?)
            .map_err(|e| Failure::Unreadable(format!("{}: {e}", path.display())))?;
        compare_report(&plan, &report, &mut answer.findings);
        let measured = Digest(report.measurement.to_vec());
        compare_digest((&plan, &others), args, &measured, &mut answer)?;
    }
    if let Some(digest) = &args.digest {
        compare_digest((&plan, &others), args, digest, &mut answer)?;
    }
    if let Some(path) = &args.against {
        let other_mapped = opened::map(path)?;
        let other_file = opened::read(&other_mapped)?;
        let other = opened::plan(&other_mapped, &other_file, args.platform)?;
        compare_plans(&plan, &other, args, &mut answer.findings)?;
    }
    answer.matches = answer.findings.is_empty();
    print(args, &answer)?;
    let outcome = if answer.matches {
        Outcome::Fine
    } else {
        Outcome::Findings
    };
    opened::finish(&mapped, outcome)
}

fn print(args: &Args, answer: &Answer) -> Result<(), Failure> {
    if args.json {
        return crate::output::json(answer);
    }
    let shown = args.file.display();
    crate::output::stdout(|out| {
        if answer.matches {
            writeln!(out, "{shown}: matches")?;
        }
        answer
            .findings
            .iter()
            .try_for_each(|finding| writeln!(out, "{shown}: {finding}"))
    })
}

/// What the report says beside the digest.
fn compare_report(plan: &LaunchPlan<'_>, report: &Report, findings: &mut Vec<String>) {
    let policy = plan.facts.policy.unwrap_or(0);
    if report.policy != policy {
        findings.push(format!(
            "the report has policy {:#x}, the file {policy:#x}",
            report.policy
        ));
    }
    let Some(block) = &plan.endorsements.id_block else {
        return;
    };
    if report.guest_svn != block.guest_svn {
        findings.push(format!(
            "the report has guest svn {}, the id block {}",
            report.guest_svn, block.guest_svn
        ));
    }
    if (report.family_id, report.image_id) != (block.family_id, block.image_id) {
        findings.push("the report has another family id or image id than the id block".into());
    }
    if report.id_key_digest != id_block::key_digest(&block.id_key) {
        findings.push("the report was made with another id key than the file's".into());
    }
}

fn vp_count(plan: &LaunchPlan<'_>, args: &Args) -> u32 {
    args.vp_count
        .unwrap_or_else(|| plan.vp_contexts().map(|(c, _)| c.vp + 1).max().unwrap_or(1))
}

/// Compares with what KVM would measure; another digest is explained.
fn compare_digest(
    (plan, others): (&LaunchPlan<'_>, &[LaunchPlan<'_>]),
    args: &Args,
    expected: &Digest,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let count = vp_count(plan, args);
    let options = Options {
        profile: Profile::Kvm,
        vp_count: Some(count),
        trace: false,
    };
    let measured = progress::during("measuring", || measure(plan, &options));
    let ours = measured.map_err(|e| Failure::Usage(e.to_string()))?.digest;
    if ours == *expected {
        return Ok(());
    }
    let vps = if count == 1 { "vp" } else { "vps" };
    answer.findings.push(format!(
        "the digest is {expected}, but a launch through kvm with {count} {vps} gives {ours}"
    ));
    answer.explanation = search(plan, others, expected, Some(count))?;
    let sentence = answer.explanation.as_ref().map(|found| found.sentence.clone());
    answer
        .findings
        .push(sentence.unwrap_or_else(|| UNEXPLAINED.to_owned()));
    Ok(())
}

fn compare_plans(
    plan: &LaunchPlan<'_>,
    other: &LaunchPlan<'_>,
    args: &Args,
    findings: &mut Vec<String>,
) -> Result<(), Failure> {
    let reading = |plan, vp_count| Reading {
        plan,
        profile: Profile::Kvm,
        vp_count,
    };
    let count = vp_count(plan, args).max(vp_count(other, args));
    let difference = first_difference(reading(plan, count), reading(other, count));
    if let Some(d) = difference.map_err(|e| Failure::Usage(e.to_string()))? {
        findings.push(format!("first difference: {d}"));
    }
    Ok(())
}
