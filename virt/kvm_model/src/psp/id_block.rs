// SPDX-License-Identifier: MIT
//! ID block and ID authentication page at SNP_LAUNCH_FINISH (`spec/sev.md` 2.7).
//!
//! Always true: numbers are little-endian with 48 significant bytes; a key or signature that does not fit
//! P-384 never verifies. Not here: comparing digest and policy with the guest's.

use crate::firmware::{le, le32, status};
use crate::physical::PAGE;
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest, Sha384};

/// ECDSA on P-384 with SHA-384.
const ECDSA_P384_SHA384: u32 = 1;
const CURVE_P384: u32 = 2;
const KEY: usize = 1028;
const ID_SIGNATURE: usize = 0x40;
const ID_KEY: usize = 0x240;
const AUTHOR_SIGNATURE: usize = 0x680;
const AUTHOR_KEY: usize = 0x880;

/// What attestation reports would say of a guest's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRecord {
    /// The digest that the block expects.
    pub launch_digest: [u8; 48],
    /// Family id.
    pub family_id: [u8; 16],
    /// Image id.
    pub image_id: [u8; 16],
    /// Guest security version.
    pub guest_svn: u32,
    /// The policy that the block was signed for.
    pub policy: u64,
    /// SHA-384 of the id key.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the author key, when there is one.
    pub author_key_digest: Option<[u8; 48]>,
}

/// Checks algorithms, keys and signatures.
pub(super) fn verify(block: &[u8; 96], auth: &[u8; PAGE], author: bool) -> Result<IdentityRecord, u32> {
    let id_key = &auth[ID_KEY..ID_KEY + KEY];
    if le32(block, 80) != 1 || le32(auth, 0) != ECDSA_P384_SHA384 {
        return Err(status::INVALID_PARAM);
    }
    check(block, &auth[ID_SIGNATURE..ID_SIGNATURE + 144], id_key)?;
    let mut author_key_digest = None;
    if author {
        if le32(auth, 4) != ECDSA_P384_SHA384 {
            return Err(status::INVALID_PARAM);
        }
        let author_key = &auth[AUTHOR_KEY..AUTHOR_KEY + KEY];
        check(
            id_key,
            &auth[AUTHOR_SIGNATURE..AUTHOR_SIGNATURE + 144],
            author_key,
        )?;
        author_key_digest = Some(Sha384::digest(author_key).into());
    }
    Ok(IdentityRecord {
        launch_digest: part(block, 0),
        family_id: part(block, 48),
        image_id: part(block, 64),
        guest_svn: le32(block, 84),
        policy: le::<8>(block, 88),
        id_key_digest: Sha384::digest(id_key).into(),
        author_key_digest,
    })
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

fn check(message: &[u8], signature: &[u8], key: &[u8]) -> Result<(), u32> {
    let key = point(key).ok_or(status::INVALID_PARAM)?;
    let scalars = number(&signature[..72]).zip(number(&signature[72..144]));
    scalars
        .and_then(|(r, s)| Signature::from_scalars(r, s).ok())
        .filter(|signature| key.verify(message, signature).is_ok())
        .map(drop)
        .ok_or(status::BAD_SIGNATURE)
}

/// A public key: curve, x, y.
pub(super) fn point(key: &[u8]) -> Option<VerifyingKey> {
    let mut sec1 = [4; 97];
    sec1[1..49].copy_from_slice(&number(&key[4..76])?);
    sec1[49..].copy_from_slice(&number(&key[76..148])?);
    (le32(key, 0) == CURVE_P384)
        .then(|| VerifyingKey::from_sec1_bytes(&sec1).ok())
        .flatten()
}

/// 72 bytes, little-endian, to 48 big-endian ones.
fn number(bytes: &[u8]) -> Option<[u8; 48]> {
    let mut out = [0; 48];
    for (to, from) in out.iter_mut().rev().zip(bytes) {
        *to = *from;
    }
    bytes[48..].iter().all(|byte| *byte == 0).then_some(out)
}
