// SPDX-License-Identifier: MIT
//! `igvmtool update`: changes one thing in a file and keeps everything else.
//!
//! Always true: headers that are not concerned keep their bytes and their order, the format version stays;
//! the result is checked, and it appears complete or not at all. A change of what an ID block vouches for
//! needs a word about the block: a new signature or its removal. Not here: the mechanics of edits
//! (`vm_loaders::igvm::Edit`).

mod firmware;
mod linux;
mod pages;
mod platforms;
mod seal;

use crate::failure::{Failure, Outcome};
use crate::inspect::platform;
use crate::{opened, progress};
use launch_plan::Isolation;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use vm_loaders::igvm::{Edit, File, Header, MappedFile, NewHeader, Section};

/// Options of `update`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
pub(crate) struct Args {
    /// The IGVM file.
    file: PathBuf,
    /// The file to write.
    #[arg(short, long)]
    output: PathBuf,
    /// Another kernel (bzImage) for a Linux image.
    #[arg(long, value_name = "FILE", group = "change")]
    kernel: Option<PathBuf>,
    /// Another initial RAM disk for a Linux image that has one.
    #[arg(long, value_name = "FILE", group = "change")]
    initrd: Option<PathBuf>,
    /// Another command line.
    #[arg(long, value_name = "TEXT", group = "change")]
    cmdline: Option<String>,
    /// Another OVMF or MSVM.fd image, of the same size and with the same tables.
    #[arg(long, value_name = "FILE", group = "change")]
    firmware: Option<PathBuf>,
    /// Another guest policy, for the platform of --platform.
    #[arg(long, value_parser = crate::wrap::number, group = "change", requires = "platform")]
    policy: Option<u64>,
    /// The platform that --policy is for.
    #[arg(long, value_parser = platform)]
    platform: Option<Isolation>,
    /// Initial data of a parameter area. Repeatable.
    #[arg(long, value_name = "AREA=FILE", group = "change", value_parser = area_data)]
    parameter_data: Vec<(u32, PathBuf)>,
    /// Takes a platform out, before anything else changes. Repeatable.
    #[arg(long, value_name = "PLATFORM", group = "change", value_parser = platform)]
    strip: Vec<Isolation>,
    /// Adds the platforms of another file that this one has not. Repeatable.
    #[arg(long, value_name = "FILE", group = "change")]
    merge: Vec<PathBuf>,
    /// Takes headers out: optional, version-string, corim, id-block or vbs-measurement. Repeatable.
    #[arg(long, value_name = "HEADERS", group = "change", value_parser = dropped)]
    drop: Vec<&'static Dropped>,
    /// P-384 private key in PEM that signs the ID block anew.
    #[arg(long, value_name = "PEM", group = "change")]
    id_key: Option<PathBuf>,
    /// P-384 private key in PEM that signs the ID key.
    #[arg(long, value_name = "PEM", requires = "id_key")]
    author_key: Option<PathBuf>,
    /// JSON instead of text (schema version 1).
    #[arg(long)]
    json: bool,
}

/// Headers that can be taken out by name.
#[derive(Debug, PartialEq, Eq)]
struct Dropped {
    name: &'static str,
    /// Types; none stands for every header with the optional bit.
    types: &'static [u32],
}

const DROPPED: &[Dropped] = &[
    Dropped {
        name: "optional",
        types: &[],
    },
    Dropped {
        name: "version-string",
        types: &[0x107],
    },
    Dropped {
        name: "corim",
        types: &[0x104, 0x105],
    },
    Dropped {
        name: "id-block",
        types: &[0x30B],
    },
    Dropped {
        name: "vbs-measurement",
        types: &[0x311],
    },
];

fn dropped(name: &str) -> Result<&'static Dropped, String> {
    DROPPED.iter().find(|row| row.name == name).ok_or_else(|| {
        let known: Vec<_> = DROPPED.iter().map(|row| row.name).collect();
        format!("known are {}", known.join(", "))
    })
}

