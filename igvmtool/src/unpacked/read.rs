// SPDX-License-Identifier: MIT
//! A file becomes a folder.
//!
//! Always true: data is copied from the mapping page by page, so memory stays flat whatever the file's
//! size; an existing folder must be empty.

use super::fields::{entry, header, page_bytes, raw};
use super::manifest::{Bytes, Entry, Manifest, Payload, SCHEMA, Stored};
use super::{MANIFEST, layout};
use sha2::{Digest, Sha256};
use std::io::{BufWriter, Error, Write};
use std::path::Path;
use vm_loaders::igvm::{File, FormatVersion, Header, RawHeader};

/// Writes the folder; the number of payload files.
pub(crate) fn extract(file: &File<'_>, folder: &Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(folder)?;
    if std::fs::read_dir(folder)?.next().is_some() {
        return Err(Error::other("the folder is not empty; choose a new one"));
    }
    let mut extractor = Extractor {
        file,
        folder,
        references: layout::references(file),
        entries: Vec::new(),
        open: None,
        files: 0,
        covered: Vec::new(),
    };
    for raw_header in file.headers() {
        extractor.header(raw_header)?;
    }
    extractor.close()?;
    let manifest = extractor.manifest()?;
    let out = BufWriter::new(std::fs::File::create(folder.join(MANIFEST))?);
    let mut out = out;
    serde_json::to_writer_pretty(&mut out, &manifest)?;
    writeln!(out)?;
    out.flush()?;
    Ok(extractor.files)
}

/// A payload that is being written.
struct Open {
    name: String,
    out: BufWriter<std::fs::File>,
    hash: Sha256,
    at: Vec<(u64, u64)>,
    /// What the next page must look like to belong to it.
    next: Option<Header<'static>>,
}

struct Extractor<'f, 'a> {
    file: &'f File<'a>,
    folder: &'f Path,
    /// File offsets that headers refer to, sorted.
    references: Vec<u32>,
    entries: Vec<Entry>,
    open: Option<Open>,
    files: usize,
    /// Places that payloads hold, as (first, end) from the first data byte.
    covered: Vec<(u64, u64)>,
}

impl Extractor<'_, '_> {
    fn header(&mut self, raw_header: &RawHeader) -> std::io::Result<()> {
        let content = self.file.content(raw_header);
        let padding = self.file.padding(raw_header);
        let decoded = match self.file.decode(raw_header) {
            Ok(decoded) if padding.iter().all(|&byte| byte == 0) => decoded,
            _ => {
                self.close()?;
                self.entries.push(raw(raw_header.typ, content, padding));
                return Ok(());
            }
        };
        if self.continues(&decoded) {
            return self.append(&decoded);
        }
        self.close()?;
        let data = layout::data_of(self.file, &decoded, &self.references);
        let placeholder = data.map(|_| Payload {
            file: String::new(),
            sha256: None,
            at: Vec::new(),
        });
        let offset = layout::offset_of(&decoded).unwrap_or(0);
        let made = entry(&decoded, placeholder).filter(|made| {
            let len = data.map_or(0, |bytes| bytes.len() as u64);
            header(made, 0, offset, len).is_ok_and(|(typ, bytes)| typ == raw_header.typ && bytes == content)
                && (data.is_some() || offset == 0)
        });
        let Some(made) = made else {
            self.entries.push(raw(raw_header.typ, content, padding));
            return Ok(());
        };
        if let Some(bytes) = data {
            self.begin(&made, bytes, offset)?;
        }
        if let Some(open) = &mut self.open {
            open.next = following(&decoded);
        }
        self.entries.push(made);
        Ok(())
    }

    /// Whether a page belongs to the run that is open, with or without data.
    fn continues(&self, decoded: &Header<'_>) -> bool {
        let Header::PageData(page) = decoded else {
            return false;
        };
        if page.file_offset == 0 {
            return self.continues_zero(page.gpa, decoded);
        }
        let Some(Header::PageData(next)) = self.open.as_ref().and_then(|open| open.next.as_ref()) else {
            return false;
        };
        let same = (
            next.gpa,
            next.compatibility_mask,
            next.flags.into_bits(),
            next.data_type,
        ) == (
            page.gpa,
            page.compatibility_mask,
            page.flags.into_bits(),
            page.data_type,
        );
        same && page.reserved == 0 && layout::data_of(self.file, decoded, &self.references).is_some()
    }

    fn continues_zero(&self, gpa: u64, decoded: &Header<'_>) -> bool {
        let (Some(last), Some(new)) = (self.entries.last(), entry(decoded, None)) else {
            return false;
        };
        match (last, &new) {
            (
                Entry::Pages {
                    gpa: first,
                    mask,
                    kind,
                    unmeasured,
                    shared,
                    large,
                    zero_pages: Some(count),
                    payload: None,
                },
                Entry::Pages {
                    mask: m,
                    kind: k,
                    unmeasured: u,
                    shared: s,
                    large: l,
                    ..
                },
            ) => {
                let next = count
                    .checked_mul(page_bytes(*large))
                    .and_then(|bytes| first.0.checked_add(bytes));
                let plain = matches!(decoded, Header::PageData(page) if page.reserved == 0 && page.flags.reserved() == 0);
                plain && next == Some(gpa) && (mask, kind, unmeasured, shared, large) == (m, k, u, s, l)
            }
            _ => false,
        }
    }

