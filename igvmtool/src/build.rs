// SPDX-License-Identifier: MIT
//! `igvmtool build`: a manifest and resources become an IGVM file and its map.
//!
//! Always true: the output depends on the manifest, the resources and the options only, bit for bit; it
//! appears under its name complete or not at all. Not here: the images' plans (`vm_loaders`; `flat`
//! and `uefi_aarch64` here), encoding (`vm_loaders::igvm::encode`).

mod flat;
mod linux;
mod map;
mod platform;
mod resources;
mod uefi_aarch64;

use crate::failure::{Failure, Outcome};
use crate::manifest::{
    Guest, GuestArch, Image, IsolationType, Manifest, ManifestError, Place, UefiConfigType,
};
use crate::output;
use clap::ValueEnum;
use launch_plan::{Arch, Isolation, LaunchPlan, PlanBuilder, PlatformFacts};
use platform::PlatformChoice;
use resources::{ResourceArg, Resources};
use std::io::Write;
use std::path::PathBuf;
use vm_loaders::igvm::{EncodeOptions, FormatVersion, encode};
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
    /// The IGVM file to write; its map goes beside it as FILE.map.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Format version; 1 for x64 and 2 for aarch64 by default.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    format: Option<u8>,
    /// Platform of guests with isolation none; native for image linux and vsm for others by default.
    #[arg(long, value_enum)]
    platform: Option<PlatformChoice>,
}

/// A guest of a manifest, by its isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GuestName {
    None,
    Vbs,
    Snp,
    Tdx,
}

impl GuestName {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Vbs => "vbs",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        }
    }
}

/// Builds.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let name = args.manifest.display().to_string();
    let text = std::fs::read_to_string(&args.manifest)
        .map_err(|error| Failure::Unreadable(format!("cannot read the manifest {name}: {error}")))?;
    let manifest = Manifest::parse(&name, &text).map_err(usage)?;
    let guests = select(&name, &manifest, &args.guest)?;
    let resources = Resources::read(&args.resource)?;
    let mut plans: Vec<LaunchPlan<'_>> = Vec::new();
    for guest in guests {
        let refused = |(place, what)| {
            usage(ManifestError {
                file: name.clone(),
                place,
                what,
            })
        };
        plans.push(guest_plan(manifest.arch, guest, &resources, args.platform).map_err(refused)?);
    }
    let format = match (args.format, manifest.arch) {
        (Some(1), _) | (None, GuestArch::X64) => FormatVersion::V1,
        _ => FormatVersion::V2,
    };
    let options = EncodeOptions {
        format,
        version_string: None,
    };
    let encoded = encode(&plans, &options).map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
    output::write(&args.output, |out| encoded.write_to(out))?;
    let listing = map::text(&args.output, format, encoded.len(), &plans);
    output::write(&map::path(&args.output), |out| out.write_all(listing.as_bytes()))?;
    Ok(Outcome::Fine)
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

/// The plan of one guest, or what is wrong and where.
fn guest_plan<'r>(
    arch: GuestArch,
    guest: &'r Guest,
    resources: &'r Resources,
    platform: Option<PlatformChoice>,
) -> Result<LaunchPlan<'r>, (Place, String)> {
    if guest.isolation != IsolationType::None {
        let what = format!(
            "guests with isolation {} cannot be built yet; choose others with --guest",
            guest.isolation.name()
        );
        return Err((guest.isolation_place, what));
    }
    let plan = image_plan(arch, guest, resources).map_err(|what| (guest.image_place, what))?;
    platform::apply(plan, platform).map_err(|what| (guest.place, what))
}

fn image_plan<'r>(
    arch: GuestArch,
    guest: &'r Guest,
    resources: &'r Resources,
) -> Result<LaunchPlan<'r>, String> {
    if guest.max_vtl != 0 {
        return Err(format!(
            "image {} runs in VTL 0 only; max_vtl must be 0",
            guest.image.name()
        ));
    }
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
        Image::Openhcl(_) | Image::SnpLinuxDirect(_) => {
            Err(format!("image {} cannot be built yet", guest.image.name()))
        }
    }
}
