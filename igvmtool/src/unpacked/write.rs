// SPDX-License-Identifier: MIT
//! A folder becomes a file.
//!
//! Always true: payloads are mapped and copied once, so memory grows with the headers only. Where data
//! goes is decided first ([`lay_out`]), then headers are made, then everything is written.

use super::fields::{header, page_bytes, platform_type};
use super::manifest::{Entry, Manifest, Payload, SCHEMA};
use super::{MANIFEST, layout};
use crate::failure::Failure;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use vm_loaders::igvm::{FixedHeader, FormatVersion, MappedFile};

/// What was done.
pub(crate) struct Packed {
    /// Size of the file.
    pub(crate) bytes: u64,
    /// Data went back to where it was; otherwise it was laid out anew.
    pub(crate) same_layout: bool,
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::Usage(message.to_string())
}

/// A payload and where its bytes go.
struct Piece {
    map: MappedFile,
    /// Length in the file: the payload padded to whole pages or to its area.
    len: u64,
    /// The payload is not what was extracted.
    changed: bool,
    /// Place in the file data of each stretch: (place, length).
    places: Vec<(u64, u64)>,
}

/// Packs `folder` into `output`.
pub(crate) fn pack(folder: &Path, output: &Path) -> Result<Packed, Failure> {
    let path = folder.join(MANIFEST);
    let shown = path.display();
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::Unreadable(format!("cannot read {shown}: {error}")))?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| usage(format!("{shown}: {error}")))?;
    if manifest.schema != SCHEMA {
        return Err(usage(format!(
            "{shown}: schema {} is not known; this program writes {SCHEMA}",
            manifest.schema
        )));
    }
    let mut pieces = Vec::new();
    for (index, entry) in manifest.headers.iter().enumerate() {
        let piece = match entry.payload() {
            Some(payload) => Some(piece(folder, payload, padded_to(entry))?),
            None => None,
        };
        if let (Entry::SupportedPlatform { platform, .. }, None) = (entry, &piece) {
            platform_type(platform).map_err(|error| usage(format!("{shown}: header {index}: {error}")))?;
        }
        pieces.push(piece);
    }
    let mut unused = Vec::new();
    for payload in &manifest.stored.unused {
        unused.push(piece(folder, payload, 1)?);
    }
    let same_layout = keeps_layout(&manifest, &pieces, &unused);
    let data_bytes = if same_layout {
        manifest.stored.data_bytes
    } else {
        unused.clear();
        lay_out(&manifest, &mut pieces).max(8)
    };
    let all = unused.iter().chain(pieces.iter().flatten());
    let unchanged = same_layout && !all.clone().any(|piece| piece.changed);
    let lead = headers(&manifest, &pieces, data_bytes, unchanged)
        .map_err(|error| usage(format!("{shown}: {error}")))?;
    let bytes = lead.len() as u64 + data_bytes;
    crate::output::write(output, |out| {
        out.write_all(&lead)?;
        data(out, all, data_bytes)
    })?;
    for piece in unused.iter().chain(pieces.iter().flatten()) {
        piece
            .map
            .verify_unchanged()
            .map_err(|error| Failure::Unreadable(error.to_string()))?;
    }
    Ok(Packed { bytes, same_layout })
}

/// What a payload's length is rounded up to.
fn padded_to(entry: &Entry) -> u64 {
    match entry {
        Entry::Pages { large, .. } => page_bytes(*large),
        Entry::ParameterArea { bytes, .. } => (*bytes).max(1),
        _ => 1,
    }
}

fn piece(folder: &Path, payload: &Payload, align: u64) -> Result<Piece, Failure> {
    // A manifest may come from elsewhere: it names files of its own folder only.
    let name = Path::new(&payload.file);
    if name.file_name() != Some(name.as_os_str()) {
        return Err(usage(format!(
            "payload {:?} is not a file name in the folder",
            payload.file
        )));
    }
    let map = crate::opened::map(&folder.join(name))?;
    let len = (map.bytes().len() as u64)
        .checked_next_multiple_of(align)
        .ok_or_else(|| usage(format!("payload {:?} is too large", payload.file)))?;
    let hash = layout::hex(&Sha256::digest(map.bytes()));
    Ok(Piece {
        len,
        changed: payload.sha256.as_deref() != Some(&*hash),
        places: payload.at.clone(),
        map,
    })
}

