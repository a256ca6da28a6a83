// SPDX-License-Identifier: MIT
//! `--igvm FILE | type=T,path=F` (uefi-launch 1.3).
//!
//! Always true: the value is typed only when its first comma-separated part begins with `type=` or
//! `path=`; everything else is a path, commas and equals signs included. Parts are split at commas
//! outside brackets, and a value wholly in brackets is taken without them, so `path=[a,b.bin]` names
//! `a,b.bin`. Not here: which options a type goes with.

use std::path::PathBuf;

/// A parsed `--igvm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IgvmArg {
    /// The type; `None` in the bare form.
    pub(crate) kind: Option<IgvmType>,
    /// The file.
    pub(crate) path: PathBuf,
}

/// `type=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IgvmType {
    Uefi,
    Linux,
    Test,
    Auto,
    OpenHcl,
    Ovmf,
}

impl IgvmType {
    const ALL: [Self; 6] = [
        Self::Uefi,
        Self::Linux,
        Self::Test,
        Self::Auto,
        Self::OpenHcl,
        Self::Ovmf,
    ];

    /// As typed.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Uefi => "uefi",
            Self::Linux => "linux",
            Self::Test => "test",
            Self::Auto => "auto",
            Self::OpenHcl => "openhcl",
            Self::Ovmf => "ovmf",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IgvmArgError {
    #[error("the file name is empty; give the path of an igvm file")]
    EmptyFile,
    #[error("path= is empty; give the path of an igvm file")]
    EmptyPath,
    #[error("unknown type {0:?}; known types are uefi, linux, test, auto, openhcl and ovmf")]
    UnknownType(String),
    #[error("key {0:?} is given twice; give it once (if it belongs to the file name, write path=[FILE])")]
    DuplicateKey(String),
    #[error(
        "unknown key {0:?}; known keys are type and path (if it belongs to the file name, write path=[FILE])"
    )]
    UnknownKey(String),
    #[error("{0:?} is not key=value (if it belongs to the file name, write path=[FILE])")]
    NotKeyValue(String),
    #[error("type={0} has no file; add path=FILE")]
    MissingPath(&'static str),
    #[error(
        "path= without a type; add type=uefi (or linux, test, auto, openhcl, ovmf), or give the bare file name"
    )]
    MissingType,
}

/// Parses the value of `--igvm`.
pub(crate) fn parse(text: &str) -> Result<IgvmArg, IgvmArgError> {
    if text.is_empty() {
        return Err(IgvmArgError::EmptyFile);
    }
    if !text.starts_with("type=") && !text.starts_with("path=") {
        return Ok(IgvmArg {
            kind: None,
            path: PathBuf::from(text),
        });
    }
    let mut kind = None;
    let mut path = None;
    for part in split_outside_brackets(text) {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| IgvmArgError::NotKeyValue(part.into()))?;
        let value = value
            .strip_prefix('[')
            .and_then(|v| v.strip_suffix(']'))
            .unwrap_or(value);
        let slot = match key {
            "type" => &mut kind,
            "path" => &mut path,
            _ => return Err(IgvmArgError::UnknownKey(key.into())),
        };
        if slot.replace(value).is_some() {
            return Err(IgvmArgError::DuplicateKey(key.into()));
        }
    }
    let kind = kind
        .map(|name| IgvmType::from_name(name).ok_or_else(|| IgvmArgError::UnknownType(name.into())))
        .transpose()?;
    match (kind, path) {
        (_, Some("")) => Err(IgvmArgError::EmptyPath),
        (Some(kind), Some(path)) => Ok(IgvmArg {
            kind: Some(kind),
            path: path.into(),
        }),
        (Some(kind), None) => Err(IgvmArgError::MissingPath(kind.name())),
        (None, _) => Err(IgvmArgError::MissingType),
    }
}

/// The parts between commas, brackets kept together.
pub(super) fn split_outside_brackets(text: &str) -> Vec<&str> {
    let mut depth = 0u32;
    text.split(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(kind: IgvmType, path: &str) -> Result<IgvmArg, IgvmArgError> {
        Ok(IgvmArg {
            kind: Some(kind),
            path: path.into(),
        })
    }

    fn bare(path: &str) -> Result<IgvmArg, IgvmArgError> {
        Ok(IgvmArg {
            kind: None,
            path: path.into(),
        })
    }

    #[test]
    fn key_order_does_not_matter() {
        assert_eq!(parse("type=uefi,path=a.bin"), typed(IgvmType::Uefi, "a.bin"));
        assert_eq!(parse("path=a.bin,type=uefi"), typed(IgvmType::Uefi, "a.bin"));
    }

    #[test]
    fn every_type_is_known_by_its_name() {
        for kind in IgvmType::ALL {
            assert_eq!(
                parse(&format!("type={},path=/x/y", kind.name())),
                typed(kind, "/x/y")
            );
        }
    }

    #[test]
    fn anything_that_does_not_begin_with_a_key_is_a_file_name() {
        for name in [
            "a.bin",
            "a,b.bin",
            "x=y.bin",
            "./type=uefi,path=x",
            "file=a,path=b",
            "C:\\a,b.bin",
            "types=1",
        ] {
            assert_eq!(parse(name), bare(name));
        }
    }

    #[test]
    fn brackets_keep_commas_and_equals_signs_in_a_path() {
        assert_eq!(
            parse("type=test,path=[a,type=b.bin]"),
            typed(IgvmType::Test, "a,type=b.bin")
        );
        assert_eq!(
            parse("path=x[1,2].bin,type=test"),
            typed(IgvmType::Test, "x[1,2].bin")
        );
        assert_eq!(parse("type=test,path=a=b.bin"), typed(IgvmType::Test, "a=b.bin"));
    }
}
