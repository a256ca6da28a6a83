// SPDX-License-Identifier: MIT
//! The file as bytes: fixed header, the list of variable headers, file data.
//!
//! Always true: the bytes are borrowed (12 bytes of memory per header, nothing per page), every header's
//! extent lies inside the file, and [`File::write`] gives the same bytes back: gaps, padding, unknown
//! optional headers and unused data included. Not here: meaning (`check`, `interpret`).

use super::codes::Code;
use super::header::{Header, HeaderError, RawHeader};
use super::problem::Problem;
use igvm_defs::{IGVM_FIXED_HEADER, IGVM_FIXED_HEADER_V2, IGVM_MAGIC_VALUE};
use std::io::Write;
use zerocopy::FromBytes;

/// Format version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum FormatVersion {
    /// 24-byte fixed header, x64.
    #[default]
    V1,
    /// 32-byte fixed header with architecture and page size.
    V2,
}

/// The fixed header of either version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedHeader {
    /// Format version.
    pub version: FormatVersion,
    /// File offset of the first variable header.
    pub variable_header_offset: u32,
    /// Size of all variable headers in bytes.
    pub variable_header_size: u32,
    /// Size of the whole file in bytes.
    pub total_file_size: u32,
    /// CRC-32 over this header (checksum zero) and the variable headers.
    pub checksum: u32,
    /// Architecture number (version 2), 0 for x64.
    pub architecture: u32,
    /// Page size in bytes (version 2), 4096 in version 1.
    pub page_size: u32,
}

impl FixedHeader {
    /// Size in the file, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a fixed header is never empty")]
    pub const fn len(&self) -> usize {
        match self.version {
            FormatVersion::V1 => size_of::<IGVM_FIXED_HEADER>(),
            FormatVersion::V2 => size_of::<IGVM_FIXED_HEADER_V2>(),
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let too_short = |need: usize| {
            let message = format!(
                "the file has {} bytes; its fixed header needs {need}",
                bytes.len()
            );
            Problem::file(Code::TooShort, 0, message)
        };
        let (v1, _) = IGVM_FIXED_HEADER::read_from_prefix(bytes)
            .map_err(|_| too_short(size_of::<IGVM_FIXED_HEADER>()))?;
        if v1.magic != IGVM_MAGIC_VALUE {
            let message = format!("the file starts with {:#010x}, not IGVM (0x4d564749)", v1.magic);
            return Err(Problem::file(Code::Magic, 0, message));
        }
        let mut header = Self {
            version: FormatVersion::V1,
            variable_header_offset: v1.variable_header_offset,
            variable_header_size: v1.variable_header_size,
            total_file_size: v1.total_file_size,
            checksum: v1.checksum,
            architecture: 0,
            page_size: 4096,
        };
        match v1.format_version {
            1 => {}
            2 => {
                let (v2, _) = IGVM_FIXED_HEADER_V2::read_from_prefix(bytes)
                    .map_err(|_| too_short(size_of::<IGVM_FIXED_HEADER_V2>()))?;
                header.version = FormatVersion::V2;
                header.architecture = v2.architecture.0;
                header.page_size = v2.page_size;
            }
            other => {
                let message = format!("format version {other} is not known; it must be 1 or 2");
                return Err(Problem::file(Code::FormatVersion, 4, message));
            }
        }
        Ok(header)
    }

    /// The header as it stands in a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut words = vec![
            IGVM_MAGIC_VALUE,
            1,
            self.variable_header_offset,
            self.variable_header_size,
            self.total_file_size,
            self.checksum,
        ];
        if self.version == FormatVersion::V2 {
            words[1] = 2;
            words.extend([self.architecture, self.page_size]);
        }
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The checksum that this header and `variable_headers` should have.
    pub fn compute_checksum(&self, variable_headers: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&Self { checksum: 0, ..*self }.to_bytes());
        hasher.update(variable_headers);
        hasher.finalize()
    }
}

/// An IGVM file over borrowed bytes.
#[derive(Debug, Clone)]
pub struct File<'a> {
    bytes: &'a [u8],
    fixed: FixedHeader,
    headers: Vec<RawHeader>,
}

