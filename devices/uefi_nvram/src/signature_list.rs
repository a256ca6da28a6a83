// SPDX-License-Identifier: MIT
//! Lists of keys, certificates and hashes: the contents of PK, KEK, db, dbx (UEFI 32.4.1).
//!
//! Always true: what is parsed fills its bytes exactly. Not here: what the entries allow.
//!
//! List: GUID of the type, u32 bytes of the list, u32 of its own header, u32 of one signature; header;
//! signatures, each the GUID of its owner and data.

use uuid::{Uuid, uuid};

/// Entries are X.509 certificates, DER.
pub(crate) const X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
const SHA256: Uuid = uuid!("c1c41626-504c-4092-aca9-41f936934328");
const HEADER: usize = 28;
const OWNER: usize = 16;

/// One list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignatureList<'d> {
    pub(crate) kind: Uuid,
    header: &'d [u8],
    size: usize,
    entries: &'d [u8],
}

impl<'d> SignatureList<'d> {
    /// Owner and data of each entry.
    fn raw(&self) -> impl Iterator<Item = &'d [u8]> + use<'d> {
        self.entries.chunks_exact(self.size)
    }

    /// Data of each entry.
    pub(crate) fn data(&self) -> impl Iterator<Item = &'d [u8]> + use<'d> {
        self.raw().map(|entry| &entry[OWNER..])
    }

    fn same_form(&self, other: &Self) -> bool {
        (self.kind, self.size, self.header) == (other.kind, other.size, other.header)
    }
}

/// All lists of a variable's data; `None` when they are not lists.
pub(crate) fn parse(mut data: &[u8]) -> Option<Vec<SignatureList<'_>>> {
    let mut lists = Vec::new();
    while !data.is_empty() {
        let number = |at: usize| {
            let bytes = data.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(bytes)).ok()
        };
        let (len, header, size) = (number(16)?, number(20)?, number(24)?);
        let (list, rest) = data.split_at_checked(len)?;
        let (header, entries) = list.get(HEADER..)?.split_at_checked(header)?;
        let kind = Uuid::from_bytes_le(list.get(..16)?.try_into().ok()?);
        let sound = size > OWNER && !entries.is_empty() && entries.len().is_multiple_of(size);
        if !sound || (kind == SHA256 && size != OWNER + 32) {
            return None;
        }
        lists.push(SignatureList {
            kind,
            header,
            size,
            entries,
        });
        data = rest;
    }
    Some(lists)
}

/// The entries of `new` that `old` does not have, as lists (UEFI 8.2.2: what is there is not appended again).
pub(crate) fn without(new: &[SignatureList<'_>], old: &[SignatureList<'_>]) -> Vec<u8> {
    let mut data = Vec::new();
    for list in new {
        let known = |entry: &[u8]| {
            let same = old.iter().filter(|old| old.same_form(list));
            same.flat_map(SignatureList::raw).any(|old| old == entry)
        };
        let fresh: Vec<_> = list.raw().filter(|entry| !known(entry)).collect();
        if fresh.is_empty() {
            continue;
        }
        let len = HEADER + list.header.len() + fresh.len() * list.size;
        data.extend_from_slice(&list.kind.to_bytes_le());
        // All three are parts of a u32 that was read.
        for number in [len, list.header.len(), list.size] {
            data.extend_from_slice(&(number as u32).to_le_bytes());
        }
        data.extend_from_slice(list.header);
        data.extend(fresh.into_iter().flatten());
    }
    data
}
