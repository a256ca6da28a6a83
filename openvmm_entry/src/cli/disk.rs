// SPDX-License-Identifier: MIT
//! `--disk` and `--virtio-blk`: `[file:]PATH[,ro][,format=raw|qcow2][,on=CONTROLLER][,rc=ROOT_COMPLEX]` (uefi-launch 1.5).
//!
//! Always true: the path is the first part; parts are split at commas outside brackets, and a path wholly in
//! brackets is taken without them. Not here: whether a controller of that name exists.

use super::igvm::split_outside_brackets;
use openvmm_defs::DiskFormat;
use std::path::PathBuf;

/// A parsed disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiskArg {
    /// The image.
    pub(crate) path: PathBuf,
    /// `ro`.
    pub(crate) read_only: bool,
    /// `format=`.
    pub(crate) format: Option<DiskFormat>,
    /// `on=`: a controller.
    pub(crate) on: Option<String>,
    /// `rc=`: a root complex, for the disk's own controller.
    pub(crate) root_complex: Option<String>,
}

/// Kinds of OpenVMM's that are not here.
const OTHER_KINDS: &[&str] = &[
    "mem",
    "memdiff",
    "sql",
    "sqldiff",
    "autocache",
    "blob",
    "crypt",
    "prwrap",
    "delay",
];
/// Keys of OpenVMM's that are not here.
const OTHER_KEYS: &[&str] = &["dvd", "vtl2", "uh", "uh-nvme", "pcie_port", "lun", "nsid"];

/// Parses the value.
pub(crate) fn parse(text: &str) -> Result<DiskArg, String> {
    let mut parts = split_outside_brackets(text).into_iter();
    let mut disk = DiskArg {
        path: path(parts.next().unwrap_or(""))?,
        read_only: false,
        format: None,
        on: None,
        root_complex: None,
    };
    for part in parts {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (part, None),
        };
        match (key, value) {
            ("ro", None) if !disk.read_only => disk.read_only = true,
            ("rc", Some(name)) if disk.root_complex.is_none() && !name.is_empty() => {
                disk.root_complex = Some(name.to_owned());
            }
            ("on", Some("") | None) => return Err("on= is empty; give the id of a controller".into()),
            ("on", Some(name)) if disk.on.is_none() => disk.on = Some(name.to_owned()),
            ("format", Some("raw")) if disk.format.is_none() => disk.format = Some(DiskFormat::Raw),
            ("format", Some("qcow2")) if disk.format.is_none() => disk.format = Some(DiskFormat::Qcow2),
            ("format", _) => {
                return Err(format!(
                    "{part:?} is given twice or is no format; known are raw and qcow2"
                ));
            }
            ("ro" | "on" | "rc", _) => {
                return Err(format!("{part:?} is given twice or has a value it does not take"));
            }
            (key, _) if OTHER_KEYS.contains(&key) => {
                return Err(format!(
                    "{key} is not available here; known are ro, format=raw|qcow2, on=CONTROLLER and rc=ROOT_COMPLEX"
                ));
            }
            _ => {
                return Err(format!(
                    "unknown {part:?}; known are ro, format=raw|qcow2, on=CONTROLLER and rc=ROOT_COMPLEX (if it belongs to the file name, write [FILE])"
                ));
            }
        }
    }
    Ok(disk)
}

fn path(text: &str) -> Result<PathBuf, String> {
    if let Some((kind, _)) = text.split_once(':')
        && OTHER_KINDS.contains(&kind)
    {
        return Err(format!(
            "disks of kind {kind}: are not available; give an image file (write ./{text} if that is its name)"
        ));
    }
    let path = text.strip_prefix("file:").unwrap_or(text);
    let path = path
        .strip_prefix('[')
        .and_then(|p| p.strip_suffix(']'))
        .unwrap_or(path);
    if path.is_empty() {
        return Err("the file name is empty; give the path of a disk image".into());
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &str, read_only: bool, on: Option<&str>) -> DiskArg {
        DiskArg {
            path: path.into(),
            read_only,
            format: None,
            on: on.map(str::to_owned),
            root_complex: None,
        }
    }

    #[test]
    fn every_form_is_understood() {
        for (text, expected) in [
            ("a.img", disk("a.img", false, None)),
            ("file:a.img,ro", disk("a.img", true, None)),
            ("[a,b.img],on=nvme0,ro", disk("a,b.img", true, Some("nvme0"))),
            ("file:[a,b]", disk("a,b", false, None)),
            ("/dev/x:y", disk("/dev/x:y", false, None)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn root_complexes_are_named() {
        assert_eq!(parse("a,rc=rc1").unwrap().root_complex.as_deref(), Some("rc1"));
        for bad in ["a,rc", "a,rc=", "a,rc=x,rc=y"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn formats_are_understood() {
        let formats = ["raw", "qcow2"].map(|name| parse(&format!("a,format={name}")).unwrap().format);
        assert_eq!(formats, [Some(DiskFormat::Raw), Some(DiskFormat::Qcow2)]);
    }

    #[test]
    fn every_mistake_has_its_message() {
        for (text, message) in [
            ("", "the file name is empty"),
            ("file:,ro", "the file name is empty"),
            ("mem:1G", "disks of kind mem: are not available"),
            ("a,ro,ro", "is given twice"),
            ("a,ro=1", "is given twice or has a value"),
            ("a,format=vhd", "is no format; known are raw and qcow2"),
            ("a,format=raw,format=raw", "is given twice"),
            ("a,on=", "on= is empty"),
            ("a,on", "on= is empty"),
            ("a,on=x,on=y", "is given twice"),
            ("a,dvd", "dvd is not available here"),
            ("a,lun=3", "lun is not available here"),
            ("a,b", "unknown \"b\"; known are"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
