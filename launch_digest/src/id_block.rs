// SPDX-License-Identifier: MIT
//! SEV-SNP ID blocks: build, sign, attach a foreign signature, verify (SNP ABI 56860, "ID Block" and
//! "ID Authentication Information").
//!
//! Always true: signatures are ECDSA P-384 over SHA-384 in AMD's little-endian form; signing is
//! deterministic (RFC 6979), so the same key and block give the same bytes.
//! Not here: the policy itself (it is the image's GUEST_POLICY, not part of the directive).

use launch_plan::{IdBlock, IdKey, IdSignature};
use p384::ecdsa::signature::{Signer, Verifier};
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use p384::pkcs8::{DecodePrivateKey, DecodePublicKey};
use sha2::{Digest, Sha384};

/// Size of the signed block.
pub const ID_BLOCK_SIZE: usize = 96;
/// Size of the ID authentication page.
pub const ID_AUTH_SIZE: usize = 4096;
/// ECDSA P-384 with SHA-384.
const ALGORITHM_ECDSA_P384_SHA384: u32 = 1;
/// AMD's number of the curve P-384.
const CURVE_P384: u32 = 2;
/// Size of a key in the ID authentication page.
const KEY_SIZE: usize = 1028;
/// Significant bytes of a P-384 number.
const NUMBER: usize = 48;

/// What an ID block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdBlockFields {
    /// Expected launch digest.
    pub launch_digest: [u8; 48],
    /// Family id.
    pub family_id: [u8; 16],
    /// Image id.
    pub image_id: [u8; 16],
    /// Version of the block, 1.
    pub version: u32,
    /// Guest security version.
    pub guest_svn: u32,
    /// Guest policy.
    pub policy: u64,
}

/// Why an ID block cannot be made or does not hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdBlockError {
    /// The digest is another one.
    #[error(
        "the id block expects launch digest {expected}, but this launch gives {actual}; the firmware would answer BAD_MEASUREMENT"
    )]
    Digest {
        /// In the block, hex.
        expected: String,
        /// Of the launch, hex.
        actual: String,
    },
    /// A signature does not verify.
    #[error(
        "the signature of the {what} does not verify with its key; the firmware would answer BAD_SIGNATURE (a policy that differs from the signed one has the same effect)"
    )]
    Signature {
        /// "id block" or "id key".
        what: &'static str,
    },
    /// An algorithm that the firmware does not know.
    #[error(
        "the {what} names algorithm {value}; only 1 (ecdsa p-384 with sha-384) is known; the firmware would answer INVALID_PARAM"
    )]
    Algorithm {
        /// "id key" or "author key".
        what: &'static str,
        /// The number.
        value: u32,
    },
    /// A version that the firmware does not know.
    #[error("the id block has version {0}; only 1 is known; the firmware would answer INVALID_PARAM")]
    Version(u32),
    /// A key is not a point on P-384.
    #[error("the {what} is not a point on curve p-384; the firmware would answer INVALID_PARAM")]
    Key {
        /// "id key" or "author key".
        what: &'static str,
    },
    /// A PEM text could not be used.
    #[error("cannot read the {what}: {reason}; expected {expected}")]
    Pem {
        /// Which key or signature.
        what: &'static str,
        /// What is wrong.
        reason: String,
        /// What would be right.
        expected: &'static str,
    },
}

impl IdBlockFields {
    /// The 96 bytes that are signed.
    pub fn to_bytes(&self) -> [u8; ID_BLOCK_SIZE] {
        let mut b = [0; ID_BLOCK_SIZE];
        b[..48].copy_from_slice(&self.launch_digest);
        b[48..64].copy_from_slice(&self.family_id);
        b[64..80].copy_from_slice(&self.image_id);
        b[80..84].copy_from_slice(&self.version.to_le_bytes());
        b[84..88].copy_from_slice(&self.guest_svn.to_le_bytes());
        b[88..].copy_from_slice(&self.policy.to_le_bytes());
        b
    }

    /// What `block` says, with the image's policy.
    pub fn of(block: &IdBlock, policy: u64) -> Self {
        Self {
            launch_digest: block.launch_digest,
            family_id: block.family_id,
            image_id: block.image_id,
            version: block.version,
            guest_svn: block.guest_svn,
            policy,
        }
    }