fn area_data(text: &str) -> Result<(u32, PathBuf), String> {
    let (area, path) = text.split_once('=').ok_or("an area's index, =, and a file")?;
    let area = area
        .parse()
        .map_err(|error| format!("{area:?} is no area index: {error}"))?;
    Ok((area, path.into()))
}

/// A change that cannot be made.
fn refuse(message: impl std::fmt::Display) -> Failure {
    Failure::Usage(message.to_string())
}

/// Files that the edit borrows from.
struct Inputs {
    kernel: Option<Vec<u8>>,
    initrd: Option<Vec<u8>>,
    firmware: Option<Vec<u8>>,
    merge: Vec<MappedFile>,
    areas: Vec<(u32, Vec<u8>)>,
}

impl Inputs {
    fn read(args: &Args) -> Result<Self, Failure> {
        let optional = |path: &Option<PathBuf>| path.as_deref().map(crate::sign::bytes).transpose();
        let mut areas = Vec::new();
        for (area, path) in &args.parameter_data {
            areas.push((*area, crate::sign::bytes(path)?));
        }
        let merge: Result<_, _> = args.merge.iter().map(|path| opened::map(path)).collect();
        Ok(Self {
            kernel: optional(&args.kernel)?,
            initrd: optional(&args.initrd)?,
            firmware: optional(&args.firmware)?,
            merge: merge?,
            areas,
        })
    }
}

/// Changes the file and says what became of its digests.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mapped = opened::map(&args.file)?;
    let updated = progress::during("updating", || update(args, &mapped))?;
    for index in &updated.unknown_headers {
        eprintln!("igvmtool: note: header {index} is of an unknown optional type and stays as it is");
    }
    if args.json {
        crate::output::json(&updated)?;
    } else {
        crate::output::stdout(|out| updated.write(out))?;
    }
    opened::finish(&mapped, Outcome::Fine)
}

fn update(args: &Args, mapped: &MappedFile) -> Result<Updated, Failure> {
    let before = opened::read(mapped)?;
    let inputs = Inputs::read(args)?;
    let keys = seal::Keys::read(args.id_key.as_deref(), args.author_key.as_deref())?;
    // A file of its own, so that new contents need to fit the platforms that are left, and those alone.
    let stripped = match &args.strip[..] {
        [] => None,
        platforms => Some(stripped(&before, platforms, &args.output)?),
    };
    let file = match &stripped {
        None => before.clone(),
        Some((left, _)) => File::read(left.bytes())
            .map_err(|problem| refuse(format!("--strip: what is left cannot be read: {problem}")))?,
    };
    let mut edit = Edit::new(&file);
    change(&mut edit, args, &inputs)?;
    let unknown_headers = edit.unknown_headers().collect();
    let encoded = edit.finish().map_err(refuse)?;
    let draft = Draft::new(&args.output, ".draft");
    crate::output::write(&draft.0, |out| encoded.write_to(out))?;
    let updated = seal::finish(&before, &draft.0, &args.output, keys.as_ref())?;
    Ok(Updated {
        unknown_headers,
        ..updated
    })
}

/// What is left of a file without some platforms, and the draft that it is mapped from.
fn stripped(file: &File<'_>, platforms: &[Isolation], output: &Path) -> Result<(MappedFile, Draft), Failure> {
    let mut edit = Edit::new(file);
    platforms::strip(&mut edit, platforms)?;
    let encoded = edit.finish().map_err(refuse)?;
    let draft = Draft::new(output, ".stripped");
    crate::output::write(&draft.0, |out| encoded.write_to(out))?;
    Ok((opened::map(&draft.0)?, draft))
}

/// Everything but stripping, in one edit.
fn change<'a>(edit: &mut Edit<'a>, args: &Args, inputs: &'a Inputs) -> Result<(), Failure> {
    if let Some(policy) = args.policy {
        set_policy(edit, args.platform, policy)?;
    }
    for (area, bytes) in &inputs.areas {
        pages::set_area(edit, *area, bytes)?;
    }
    if let Some(image) = &inputs.firmware {
        firmware::replace(edit, image)?;
    }
    linux::replace(
        edit,
        inputs.kernel.as_deref(),
        inputs.initrd.as_deref(),
        args.cmdline.as_deref(),
    )?;
    for other in &inputs.merge {
        let other = opened::read(other)?;
        platforms::merge(edit, &other)?;
    }
    // Last, because changing a header that was taken out would bring it back.
    drop_headers(edit, &args.drop)
}

