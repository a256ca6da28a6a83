// SPDX-License-Identifier: MIT
//! `igvmtool extract` and `igvmtool pack`: a file as a folder of payloads with an editable manifest, and
//! back.

use crate::failure::{Failure, Outcome};
use crate::{opened, progress, unpacked};
use std::path::PathBuf;

/// Options of `extract`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExtractArgs {
    /// The IGVM file.
    file: PathBuf,
    /// The folder to make; it must be empty or not exist.
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

/// Options of `pack`.
#[derive(Debug, clap::Args)]
pub(crate) struct PackArgs {
    /// A folder that `extract` made.
    folder: PathBuf,
    /// The IGVM file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Writes the folder.
pub(crate) fn extract(args: &ExtractArgs) -> Result<Outcome, Failure> {
    let mapped = opened::map(&args.file)?;
    let file = opened::read(&mapped)?;
    let shown = args.output.display();
    let count = progress::during("extracting", || unpacked::extract(&file, &args.output))
        .map_err(|error| Failure::Unreadable(format!("cannot write {shown}: {error}")))?;
    println!("{shown}: {} and {count} payload files", unpacked::MANIFEST);
    opened::finish(&mapped, Outcome::Fine)
}

/// Writes the file.
pub(crate) fn pack(args: &PackArgs) -> Result<Outcome, Failure> {
    let packed = progress::during("packing", || unpacked::pack(&args.folder, &args.output))?;
    let layout = if packed.same_layout {
        "data where it was"
    } else {
        "data laid out anew"
    };
    println!("{}: {:#x} bytes, {layout}", args.output.display(), packed.bytes);
    Ok(Outcome::Fine)
}