impl<'a> File<'a> {
    /// Reads the structure of a file. Only what makes its headers unreadable is an error here: everything
    /// else is found by [`Self::check`], and [`Self::plan`] refuses files with errors.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Problem> {
        let fixed = FixedHeader::read(bytes)?;
        let start = fixed.variable_header_offset as usize;
        let end = start.saturating_add(fixed.variable_header_size as usize);
        if start < fixed.len() || end > bytes.len() || u32::try_from(end).is_err() {
            let message = format!(
                "variable headers {start:#x}..{end:#x} must lie behind the fixed header of {} bytes and inside the file of {:#x} bytes",
                fixed.len(),
                bytes.len()
            );
            return Err(Problem::file(Code::HeaderRange, 8, message));
        }
        let headers = read_headers(&bytes[..end], start)?;
        Ok(Self {
            bytes,
            fixed,
            headers,
        })
    }

    /// The fixed header.
    pub fn fixed_header(&self) -> &FixedHeader {
        &self.fixed
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// All variable headers in file order; the position is the header index that messages name.
    pub fn headers(&self) -> &[RawHeader] {
        &self.headers
    }

    /// A header's content.
    pub fn content(&self, header: &RawHeader) -> &'a [u8] {
        let start = header.content_offset() as usize;
        // The extents of this file's own headers were checked by `read`; another file's header gives nothing.
        self.bytes
            .get(start..start.saturating_add(header.len as usize))
            .unwrap_or(&[])
    }

    /// A header in typed form.
    pub fn decode(&self, header: &RawHeader) -> Result<Header<'a>, HeaderError> {
        Header::decode(header.typ, self.content(header))
    }

    /// The bytes of the variable headers.
    pub fn variable_headers(&self) -> &'a [u8] {
        &self.bytes[self.fixed.variable_header_offset as usize..self.data_start() as usize]
    }

    /// File offset of the file data, which is the end of the variable headers.
    pub fn data_start(&self) -> u64 {
        u64::from(self.fixed.variable_header_offset) + u64::from(self.fixed.variable_header_size)
    }

    /// `len` bytes of file data at a file offset; `None` when any of them is outside the file data.
    pub fn data(&self, file_offset: u32, len: u64) -> Option<&'a [u8]> {
        let start = u64::from(file_offset);
        let end = start.checked_add(len)?;
        if start < self.data_start() || end > self.bytes.len() as u64 {
            return None;
        }
        Some(&self.bytes[start as usize..end as usize])
    }

    /// Writes the file from its parts: equal to the bytes that were read.
    pub fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let fixed = self.fixed.to_bytes();
        out.write_all(&fixed)?;
        out.write_all(&self.bytes[fixed.len()..self.fixed.variable_header_offset as usize])?;
        for header in &self.headers {
            out.write_all(&header.typ.to_le_bytes())?;
            out.write_all(&header.len.to_le_bytes())?;
            out.write_all(self.content(header))?;
            out.write_all(self.padding(header))?;
        }
        out.write_all(&self.bytes[self.data_start() as usize..])
    }

    /// The bytes between a header's content and the next header; zero by the rules.
    pub fn padding(&self, header: &RawHeader) -> &'a [u8] {
        let start = u64::from(header.content_offset()) + u64::from(header.len);
        let first = u64::from(self.fixed.variable_header_offset);
        let end = (first + (start - first).next_multiple_of(8)).min(self.data_start());
        &self.bytes[start as usize..end as usize]
    }
}

/// Walks type, length, content from `start` to the end of `bytes`. Headers are 8-byte aligned relative to
/// the first one.
fn read_headers(bytes: &[u8], start: usize) -> Result<Vec<RawHeader>, Problem> {
    let mut headers = Vec::with_capacity((bytes.len() - start) / 32);
    let mut at = start;
    while at < bytes.len() {
        let truncated = |message: String| Problem {
            header: Some(headers.len() as u32),
            ..Problem::file(Code::HeaderTruncated, at as u64, message)
        };
        let Some((prefix, rest)) = bytes[at..].split_first_chunk::<8>() else {
            return Err(truncated(format!(
                "{} bytes are too few for a header's type and length",
                bytes.len() - at
            )));
        };
        let typ = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
        let len = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
        if len as usize > rest.len() {
            return Err(truncated(format!(
                "type {typ:#x} says {len:#x} bytes of content; {:#x} are left of the variable headers",
                rest.len()
            )));
        }
        headers.push(RawHeader {
            typ,
            offset: at as u32,
            len,
        });
        at = start + (at + 8 + len as usize - start).next_multiple_of(8);
    }
    Ok(headers)
}
