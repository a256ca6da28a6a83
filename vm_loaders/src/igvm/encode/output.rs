// SPDX-License-Identifier: MIT
//! The file while it is built: header bytes, pieces of data, and where data offsets have to be added.
//!
//! Always true: offsets in headers count from the first data byte until `finish` adds its place; sizes
//! are 64 bits wide until the 4 GiB limit is checked once. Not here: what the headers say.

use super::EncodeError;
use crate::igvm::file::{FixedHeader, FormatVersion};
use crate::igvm::header::Header;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{IoSlice, Write};

/// Zeros to pad with.
static ZEROS: [u8; 4096] = [0; 4096];
/// Pieces per vectored write.
const BATCH: usize = 512;

/// A finished file in pieces: headers, then borrowed data.
#[derive(Debug, Clone)]
pub struct Encoded<'p> {
    headers: Vec<u8>,
    pieces: Vec<Piece<'p>>,
    len: u64,
}

/// Data and the zeros behind it.
#[derive(Debug, Clone)]
pub(in crate::igvm) struct Piece<'p> {
    pub(in crate::igvm) bytes: Cow<'p, [u8]>,
    pub(in crate::igvm) padding: usize,
}

impl<'p> Piece<'p> {
    /// Data with nothing behind it.
    pub(in crate::igvm) const fn plain(bytes: &'p [u8]) -> Self {
        Self {
            bytes: Cow::Borrowed(bytes),
            padding: 0,
        }
    }
}

impl<'p> Encoded<'p> {
    /// A file of finished headers and data that follows them; `len` is the length of all of it.
    pub(in crate::igvm) const fn from_parts(headers: Vec<u8>, pieces: Vec<Piece<'p>>, len: u64) -> Self {
        Self { headers, pieces, len }
    }

    /// Length of the file in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a file is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The file's slices in order; together they are the file.
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let padding = |len: usize| {
            let whole = std::iter::repeat_n(&ZEROS[..], len / ZEROS.len());
            whole.chain(std::iter::once(&ZEROS[..len % ZEROS.len()]))
        };
        let data = self
            .pieces
            .iter()
            .flat_map(move |piece| std::iter::once(&*piece.bytes).chain(padding(piece.padding)));
        std::iter::once(&self.headers[..])
            .chain(data)
            .filter(|slice| !slice.is_empty())
    }

    /// Writes the file, one pass, without copying data. Needs no buffering.
    pub fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut slices = self.slices();
        loop {
            let mut batch: Vec<IoSlice<'_>> = slices.by_ref().take(BATCH).map(IoSlice::new).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let mut rest = &mut batch[..];
            while !rest.is_empty() {
                match out.write_vectored(rest) {
                    Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                    Ok(written) => IoSlice::advance_slices(&mut rest, written),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// The file as one vector.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len as usize);
        self.slices().for_each(|slice| bytes.extend_from_slice(slice));
        bytes
    }
}

/// Data by (CRC, padded length): its offset and its piece.
type Known = HashMap<(u32, usize), Vec<(u32, usize)>>;

pub(super) struct Output<'p> {
    headers: Vec<u8>,
    /// Positions in `headers` of file offsets that still count from the data's start.
    offsets: Vec<u32>,
    pieces: Vec<Piece<'p>>,
    data_len: u64,
    /// Data that may be used again, for files with several platforms.
    known: Option<Known>,
}

impl<'p> Output<'p> {
    pub(super) fn new(share_data: bool) -> Self {
        Self {
            headers: Vec::new(),
            offsets: Vec::new(),
            pieces: Vec::new(),
            data_len: 0,
            known: share_data.then(HashMap::new),
        }
    }

    /// Room for `pages` more page headers and their data: growing step by step costs more than writing.
    pub(super) fn reserve(&mut self, pages: usize) {
        const PAGE_HEADER: usize = 32;
        self.headers.reserve(pages.saturating_mul(PAGE_HEADER));
        self.offsets.reserve(pages);
        self.pieces.reserve(pages);
    }

    /// Appends a header.
    pub(super) fn header(&mut self, header: &Header<'_>) {
        self.raw_header(header.typ(), header.content());
    }

    /// Appends a header of any type.
    pub(super) fn raw_header(&mut self, typ: u32, content: &[u8]) {
        self.headers.extend_from_slice(&typ.to_le_bytes());
        self.headers
            .extend_from_slice(&(content.len() as u32).to_le_bytes());
        self.headers.extend_from_slice(content);
        let padded = self.headers.len().next_multiple_of(8);
        self.headers.resize(padded, 0);
    }

    /// Appends a header whose field at `field` is an offset that [`Self::data`] returned.
    pub(super) fn header_with_data(&mut self, header: &Header<'_>, field: usize) {
        self.offsets.push((self.headers.len() + 8 + field) as u32);
        self.header(header);
    }

    /// Appends data, padded with zeros to `len` bytes, and returns its offset from the first data byte.
    pub(super) fn data(&mut self, bytes: Cow<'p, [u8]>, len: usize) -> u32 {
        // Beyond 4 GiB the value is meaningless; `finish` refuses the file.
        let offset = self.data_len as u32;
        let pieces = &self.pieces;
        if let Some(known) = &mut self.known {
            let same = known.entry((crc32fast::hash(&bytes), len)).or_default();
            if let Some(&(offset, _)) = same.iter().find(|&&(_, piece)| pieces[piece].bytes == bytes) {
                return offset;
            }
            same.push((offset, pieces.len()));
        }
        let padding = len.saturating_sub(bytes.len());
        self.data_len = self
            .data_len
            .saturating_add((bytes.len() as u64).saturating_add(padding as u64));
        self.pieces.push(Piece { bytes, padding });
        offset
    }

    /// Adds the fixed header and the place of the data.
    pub(super) fn finish(
        mut self,
        version: FormatVersion,
        architecture: u32,
    ) -> Result<Encoded<'p>, EncodeError> {
        if self.data_len == 0 {
            self.data(Cow::Borrowed(&ZEROS[..8]), 8);
        }
        let mut fixed = FixedHeader {
            version,
            variable_header_offset: 0,
            variable_header_size: 0,
            total_file_size: 0,
            checksum: 0,
            architecture,
            page_size: 4096,
        };
        let start = fixed.len() + self.headers.len();
        let len = self.data_len.saturating_add(start as u64);
        fixed.total_file_size = u32::try_from(len).map_err(|_| EncodeError::FileTooLarge(len))?;
        fixed.variable_header_offset = fixed.len() as u32;
        fixed.variable_header_size = self.headers.len() as u32;
        for at in self.offsets {
            let field = &mut self.headers[at as usize..at as usize + 4];
            let relative = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
            field.copy_from_slice(&(relative + start as u32).to_le_bytes());
        }
        fixed.checksum = fixed.compute_checksum(&self.headers);
        let mut headers = fixed.to_bytes();
        headers.append(&mut self.headers);
        Ok(Encoded {
            headers,
            pieces: self.pieces,
            len,
        })
    }
}