/// Whether all payloads fit where they were: lengths are the same, every byte of the data is covered, and
/// no changed payload shares bytes with another one.
fn keeps_layout(manifest: &Manifest, pieces: &[Option<Piece>], unused: &[Piece]) -> bool {
    let mut extents: Vec<(u64, u64, bool)> = Vec::new();
    for piece in pieces.iter().flatten().chain(unused) {
        let mut total: u64 = 0;
        for &(place, len) in &piece.places {
            let Some(end) = place
                .checked_add(len)
                .filter(|&end| end <= manifest.stored.data_bytes)
            else {
                return false;
            };
            total = total.saturating_add(len);
            extents.push((place, end, piece.changed));
        }
        if total != piece.len {
            return false;
        }
    }
    extents.sort_unstable();
    let (mut end, mut end_changed) = (0, false);
    for (start, stop, changed) in extents {
        if start > end || (start < end && (changed || end_changed)) {
            return false;
        }
        if stop >= end {
            (end, end_changed) = (stop, changed);
        }
    }
    end == manifest.stored.data_bytes
}

/// Gives every piece a new place, in header order; equal pages share one where they did before. The
/// length of all data.
fn lay_out(manifest: &Manifest, pieces: &mut [Option<Piece>]) -> u64 {
    let mut end: u64 = 0;
    let mut known: HashMap<[u8; 32], u64> = HashMap::new();
    for (entry, piece) in manifest.headers.iter().zip(pieces) {
        let Some(piece) = piece else { continue };
        piece.places.clear();
        let page = match entry {
            Entry::Pages { large, .. } if manifest.stored.shared => page_bytes(*large),
            _ => piece.len,
        };
        let mut done = 0;
        while done < piece.len {
            let len = page.min(piece.len - done);
            let place = if manifest.stored.shared {
                let bytes = stretch(&piece.map, done, len);
                let mut hash = Sha256::new();
                hash.update(bytes);
                hash.update(len.to_le_bytes());
                *known.entry(hash.finalize().into()).or_insert(end)
            } else {
                end
            };
            end = end.max(place.saturating_add(len));
            match piece.places.last_mut() {
                Some((start, total)) if *start + *total == place => *total += len,
                _ => piece.places.push((place, len)),
            }
            done += len;
        }
    }
    end
}

/// Bytes of a payload from `from` on, at most `len`, shorter at its end.
fn stretch(map: &MappedFile, from: u64, len: u64) -> &[u8] {
    let bytes = map.bytes();
    let start = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
    let end = usize::try_from(from.saturating_add(len))
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    &bytes[start..end]
}

/// The fixed header and all variable headers.
fn headers(
    manifest: &Manifest,
    pieces: &[Option<Piece>],
    data_bytes: u64,
    unchanged: bool,
) -> Result<Vec<u8>, String> {
    let mut fixed = FixedHeader {
        version: if manifest.format_version == 1 {
            FormatVersion::V1
        } else {
            FormatVersion::V2
        },
        variable_header_offset: 0,
        variable_header_size: 0,
        total_file_size: 0,
        checksum: 0,
        architecture: manifest.architecture,
        page_size: manifest.page_size,
    };
    let start = fixed.len() + manifest.gap.0.len();
    // Twice: the second time, the place of the data is known. Headers do not change their size.
    let mut variable = variable(manifest, pieces, 0)?;
    let stored = usize::try_from(manifest.stored.header_bytes).unwrap_or(usize::MAX);
    if unchanged && variable.len().checked_sub(stored).is_some_and(|extra| extra < 8) {
        variable.truncate(stored);
    }
    let size = variable.len();
    let data_start = (start + size) as u64;
    let total = data_start.saturating_add(data_bytes);
    fixed.total_file_size = u32::try_from(total)
        .map_err(|_| format!("the file would have {total:#x} bytes; the format's limit is 4 GiB"))?;
    variable = self::variable(manifest, pieces, data_start)?;
    variable.truncate(size);
    fixed.variable_header_offset = start as u32;
    fixed.variable_header_size = size as u32;
    fixed.checksum = fixed.compute_checksum(&variable);
    if unchanged {
        fixed.total_file_size = manifest.stored.total_file_size.unwrap_or(fixed.total_file_size);
        fixed.checksum = match manifest.stored.checksum {
            Some(wrong) => wrong,
            None => fixed.compute_checksum(&variable),
        };
    }
    let mut lead = fixed.to_bytes();
    lead.extend_from_slice(&manifest.gap.0);
    lead.append(&mut variable);
    Ok(lead)
}

