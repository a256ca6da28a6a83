// SPDX-License-Identifier: MIT
//! Lines and columns of a manifest's parts.

use serde::Deserialize;

/// A place in a manifest, both from 1; columns count bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// What is wrong with a manifest, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{}:{}: {what}", place.line, place.column)]
pub(crate) struct ManifestError {
    /// The manifest as the user named it.
    pub(crate) file: String,
    /// Where.
    pub(crate) place: Place,
    /// What.
    pub(crate) what: String,
}

/// A manifest's name and whole text; parts are slices of the text.
pub(super) struct Source<'m> {
    pub(super) name: &'m str,
    pub(super) text: &'m str,
}

impl Source<'_> {
    /// Parses `part`, a slice of the text.
    pub(super) fn parse<'p, T: Deserialize<'p>>(&self, part: &'p str) -> Result<T, ManifestError> {
        serde_json::from_str(part).map_err(|error| {
            let (line, column) = (error.line().max(1), error.column().max(1));
            let start = self.place(part);
            // Only the first line of a part begins somewhere else than in column 1.
            let column = if line == 1 {
                column + start.column - 1
            } else {
                column
            };
            let place = Place {
                line: start.line + line - 1,
                column,
            };
            let text = error.to_string();
            let suffix = format!(" at line {} column {}", error.line(), error.column());
            self.error(place, text.strip_suffix(&suffix).unwrap_or(&text).to_owned())
        })
    }

    /// Where `part`, a slice of the text, begins.
    pub(super) fn place(&self, part: &str) -> Place {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let before = self.text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before.len() - line_start + 1,
        }
    }

    /// The beginning of the manifest.
    pub(super) fn whole(&self) -> Place {
        self.place(self.text)
    }

    pub(super) fn error(&self, place: Place, what: String) -> ManifestError {
        ManifestError {
            file: self.name.to_owned(),
            place,
            what,
        }
    }
}
