// SPDX-License-Identifier: MIT
//! `igvmtool inspect`: what a file starts, platform by platform, as text, JSON or a picture.
//!
//! Always true: the text, the JSON and the pictures show one [`Overview`]; a platform that has no plan is
//! a finding. Not here: collecting ([`crate::overview`]).

mod text;

use crate::failure::{Failure, Outcome};
use crate::opened;
use crate::overview::schema::Overview;
use launch_plan::Isolation;
use std::io::Write;
use std::path::PathBuf;

/// Options of `inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The IGVM file.
    file: PathBuf,
    /// Only this platform: native, vsm, sev, sev-es, snp, tdx or cca.
    #[arg(long, value_parser = platform)]
    platform: Option<Isolation>,
    /// Every page on a line of its own, in launch order.
    #[arg(long)]
    pages: bool,
    /// Every register of every VP context.
    #[arg(long)]
    registers: bool,
    /// JSON instead of text (schema version 1; all registers, no pages).
    #[arg(long, conflicts_with = "pages")]
    json: bool,
}

/// The platform with a name, any of them.
pub(crate) fn platform(name: &str) -> Result<Isolation, String> {
    match name {
        "native" => Ok(Isolation::Native),
        "vsm" | "vbs" => Ok(Isolation::Vsm),
        "sev" => Ok(Isolation::Sev),
        "sev-es" => Ok(Isolation::SevEs),
        "snp" | "sev-snp" => Ok(Isolation::Snp),
        "tdx" => Ok(Isolation::Tdx),
        "cca" => Ok(Isolation::Cca),
        _ => Err("known platforms are native, vsm, sev, sev-es, snp, tdx and cca".into()),
    }
}

/// Prints the overview.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mapped = opened::map(&args.file)?;
    let file = opened::read(&mapped)?;
    let overview = Overview::of(&args.file.display().to_string(), &file, args.platform);
    if overview.platforms.is_empty()
        && let Some(platform) = args.platform
    {
        let has: Vec<_> = file.platforms().iter().map(|p| p.isolation.name()).collect();
        let text = format!("the file has no platform {platform}; it has {}", has.join(", "));
        return Err(Failure::Usage(format!("{}: {text}", args.file.display())));
    }
    if args.json {
        crate::output::json(&overview)?;
    } else {
        crate::output::stdout(|out| {
            text::write(out, &overview, args.registers)?;
            if args.pages {
                for view in &overview.platforms {
                    writeln!(out, "\npages of platform {} in launch order", view.platform)?;
                    text::pages(out, &file, view)?;
                }
            }
            Ok(())
        })?;
    }
    let refused = overview.platforms.iter().any(|view| view.refused.is_some());
    let outcome = if refused || overview.platforms.is_empty() {
        Outcome::Findings
    } else {
        Outcome::Fine
    };
    opened::finish(&mapped, outcome)
}