    /// Signs the block with `id_key`, and that key with `author_key` when given.
    pub fn sign(&self, id_key: &SigningKey, author_key: Option<&SigningKey>) -> IdBlock {
        let signature: Signature = id_key.sign(&self.to_bytes());
        let mut block = self.with_signature(&signature, id_key.verifying_key());
        if let Some(author) = author_key {
            let signature: Signature = author.sign(&key_bytes(&block.id_key));
            block.author_key_enabled = 1;
            block.author_key_algorithm = ALGORITHM_ECDSA_P384_SHA384;
            block.author_signature = to_amd_signature(&signature);
            block.author_key = to_amd_key(author.verifying_key());
        }
        block
    }

    /// Joins the block with a signature that was made elsewhere. It is not verified here.
    pub fn with_signature(&self, signature: &Signature, key: &VerifyingKey) -> IdBlock {
        IdBlock {
            author_key_enabled: 0,
            launch_digest: self.launch_digest,
            family_id: self.family_id,
            image_id: self.image_id,
            version: self.version,
            guest_svn: self.guest_svn,
            id_key_algorithm: ALGORITHM_ECDSA_P384_SHA384,
            author_key_algorithm: 0,
            id_signature: to_amd_signature(signature),
            id_key: to_amd_key(key),
            author_signature: IdSignature {
                r: [0; 72],
                s: [0; 72],
            },
            author_key: IdKey {
                curve: 0,
                qx: [0; 72],
                qy: [0; 72],
            },
        }
    }
}

/// Checks everything that the firmware checks at LAUNCH_FINISH, in its order: algorithms, signatures,
/// digest.
pub fn verify(block: &IdBlock, policy: u64, launch_digest: &[u8; 48]) -> Result<(), IdBlockError> {
    if block.version != 1 {
        return Err(IdBlockError::Version(block.version));
    }
    check_algorithm("id key", block.id_key_algorithm)?;
    let signed = IdBlockFields::of(block, policy).to_bytes();
    check_signature(
        &signed,
        &block.id_signature,
        &block.id_key,
        ("id block", "id key"),
    )?;
    if block.author_key_enabled != 0 {
        check_algorithm("author key", block.author_key_algorithm)?;
        let signed = key_bytes(&block.id_key);
        check_signature(
            &signed,
            &block.author_signature,
            &block.author_key,
            ("id key", "author key"),
        )?;
    }
    if block.launch_digest != *launch_digest {
        let hex = |d: &[u8]| crate::Digest(d.to_vec()).to_string();
        return Err(IdBlockError::Digest {
            expected: hex(&block.launch_digest),
            actual: hex(launch_digest),
        });
    }
    Ok(())
}

fn check_algorithm(what: &'static str, value: u32) -> Result<(), IdBlockError> {
    if value == ALGORITHM_ECDSA_P384_SHA384 {
        Ok(())
    } else {
        Err(IdBlockError::Algorithm { what, value })
    }
}

fn check_signature(
    message: &[u8],
    signature: &IdSignature,
    key: &IdKey,
    (what, key_name): (&'static str, &'static str),
) -> Result<(), IdBlockError> {
    let key = from_amd_key(key).ok_or(IdBlockError::Key { what: key_name })?;
    let signature = from_amd_signature(signature).ok_or(IdBlockError::Signature { what })?;
    key.verify(message, &signature)
        .map_err(|_| IdBlockError::Signature { what })
}

/// The ID authentication page that goes with the block.
pub fn id_auth(block: &IdBlock) -> Box<[u8; ID_AUTH_SIZE]> {
    let mut p = Box::new([0; ID_AUTH_SIZE]);
    p[0..4].copy_from_slice(&block.id_key_algorithm.to_le_bytes());
    p[4..8].copy_from_slice(&block.author_key_algorithm.to_le_bytes());
    let signature = |p: &mut [u8; ID_AUTH_SIZE], at: usize, s: &IdSignature| {
        p[at..at + 72].copy_from_slice(&s.r);
        p[at + 72..at + 144].copy_from_slice(&s.s);
    };
    signature(&mut p, 0x40, &block.id_signature);
    p[0x240..0x240 + KEY_SIZE].copy_from_slice(&key_bytes(&block.id_key));
    signature(&mut p, 0x680, &block.author_signature);
    p[0x880..0x880 + KEY_SIZE].copy_from_slice(&key_bytes(&block.author_key));
    p
}

