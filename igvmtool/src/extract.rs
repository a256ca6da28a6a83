// SPDX-License-Identifier: MIT
//! `igvmtool extract` and `igvmtool pack`: a file as a folder of payloads with an editable manifest, and
//! back.

use crate::failure::{Failure, Outcome};
use crate::made::SCHEMA;
use crate::{opened, progress, unpacked};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Options of `extract`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExtractArgs {
    /// The IGVM file.
    file: PathBuf,
    /// The folder to make; it must be empty or not exist.
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// JSON instead of text (schema version 1).
    #[arg(long)]
    json: bool,
}

/// Options of `pack`.
#[derive(Debug, clap::Args)]
pub(crate) struct PackArgs {
    /// A folder that `extract` made.
    folder: PathBuf,
    /// The IGVM file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// JSON instead of text (schema version 1).
    #[arg(long)]
    json: bool,
}

/// What `extract --json` prints (schema version 1).
#[derive(Serialize)]
struct Extracted {
    schema: u32,
    /// The folder as it was named.
    output: String,
    /// The manifest's name in it.
    manifest: &'static str,
    /// Number of payload files.
    payloads: usize,
}

/// What `pack --json` prints (schema version 1).
#[derive(Serialize)]
struct Packed {
    schema: u32,
    /// The file as it was named.
    output: String,
    bytes: u64,
    /// Data went back to where it was; otherwise it was laid out anew.
    same_layout: bool,
}

/// Writes the folder.
pub(crate) fn extract(args: &ExtractArgs) -> Result<Outcome, Failure> {
    let mapped = opened::map(&args.file)?;
    let file = opened::read(&mapped)?;
    let shown = args.output.display();
    let count = progress::during("extracting", || unpacked::extract(&file, &args.output))
        .map_err(|error| Failure::Unreadable(format!("cannot write {shown}: {error}")))?;
    if args.json {
        crate::output::json(&Extracted {
            schema: SCHEMA,
            output: shown.to_string(),
            manifest: unpacked::MANIFEST,
            payloads: count,
        })?;
    } else {
        crate::output::stdout(|out| {
            writeln!(out, "{shown}: {} and {count} payload files", unpacked::MANIFEST)
        })?;
    }
    opened::finish(&mapped, Outcome::Fine)
}

/// Writes the file.
pub(crate) fn pack(args: &PackArgs) -> Result<Outcome, Failure> {
    let packed = progress::during("packing", || unpacked::pack(&args.folder, &args.output))?;
    let shown = args.output.display();
    if args.json {
        crate::output::json(&Packed {
            schema: SCHEMA,
            output: shown.to_string(),
            bytes: packed.bytes,
            same_layout: packed.same_layout,
        })?;
    } else {
        let layout = if packed.same_layout {
            "data where it was"
        } else {
            "data laid out anew"
        };
        crate::output::stdout(|out| writeln!(out, "{shown}: {:#x} bytes, {layout}", packed.bytes))?;
    }
    Ok(Outcome::Fine)
}