    fn append(&mut self, decoded: &Header<'_>) -> std::io::Result<()> {
        let data = layout::data_of(self.file, decoded, &self.references);
        if let (Some(bytes), Some(offset)) = (data, layout::offset_of(decoded)) {
            let next = following(decoded);
            self.write(bytes, offset)?;
            if let Some(open) = &mut self.open {
                open.next = next;
            }
        } else if let Some(Entry::Pages {
            zero_pages: Some(count),
            ..
        }) = self.entries.last_mut()
        {
            *count += 1;
        }
        Ok(())
    }

    fn begin(&mut self, made: &Entry, bytes: &[u8], offset: u32) -> std::io::Result<()> {
        let name = file_name(self.files, made);
        self.files += 1;
        self.open = Some(Open {
            out: BufWriter::new(std::fs::File::create(self.folder.join(&name))?),
            name,
            hash: Sha256::new(),
            at: Vec::new(),
            next: None,
        });
        self.write(bytes, offset)
    }

    fn write(&mut self, bytes: &[u8], offset: u32) -> std::io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.out.write_all(bytes)?;
        open.hash.update(bytes);
        let place = u64::from(offset) - self.file.data_start();
        let len = bytes.len() as u64;
        match open.at.last_mut() {
            Some((start, total)) if *start + *total == place => *total += len,
            _ => open.at.push((place, len)),
        }
        match self.covered.last_mut() {
            Some((_, end)) if *end == place => *end += len,
            _ => self.covered.push((place, place + len)),
        }
        Ok(())
    }

    /// Ends the open payload and gives it to the last entry.
    fn close(&mut self) -> std::io::Result<()> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        open.out.flush()?;
        let payload = Payload {
            file: open.name,
            sha256: Some(layout::hex(&open.hash.finalize())),
            at: open.at,
        };
        if let Some(place) = self.entries.last_mut().and_then(Entry::payload_mut) {
            *place = payload;
        }
        Ok(())
    }

    fn manifest(&mut self) -> std::io::Result<Manifest> {
        let fixed = *self.file.fixed_header();
        let data_bytes = self.file.bytes().len() as u64 - self.file.data_start();
        let total: u64 = self.covered.iter().map(|(start, end)| end - start).sum();
        self.covered.sort_unstable();
        let mut unused = Vec::new();
        let mut from = 0;
        let ends = self.covered.iter().copied().chain([(data_bytes, data_bytes)]);
        let mut union = 0;
        for (start, end) in ends.collect::<Vec<_>>() {
            if start > from {
                unused.push(self.unused(from, start, unused.len())?);
            }
            union += end.saturating_sub(start.max(from));
            from = from.max(end);
        }
        let right = fixed.compute_checksum(self.file.variable_headers());
        let len = self.file.bytes().len() as u64;
        Ok(Manifest {
            schema: SCHEMA,
            format_version: if fixed.version == FormatVersion::V1 { 1 } else { 2 },
            architecture: fixed.architecture,
            page_size: fixed.page_size,
            gap: Bytes(self.file.bytes()[fixed.len()..fixed.variable_header_offset as usize].to_vec()),
            stored: Stored {
                header_bytes: fixed.variable_header_size.into(),
                data_bytes,
                shared: union < total,
                unused,
                total_file_size: (u64::from(fixed.total_file_size) != len).then_some(fixed.total_file_size),
                checksum: (fixed.checksum != right).then_some(fixed.checksum),
            },
            headers: std::mem::take(&mut self.entries),
        })
    }

    fn unused(&mut self, start: u64, end: u64, number: usize) -> std::io::Result<Payload> {
        let from = (self.file.data_start() + start) as usize;
        let bytes = &self.file.bytes()[from..from + (end - start) as usize];
        let file = format!("unused-{number}.bin");
        std::fs::write(self.folder.join(&file), bytes)?;
        self.files += 1;
        Ok(Payload {
            file,
            sha256: Some(layout::hex(&Sha256::digest(bytes))),
            at: vec![(start, end - start)],
        })
    }
}

/// The page that would continue a run.
fn following(decoded: &Header<'_>) -> Option<Header<'static>> {
    let Header::PageData(page) = decoded else {
        return None;
    };
    let gpa = page.gpa.checked_add(page_bytes(page.flags.is_2mb_page()))?;
    Some(Header::PageData(igvm_defs::IGVM_VHS_PAGE_DATA { gpa, ..*page }))
}

fn file_name(number: usize, entry: &Entry) -> String {
    let what = match entry {
        Entry::Pages { gpa, .. } => format!("pages-{:x}", gpa.0),
        Entry::ParameterArea { area, .. } => format!("area-{area}"),
        Entry::VpContext { vp, .. } => format!("vp-{vp}"),
        Entry::CorimDocument { .. } => "corim-document".to_owned(),
        Entry::CorimSignature { .. } => "corim-signature".to_owned(),
        _ => "data".to_owned(),
    };
    format!("{number:03}-{what}.bin")
}
