// SPDX-License-Identifier: MIT
//! `igvmtool verify`: does this file give this attestation report, or this digest, and if not, why.

use crate::failure::{Failure, Outcome};
use crate::measure::platform;
use crate::opened;
use crate::sign::bytes;
use launch_digest::report::Report;
use launch_digest::{Digest, Options, Profile, Reading, first_difference, id_block, measure};
use launch_plan::{Isolation, LaunchPlan};
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
    #[arg(long, group = "expected")]
    digest: Option<String>,
    /// Another IGVM file that is known to be right: names the first step that differs from it.
    #[arg(long, group = "expected")]
    against: Option<PathBuf>,
    /// The platform to measure: snp, sev-es, sev, tdx or vbs.
    #[arg(long, default_value = "snp", value_parser = platform)]
    platform: Isolation,
    /// Virtual processors of the guest. Default: one for each context in the file.
    #[arg(long)]
    vp_count: Option<u32>,
}

/// Compares and explains; a mismatch is a finding.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mapped = opened::map(&args.file)?;
    let file = opened::read(&mapped)?;
    let plan = opened::plan(&mapped, &file, args.platform)?;
    let mut findings = Vec::new();
    if let Some(path) = &args.report {
        let report = Report::read(&bytes(path)?)
            .map_err(|e| Failure::Unreadable(format!("{}: {e}", path.display())))?;
        compare_report(&plan, &report, &mut findings);
        compare_digest(&plan, args, &Digest(report.measurement.to_vec()), &mut findings)?;
    }
    if let Some(text) = &args.digest {
        compare_digest(&plan, args, &unhex(text)?, &mut findings)?;
    }
    if let Some(path) = &args.against {
        let other_mapped = opened::map(path)?;
        let other_file = opened::read(&other_mapped)?;
        let other = opened::plan(&other_mapped, &other_file, args.platform)?;
        compare_plans(&plan, &other, args, &mut findings)?;
    }
    let shown = args.file.display();
    if findings.is_empty() {
        println!("{shown}: matches");
        return opened::finish(&mapped, Outcome::Fine);
    }
    findings.iter().for_each(|f| println!("{shown}: {f}"));
    opened::finish(&mapped, Outcome::Findings)
}

fn unhex(text: &str) -> Result<Digest, Failure> {
    let bad = || Failure::Usage("--digest: a digest is an even number of hex digits".into());
    if !text.is_ascii() || text.is_empty() || !text.len().is_multiple_of(2) {
        return Err(bad());
    }
    let byte = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).map_err(|_| bad());
    Ok(Digest(
        (0..text.len()).step_by(2).map(byte).collect::<Result<_, _>>()?,
    ))
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

/// Compares with what KVM would measure; a foreign digest that another profile explains is named.
fn compare_digest(
    plan: &LaunchPlan<'_>,
    args: &Args,
    expected: &Digest,
    findings: &mut Vec<String>,
) -> Result<(), Failure> {
    let digest_of = |profile, vp_count| {
        let options = Options {
            profile,
            vp_count: Some(vp_count),
            trace: false,
        };
        measure(plan, &options)
            .map(|m| m.digest)
            .map_err(|e| Failure::Usage(e.to_string()))
    };
    let count = vp_count(plan, args);
    let ours = digest_of(Profile::Kvm, count)?;
    if ours == *expected {
        return Ok(());
    }
    findings.push(format!(
        "the digest is {expected}, but a launch through kvm with {count} vps gives {ours}"
    ));
    let mut readings = Vec::new();
    for profile in Profile::ALL.into_iter().filter(|p| *p != Profile::Kvm) {
        if digest_of(profile, count)? == *expected {
            readings.push(profile);
        }
    }
    if let Some(first) = readings.first() {
        let reading = |profile| Reading {
            plan,
            profile,
            vp_count: count,
        };
        let difference = first_difference(reading(Profile::Kvm), reading(*first));
        let difference = difference.map_err(|e| Failure::Usage(e.to_string()))?;
        let place = difference.map_or_else(String::new, |d| format!("; the first difference is {d}"));
        let names: Vec<_> = readings.iter().map(|p| p.name()).collect();
        findings.push(format!(
            "it is the {} reading of this file{place}",
            names.join(" and ")
        ));
        return Ok(());
    }
    let contexts = plan.vp_contexts().map(|(c, _)| c.vp + 1).max().unwrap_or(1);
    for other in (contexts..contexts + 64).filter(|n| *n != count) {
        if digest_of(Profile::Kvm, other)? == *expected {
            findings.push(format!(
                "it is the digest of this file with {other} vps instead of {count}"
            ));
            return Ok(());
        }
    }
    findings.push(
        "no profile and no vp count up to 64 more explains it: the contents differ; --against a file \
         that is known to be right names the first step"
            .into(),
    );
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
