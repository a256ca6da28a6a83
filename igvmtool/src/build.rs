// SPDX-License-Identifier: MIT
//! `igvmtool build`: a manifest and resources become an IGVM file and its map.
//!
//! Always true: the output depends on the manifest, the resources and the options only, bit for bit; it
//! appears under its name complete or not at all. Not here: the images' plans (`vm_loaders`; `flat`
//! and `uefi_aarch64` here), encoding (`vm_loaders::igvm::encode`).

mod documents;
mod flat;
mod isolated;
mod linux;
mod map;
mod platform;
mod provenance;
mod resources;
mod uefi_aarch64;

use crate::failure::{Failure, Outcome};
use crate::made::Made;
use crate::manifest::{
    Guest, GuestArch, Image, IsolationType, Manifest, ManifestError, Place, UefiConfigType,
};
use crate::{output, progress};
use clap::ValueEnum;
use documents::Document;
use launch_plan::{Arch, Isolation, LaunchPlan, PlanBuilder, PlatformFacts};
use platform::PlatformChoice;
use provenance::Provenance;
use resources::{ResourceArg, Resources};
use std::io::Write;
use std::path::PathBuf;
use vm_loaders::igvm::{EncodeOptions, FormatVersion, encode_with_records};
use vm_loaders::uefi::{self, ConfigType};

/// Options of `build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Manifest (JSON).
    #[arg(short, long, value_name = "FILE")]
    manifest: PathBuf,
    /// Builds only the guests with this isolation; repeatable. All guests of the manifest by default.
    #[arg(short, long, value_enum, value_name = "ISOLATION")]
    guest: Vec<GuestName>,
    /// A file that the manifest's images need; repeatable.
    #[arg(short, long, value_name = "NAME=PATH", value_parser = resources::parse)]
    resource: Vec<ResourceArg>,
    /// The IGVM file to write. Its map goes beside it as FILE.map, and the CoRIM documents of SEV-SNP, TDX
    /// and VBS guests as BASE-snp.cbor, BASE-tdx.cbor and BASE-vbs.cbor.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Format version; 1 for x64 and 2 for aarch64 by default.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    format: Option<u8>,
    /// Platform of guests with isolation none; native for images linux and ovmf and vsm for others by
    /// default.
    #[arg(long, value_enum)]
    platform: Option<PlatformChoice>,
    /// Puts the CoRIM documents into the file, too.
    #[arg(long)]
    embed_corim: bool,
    /// Writes the hashes of all inputs to FILE.provenance.json and into the file as an optional record,
    /// which the igvm crate 0.5.0 refuses.
    #[arg(long)]
    provenance: bool,
    /// JSON about the file on standard output (schema version 1).
    #[arg(long)]
    json: bool,
}

/// A guest of a manifest, by its isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GuestName {
    None,
    Vbs,
    Sev,
    SevEs,
    Snp,
    Tdx,
}

impl GuestName {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Vbs => "vbs",
            Self::Sev => "sev",
            Self::SevEs => "sev-es",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        }
    }
}

/// Builds.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    if let Some(made) = progress::during("building", || build(args))? {
        output::json(&made)?;
    }
    Ok(Outcome::Fine)
}

/// Builds; describes the result if `--json` asks for it.
fn build(args: &Args) -> Result<Option<Made>, Failure> {
    let name = args.manifest.display().to_string();
    let text = std::fs::read_to_string(&args.manifest)
        .map_err(|error| Failure::Unreadable(format!("cannot read the manifest {name}: {error}")))?;
    let manifest = Manifest::parse(&name, &text).map_err(usage)?;
    let guests = select(&name, &manifest, &args.guest)?;
    let resources = Resources::read(&args.resource)?;
    let mut plans: Vec<LaunchPlan<'_>> = Vec::new();
    let mut documents = Vec::new();
    for guest in guests {
        let refused = |(place, what)| {
            usage(ManifestError {
                file: name.clone(),
                place,
                what,
            })
        };
        let (plan, document) = guest_plan(manifest.arch, guest, &resources, args).map_err(refused)?;
        plans.push(plan);
        documents.extend(document);
    }
    let format = match (args.format, manifest.arch) {
        (Some(1), _) | (None, GuestArch::X64) => FormatVersion::V1,
        _ => FormatVersion::V2,
    };
    let provenance = args
        .provenance
        .then(|| Provenance::new(&args.manifest, &text, &resources));
    let record = provenance.as_ref().map(Provenance::record);
    let records: Vec<(u32, &[u8])> = record
        .iter()
        .map(|text| (provenance::RECORD_TYPE, text.as_bytes()))
        .collect();
    let options = EncodeOptions {
        format,
        version_string: None,
    };
    let encoded = encode_with_records(&plans, &options, &records)
        .map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
    output::write(&args.output, |out| encoded.write_to(out))?;
    let listing = map::text(&args.output, format, encoded.len(), &plans);
    let mut names = Vec::new();
    let mut beside = |path: PathBuf, bytes: &[u8]| {
        names.push(path.display().to_string());
        output::write(&path, |out| out.write_all(bytes))
    };
    beside(map::path(&args.output), listing.as_bytes())?;
    for document in &documents {
        beside(document.path.clone(), &document.bytes)?;
    }
    if let Some(provenance) = &provenance {
        let text = serde_json::to_vec_pretty(provenance).map_err(|e| Failure::Unreadable(e.to_string()))?;
        beside(Provenance::path(&args.output), &text)?;
    }
    if !args.json {
        return Ok(None);
    }
    let mut made = Made::new(&args.output, encoded.len(), format, &plans)?;
    made.beside = names;
    Ok(Some(made))
}

