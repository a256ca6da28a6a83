// SPDX-License-Identifier: MIT
//! Taking platforms out of a file and adding those of another.
//!
//! Always true: a header that still applies to somebody stays; added platforms get free mask bits and
//! free parameter area indexes. Not here: choosing which platform a guest uses.

use super::{headers, refuse};
use crate::failure::Failure;
use launch_plan::Isolation;
use std::collections::{BTreeMap, BTreeSet};
use vm_loaders::igvm::{Edit, File, Header, NewHeader, Section};

/// Place of the compatibility mask in the content of a header.
fn mask_place(header: &Header<'_>) -> usize {
    match header {
        Header::GuestPolicy(_)
        | Header::PageData(_)
        | Header::ParameterInsert(_)
        | Header::VpContext(_)
        | Header::RequiredMemory(_)
        | Header::ErrorRange(_) => 8,
        _ => 0,
    }
}

/// Takes platforms out.
pub(super) fn strip(edit: &mut Edit<'_>, platforms: &[Isolation]) -> Result<(), Failure> {
    if platforms.is_empty() {
        return Ok(());
    }
    let file = edit.file().clone();
    let mut gone = 0;
    for isolation in platforms {
        let platform = file.platforms().into_iter().find(|p| p.isolation == *isolation);
        gone |= platform
            .ok_or_else(|| refuse(format!("--strip: the file has no platform {isolation}")))?
            .mask;
    }
    let (mut inserted, mut lost) = (BTreeSet::new(), BTreeSet::new());
    for (index, header) in headers(&file) {
        let Some(mask) = header.mask() else { continue };
        let left = mask & !gone;
        if let Header::ParameterInsert(insert) = &header {
            let set = if left == 0 { &mut lost } else { &mut inserted };
            set.insert(insert.parameter_area_index);
        }
        if mask != 0 && left == 0 {
            edit.remove(index).map_err(refuse)?;
        } else if left != mask {
            edit.patch(index, mask_place(&header), &left.to_le_bytes())
                .map_err(refuse)?;
        }
    }
    for (index, header) in headers(&file) {
        let area = match &header {
            Header::ParameterArea(h) => h.parameter_area_index,
            Header::Parameter(_, h) => h.parameter_area_index,
            _ => continue,
        };
        if lost.contains(&area) && !inserted.contains(&area) {
            edit.remove(index).map_err(refuse)?;
        }
    }
    Ok(())
}

/// Adds the platforms of `other` that the file has not.
pub(super) fn merge<'a>(edit: &mut Edit<'a>, other: &File<'_>) -> Result<(), Failure> {
    let file = edit.file().clone();
    if file.fixed_header().architecture != other.fixed_header().architecture {
        return Err(refuse("--merge: the files are for different architectures"));
    }
    let mine = file.platforms();
    let mut used: u32 = headers(&file)
        .filter_map(|(_, header)| header.mask())
        .fold(0, |all, mask| all | mask);
    let mut bits: BTreeMap<u32, u32> = BTreeMap::new();
    for platform in other.platforms() {
        if mine.iter().any(|own| own.isolation == platform.isolation) {
            continue;
        }
        let free = (0..32).map(|bit| 1_u32 << bit).find(|bit| used & bit == 0);
        let free = free.ok_or_else(|| refuse("--merge: no compatibility mask bit is free"))?;
        used |= free;
        bits.insert(platform.mask, free);
    }
    if bits.is_empty() {
        return Err(refuse(
            "--merge: the other file has no platform that this one lacks",
        ));
    }
    let areas = headers(&file).filter_map(|(_, header)| match header {
        Header::ParameterArea(h) => Some(h.parameter_area_index),
        _ => None,
    });
    let first_area = areas.max().map_or(0, |last| last.saturating_add(1));
    add(edit, other, &bits, first_area)
}

fn add(
    edit: &mut Edit<'_>,
    other: &File<'_>,
    bits: &BTreeMap<u32, u32>,
    first_area: u32,
) -> Result<(), Failure> {
    let wanted: u32 = bits.keys().copied().fold(0, |all, bit| all | bit);
    // Areas that a wanted platform uses, by their old index.
    let mut areas: BTreeMap<u32, u32> = BTreeMap::new();
    for (_, header) in headers(other) {
        if let Header::ParameterInsert(h) = &header
            && h.compatibility_mask & wanted != 0
        {
            let next = first_area + areas.len() as u32;
            areas.entry(h.parameter_area_index).or_insert(next);
        }
    }
    for (_, header) in headers(other) {
        let place = match Section::of(header.typ()) {
            Some(section) => edit.end_of(section),
            None => continue,
        };
        let mut content = header.content().to_vec();
        match (&header, header.mask()) {
            (Header::VersionString(_), _) => continue,
            (_, Some(mask)) if mask & wanted == 0 => continue,
            (_, Some(mask)) => {
                let own = bits.iter().filter(|(old, _)| mask & **old != 0);
                let new: u32 = own.map(|(_, new)| new).fold(0, |all, bit| all | bit);
                let at = mask_place(&header);
                content[at..at + 4].copy_from_slice(&new.to_le_bytes());
            }
            _ => {}
        }
        let area = match &header {
            Header::ParameterArea(h) => Some((8, h.parameter_area_index)),
            Header::Parameter(_, h) => Some((0, h.parameter_area_index)),
            Header::ParameterInsert(h) => Some((12, h.parameter_area_index)),
            _ => None,
        };
        if let Some((at, old)) = area {
            let Some(new) = areas.get(&old) else { continue };
            content[at..at + 4].copy_from_slice(&new.to_le_bytes());
        }
        let new = match data(other, &header) {
            None => NewHeader::raw(header.typ(), &content),
            Some(bytes) => {
                let changed = Header::decode(header.typ(), &content).map_err(refuse)?;
                NewHeader::with_data(&changed, bytes.to_vec(), bytes.len()).map_err(refuse)?
            }
        };
        edit.insert(place, new).map_err(refuse)?;
    }
    Ok(())
}

/// The data that a header of the other file refers to.
fn data<'a>(file: &File<'a>, header: &Header<'_>) -> Option<&'a [u8]> {
    crate::unpacked::data_of(file, header)
}
