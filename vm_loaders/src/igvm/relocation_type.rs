// SPDX-License-Identifier: MIT
//! The grammar of `--igvm-vtl2-relocation-type` (`uefi-launch.md` section 1.2).
//!
//! Always true: sizes and addresses are parsed with checked arithmetic, errors name the bad part. Not
//! here: which payload may use it.

use std::str::FromStr;

/// Where VTL2 memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vtl2Relocation {
    /// `disable`: load at the addresses in the file.
    File,
    /// `auto=filesize` or `auto=SIZE`: the memory layout chooses a base for a range of the file's size or
    /// of this many bytes.
    MemoryLayout(Option<u64>),
    /// `absolute=N`: this base address.
    Absolute(u64),
    /// `vtl2=filesize` or `vtl2=SIZE`: file addresses; VTL2 allocates its own memory, this many bytes.
    Vtl2Allocate(Option<u64>),
}

/// Why a text is not a relocation type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelocationTypeError {
    /// None of the forms.
    #[error(
        "unknown VTL2 relocation type \"{0}\"; it is disable, auto=filesize, auto=SIZE, absolute=N, vtl2=filesize or vtl2=SIZE"
    )]
    Unknown(String),
    /// A size that cannot be read.
    #[error("invalid size \"{0}\" in the VTL2 relocation type; write bytes or a number with K, M, G or T")]
    Size(String),
    /// An address that cannot be read.
    #[error("invalid address \"{0}\" in the VTL2 relocation type; write a decimal or 0x number")]
    Address(String),
}

impl Default for Vtl2Relocation {
    /// `auto=filesize`.
    fn default() -> Self {
        Self::MemoryLayout(None)
    }
}

impl Vtl2Relocation {
    /// Whether the file must have a relocatable region.
    pub const fn needs_relocatable_file(self) -> bool {
        matches!(self, Self::MemoryLayout(_) | Self::Absolute(_))
    }
}

impl FromStr for Vtl2Relocation {
    type Err = RelocationTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let size = |value: &str| match value {
            "filesize" => Ok(None),
            _ => parse_size(value)
                .map(Some)
                .ok_or_else(|| RelocationTypeError::Size(value.to_owned())),
        };
        match text.split_once('=') {
            None if text == "disable" => Ok(Self::File),
            Some(("auto", value)) => size(value).map(Self::MemoryLayout),
            Some(("vtl2", value)) => size(value).map(Self::Vtl2Allocate),
            Some(("absolute", value)) => {
                let base = match value.strip_prefix("0x") {
                    Some(digits) => parse_digits(digits, 16),
                    None => parse_digits(value, 10),
                };
                base.map(Self::Absolute)
                    .ok_or_else(|| RelocationTypeError::Address(value.to_owned()))
            }
            _ => Err(RelocationTypeError::Unknown(text.to_owned())),
        }
    }
}

/// Digits only: the standard parser would take a sign.
fn parse_digits(text: &str, radix: u32) -> Option<u64> {
    text.chars()
        .all(|c| c.is_digit(radix))
        .then(|| u64::from_str_radix(text, radix).ok())
        .flatten()
}

/// `512`, `4K`, `16MB`, `1G`, `2TB`.
fn parse_size(text: &str) -> Option<u64> {
    let text = text
        .strip_suffix('B')
        .filter(|rest| rest.ends_with(['K', 'M', 'G', 'T']))
        .unwrap_or(text);
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, 'K') => (&text[..at], 10),
        (at, 'M') => (&text[..at], 20),
        (at, 'G') => (&text[..at], 30),
        (at, 'T') => (&text[..at], 40),
        _ => (text, 0),
    };
    parse_digits(digits, 10)?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_parses() {
        let rows = [
            ("disable", Vtl2Relocation::File),
            ("auto=filesize", Vtl2Relocation::MemoryLayout(None)),
            ("auto=64M", Vtl2Relocation::MemoryLayout(Some(64 << 20))),
            ("auto=2TB", Vtl2Relocation::MemoryLayout(Some(2 << 40))),
            ("absolute=4096", Vtl2Relocation::Absolute(4096)),
            ("absolute=0x40000000", Vtl2Relocation::Absolute(1 << 30)),
            ("vtl2=filesize", Vtl2Relocation::Vtl2Allocate(None)),
            ("vtl2=4KB", Vtl2Relocation::Vtl2Allocate(Some(4096))),
            ("vtl2=1234", Vtl2Relocation::Vtl2Allocate(Some(1234))),
        ];
        for (text, value) in rows {
            assert_eq!(text.parse(), Ok(value), "{text}");
        }
    }

    #[test]
    fn bad_texts_name_the_bad_part() {
        let rows = [
            ("off", "unknown VTL2 relocation type \"off\""),
            ("", "unknown VTL2 relocation type \"\""),
            ("disable=1", "unknown VTL2 relocation type \"disable=1\""),
            ("auto=", "invalid size \"\""),
            ("auto=1.5G", "invalid size \"1.5G\""),
            ("auto=12B", "invalid size \"12B\""),
            ("vtl2=99999999T", "invalid size \"99999999T\""),
            ("auto=4k", "invalid size \"4k\""),
            ("absolute=0x", "invalid address \"0x\""),
            ("absolute=+1", "invalid address \"+1\""),
            ("absolute=0x1ffffffffffffffff", "invalid address"),
        ];
        for (text, message) in rows {
            let error = text.parse::<Vtl2Relocation>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
