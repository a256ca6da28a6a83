// SPDX-License-Identifier: MIT
//! Writing result files: complete or not at all.

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// Writes a file beside its place and moves it there when it is complete.
pub(crate) fn write(
    path: &Path,
    contents: impl FnOnce(&mut std::io::BufWriter<std::fs::File>) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let write = || {
        let mut out = std::io::BufWriter::new(std::fs::File::create(&part)?);
        contents(&mut out)?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        std::fs::rename(&part, path)
    };
    write().map_err(|error| Failure::Unreadable(format!("cannot write {}: {error}", path.display())))
}
