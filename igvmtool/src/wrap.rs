// SPDX-License-Identifier: MIT
//! `igvmtool wrap`: an OVMF image becomes an IGVM file for one or more platforms. The short form of a
//! manifest with `ovmf` images.

use crate::failure::{Failure, Outcome};
use crate::made::Made;
use crate::progress;
use launch_plan::Isolation;
use std::path::PathBuf;
use vm_loaders::igvm::{EncodeOptions, FormatVersion, encode};
use vm_loaders::ovmf::{self, Entry, WrapOptions};

/// Options of `wrap`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The OVMF image (.fd).
    firmware: PathBuf,
    /// The IGVM file to write.
    #[arg(short, long)]
    output: PathBuf,
    /// A platform of the file: native, sev, sev-es, sev-snp or tdx. Repeatable; the order is kept.
    #[arg(long, required = true, value_parser = platform)]
    platform: Vec<Isolation>,
    /// Virtual processors that get an initial state (sev-es, sev-snp).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=512))]
    vp_count: u32,
    /// Enter a native image in flat 32-bit protected mode instead of at the 16-bit reset vector.
    #[arg(long)]
    flat32: bool,
    /// Repeat the last 128 KiB of the image below 1 MiB (native).
    #[arg(long)]
    mirror: bool,
    /// CPUID signature (leaf 1 EAX) that processors have in RDX at reset (sev-es, sev-snp).
    #[arg(long, default_value = "0x600", value_parser = number)]
    cpu_signature: u64,
    /// Guest policy instead of the platform's usual one: NUMBER for a single platform, PLATFORM=NUMBER for
    /// one of several. Repeatable.
    #[arg(long, value_name = "[PLATFORM=]POLICY", value_parser = policy)]
    policy: Vec<(Option<Isolation>, u64)>,
    /// Format version of the file.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    format: u8,
    /// JSON about the file on standard output (schema version 1).
    #[arg(long)]
    json: bool,
}

fn platform(name: &str) -> Result<Isolation, String> {
    match name {
        "native" => Ok(Isolation::Native),
        "snp" | "sev-snp" => Ok(Isolation::Snp),
        "sev-es" => Ok(Isolation::SevEs),
        "sev" => Ok(Isolation::Sev),
        "tdx" => Ok(Isolation::Tdx),
        _ => Err("known platforms are native, sev, sev-es, sev-snp and tdx".into()),
    }
}

fn policy(text: &str) -> Result<(Option<Isolation>, u64), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((Some(platform(name)?), number(value)?)),
        None => Ok((None, number(text)?)),
    }
}

/// The policy that the user gave a platform.
fn policy_of(args: &Args, isolation: Isolation) -> Result<Option<u64>, Failure> {
    let mut found = None;
    for (wanted, value) in &args.policy {
        match wanted {
            None if args.platform.len() > 1 => {
                return Err(Failure::Usage(format!(
                    "--policy {value:#x}: the file has several platforms; say which, for example --policy snp={value:#x}"
                )));
            }
            Some(wanted) if !args.platform.contains(wanted) => {
                return Err(Failure::Usage(format!(
                    "--policy {wanted}={value:#x}: the file has no such platform"
                )));
            }
            Some(wanted) if *wanted != isolation => {}
            _ => found = Some(*value),
        }
    }
    Ok(found)
}

/// A decimal or 0x-prefixed number.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| format!("not a number: {e}"))
}

/// Writes the file.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    if let Some(made) = progress::during("wrapping", || wrap(args))? {
        crate::output::json(&made)?;
    }
    Ok(Outcome::Fine)
}

/// Wraps; describes the result if `--json` asks for it.
fn wrap(args: &Args) -> Result<Option<Made>, Failure> {
    let shown = args.firmware.display();
    let image = std::fs::read(&args.firmware).map_err(|e| Failure::Unreadable(format!("{shown}: {e}")))?;
    let signature = u32::try_from(args.cpu_signature)
        .map_err(|_| Failure::Usage("--cpu-signature: a signature has 32 bits".into()))?;
    let mut plans = Vec::new();
    for isolation in &args.platform {
        let options = WrapOptions {
            entry: if args.flat32 { Entry::Flat32 } else { Entry::Real16 },
            mirror: args.mirror,
            signature,
            policy: policy_of(args, *isolation)?,
            ..WrapOptions::new(*isolation, args.vp_count)
        };
        plans.push(ovmf::plan(&image, &options).map_err(|e| Failure::Unreadable(format!("{shown}: {e}")))?);
    }
    let format = if args.format == 2 {
        FormatVersion::V2
    } else {
        FormatVersion::V1
    };
    let encoded = encode(
        &plans,
        &EncodeOptions {
            format,
            version_string: None,
        },
    );
    let encoded = encoded.map_err(|e| Failure::Usage(e.to_string()))?;
    crate::output::write(&args.output, |out| encoded.write_to(out))?;
    let describe = || Made::new(&args.output, encoded.len(), format, &plans);
    args.json.then(describe).transpose()
}
