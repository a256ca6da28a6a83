// SPDX-License-Identifier: MIT
//! The key that the model signs reports with: ECDSA on P-384 with SHA-384, in AMD's little-endian form.
//!
//! Always true: the key is public knowledge (it comes from a constant), so a signature proves nothing.
//! Not here: verifying.

use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

fn key() -> SigningKey {
    let mut scalar = [0; 48];
    scalar[16..].copy_from_slice(&Sha256::digest(b"report key of the model"));
    // Any number of 256 bits but 0 is below the order of P-384.
    SigningKey::from_slice(&scalar).expect("a scalar below the order")
}

/// The key that verifies the model's reports.
pub(crate) fn public_key() -> VerifyingKey {
    *key().verifying_key()
}

/// R and S of 72 bytes each.
pub(super) fn by_model(bytes: &[u8]) -> [u8; 144] {
    let signature: Signature = key().sign(bytes);
    let (r, s) = signature.split_bytes();
    let mut out = [0; 144];
    for (to, from) in out[..48].iter_mut().zip(r.iter().rev()) {
        *to = *from;
    }
    for (to, from) in out[72..120].iter_mut().zip(s.iter().rev()) {
        *to = *from;
    }
    out
}
