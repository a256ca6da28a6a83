// SPDX-License-Identifier: MIT
//! Keys of secure boot from a variable store that a user names, such as Debian's `OVMF_VARS_4M.ms.fd`.
//!
//! The file is a firmware volume with EDK2's store of authenticated variables. Always true: nothing but PK, KEK, db,
//! dbx and dbt is taken, each a sound list of signatures, and never without a PK. Not here: certificates of our own,
//! and OVMF's use of such files (`chipset::flash`).

use crate::key::{Key, name};
use crate::store::Variable;
use crate::{attribute, signature_list, vendor};
use uuid::{Uuid, uuid};

/// EFI_AUTHENTICATED_VARIABLE: the store's signature.
const STORE: Uuid = uuid!("aaf32c78-947b-439a-a180-2e144ec37792");
const STORE_HEADER: usize = 28;
/// A variable's header, and its first two bytes.
const VARIABLE_HEADER: usize = 60;
const START: u16 = 0x55AA;
/// States: valid, and valid while its successor was being written.
const ADDED: u8 = 0x3F;
const BEING_REPLACED: u8 = 0x3E;

/// Why a file gives no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not such a file.
    #[error(
        "this is no store of authenticated variables; give a file such as OVMF_VARS_4M.ms.fd, a firmware volume that \
         holds one"
    )]
    NotAStore,
    /// It ends too early.
    #[error("the variable at offset {0:#x} goes past the end of its store")]
    CutOff(usize),
    /// A key is not what it should be.
    #[error("the variable {0} at offset {1:#x} is no list of signatures")]
    NotSignatures(&'static str, usize),
    /// Nothing would be checked without one.
    #[error("the file has no platform key (PK), without which secure boot stays off; enroll one in it first")]
    NoPlatformKey,
}

/// The variables that may be taken.
fn wanted() -> [(Key, &'static str); 5] {
    let global = |text| (name(vendor::GLOBAL, text), text);
    let image = |text| (name(vendor::IMAGE_SECURITY, text), text);
    [
        global("PK"),
        global("KEK"),
        image("db"),
        image("dbx"),
        image("dbt"),
    ]
}

/// The keys in `file`.
pub fn read(file: &[u8]) -> Result<Vec<(Key, Variable)>, TemplateError> {
    let (store, base) = store(file).ok_or(TemplateError::NotAStore)?;
    let wanted = wanted();
    let mut found: Vec<(Key, Variable)> = Vec::new();
    let mut at = STORE_HEADER;
    while let Some(header) = store.get(at..at + VARIABLE_HEADER) {
        let number =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if u16::from_le_bytes([header[0], header[1]]) != START {
            break;
        }
        let (state, name_len, len) = (header[2], number(36) as usize, number(40) as usize);
        let body = at + VARIABLE_HEADER;
        let rest = store.get(body..).unwrap_or_default();
        let cut_off = TemplateError::CutOff(base + at);
        let (text, rest) = rest.split_at_checked(name_len).ok_or(cut_off.clone())?;
        let data = rest.get(..len).ok_or(cut_off)?;
        let mut id = [0; 16];
        id.copy_from_slice(&header[44..]);
        let key = Key::from_buffer(Uuid::from_bytes_le(id), text).ok();
        let known = wanted.iter().find(|(wanted, _)| Some(wanted) == key.as_ref());
        if let (Some((key, text)), ADDED | BEING_REPLACED) = (known, state) {
            if signature_list::parse(data).is_none_or(|lists| lists.is_empty()) {
                return Err(TemplateError::NotSignatures(text, base + at));
            }
            let mut time = [0; 16];
            time.copy_from_slice(&header[16..32]);
            let variable = Variable {
                attributes: attribute::USUAL | attribute::TIME_BASED,
                time,
                signer: [0; 32],
                data: data.to_vec(),
            };
            // The one that was being replaced counts only while there is no other.
            match found.iter_mut().find(|(other, _)| other == key) {
                Some((_, old)) if state == ADDED => *old = variable,
                Some(_) => {}
                None => found.push((key.clone(), variable)),
            }
        }
        at = (body + name_len + len).next_multiple_of(4);
    }
    if !found.iter().any(|(key, _)| *key == wanted[0].0) {
        return Err(TemplateError::NoPlatformKey);
    }
    Ok(found)
}

/// The variable store behind the volume's header, and where in the file it begins.
fn store(file: &[u8]) -> Option<(&[u8], usize)> {
    let word = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
    if file.get(40..44)? != b"_FVH" {
        return None;
    }
    let base = usize::from(word(48)?);
    let store = file.get(base..)?;
    if store.get(..16)? != STORE.to_bytes_le() {
        return None;
    }
    let size = u32::from_le_bytes(store.get(16..20)?.try_into().ok()?) as usize;
    Some((store.get(..size)?, base))
}

#[cfg(test)]
mod tests;