fn usage(error: ManifestError) -> Failure {
    Failure::Usage(error.to_string())
}

/// The guests to build, in the manifest's order.
fn select<'m>(name: &str, manifest: &'m Manifest, wanted: &[GuestName]) -> Result<Vec<&'m Guest>, Failure> {
    let isolation = |guest: &Guest| guest.isolation.name();
    for want in wanted {
        if !manifest
            .guests
            .iter()
            .any(|guest| isolation(guest) == want.name())
        {
            let has: Vec<_> = manifest.guests.iter().map(isolation).collect();
            let message = format!(
                "{name} has no guest with isolation {}; it has {}",
                want.name(),
                has.join(", ")
            );
            return Err(Failure::Usage(message));
        }
    }
    let is_wanted = |guest: &&Guest| wanted.is_empty() || wanted.iter().any(|w| w.name() == isolation(guest));
    Ok(manifest.guests.iter().filter(is_wanted).collect())
}

/// The plan of one guest and its document, or what is wrong and where.
fn guest_plan<'r>(
    arch: GuestArch,
    guest: &'r Guest,
    resources: &'r Resources,
    args: &Args,
) -> Result<(LaunchPlan<'r>, Option<Document>), (Place, String)> {
    let at_image = |what| (guest.image_place, what);
    if guest.max_vtl != 0 {
        let what = format!(
            "image {} runs in VTL 0 only; max_vtl must be 0",
            guest.image.name()
        );
        return Err(at_image(what));
    }
    let mut plan = match guest.isolation {
        IsolationType::None => {
            let plan = image_plan(arch, guest, resources).map_err(at_image)?;
            platform::apply(plan, args.platform).map_err(|what| (guest.place, what))?
        }
        IsolationType::Vbs { enable_debug } => {
            let mut plan = image_plan(arch, guest, resources).map_err(at_image)?;
            if plan.facts.isolation != Isolation::Vsm {
                let what = format!("image {} has no form for isolation vbs", guest.image.name());
                return Err((guest.isolation_place, what));
            }
            documents::add_vbs_measurement(&mut plan, guest.svn, enable_debug).map_err(at_image)?;
            plan
        }
        _ => isolated::plan(guest, resources).map_err(at_image)?,
    };
    // VSM_ISOLATION has a digest also without isolation, but nobody attests it.
    if guest.isolation == IsolationType::None {
        return Ok((plan, None));
    }
    let digest = documents::digest(&plan).map_err(at_image)?;
    let document = documents::corim(&plan, digest.as_ref(), guest.svn, &args.output);
    if args.embed_corim
        && let Some(document) = &document
    {
        documents::embed(&mut plan, document);
    }
    Ok((plan, document))
}

fn image_plan<'r>(
    arch: GuestArch,
    guest: &'r Guest,
    resources: &'r Resources,
) -> Result<LaunchPlan<'r>, String> {
    match &guest.image {
        Image::None => {
            let arch = if arch == GuestArch::X64 {
                Arch::X64
            } else {
                Arch::Aarch64
            };
            Ok(PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, arch)).finish())
        }
        Image::Uefi(_) if arch == GuestArch::Aarch64 => uefi_aarch64::plan(resources.get("uefi")?),
        Image::Uefi(image) => {
            let config = match image.config_type {
                UefiConfigType::None => ConfigType::None,
                UefiConfigType::Igvm => ConfigType::Igvm,
            };
            uefi::plan(resources.get("uefi")?, config).map_err(|error| format!("resource uefi: {error}"))
        }
        Image::Flat(flat) => flat::plan(flat, resources),
        Image::Linux(image) => linux::plan(image, resources),
        Image::Ovmf(image) => isolated::ovmf(Isolation::Native, image, None, resources),
        Image::Openhcl(_) => Err("image openhcl needs a VTL 2, which nothing here runs or builds".to_owned()),
        Image::SnpLinuxDirect(_) => Err("snp_linux_direct needs isolation_type snp".to_owned()),
    }
}
