// SPDX-License-Identifier: MIT
//! `--resource NAME=PATH`: the files that a manifest's images are made of.

use crate::failure::Failure;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A parsed `--resource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourceArg {
    name: String,
    path: PathBuf,
}

/// Parses `NAME=PATH`.
pub(crate) fn parse(text: &str) -> Result<ResourceArg, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(ResourceArg {
            name: name.to_owned(),
            path: path.into(),
        }),
        _ => Err("a resource is NAME=PATH, for example uefi=MSVM.fd".to_owned()),
    }
}

/// The contents of the resources by name.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    contents: BTreeMap<String, Vec<u8>>,
}

impl Resources {
    /// Reads them all.
    pub(crate) fn read(args: &[ResourceArg]) -> Result<Self, Failure> {
        let mut resources = Self::default();
        for arg in args {
            let bytes = std::fs::read(&arg.path).map_err(|error| {
                let path = arg.path.display();
                Failure::Unreadable(format!("resource {}: cannot read {path}: {error}", arg.name))
            })?;
            if resources.contents.insert(arg.name.clone(), bytes).is_some() {
                return Err(Failure::Usage(format!("resource {} is given twice", arg.name)));
            }
        }
        Ok(resources)
    }

    /// Names and contents, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.contents.iter().map(|(name, bytes)| (&name[..], &bytes[..]))
    }

    /// The contents of a resource.
    pub(crate) fn get(&self, name: &str) -> Result<&[u8], String> {
        let found = self.contents.get(name).map(|bytes| &bytes[..]);
        found.ok_or_else(|| format!("needs the resource {name}; add --resource {name}=PATH"))
    }
}
