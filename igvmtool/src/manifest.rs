// SPDX-License-Identifier: MIT
//! Build manifests: igvmfilegen's JSON schema (uefi-launch 6.1) and one image kind of ours, `flat`.
//!
//! Always true: every error names the manifest, the line and the column; unknown fields, wrong types,
//! duplicate fields and values out of range are refused; a parsed [`Manifest`] keeps the place of each
//! guest, so that later refusals can name it too. Not here: building (`build`), resources.

mod flat;
mod located;
mod schema;

pub(crate) use flat::*;
pub(crate) use located::{ManifestError, Place};
pub(crate) use schema::*;

use located::Source;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A manifest, parsed and checked by itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    /// Guest instruction set.
    pub(crate) arch: GuestArch,
    /// Guests in file order; at least one.
    pub(crate) guests: Vec<Guest>,
}

/// One guest of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Guest {
    /// Where its description begins.
    pub(crate) place: Place,
    /// Where its `isolation_type` begins.
    pub(crate) isolation_place: Place,
    /// Where its `image` begins.
    pub(crate) image_place: Place,
    /// Security version number, for signed launches.
    pub(crate) svn: u32,
    /// Highest trust level, 0 or 2.
    pub(crate) max_vtl: u8,
    /// How it is isolated.
    pub(crate) isolation: IsolationType,
    /// What it starts.
    pub(crate) image: Image,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a manifest object")]
struct RawManifest<'m> {
    guest_arch: GuestArch,
    #[serde(borrow)]
    guest_configs: Vec<&'m RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a guest object")]
struct RawGuest<'m> {
    guest_svn: u32,
    #[serde(borrow)]
    max_vtl: &'m RawValue,
    #[serde(borrow)]
    isolation_type: &'m RawValue,
    #[serde(borrow)]
    image: &'m RawValue,
}

impl Manifest {
    /// Parses the text of the manifest called `name`.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, ManifestError> {
        let source = Source { name, text };
        let raw: RawManifest<'_> = source.parse(text)?;
        if raw.guest_configs.is_empty() {
            let what = "guest_configs is empty; a file needs at least one guest".to_owned();
            return Err(source.error(source.whole(), what));
        }
        let parse = |guest: &&RawValue| parse_guest(&source, raw.guest_arch, guest);
        let guests: Vec<Guest> = raw.guest_configs.iter().map(parse).collect::<Result<_, _>>()?;
        let direct = guests
            .iter()
            .find(|guest| matches!(guest.image, Image::SnpLinuxDirect(_)));
        if let Some(guest) = direct
            && guests.len() > 1
        {
            let what = "an snp_linux_direct guest must be the only guest of its manifest".to_owned();
            return Err(source.error(guest.image_place, what));
        }
        Ok(Self {
            arch: raw.guest_arch,
            guests,
        })
    }
}

fn parse_guest(source: &Source<'_>, arch: GuestArch, text: &RawValue) -> Result<Guest, ManifestError> {
    let raw: RawGuest<'_> = source.parse(text.get())?;
    let max_vtl: u8 = source.parse(raw.max_vtl.get())?;
    if !matches!(max_vtl, 0 | 2) {
        let what = format!("max_vtl is {max_vtl}; it must be 0 or 2");
        return Err(source.error(source.place(raw.max_vtl.get()), what));
    }
    let guest = Guest {
        place: source.place(text.get()),
        isolation_place: source.place(raw.isolation_type.get()),
        image_place: source.place(raw.image.get()),
        svn: raw.guest_svn,
        max_vtl,
        isolation: source.parse(raw.isolation_type.get())?,
        image: source.parse(raw.image.get())?,
    };
    guest
        .isolation
        .check(arch)
        .map_err(|what| source.error(guest.isolation_place, what))?;
    guest
        .image
        .check(&guest, arch)
        .map_err(|what| source.error(guest.image_place, what))?;
    Ok(guest)
}

#[cfg(test)]
mod tests;
