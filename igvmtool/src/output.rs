// SPDX-License-Identifier: MIT
//! Writing results: files complete or not at all, text and JSON to standard output.
//!
//! Always true: a reader of standard output that goes away (`| head`) is no error.

use crate::failure::Failure;
use std::io::Write;
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

/// Writes to standard output through a buffer.
pub(crate) fn stdout(
    write: impl FnOnce(&mut std::io::BufWriter<std::io::StdoutLock<'static>>) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Unreadable(format!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(()),
    }
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    stdout(|out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        writeln!(out)
    })
}
