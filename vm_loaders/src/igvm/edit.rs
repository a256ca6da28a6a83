// SPDX-License-Identifier: MIT
//! Changing a file in place: headers and their data are replaced, inserted or removed, and everything
//! else keeps its bytes.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use vm_loaders::igvm::{Edit, File, Header, MappedFile, NewHeader};
//!
//! let mapped = MappedFile::open("guest.igvm".as_ref())?;
//! let file = File::read(mapped.bytes())?;
//! let mut edit = Edit::new(&file);
//! for (index, raw) in file.headers().iter().enumerate() {
//!     if let Ok(header @ Header::PageData(_)) = file.decode(raw) {
//!         let page = vec![0x90; 4096];
//!         edit.replace(index as u32, NewHeader::with_data(&header, page, 4096)?)?;
//!     }
//! }
//! edit.finish()?.write_to(&mut std::fs::File::create("changed.igvm")?)?;
//! # Ok(())
//! # }
//! ```
//!
//! Always true: without a change [`Edit::finish`] gives the bytes of the file; headers that are not named
//! keep type, content and padding, unknown optional ones included, except that the offsets of known
//! headers follow their data when it moves; data that only changed headers referred to is dropped, all
//! other data stays, unused bytes included; fixed header, sizes and checksum are made right. Memory grows
//! with the number of changes (and, in `finish`, with the size of the headers).
//! Not here: what a change means (`check` and `plan` of the result say whether it is a good file), and
//! file offsets inside of unknown optional headers: nobody knows where they are, so they stay as they are
//! ([`Edit::unknown_headers`] lists such headers).

mod references;

use super::encode::{Encoded, Piece};
use super::file::File;
use super::header::{Header, RawHeader, Section};
use references::{Dropped, Extent, freed_data, offset_field};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Why an edit cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A header index that the file does not have.
    #[error("header {index} does not exist; the file has {count} headers")]
    NoHeader {
        /// The index.
        index: u32,
        /// Headers of the file.
        count: usize,
    },
    /// A header type that refers to no data was given some.
    #[error("header type {0:#x} has no field for the place of data")]
    NoData(u32),
    /// Bytes to patch that a header does not have.
    #[error("bytes {at:#x}..{end:#x} are outside header {index}, whose content has {len:#x} bytes")]
    Patch {
        /// The header.
        index: u32,
        /// First byte in the content.
        at: usize,
        /// Behind the last one.
        end: usize,
        /// Length of the content.
        len: usize,
    },
    /// Too large for the format.
    #[error("the file would have {0:#x} bytes; the format's limit is 4 GiB")]
    TooLarge(u64),
}

/// A header that takes a place in an edited file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHeader<'a> {
    typ: u32,
    content: Vec<u8>,
    data: Option<NewData<'a>>,
}

/// New bytes that a header refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NewData<'a> {
    bytes: Cow<'a, [u8]>,
    /// Zeros behind them.
    padding: usize,
}

impl<'a> NewHeader<'a> {
    /// A header as it is: if it refers to data, then to data of the file that is edited, by its offset
    /// there.
    pub fn new(header: &Header<'_>) -> Self {
        Self::raw(header.typ(), header.content())
    }

    /// A header of any type, also one that this crate does not know.
    pub fn raw(typ: u32, content: &[u8]) -> Self {
        Self {
            typ,
            content: content.to_vec(),
            data: None,
        }
    }

    /// A header that refers to new data: `bytes`, padded with zeros to `len` bytes (nothing is cut).
    pub fn with_data(
        header: &Header<'_>,
        bytes: impl Into<Cow<'a, [u8]>>,
        len: usize,
    ) -> Result<Self, EditError> {
        if offset_field(header.typ()).is_none() {
            return Err(EditError::NoData(header.typ()));
        }
        let bytes = bytes.into();
        let padding = len.saturating_sub(bytes.len());
        Ok(Self {
            data: Some(NewData { bytes, padding }),
            ..Self::new(header)
        })
    }
}

/// What happens at one place of the header list.
#[derive(Debug, Clone, Default)]
struct Change<'a> {
    /// Headers in front of it, in the order in which they were inserted.
    before: Vec<NewHeader<'a>>,
    /// The header itself; `None` keeps it.
    this: Option<Fate<'a>>,
}

#[derive(Debug, Clone)]
enum Fate<'a> {
    Removed,
    Replaced(NewHeader<'a>),
}

/// Changes to a file, collected.
#[derive(Debug, Clone)]
pub struct Edit<'a> {
    file: File<'a>,
    /// By header index of the file; the number of headers stands for the end.
    changes: BTreeMap<u32, Change<'a>>,
}

