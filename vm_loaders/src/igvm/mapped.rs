// SPDX-License-Identifier: MIT
//! A file, mapped read-only and private.
//!
//! A mapping is the only way to read gigabytes without copying them, and it has two dangers. Another
//! process may change the file: pages that were not read yet show the new bytes, even in a private
//! mapping. Or it may truncate the file: reading a lost page raises SIGBUS, which ends a process without
//! a word. Both end with a message here:
//!
//! - [`MappedFile::verify_unchanged`] compares the open file's length and modification time with those at
//!   the start, and names the file when they differ. Callers use it before and after each load, also at
//!   reset. It looks at the file that was opened, not at its name: replacing the file by renaming another
//!   over it is safe and stays unnoticed, as it should.
//! - `sigbus` catches the signal for addresses of our mappings: it puts a zero page under the lost one and
//!   remembers it, so the load goes on and the check behind it fails by name. Any other SIGBUS goes where
//!   it went before.
//!
//! Always true: the bytes may be read at any time without killing the process; whether they are the file's
//! is known after `verify_unchanged` only. A change that keeps the length within the clock tick (a few
//! milliseconds) of opening is not noticed. Not here: what the bytes mean.

use super::sigbus::{self, Watch};
use memmap2::{Mmap, MmapOptions};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Why a file cannot be mapped or is not what it was.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MapError {
    #[error("cannot open {}", name.display())]
    Open { name: PathBuf, source: std::io::Error },
    #[error("{} is not a regular file; copy it to one first", name.display())]
    NotAFile { name: PathBuf },
    #[error("cannot map {}", name.display())]
    Map { name: PathBuf, source: std::io::Error },
    #[error("cannot look at {} again", name.display())]
    Stat { name: PathBuf, source: std::io::Error },
    #[error(
        "{} was truncated while in use: it had {was:#x} bytes and has {is:#x}; start again with a file that stays", name.display()
    )]
    Truncated { name: PathBuf, was: u64, is: u64 },
    #[error("{} was changed while in use; start again with a file that stays", name.display())]
    Changed { name: PathBuf },
    #[error("{} could not be read to its end: a part of it was lost while in use", name.display())]
    Lost { name: PathBuf },
}

/// A mapped file.
#[derive(Debug)]
pub struct MappedFile {
    // The watch must end before the mapping does: fields drop in order.
    watch: Option<Watch>,
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
    file: std::fs::File,
    name: PathBuf,
    len: u64,
    modified: SystemTime,
}

impl MappedFile {
    /// Maps a file.
    pub fn open(path: &Path) -> Result<Self, MapError> {
        let open = |source| MapError::Open {
            name: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(open)?;
        Self::from_file(file, path)
    }

    /// Maps a file that is open already; `name` is for messages.
    pub fn from_file(file: std::fs::File, name: &Path) -> Result<Self, MapError> {
        let name = name.to_owned();
        let stat = |source| MapError::Stat {
            name: name.clone(),
            source,
        };
        let metadata = file.metadata().map_err(stat)?;
        if !metadata.is_file() {
            return Err(MapError::NotAFile { name });
        }
        let modified = metadata.modified().map_err(stat)?;
        let len = metadata.len();
        let map_error = |source| MapError::Map {
            name: name.clone(),
            source,
        };
        let (map, watch) = if len == 0 {
            (None, None)
        } else {
            // SAFETY: the mapping is private and read-only. Its bytes can change when the file does; they
            // are only ever read as plain bytes whose every value is valid, `verify_unchanged` reports the
            // change, and `sigbus` keeps lost pages readable.
            let map = unsafe { MmapOptions::new().map_copy_read_only(&file) }.map_err(map_error)?;
            let watch = sigbus::watch(&map).map_err(map_error)?;
            (Some(map), Some(watch))
        };
        Ok(Self {
            watch,
            map,
            file,
            name,
            len,
            modified,
        })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }

    /// The name for messages.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Whether the file is still what was mapped; the error names it.
    pub fn verify_unchanged(&self) -> Result<(), MapError> {
        let name = || self.name.clone();
        let stat = |source| MapError::Stat { name: name(), source };
        let metadata = self.file.metadata().map_err(stat)?;
        if metadata.len() < self.len {
            return Err(MapError::Truncated {
                name: name(),
                was: self.len,
                is: metadata.len(),
            });
        }
        if self.watch.as_ref().is_some_and(Watch::lost) {
            return Err(MapError::Lost { name: name() });
        }
        if metadata.len() != self.len || metadata.modified().map_err(stat)? != self.modified {
            return Err(MapError::Changed { name: name() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
