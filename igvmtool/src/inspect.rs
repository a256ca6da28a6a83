// SPDX-License-Identifier: MIT
//! `igvmtool inspect`: what a file starts, platform by platform, as text, JSON or a picture.
//!
//! Always true: the text, the JSON and the pictures show one [`Overview`]; a platform that has no plan is
//! a finding. Not here: collecting ([`crate::overview`]).

mod text;

pub(crate) use text::size;

use crate::failure::{Failure, Outcome};
use crate::opened;
use crate::overview::schema::Overview;
use crate::progress;
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
    /// Draws guest memory into this file, as SVG; texts are left out.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "pages", "registers"])]
    svg: Option<PathBuf>,
    /// The same as a page with details on hover and tables, in one file without network.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "pages", "registers"])]
    html: Option<PathBuf>,
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
    let name = args.file.display().to_string();
    let overview = progress::during("reading", || Overview::of(&name, &file, args.platform));
    if overview.platforms.is_empty()
        && let Some(platform) = args.platform
    {
        let has: Vec<_> = file.platforms().iter().map(|p| p.isolation.name()).collect();
        let text = format!("the file has no platform {platform}; it has {}", has.join(", "));
        return Err(Failure::Usage(format!("{}: {text}", args.file.display())));
    }
    if args.svg.is_some() || args.html.is_some() {
        draw(args, &overview)?;
    } else if args.json {
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

/// Writes the pictures that are asked for.
fn draw(args: &Args, overview: &Overview) -> Result<(), Failure> {
    if let Some(path) = &args.svg {
        let picture = crate::picture::svg(overview);
        crate::output::write(path, |out| out.write_all(picture.as_bytes()))?;
    }
    if let Some(path) = &args.html {
        let page = crate::picture::html(overview);
        crate::output::write(path, |out| out.write_all(page.as_bytes()))?;
    }
    Ok(())
}
