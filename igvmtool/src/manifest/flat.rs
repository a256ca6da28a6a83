// SPDX-License-Identifier: MIT
//! `image.flat`: a flat binary, its entry state, and the pages and parameters around it. Ours; the
//! fields are explained by example in `manifests/README.md`.

use launch_plan::{PageKind, ParameterKind};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// A flat binary and everything that its file says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a flat image object")]
pub(crate) struct FlatImage {
    /// Resource with the binary.
    pub(crate) resource: String,
    /// Where its first byte goes.
    pub(crate) gpa: Number,
    /// First instruction; `gpa` unless given.
    pub(crate) entry: Option<Number>,
    /// Processor mode at the entry.
    pub(crate) mode: EntryMode,
    /// Where the page tables (6 pages, identity map of 4 GiB) and after them the GDT (1 page) go.
    pub(crate) tables_gpa: Number,
    /// Registers by name; those not named are zero.
    #[serde(default)]
    pub(crate) registers: Vec<FlatRegister>,
    /// RAM that must exist.
    #[serde(default)]
    pub(crate) required_memory: Vec<FlatRange>,
    /// More pages, in file order after the binary.
    #[serde(default)]
    pub(crate) pages: Vec<FlatPages>,
    /// Parameter areas, in file order after the pages; their index is their position.
    #[serde(default)]
    pub(crate) parameters: Vec<FlatParameters>,
    /// Error ranges.
    #[serde(default)]
    pub(crate) error_ranges: Vec<FlatRange>,
    /// The region that may be moved as one block.
    pub(crate) relocatable: Option<FlatRelocation>,
}

/// `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EntryMode {
    /// 64-bit, paging on.
    Long,
    /// 32-bit, flat segments, paging off.
    Protected,
}

/// A register and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a flat register object")]
pub(crate) struct FlatRegister {
    pub(crate) name: RegisterName,
    pub(crate) value: Number,
}

/// The general purpose registers that a VBS register list can carry too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RegisterName {
    Rbp,
    Rsi,
    Rsp,
    R8,
    R9,
    R10,
    R11,
    R12,
}

/// A byte range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a flat range object")]
pub(crate) struct FlatRange {
    pub(crate) gpa: Number,
    pub(crate) bytes: Number,
}

/// Pages of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a flat pages object")]
pub(crate) struct FlatPages {
    pub(crate) gpa: Number,
    /// 4 KiB pages, or 2 MiB pages if `large`.
    pub(crate) count: u64,
    pub(crate) kind: FlatKind,
    #[serde(default)]
    pub(crate) large: bool,
    pub(crate) contents: FlatContents,
}

/// `kind` of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FlatKind {
    Measured,
    Unmeasured,
    Shared,
}

impl FlatKind {
    /// The plan's word.
    pub(crate) const fn page_kind(self) -> PageKind {
        match self {
            Self::Measured => PageKind::Measured,
            Self::Unmeasured => PageKind::Unmeasured,
            Self::Shared => PageKind::Shared,
        }
    }
}

/// What pages hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FlatContents {
    /// Zeros.
    Zero,
    /// One byte value everywhere.
    Fill(u8),
    /// A text, zero behind it.
    Text(String),
    /// A resource, zero behind it.
    Resource(String),
}

/// A parameter area.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a flat parameters object")]
pub(crate) struct FlatParameters {
    pub(crate) gpa: Number,
    /// 4 KiB pages.
    pub(crate) count: u64,
    #[serde(default = "zero")]
    pub(crate) initial: FlatContents,
    pub(crate) values: Vec<FlatValue>,
}

fn zero() -> FlatContents {
    FlatContents::Zero
}

/// A value that the host deposits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a flat value object")]
pub(crate) struct FlatValue {
    pub(crate) kind: FlatValueKind,
    /// Bytes from the area's beginning.
    pub(crate) offset: u32,
}

/// `kind` of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FlatValueKind {
    VpCount,
    Srat,
    Madt,
    MmioRanges,
    MemoryMap,
    CommandLine,
    Slit,
    Pptt,
    DeviceTree,
    EnvironmentInfo,
}

impl FlatValueKind {
    /// The plan's word.
    pub(crate) const fn parameter_kind(self) -> ParameterKind {
        match self {
            Self::VpCount => ParameterKind::VpCount,
            Self::Srat => ParameterKind::Srat,
            Self::Madt => ParameterKind::Madt,
            Self::MmioRanges => ParameterKind::MmioRanges,
            Self::MemoryMap => ParameterKind::MemoryMap,
            Self::CommandLine => ParameterKind::CommandLine,
            Self::Slit => ParameterKind::Slit,
            Self::Pptt => ParameterKind::Pptt,
            Self::DeviceTree => ParameterKind::DeviceTree,
            Self::EnvironmentInfo => ParameterKind::EnvironmentInfo,
        }
    }
}

/// A region that moves as one block; RIP, GDTR and the page tables move with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a flat relocation object")]
pub(crate) struct FlatRelocation {
    pub(crate) gpa: Number,
    pub(crate) bytes: Number,
    pub(crate) alignment: Number,
    pub(crate) min_gpa: Number,
    pub(crate) max_gpa: Number,
}

/// An unsigned number: JSON's, or a string in hexadecimal (`"0x1000"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;
        impl Visitor<'_> for NumberVisitor {
            type Value = Number;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an unsigned number or a string like \"0x1000\"")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
                let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                value
                    .map(Number)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

impl FlatImage {
    pub(super) fn check(&self) -> Result<(), String> {
        let aligned = |what: &str, gpa: Number| match gpa.0 % 4096 {
            0 => Ok(()),
            _ => Err(format!("{what} is {:#x}; it must be a multiple of 0x1000", gpa.0)),
        };
        aligned("gpa", self.gpa)?;
        aligned("tables_gpa", self.tables_gpa)?;
        for (n, register) in self.registers.iter().enumerate() {
            if self.registers[..n]
                .iter()
                .any(|other| other.name == register.name)
            {
                return Err(format!("register {:?} is given twice", register.name).to_lowercase());
            }
        }
        Ok(())
    }
}