impl<'a> Edit<'a> {
    /// No changes yet.
    pub fn new(file: &File<'a>) -> Self {
        Self {
            file: file.clone(),
            changes: BTreeMap::new(),
        }
    }

    /// The file as it was. Indexes of all methods count its headers, whatever was changed before.
    pub fn file(&self) -> &File<'a> {
        &self.file
    }

    /// Takes header `index` out.
    pub fn remove(&mut self, index: u32) -> Result<(), EditError> {
        self.header(index)?;
        self.changes.entry(index).or_default().this = Some(Fate::Removed);
        Ok(())
    }

    /// Puts another header in the place of header `index`.
    pub fn replace(&mut self, index: u32, header: NewHeader<'a>) -> Result<(), EditError> {
        self.header(index)?;
        self.changes.entry(index).or_default().this = Some(Fate::Replaced(header));
        Ok(())
    }

    /// Puts a header in front of header `index`, behind those that were inserted there before. The number
    /// of headers is the end of the list.
    pub fn insert(&mut self, index: u32, header: NewHeader<'a>) -> Result<(), EditError> {
        let count = self.file.headers().len();
        if index as usize > count {
            return Err(EditError::NoHeader { index, count });
        }
        self.changes.entry(index).or_default().before.push(header);
        Ok(())
    }

    /// Overwrites bytes of the content of header `index`, also of one that was replaced before; its data
    /// stays. A removed header comes back.
    pub fn patch(&mut self, index: u32, at: usize, bytes: &[u8]) -> Result<(), EditError> {
        let raw = self.header(index)?;
        let mut header = match self.changes.get(&index).and_then(|change| change.this.clone()) {
            Some(Fate::Replaced(header)) => header,
            _ => NewHeader::raw(raw.typ, self.file.content(&raw)),
        };
        let end = at.saturating_add(bytes.len());
        let len = header.content.len();
        let outside = EditError::Patch { index, at, end, len };
        header
            .content
            .get_mut(at..end)
            .ok_or(outside)?
            .copy_from_slice(bytes);
        self.replace(index, header)
    }

    /// Where a header of `section` can be inserted behind all others of its section.
    pub fn end_of(&self, section: Section) -> u32 {
        let later = |raw: &RawHeader| Section::of(raw.typ).is_some_and(|other| other > section);
        let headers = self.file.headers();
        headers.iter().position(later).unwrap_or(headers.len()) as u32
    }

    /// Indexes of the headers whose content is not known and may hold file offsets that an edit cannot
    /// follow. Only headers with the optional bit can be unknown in a file without errors.
    pub fn unknown_headers(&self) -> impl Iterator<Item = u32> {
        let headers = self.file.headers().iter().enumerate();
        headers
            .filter(|(_, raw)| self.file.decode(raw).is_err())
            .map(|(index, _)| index as u32)
    }

    fn header(&self, index: u32) -> Result<RawHeader, EditError> {
        let headers = self.file.headers();
        let count = headers.len();
        let found = headers.get(index as usize).copied();
        found.ok_or(EditError::NoHeader { index, count })
    }

    /// The changed file.
    pub fn finish(self) -> Result<Encoded<'a>, EditError> {
        let file = &self.file;
        let freed = freed_data(file, &self.gone(), self.references());
        let mut out = Assembly {
            headers: Vec::with_capacity(file.variable_headers().len()),
            moved: Vec::new(),
            added: Vec::new(),
            added_len: 0,
            extra: Vec::new(),
        };
        for index in 0..=file.headers().len() as u32 {
            let change = self.changes.get(&index);
            for header in change.iter().flat_map(|change| &change.before) {
                out.new_header(header);
            }
            let Some(raw) = file.headers().get(index as usize) else {
                continue;
            };
            match change.and_then(|change| change.this.as_ref()) {
                Some(Fate::Removed) => {}
                Some(Fate::Replaced(header)) => out.new_header(header),
                None => out.old_header(file, raw),
            }
        }
        out.finish(file, &freed)
    }

    /// The headers that do not survive as they are.
    fn gone(&self) -> Vec<u32> {
        let changed = self.changes.iter().filter(|(_, change)| change.this.is_some());
        changed.map(|(index, _)| *index).collect()
    }

    /// Type and content of the new headers that refer to data of the file.
    fn references(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let new = self.changes.values().flat_map(|change| {
            let this = match &change.this {
                Some(Fate::Replaced(header)) => Some(header),
                _ => None,
            };
            change.before.iter().chain(this)
        });
        new.filter(|header| header.data.is_none())
            .map(|header| (header.typ, &header.content[..]))
    }
}

