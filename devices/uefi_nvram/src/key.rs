// SPDX-License-Identifier: MIT
//! What names a variable: its vendor's GUID, and text of 16-bit units.
//!
//! Always true: a name holds no NUL and fits [`MAX_NAME`] with one. Names need not be valid UTF-16.

use crate::MAX_NAME;
use uuid::Uuid;

/// Vendor and name. Ordered by vendor, then by name; this is the order in which variables are enumerated.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    vendor: Uuid,
    name: Box<[u16]>,
}

/// The bytes are not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than [`MAX_NAME`].
    #[error("a name of more than {MAX_NAME:#x} bytes")]
    TooLong,
    /// No NUL ends it, or half a character does.
    #[error("a name without its end")]
    NoEnd,
}

impl Key {
    /// From the units of the name, without a NUL.
    pub fn new(vendor: Uuid, name: &[u16]) -> Result<Self, NameError> {
        if (name.len() + 1) * 2 > MAX_NAME {
            return Err(NameError::TooLong);
        }
        if name.contains(&0) {
            return Err(NameError::NoEnd);
        }
        Ok(Self {
            vendor,
            name: name.into(),
        })
    }

    /// From a guest's buffer, whose text ends at its first NUL.
    pub fn from_buffer(vendor: Uuid, buffer: &[u8]) -> Result<Self, NameError> {
        let units: Vec<u16> = buffer
            .chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
            .collect();
        let len = units.iter().position(|&unit| unit == 0).ok_or(NameError::NoEnd)?;
        Self::new(vendor, &units[..len])
    }

    /// The vendor.
    pub fn vendor(&self) -> Uuid {
        self.vendor
    }

    /// The units of the name.
    pub fn name(&self) -> &[u16] {
        &self.name
    }

    /// Whether there is no name at all.
    pub fn is_empty(&self) -> bool {
        self.name.is_empty()
    }

    /// The name as a guest's buffer takes it: little-endian units and a NUL.
    pub fn name_bytes(&self) -> Vec<u8> {
        self.name
            .iter()
            .chain(&[0])
            .flat_map(|unit| unit.to_le_bytes())
            .collect()
    }

    /// Whether this is `text` of `vendor`.
    pub fn is(&self, vendor: Uuid, text: &str) -> bool {
        self.vendor == vendor && self.name.iter().copied().eq(text.encode_utf16())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The name is the guest's: nothing in it may reach a terminal as it is.
        write!(
            f,
            "{} of {}",
            String::from_utf16_lossy(&self.name).escape_debug(),
            self.vendor
        )
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// A key from ordinary text, which the caller knows to be short and without NUL.
///
/// # Panics
/// If it is not.
pub fn name(vendor: Uuid, text: &str) -> Key {
    let units: Vec<u16> = text.encode_utf16().collect();
    Key::new(vendor, &units).expect("a short name without NUL")
}
