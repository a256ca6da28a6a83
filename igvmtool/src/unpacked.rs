// SPDX-License-Identifier: MIT
//! A file as a folder: a manifest that people can edit and one payload file for each piece of data.
//!
//! `extract` writes it, `pack` reads it. As long as payloads keep their sizes, `pack` puts every byte back
//! where it was, so an unchanged folder gives the same file bit for bit; otherwise data is laid out anew,
//! in header order.
//!
//! Always true: every byte of the file is in the folder, unused data, gaps and unknown headers included;
//! headers that the manifest's fields cannot say exactly are kept as raw bytes. Not here: what the
//! headers mean.

mod fields;
mod layout;
mod manifest;
mod read;
mod write;

pub(crate) use read::extract;
pub(crate) use write::pack;

/// The data that a header of a file refers to; `None` when it refers to none.
pub(crate) fn data_of<'a>(
    file: &vm_loaders::igvm::File<'a>,
    header: &vm_loaders::igvm::Header<'_>,
) -> Option<&'a [u8]> {
    layout::data_of(file, header, &layout::references(file))
}

/// Name of the manifest in the folder.
pub(crate) const MANIFEST: &str = "manifest.json";
