// SPDX-License-Identifier: MIT
//! Sessions and launch secrets of SEV and SEV-ES (`spec/sev.md` 2.2).
//!
//! Always true: the firmware's side and the guest owner's are both here, so that tests can make blobs the
//! way an owner does; the owner's side never looks into the firmware. Not here: certificate chains; the
//! model takes a bare key certificate.

use super::Psp;
use super::guest::State;
use super::id_block::point;
use crate::firmware::{le32, put, status};
use aes::Aes128;
use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use p384::ecdh::diffie_hellman;
use p384::elliptic_curve::sec1::ToSec1Point;
use p384::{PublicKey, SecretKey};
use sha2::{Digest, Sha256};

/// Length of a SEV certificate and of a session.
const CERTIFICATE: usize = 0x824;
const SESSION: usize = 128;
/// A certificate's public key: curve, x, y.
const PUBLIC_KEY: usize = 0x10;
/// Length of a secret's header.
pub(crate) const SECRET_HEADER: usize = 52;

type Mac256 = Hmac<Sha256>;

/// What LAUNCH_START brings along.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    pub(crate) certificate: Vec<u8>,
    pub(crate) session: Vec<u8>,
}

/// A guest owner's session with a platform: what LAUNCH_START takes, and the keys that only the owner and
/// the firmware have.
#[derive(Debug, Clone)]
pub struct ModelSession {
    /// The owner's certificate.
    pub certificate: Vec<u8>,
    /// The session blob.
    pub session: Vec<u8>,
    /// Transport encryption key.
    pub tek: [u8; 16],
    /// Transport integrity key.
    pub tik: [u8; 16],
}

