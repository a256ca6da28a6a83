// SPDX-License-Identifier: MIT
//! Signed writes: EFI_VARIABLE_AUTHENTICATION_2 and who may write which variable (UEFI 8.2.2, 32.3).
//!
//! Always true: nothing is decided from data that the signature does not cover, except in setup mode, where
//! the keys of secure boot need no signature. Not here: cryptography ([`crate::pkcs7`]).

use crate::key::{Key, name};
use crate::pkcs7::{self, Signer};
use crate::signature_list::{self, X509};
use crate::{Status, vendor};
use uuid::{Uuid, uuid};

/// EFI_TIME, then WIN_CERTIFICATE_UEFI_GUID: u32 bytes of it, u16 revision, u16 type, GUID.
const CERTIFICATE: usize = 16;
const HEADER: usize = CERTIFICATE + 24;
const REVISION: u16 = 0x0200;
const TYPE_GUID: u16 = 0x0EF1;
const PKCS7: Uuid = uuid!("4aafd29d-68df-49ee-8aa9-347d375665a7");

/// The parts of a signed write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedWrite<'d> {
    /// EFI_TIME.
    pub(crate) time: [u8; 16],
    signature: &'d [u8],
    /// What is to be written.
    pub(crate) content: &'d [u8],
}

impl<'d> SignedWrite<'d> {
    /// Takes the header off the data of SetVariable.
    pub(crate) fn split(data: &'d [u8]) -> Result<Self, Status> {
        Self::parse(data).ok_or(Status::SecurityViolation)
    }

    fn parse(data: &'d [u8]) -> Option<Self> {
        let half = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
        let header = data.get(..HEADER)?;
        let time: [u8; 16] = header[..16].try_into().ok()?;
        // Year to second only: the rest has to be zero.
        if time[7] != 0 || time[8..].iter().any(|&byte| byte != 0) {
            return None;
        }
        let len = u32::from(half(CERTIFICATE)) | u32::from(half(CERTIFICATE + 2)) << 16;
        let kind = Uuid::from_bytes_le(header[CERTIFICATE + 8..].try_into().ok()?);
        if half(CERTIFICATE + 4) != REVISION || half(CERTIFICATE + 6) != TYPE_GUID || kind != PKCS7 {
            return None;
        }
        let end = CERTIFICATE.checked_add(usize::try_from(len).ok()?)?;
        Some(Self {
            time,
            signature: data.get(HEADER..end)?,
            content: &data[end..],
        })
    }

    /// Who signed this write of `key` with `attributes`.
    fn signer(&self, key: &Key, attributes: u32) -> Result<Signer, Status> {
        let name = key.name_bytes();
        // The name without its NUL.
        let mut message = name[..name.len() - 2].to_vec();
        message.extend_from_slice(&key.vendor().to_bytes_le());
        message.extend_from_slice(&attributes.to_le_bytes());
        message.extend_from_slice(&self.time);
        message.extend_from_slice(self.content);
        Signer::verify(self.signature, &message).ok_or(Status::SecurityViolation)
    }

    /// Refuses a write that none of `keys`, data of PK and KEK, stands behind.
    pub(crate) fn check_keys(&self, key: &Key, attributes: u32, keys: &[&[u8]]) -> Result<(), Status> {
        let signer = self.signer(key, attributes)?;
        let lists = keys
            .iter()
            .filter_map(|data| signature_list::parse(data))
            .flatten();
        let mut trusted = lists
            .filter(|list| list.kind == X509)
            .flat_map(|list| list.data())
            .filter_map(pkcs7::certificate);
        if trusted.any(|trusted| signer.is_below(&trusted)) {
            Ok(())
        } else {
            Err(Status::SecurityViolation)
        }
    }

    /// Who signed a private variable.
    pub(crate) fn identity(&self, key: &Key, attributes: u32) -> Result<[u8; 32], Status> {
        let identity = self.signer(key, attributes)?.identity();
        identity.ok_or(Status::SecurityViolation)
    }

    /// Whether this is later than what was written at `time`.
    pub(crate) fn is_after(&self, time: &[u8; 16]) -> bool {
        order(&self.time) > order(time)
    }
}

/// Year, month, day, hour, minute, second, so that they compare.
fn order(time: &[u8; 16]) -> [u8; 7] {
    [time[1], time[0], time[2], time[3], time[4], time[5], time[6]]
}

/// Variables of secure boot, by who may write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The platform key, written by itself.
    PlatformKey,
    /// Keys of system vendors, written by the platform key.
    ExchangeKeys,
    /// Databases, written by either.
    Database,
}

/// The policy that `key` is part of, if any.
pub(crate) fn policy(key: &Key) -> Option<Policy> {
    if key.is(vendor::GLOBAL, "PK") {
        return Some(Policy::PlatformKey);
    }
    if key.is(vendor::GLOBAL, "KEK") {
        return Some(Policy::ExchangeKeys);
    }
    let database = ["db", "dbx", "dbt", "dbr"];
    let is_database = database.iter().any(|text| key.is(vendor::IMAGE_SECURITY, text));
    is_database.then_some(Policy::Database)
}

impl Policy {
    /// The variables whose keys may sign.
    pub(crate) fn signers(self) -> Vec<Key> {
        let pk = name(vendor::GLOBAL, "PK");
        match self {
            Self::PlatformKey | Self::ExchangeKeys => vec![pk],
            Self::Database => vec![pk, name(vendor::GLOBAL, "KEK")],
        }
    }

    /// Refuses content that is not what the variable holds.
    pub(crate) fn check_content(self, content: &[u8]) -> Result<(), Status> {
        let lists = signature_list::parse(content).ok_or(Status::InvalidParameter)?;
        let certificates = |lists: &[signature_list::SignatureList<'_>]| {
            let all = lists.iter().filter(|list| list.kind == X509);
            all.flat_map(|list| list.data())
                .all(|data| pkcs7::certificate(data).is_some())
        };
        let one_key = match &lists[..] {
            [] => true,
            [list] => list.kind == X509 && list.data().count() == 1,
            _ => false,
        };
        if !certificates(&lists) || (self == Self::PlatformKey && !one_key) {
            return Err(Status::InvalidParameter);
        }
        Ok(())
    }
}
