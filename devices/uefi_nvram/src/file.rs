// SPDX-License-Identifier: MIT
//! The file that keeps variables.
//!
//! Always true: the file is a whole state, old or new: each write makes a new file beside it, brings it to the
//! disk and renames it; one VM at a time uses a file, through a lock that moves with the rename; what is read
//! is checked by length, CRC and the limits of this crate before any of it counts. Not here: what the
//! variables mean.
//!
//! Format, little-endian: `OPENVMM NVRAM\0`, u16 version 1, u32 number of variables; for each 16 bytes vendor,
//! u32 attributes, u16 units of the name, u32 bytes of data, 16 bytes time of the last signed write, 32 bytes
//! identity of its signer (zeros when there is none), name, data; at the end the CRC-32 of all before it.

use crate::key::Key;
use crate::store::Variable;
use crate::{MAX_DATA, MAX_STORAGE};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const MAGIC: &[u8; 14] = b"OPENVMM NVRAM\0";
const VERSION: u16 = 1;
const HEADER: usize = 20;
/// Of each variable, before name and data.
const RECORD: usize = 74;
/// No file of this crate is longer: every variable pays more to [`MAX_STORAGE`] than a record beyond it.
const MAX_FILE: u64 = 2 * MAX_STORAGE as u64;
/// Renames by others that are waited out while the file is opened.
const MOST_TRIES: u32 = 100;

/// All variables.
pub(crate) type Variables = BTreeMap<Key, Variable>;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The host refuses.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the host said.
        error: io::Error,
    },
    /// Somebody else holds it.
    #[error("another vm uses this file; give each vm a file of its own")]
    InUse,
    /// It begins otherwise.
    #[error(
        "this is not a file of uefi variables that openvmm has made; give another name, and it is made (variables \
         of OVMF go with --vars)"
    )]
    NotOurs,
    /// Made by a later version.
    #[error("the file has version {0}, and this program knows {VERSION}; use a newer openvmm")]
    Version(u16),
    /// It was cut or changed.
    #[error(
        "the file is damaged at offset {offset:#x}: {what}; restore it from a backup, or remove it to begin without \
         variables"
    )]
    Damaged {
        /// Where.
        offset: usize,
        /// The rule that is broken.
        what: &'static str,
    },
}

fn io(what: &'static str) -> impl FnOnce(io::Error) -> FileError {
    move |error| FileError::Io { what, error }
}

/// An open, locked file.
#[derive(Debug)]
pub(crate) struct VariableFile {
    path: PathBuf,
    /// Holds the lock.
    file: File,
}

impl VariableFile {
    /// Opens the file, or makes an empty one.
    pub(crate) fn open(path: &Path) -> Result<(Self, Variables), FileError> {
        let mut file = Self {
            file: lock(path)?,
            // A rename to a symbolic link would replace the link.
            path: fs::canonicalize(path).map_err(io("find the file"))?,
        };
        let mut bytes = Vec::new();
        let mut limited = (&file.file).take(MAX_FILE + 1);
        limited.read_to_end(&mut bytes).map_err(io("read the file"))?;
        let variables = if bytes.is_empty() {
            let none = Variables::new();
            file.write(&none).map_err(io("write the file"))?;
            none
        } else {
            parse(&bytes)?
        };
        Ok((file, variables))
    }

    /// Replaces the contents. When this returns, they are on the disk.
    pub(crate) fn write(&mut self, variables: &Variables) -> io::Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let mut new = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&name)?;
        // Whoever opens the path after the rename must find it locked.
        new.try_lock()?;
        new.write_all(&encode(variables))?;
        new.sync_all()?;
        fs::rename(&name, &self.path)?;
        self.file = new;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// Opens and locks the file that has this name now.
fn lock(path: &Path) -> Result<File, FileError> {
    for _ in 0..MOST_TRIES {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("open the file"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileError::InUse),
            Err(TryLockError::Error(error)) => return Err(io("lock the file")(error)),
        }
        let held = file.metadata().map_err(io("look at the file"))?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => return Ok(file),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("look at the file")(error)),
            // It was renamed over in between.
            _ => {}
        }
    }
    Err(FileError::InUse)
}

fn encode(variables: &Variables) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(variables.len() as u32).to_le_bytes());
    for (key, variable) in variables {
        bytes.extend_from_slice(&key.vendor().to_bytes_le());
        bytes.extend_from_slice(&variable.attributes.to_le_bytes());
        bytes.extend_from_slice(&(key.name().len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(variable.data.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&variable.time);
        bytes.extend_from_slice(&variable.signer);
        bytes.extend(key.name().iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend_from_slice(&variable.data);
    }
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Takes pieces from the front.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], FileError> {
        let what = "it ends inside a variable";
        let offset = self.at;
        let end = offset.checked_add(len);
        let piece = end.and_then(|end| self.bytes.get(offset..end));
        self.at = end.unwrap_or(offset);
        piece.ok_or(FileError::Damaged { offset, what })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FileError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
}

fn parse(bytes: &[u8]) -> Result<Variables, FileError> {
    if !bytes.starts_with(MAGIC) {
        return Err(FileError::NotOurs);
    }
    let mut reader = Reader {
        bytes,
        at: MAGIC.len(),
    };
    let version = u16::from_le_bytes(reader.array()?);
    if version != VERSION {
        return Err(FileError::Version(version));
    }
    let damaged = |offset, what| FileError::Damaged { offset, what };
    if bytes.len() as u64 > MAX_FILE {
        return Err(damaged(MAX_FILE as usize, "it is longer than variables may be"));
    }
    let end = bytes.len().checked_sub(4).filter(|&end| end >= HEADER);
    let end = end.ok_or(damaged(bytes.len(), "it ends inside the header"))?;
    if crc32fast::hash(&bytes[..end]).to_le_bytes() != bytes[end..] {
        return Err(damaged(end, "the checksum does not fit the contents"));
    }
    reader.bytes = &bytes[..end];
    let count = u32::from_le_bytes(reader.array()?);
    let mut variables = Variables::new();
    let mut last = None;
    for _ in 0..count {
        let offset = reader.at;
        let (key, variable) = record(&mut reader)?;
        if last.is_some_and(|last| last >= key) {
            return Err(damaged(offset, "the variables are not in their order"));
        }
        last = Some(key.clone());
        variables.insert(key, variable);
    }
    if reader.at != end {
        return Err(damaged(reader.at, "something follows the last variable"));
    }
    Ok(variables)
}

fn record(reader: &mut Reader<'_>) -> Result<(Key, Variable), FileError> {
    let offset = reader.at;
    let damaged = |what| FileError::Damaged { offset, what };
    let vendor = Uuid::from_bytes_le(reader.array()?);
    let attributes = u32::from_le_bytes(reader.array()?);
    let units = u16::from_le_bytes(reader.array()?);
    let len = u32::from_le_bytes(reader.array()?) as usize;
    let time = reader.array()?;
    let signer = reader.array()?;
    debug_assert_eq!(reader.at - offset, RECORD);
    if len > MAX_DATA {
        return Err(damaged("a variable is larger than variables may be"));
    }
    let name: Vec<u16> = reader
        .take(usize::from(units) * 2)?
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .collect();
    let key = Key::new(vendor, &name).map_err(|_| damaged("a name is too long or has a NUL"))?;
    let variable = Variable {
        attributes,
        time,
        signer,
        data: reader.take(len)?.to_vec(),
    };
    Ok((key, variable))
}

#[cfg(test)]
mod tests;