/// A secret as LAUNCH_SECRET takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretPacket {
    /// Flags, IV and MAC.
    pub header: [u8; SECRET_HEADER],
    /// The encrypted secret.
    pub transport: Vec<u8>,
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let mut mac = <Mac256 as KeyInit>::new_from_slice(key).expect("a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// SP800-108 in counter mode, for one block.
fn derive(key: &[u8], label: &str, context: &[u8]) -> [u8; 16] {
    let bits = 128u32.to_le_bytes();
    let block = mac(
        key,
        &[&1u32.to_le_bytes(), label.as_bytes(), &[0], context, &bits],
    );
    let mut out = [0; 16];
    out.copy_from_slice(&block[..16]);
    out
}

/// AES-128 in counter mode, both ways.
fn counter_mode(key: &[u8; 16], iv: &[u8], bytes: &mut [u8]) {
    let cipher = Aes128::new(&(*key).into());
    let mut counter = [0; 16];
    counter.copy_from_slice(iv);
    let mut counter = u128::from_be_bytes(counter);
    for chunk in bytes.chunks_mut(16) {
        let mut block: Block<Aes128> = counter.to_be_bytes().into();
        cipher.encrypt_block(&mut block);
        chunk.iter_mut().zip(&block).for_each(|(byte, key)| *byte ^= key);
        counter = counter.wrapping_add(1);
    }
}

/// The keys that wrap a session: encryption and integrity.
fn wrapping_keys(shared: &[u8], nonce: &[u8]) -> ([u8; 16], [u8; 16]) {
    let master = derive(shared, "sev-master-secret", nonce);
    (derive(&master, "sev-kek", &[]), derive(&master, "sev-kik", &[]))
}

fn secret_key(seed: &[u8]) -> SecretKey {
    let mut scalar = [0; 48];
    scalar[16..].copy_from_slice(&Sha256::digest(seed));
    // Any number of 256 bits but 0 is below the order of P-384.
    SecretKey::from_slice(&scalar).expect("a scalar below the order")
}

impl ModelSession {
    /// The owner's side: keys and nonces come from `seed`, `platform` is the platform's public key.
    pub fn new(platform: &PublicKey, policy: u32, seed: &[u8]) -> Self {
        let bytes = |what: &str| -> [u8; 16] {
            let mut out = [0; 16];
            out.copy_from_slice(&Sha256::digest([seed, what.as_bytes()].concat())[..16]);
            out
        };
        let own = secret_key(seed);
        let shared = diffie_hellman(own.to_nonzero_scalar(), platform.as_affine());
        let (nonce, iv, tek, tik) = (bytes("nonce"), bytes("iv"), bytes("tek"), bytes("tik"));
        let (encryption, integrity) = wrapping_keys(shared.raw_secret_bytes(), &nonce);
        let mut wrapped = [tek, tik].concat();
        counter_mode(&encryption, &iv, &mut wrapped);
        let wrap_mac = mac(&integrity, &[&wrapped]);
        let policy_mac = mac(&tik, &[&policy.to_le_bytes()]);
        let session = [&nonce[..], &wrapped, &iv, &wrap_mac, &policy_mac].concat();
        Self {
            certificate: certificate(&own.public_key()),
            session,
            tek,
            tik,
        }
    }

    /// A secret for a guest that was measured as `measurement` says (the 32 bytes of HMAC).
    pub fn secret(&self, plain: &[u8], measurement: &[u8; 32]) -> SecretPacket {
        let mut transport = plain.to_vec();
        let iv = [0x5A; 16];
        counter_mode(&self.tek, &iv, &mut transport);
        let mut header = [0; SECRET_HEADER];
        header[4..20].copy_from_slice(&iv);
        let mac = secret_mac(&self.tik, &header, &transport, plain.len(), measurement);
        header[20..].copy_from_slice(&mac);
        SecretPacket { header, transport }
    }
}

fn secret_mac(tik: &[u8], header: &[u8], transport: &[u8], plain: usize, measurement: &[u8]) -> [u8; 32] {
    let lengths = [
        (plain as u32).to_le_bytes(),
        (transport.len() as u32).to_le_bytes(),
    ]
    .concat();
    mac(tik, &[&[1], &header[..20], &lengths, transport, measurement])
}

/// A certificate with nothing but a key agreement key.
fn certificate(key: &PublicKey) -> Vec<u8> {
    let mut out = vec![0; CERTIFICATE];
    put::<4>(&mut out, 0, 1);
    put::<4>(&mut out, PUBLIC_KEY, 2);
    let point = key.to_sec1_point(false);
    for (at, number) in [
        (0x14, &point.as_bytes()[1..49]),
        (0x5C, &point.as_bytes()[49..97]),
    ] {
        for (to, from) in out[at..at + 48].iter_mut().zip(number.iter().rev()) {
            *to = *from;
        }
    }
    out
}

impl Psp {
    fn key_agreement_key(&self) -> SecretKey {
        secret_key(b"platform diffie-hellman key of the model")
    }

    /// The platform's public key agreement key (what PDH_CERT_EXPORT gives an owner).
    pub(crate) fn public_key(&self) -> PublicKey {
        self.key_agreement_key().public_key()
    }

    /// TEK and TIK of a session.
    pub(super) fn unwrap_session(&self, blobs: &Blobs, policy: u32) -> Result<([u8; 16], [u8; 16]), u32> {
        if blobs.certificate.len() != CERTIFICATE || blobs.session.len() != SESSION {
            return Err(status::INVALID_LEN);
        }
        let key = point(&blobs.certificate[PUBLIC_KEY..]).ok_or(status::INVALID_CERTIFICATE)?;
        let shared = diffie_hellman(self.key_agreement_key().to_nonzero_scalar(), key.as_affine());
        let (nonce, rest) = blobs.session.split_at(16);
        let (wrapped, rest) = rest.split_at(32);
        let (iv, rest) = rest.split_at(16);
        let (wrap_mac, policy_mac) = rest.split_at(32);
        let (encryption, integrity) = wrapping_keys(shared.raw_secret_bytes(), nonce);
        if mac(&integrity, &[wrapped]) != wrap_mac {
            return Err(status::BAD_MEASUREMENT);
        }
        let mut keys = wrapped.to_vec();
        counter_mode(&encryption, iv, &mut keys);
        let (mut tek, mut tik) = ([0; 16], [0; 16]);
        tek.copy_from_slice(&keys[..16]);
        tik.copy_from_slice(&keys[16..]);
        if mac(&tik, &[&policy.to_le_bytes()]) != policy_mac {
            return Err(status::POLICY_FAILURE);
        }
        Ok((tek, tik))
    }

    /// LAUNCH_SECRET: the plain secret, if it is for this guest as it was measured.
    pub(crate) fn launch_secret(
        &mut self,
        handle: u32,
        header: &[u8],
        transport: &[u8],
        room: usize,
    ) -> Result<Vec<u8>, u32> {
        let guest = self.guest_in(handle, &[State::Secret])?;
        let measurement = guest.measurement.ok_or(status::INVALID_GUEST_STATE)?;
        if header.len() != SECRET_HEADER || room != transport.len() || !room.is_multiple_of(16) {
            return Err(status::INVALID_LEN);
        }
        if le32(header, 0) != 0 {
            return Err(status::UNSUPPORTED);
        }
        if secret_mac(&guest.tik, header, transport, room, &measurement[..32]) != header[20..] {
            return Err(status::BAD_MEASUREMENT);
        }
        let mut plain = transport.to_vec();
        counter_mode(&guest.tek, &header[4..20], &mut plain);
        Ok(plain)
    }
}