/// The new header list and data while they grow.
struct Assembly<'a> {
    headers: Vec<u8>,
    /// Positions in `headers` of offsets that point into the old file's data.
    moved: Vec<u32>,
    /// Positions in `headers` of offsets that count from the first byte of the new data.
    added: Vec<u32>,
    added_len: u64,
    extra: Vec<Piece<'a>>,
}

impl<'a> Assembly<'a> {
    fn header(&mut self, typ: u32, content: &[u8]) {
        self.headers.extend_from_slice(&typ.to_le_bytes());
        self.headers
            .extend_from_slice(&(content.len() as u32).to_le_bytes());
        self.headers.extend_from_slice(content);
    }

    /// Fills up to the next header, which begins on a multiple of 8.
    fn align(&mut self) {
        let padded = self.headers.len().next_multiple_of(8);
        self.headers.resize(padded, 0);
    }

    /// The position of a header's offset field, if its content has one.
    fn field(start: usize, typ: u32, content: &[u8]) -> Option<u32> {
        let field = offset_field(typ)?;
        content.get(field..field + 4)?;
        u32::try_from(start + 8 + field).ok()
    }

    fn old_header(&mut self, file: &File<'a>, raw: &RawHeader) {
        // The last header of a file may have had no padding.
        self.align();
        let content = file.content(raw);
        self.moved
            .extend(Self::field(self.headers.len(), raw.typ, content));
        self.header(raw.typ, content);
        self.headers.extend_from_slice(file.padding(raw));
    }

    fn new_header(&mut self, header: &NewHeader<'a>) {
        self.align();
        let field = Self::field(self.headers.len(), header.typ, &header.content);
        self.header(header.typ, &header.content);
        self.align();
        let (Some(field), Some(data)) = (field, &header.data) else {
            return self.moved.extend(field);
        };
        // Beyond 4 GiB the value is meaningless; `finish` refuses the file.
        let at = field as usize;
        self.headers[at..at + 4].copy_from_slice(&(self.added_len as u32).to_le_bytes());
        self.added.push(field);
        let len = (data.bytes.len() as u64).saturating_add(data.padding as u64);
        self.added_len = self.added_len.saturating_add(len);
        self.extra.push(Piece {
            bytes: data.bytes.clone(),
            padding: data.padding,
        });
    }

    fn finish(mut self, file: &File<'a>, freed: &[Extent]) -> Result<Encoded<'a>, EditError> {
        let old = file.bytes();
        let mut fixed = *file.fixed_header();
        let old_start = file.data_start();
        let start = u64::from(fixed.variable_header_offset) + self.headers.len() as u64;
        let dropped = Dropped::new(freed);
        let kept_len = old.len() as u64 - old_start - dropped.below(u64::MAX);
        let len = start.saturating_add(kept_len).saturating_add(self.added_len);
        fixed.total_file_size = u32::try_from(len).map_err(|_| EditError::TooLarge(len))?;
        for &at in &self.moved {
            patch_offset(&mut self.headers, at, |offset| {
                let place = u64::from(offset);
                if offset == 0 || place < old_start {
                    return place;
                }
                start + (place - old_start) - dropped.below(place)
            });
        }
        for &at in &self.added {
            patch_offset(&mut self.headers, at, |offset| {
                start + kept_len + u64::from(offset)
            });
        }
        fixed.variable_header_size = self.headers.len() as u32;
        fixed.checksum = fixed.compute_checksum(&self.headers);
        let mut lead = fixed.to_bytes();
        lead.extend_from_slice(&old[lead.len()..fixed.variable_header_offset as usize]);
        lead.append(&mut self.headers);
        let mut pieces = Vec::with_capacity(freed.len() + 1 + self.extra.len());
        let mut from = old_start;
        for extent in freed {
            pieces.push(Piece::plain(&old[from as usize..extent.start as usize]));
            from = extent.end;
        }
        pieces.push(Piece::plain(&old[from as usize..]));
        pieces.append(&mut self.extra);
        Ok(Encoded::from_parts(lead, pieces, len))
    }
}

/// Replaces the u32 at `at` by what `map` makes of it. Values fit: the file's length was checked.
fn patch_offset(headers: &mut [u8], at: u32, map: impl Fn(u32) -> u64) {
    let field = &mut headers[at as usize..at as usize + 4];
    let offset = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
    field.copy_from_slice(&(map(offset) as u32).to_le_bytes());
}

#[cfg(test)]
mod tests;