fn variable(manifest: &Manifest, pieces: &[Option<Piece>], data_start: u64) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    for (index, (entry, piece)) in manifest.headers.iter().zip(pieces).enumerate() {
        let len = piece.as_ref().map_or(0, |piece| piece.len);
        let count = match entry {
            Entry::Pages {
                large,
                payload: Some(_),
                ..
            } => len / page_bytes(*large),
            Entry::Pages { zero_pages, .. } => zero_pages.unwrap_or(0),
            _ => 1,
        };
        for page in 0..count {
            let offset = match (piece, entry) {
                (None, _) => 0,
                (Some(piece), Entry::Pages { large, .. }) => {
                    place_of(piece, page * page_bytes(*large))? + data_start
                }
                (Some(piece), _) => place_of(piece, 0)? + data_start,
            };
            // Beyond 4 GiB the value is meaningless; the size is checked before it is used.
            let made = header(entry, page, offset as u32, len)
                .map_err(|error| format!("header {index}: {error}"))?;
            push(&mut out, &made, entry);
            if out.len() as u64 > u64::from(u32::MAX) {
                return Err("the headers alone pass 4 GiB, the format's limit".to_owned());
            }
        }
    }
    Ok(out)
}

fn push(out: &mut Vec<u8>, (typ, content): &(u32, Vec<u8>), entry: &Entry) {
    out.extend_from_slice(&typ.to_le_bytes());
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    out.extend_from_slice(content);
    let padded = out.len().next_multiple_of(8);
    if let Entry::Raw { padding, .. } = entry {
        let room = padded - out.len();
        out.extend(padding.0.iter().take(room));
    }
    out.resize(padded, 0);
}

/// Where byte `at` of a piece lies in the file data.
fn place_of(piece: &Piece, at: u64) -> Result<u64, String> {
    let mut before = 0;
    for &(place, len) in &piece.places {
        if at < before + len {
            return Ok(place + (at - before));
        }
        before += len;
    }
    // An empty payload has no bytes and needs no place.
    if piece.len == 0 {
        Ok(0)
    } else {
        Err(format!(
            "payload {} has no byte {at:#x}",
            piece.map.name().display()
        ))
    }
}

/// Writes the data in order of its places; what overlaps is the same bytes.
fn data<'p>(
    out: &mut impl Write,
    pieces: impl Iterator<Item = &'p Piece>,
    data_bytes: u64,
) -> std::io::Result<()> {
    let mut stretches: Vec<(u64, u64, &Piece, u64)> = Vec::new();
    for piece in pieces {
        let mut from = 0;
        for &(place, len) in &piece.places {
            stretches.push((place, len, piece, from));
            from += len;
        }
    }
    stretches.sort_unstable_by_key(|row| (row.0, row.1));
    let mut at: u64 = 0;
    for (place, len, piece, from) in stretches {
        let skip = at.saturating_sub(place);
        if skip >= len {
            continue;
        }
        let bytes = stretch(&piece.map, from + skip, len - skip);
        out.write_all(bytes)?;
        zeros(out, len - skip - bytes.len() as u64)?;
        at = place + len;
    }
    zeros(out, data_bytes.saturating_sub(at))
}

fn zeros(out: &mut impl Write, count: u64) -> std::io::Result<()> {
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), count), out).map(drop)
}
