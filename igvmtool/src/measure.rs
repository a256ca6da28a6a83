// SPDX-License-Identifier: MIT
//! `igvmtool measure`: launch digests of a file, and why other tools print other ones.

use crate::failure::{Failure, Outcome};
use crate::opened;
use launch_digest::{Measurement, Options, Profile, Reading, first_difference, measure};
use launch_plan::{Isolation, LaunchPlan};
use serde::Serialize;
use std::path::PathBuf;

/// Options of `measure`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The IGVM file.
    file: PathBuf,
    /// Only this platform: snp, sev-es, sev, tdx or vbs. Default: every platform of the file that has a
    /// launch digest.
    #[arg(long, value_parser = platform)]
    platform: Option<Isolation>,
    /// Whose reading of the file: kvm, file-order, igvmmeasure, igvmmeasure-native-zero, qemu or
    /// cloud-hypervisor.
    #[arg(long, default_value = "kvm", value_parser = profile)]
    profile: Profile,
    /// Virtual processors of the guest. Default: one for each context in the file.
    #[arg(long)]
    vp_count: Option<u32>,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
    /// The digest after each step.
    #[arg(long)]
    trace: bool,
}

/// The isolation that a platform name of this tool means.
pub(crate) fn platform(name: &str) -> Result<Isolation, String> {
    match name {
        "snp" | "sev-snp" => Ok(Isolation::Snp),
        "sev-es" => Ok(Isolation::SevEs),
        "sev" => Ok(Isolation::Sev),
        "tdx" => Ok(Isolation::Tdx),
        "vbs" | "vsm" => Ok(Isolation::Vsm),
        _ => Err("known platforms are snp, sev-es, sev, tdx and vbs".into()),
    }
}

/// The profile with a name.
pub(crate) fn profile(name: &str) -> Result<Profile, String> {
    Profile::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Profile::ALL.iter().map(|p| p.name()).collect();
        format!("known profiles are {}", known.join(", "))
    })
}

/// One digest, as `--json` prints it (schema version 1).
#[derive(Serialize)]
struct Record {
    schema: u32,
    platform: &'static str,
    profile: &'static str,
    vp_count: u32,
    digest: String,
    warnings: Vec<String>,
    other_profiles: Vec<Other>,
    trace: Vec<Step>,
}

/// A profile that gives another digest.
#[derive(Serialize)]
struct Other {
    profile: &'static str,
    digest: String,
    first_difference: String,
}

#[derive(Serialize)]
struct Step {
    step: String,
    origin: String,
    digest: String,
}

/// Prints the digests.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mapped = opened::map(&args.file)?;
    let file = opened::read(&mapped)?;
    let isolations: Vec<Isolation> = match args.platform {
        Some(isolation) => vec![isolation],
        None => file
            .platforms()
            .iter()
            .map(|p| p.isolation)
            .filter(|i| has_digest(*i))
            .collect(),
    };
    if isolations.is_empty() {
        let text = "no platform of the file has a launch digest that is known before the launch";
        return Err(Failure::Usage(format!("{}: {text}", args.file.display())));
    }
    let mut records = Vec::new();
    for isolation in isolations {
        let plan = opened::plan(&mapped, &file, isolation)?;
        records.push(record(&plan, args)?);
    }
    if args.json {
        let text = serde_json::to_string_pretty(&records).map_err(|e| Failure::Unreadable(e.to_string()))?;
        println!("{text}");
    } else {
        records.iter().for_each(print);
    }
    opened::finish(&mapped, Outcome::Fine)
}

fn has_digest(isolation: Isolation) -> bool {
    !matches!(isolation, Isolation::Native | Isolation::Cca)
}

fn record(plan: &LaunchPlan<'_>, args: &Args) -> Result<Record, Failure> {
    let options = Options {
        profile: args.profile,
        vp_count: args.vp_count,
        trace: args.trace,
    };
    let usage = |e: launch_digest::MeasureError| Failure::Usage(e.to_string());
    let measurement = measure(plan, &options).map_err(usage)?;
    let others = other_profiles(plan, &measurement).map_err(usage)?;
    let steps = measurement.trace.iter().map(|s| Step {
        step: s.what.clone(),
        origin: s.origin.to_string(),
        digest: s.digest.to_string(),
    });
    Ok(Record {
        schema: 1,
        platform: plan.facts.isolation.name(),
        profile: args.profile.name(),
        vp_count: measurement.vp_count,
        digest: measurement.digest.to_string(),
        trace: steps.collect(),
        other_profiles: others,
        warnings: measurement.warnings,
    })
}

/// The profiles that give another digest, and the step in which each parts from this one. TDX and VBS
/// have one reading.
fn other_profiles(
    plan: &LaunchPlan<'_>,
    this: &Measurement,
) -> Result<Vec<Other>, launch_digest::MeasureError> {
    let mut out = Vec::new();
    if matches!(plan.facts.isolation, Isolation::Tdx | Isolation::Vsm) {
        return Ok(out);
    }
    for other in Profile::ALL.into_iter().filter(|p| *p != this.profile) {
        let options = Options {
            profile: other,
            vp_count: Some(this.vp_count),
            trace: false,
        };
        let digest = measure(plan, &options)?.digest;
        if digest == this.digest {
            continue;
        }
        let reading = |profile| Reading {
            plan,
            profile,
            vp_count: this.vp_count,
        };
        let difference = first_difference(reading(this.profile), reading(other))?;
        out.push(Other {
            profile: other.name(),
            digest: digest.to_string(),
            first_difference: difference.map_or_else(String::new, |d| d.to_string()),
        });
    }
    Ok(out)
}

fn print(record: &Record) {
    for step in &record.trace {
        println!("{}  {} ({})", step.digest, step.step, step.origin);
    }
    let vps = if record.vp_count == 1 { "vp" } else { "vps" };
    println!(
        "{} {} ({}, {} {vps})",
        record.digest, record.platform, record.profile, record.vp_count
    );
    for warning in &record.warnings {
        println!("  warning: {warning}");
    }
    for other in &record.other_profiles {
        println!("  {} reads it differently: {}", other.profile, other.digest);
        println!("    {}", other.first_difference);
    }
}