/// SHA-384 of a key as reports carry it (ID_KEY_DIGEST, AUTHOR_KEY_DIGEST).
pub fn key_digest(key: &IdKey) -> [u8; 48] {
    Sha384::digest(key_bytes(key)).into()
}

fn key_bytes(key: &IdKey) -> [u8; KEY_SIZE] {
    let mut b = [0; KEY_SIZE];
    b[..4].copy_from_slice(&key.curve.to_le_bytes());
    b[4..76].copy_from_slice(&key.qx);
    b[76..148].copy_from_slice(&key.qy);
    b
}

/// Big-endian to AMD's 72-byte little-endian number.
fn to_amd(number: &[u8]) -> [u8; 72] {
    let mut out = [0; 72];
    for (to, from) in out.iter_mut().zip(number.iter().rev()) {
        *to = *from;
    }
    out
}

/// AMD's number to 48 big-endian bytes; `None` when it does not fit.
fn from_amd(number: &[u8; 72]) -> Option<[u8; NUMBER]> {
    let mut out = [0; NUMBER];
    for (to, from) in out.iter_mut().rev().zip(number) {
        *to = *from;
    }
    number[NUMBER..].iter().all(|b| *b == 0).then_some(out)
}

fn to_amd_signature(signature: &Signature) -> IdSignature {
    let (r, s) = signature.split_bytes();
    IdSignature {
        r: to_amd(&r),
        s: to_amd(&s),
    }
}

fn from_amd_signature(s: &IdSignature) -> Option<Signature> {
    Signature::from_scalars(from_amd(&s.r)?, from_amd(&s.s)?).ok()
}

fn to_amd_key(key: &VerifyingKey) -> IdKey {
    let point = key.to_sec1_point(false);
    let bytes = point.as_bytes();
    IdKey {
        curve: CURVE_P384,
        qx: to_amd(&bytes[1..1 + NUMBER]),
        qy: to_amd(&bytes[1 + NUMBER..]),
    }
}

fn from_amd_key(key: &IdKey) -> Option<VerifyingKey> {
    let mut sec1 = [4; 1 + 2 * NUMBER];
    sec1[1..1 + NUMBER].copy_from_slice(&from_amd(&key.qx)?);
    sec1[1 + NUMBER..].copy_from_slice(&from_amd(&key.qy)?);
    (key.curve == CURVE_P384)
        .then(|| VerifyingKey::from_sec1_bytes(&sec1).ok())
        .flatten()
}

/// Reads a private key in PEM: PKCS#8 or SEC1.
pub fn signing_key_from_pem(what: &'static str, pem: &str) -> Result<SigningKey, IdBlockError> {
    let expected = "a p-384 private key in pem (PRIVATE KEY or EC PRIVATE KEY)";
    if pem.contains("BEGIN EC PRIVATE KEY") {
        let key = p384::SecretKey::from_sec1_pem(pem);
        return key.map(|k| SigningKey::from(&k)).map_err(|e| IdBlockError::Pem {
            what,
            reason: e.to_string(),
            expected,
        });
    }
    SigningKey::from_pkcs8_pem(pem).map_err(|e| IdBlockError::Pem {
        what,
        reason: e.to_string(),
        expected,
    })
}

/// Reads a public key in PEM.
pub fn verifying_key_from_pem(what: &'static str, pem: &str) -> Result<VerifyingKey, IdBlockError> {
    let expected = "a p-384 public key in pem (PUBLIC KEY)";
    VerifyingKey::from_public_key_pem(pem).map_err(|e| IdBlockError::Pem {
        what,
        reason: e.to_string(),
        expected,
    })
}

/// Reads a detached signature: DER, or the raw 96 bytes r and s.
pub fn signature_from_bytes(bytes: &[u8]) -> Result<Signature, IdBlockError> {
    Signature::from_der(bytes)
        .or_else(|_| Signature::from_slice(bytes))
        .map_err(|e| IdBlockError::Pem {
            what: "signature",
            reason: e.to_string(),
            expected: "an ecdsa p-384 signature in der, or 96 raw bytes",
        })
}

#[cfg(test)]
mod tests;