/// What became of a file, as `--json` prints it (schema version 1).
#[derive(Debug, Serialize)]
struct Updated {
    schema: u32,
    /// The file as it was named.
    output: String,
    bytes: u64,
    format_version: u32,
    /// In file order.
    platforms: Vec<UpdatedPlatform>,
    /// Whether the ID block was signed anew.
    signed_anew: bool,
    /// Headers of unknown optional types, which stay as they are.
    unknown_headers: Vec<u32>,
}

/// A platform of it.
#[derive(Debug, Serialize)]
struct UpdatedPlatform {
    platform: &'static str,
    /// `None` where there was none: on other platforms, and before a platform was merged in.
    launch_digest_before: Option<String>,
    launch_digest: Option<String>,
}

impl Updated {
    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        for row in &self.platforms {
            let name = row.platform;
            match (&row.launch_digest_before, &row.launch_digest) {
                (Some(old), Some(new)) if old == new => {
                    writeln!(out, "{name}: the launch digest stays {new}")?;
                }
                (Some(old), Some(new)) => writeln!(out, "{name}: the launch digest {old} becomes {new}")?,
                (None, Some(new)) => writeln!(out, "{name}: the launch digest is {new}")?,
                (_, None) => {}
            }
        }
        if self.signed_anew {
            writeln!(out, "snp: the id block is signed anew")?;
        }
        Ok(())
    }
}

/// A result that is not checked yet; goes away with this value.
struct Draft(PathBuf);

impl Draft {
    fn new(output: &Path, ending: &str) -> Self {
        let mut name = output.as_os_str().to_owned();
        name.push(ending);
        Self(name.into())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is gone already when it became the result.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn drop_headers(edit: &mut Edit<'_>, drop: &[&'static Dropped]) -> Result<(), Failure> {
    for row in drop {
        let headers = edit.file().headers().to_vec();
        let mut found = false;
        for (index, raw) in headers.iter().enumerate() {
            if row.types.contains(&raw.typ) || (row.types.is_empty() && raw.is_optional()) {
                edit.remove(index as u32).map_err(refuse)?;
                found = true;
            }
        }
        if !found {
            return Err(refuse(format!(
                "--drop {}: the file has no such header",
                row.name
            )));
        }
    }
    Ok(())
}

fn set_policy(edit: &mut Edit<'_>, platform: Option<Isolation>, policy: u64) -> Result<(), Failure> {
    let file = edit.file().clone();
    let wanted = file
        .platforms()
        .into_iter()
        .find(|p| Some(p.isolation) == platform);
    let wanted = wanted.ok_or_else(|| refuse("--policy: the file has no such platform"))?;
    let found = headers(&file).find_map(|(index, header)| match header {
        Header::GuestPolicy(h) if h.compatibility_mask & wanted.mask != 0 => Some((index, h)),
        _ => None,
    });
    let header = igvm_defs::IGVM_VHS_GUEST_POLICY {
        policy,
        compatibility_mask: wanted.mask,
        reserved: 0,
    };
    match found {
        None => {
            let place = edit.end_of(Section::Initialization);
            edit.insert(place, NewHeader::new(&Header::GuestPolicy(header)))
                .map_err(refuse)
        }
        Some((_, old)) if old.compatibility_mask != wanted.mask => Err(refuse(format!(
            "--policy: the file has one policy for several platforms (mask {:#x})",
            old.compatibility_mask
        ))),
        Some((index, _)) => edit.patch(index, 0, &policy.to_le_bytes()).map_err(refuse),
    }
}

/// The known headers of a file with their indexes.
fn headers<'f, 'a>(file: &'f File<'a>) -> impl Iterator<Item = (u32, Header<'a>)> + 'f {
    let all = file.headers().iter().enumerate();
    all.filter_map(|(index, raw)| Some((index as u32, file.decode(raw).ok()?)))
}
