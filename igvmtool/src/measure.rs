// SPDX-License-Identifier: MIT
//! `igvmtool measure`: launch digests of a file, and why other tools print other ones.

pub(crate) mod against;

use crate::failure::{Failure, Outcome};
use crate::{opened, progress};
use launch_digest::{
    Digest, Measurement, Options, Profile, Subject, first_difference_of, measure_among, profile_digests,
};
use launch_plan::{Isolation, LaunchPlan};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use vm_loaders::igvm::{File, MappedFile};

/// Version of the `measure --json` schema.
const SCHEMA: u32 = 1;

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
    #[arg(long, conflicts_with = "against")]
    trace: bool,
    /// Says which profile, VP count, save area or missing step gives this digest (hex); exit code 1 unless
    /// it is that of a launch through KVM.
    #[arg(long, value_name = "DIGEST", value_parser = against::digest)]
    against: Option<Digest>,
}

/// The plans of all platforms of a file.
pub(crate) fn plans<'a>(mapped: &MappedFile, file: &File<'a>) -> Result<Vec<LaunchPlan<'a>>, Failure> {
    let platforms = file.platforms();
    let plans = platforms.iter();
    plans
        .map(|platform| opened::plan(mapped, file, platform.isolation))
        .collect()
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

/// Prints the digests, or the answer to `--against`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mapped = opened::map(&args.file)?;
    let file = opened::read(&mapped)?;
    let mut plans = progress::during("reading", || plans(&mapped, &file))?;
    if let Some(wanted) = args.platform
        && !plans.iter().any(|plan| plan.facts.isolation == wanted)
    {
        // Refuses with the platforms that there are.
        opened::plan(&mapped, &file, wanted)?;
    }
    if let Some(digest) = &args.against {
        let answers = against::answer(&plans, args.platform, digest, args.vp_count)?;
        let outcome = against::report(&answers, args.json)?;
        return opened::finish(&mapped, outcome);
    }
    let records = progress::during("measuring", || records(&mut plans, args))?;
    if records.is_empty() {
        let text = "no platform of the file has a launch digest that is known before the launch";
        return Err(Failure::Usage(format!("{}: {text}", args.file.display())));
    }
    if args.json {
        crate::output::json(&records)?;
    } else {
        crate::output::stdout(|out| records.iter().try_for_each(|record| write(out, record)))?;
    }
    opened::finish(&mapped, Outcome::Fine)
}

pub(crate) const fn has_digest(isolation: Isolation) -> bool {
    !matches!(isolation, Isolation::Native | Isolation::Cca)
}

fn records(plans: &mut Vec<LaunchPlan<'_>>, args: &Args) -> Result<Vec<Record>, Failure> {
    let mut out = Vec::new();
    for number in 0..plans.len() {
        let plan = plans.remove(number);
        let isolation = plan.facts.isolation;
        if has_digest(isolation) && args.platform.is_none_or(|wanted| wanted == isolation) {
            out.push(record(&plan, plans, args)?);
        }
        plans.insert(number, plan);
    }
    Ok(out)
}

fn record(plan: &LaunchPlan<'_>, others: &[LaunchPlan<'_>], args: &Args) -> Result<Record, Failure> {
    let options = Options {
        profile: args.profile,
        vp_count: args.vp_count,
        trace: args.trace,
    };
    let usage = |e: launch_digest::MeasureError| Failure::Usage(e.to_string());
    let mut measurement = measure_among(plan, others, &options).map_err(usage)?;
    let readings = other_profiles(plan, others, &measurement).map_err(usage)?;
    let steps = measurement.trace.iter().map(|s| Step {
        step: s.what.clone(),
        origin: s.origin.to_string(),
        digest: s.digest.to_string(),
    });
    let steps = steps.collect();
    measurement
        .warnings
        .extend(endorsed(plan, &measurement, &readings));
    Ok(Record {
        schema: SCHEMA,
        platform: plan.facts.isolation.name(),
        profile: args.profile.name(),
        vp_count: measurement.vp_count,
        digest: measurement.digest.to_string(),
        trace: steps,
        other_profiles: readings,
        warnings: measurement.warnings,
    })
}

/// Where the file itself names a digest and it is another one.
fn endorsed(plan: &LaunchPlan<'_>, this: &Measurement, readings: &[Other]) -> Vec<String> {
    let block = plan
        .endorsements
        .id_block
        .as_ref()
        .map(|block| ("id block", &block.launch_digest[..]));
    let vbs = plan.endorsements.vbs_measurement.as_ref();
    let vbs = vbs.map(|it| ("vbs measurement", &it.digest[..32]));
    let mut out = Vec::new();
    for (what, bytes) in block.into_iter().chain(vbs) {
        if bytes == this.digest.0 {
            continue;
        }
        let named = Digest(bytes.to_vec()).to_string();
        let reading = readings.iter().find(|other| other.digest == named);
        let whose = reading.map_or_else(String::new, |other| {
            format!(", which is the {} reading", other.profile)
        });
        out.push(format!("the file's {what} names digest {named}{whose}"));
    }
    out
}

/// The profiles that give another digest, and the step in which each parts from this one. TDX and VBS
/// have one reading.
fn other_profiles(
    plan: &LaunchPlan<'_>,
    others: &[LaunchPlan<'_>],
    this: &Measurement,
) -> Result<Vec<Other>, launch_digest::MeasureError> {
    let mut out = Vec::new();
    if matches!(plan.facts.isolation, Isolation::Tdx | Isolation::Vsm) {
        return Ok(out);
    }
    for (other, digest) in profile_digests(plan, others, this.vp_count)? {
        if digest == this.digest {
            continue;
        }
        let subject = |profile: Profile| Subject {
            plan,
            others,
            vp_count: this.vp_count,
            rules: profile.rules(),
        };
        let difference = first_difference_of(&subject(this.profile), &subject(other))?;
        out.push(Other {
            profile: other.name(),
            digest: digest.to_string(),
            first_difference: difference.map_or_else(String::new, |d| d.to_string()),
        });
    }
    Ok(out)
}

fn write(out: &mut impl Write, record: &Record) -> std::io::Result<()> {
    for step in &record.trace {
        writeln!(out, "{}  {} ({})", step.digest, step.step, step.origin)?;
    }
    let vps = if record.vp_count == 1 { "vp" } else { "vps" };
    writeln!(
        out,
        "{} {} ({}, {} {vps})",
        record.digest, record.platform, record.profile, record.vp_count
    )?;
    for warning in &record.warnings {
        writeln!(out, "  warning: {warning}")?;
    }
    for other in &record.other_profiles {
        writeln!(out, "  {} reads it differently: {}", other.profile, other.digest)?;
        writeln!(out, "    {}", other.first_difference)?;
    }
    Ok(())
}
