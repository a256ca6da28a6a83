// SPDX-License-Identifier: MIT
//! Signed writes, with keys and certificates that are made here.

use super::{key, names};
use crate::attribute::{APPEND, BOOT_SERVICE, NON_VOLATILE, TIME_BASED, USUAL};
use crate::{Key, Nvram, Status, name, vendor};
use rsa::pkcs1::EncodeRsaPublicKey;
use rsa::rand_core::{CryptoRng, Error, RngCore};
use rsa::{Pkcs1v15Sign, RsaPrivateKey};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;
use uuid::{Uuid, uuid};

const X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
const SHA256: Uuid = uuid!("c1c41626-504c-4092-aca9-41f936934328");
const SIGNED: u32 = USUAL | TIME_BASED;
const SHA256_OID: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const RSA_OID: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1];
const SHA256_RSA_OID: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 11];
const DATA_OID: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 1];

/// Reproducible and not secret.
struct Counter(u64);

impl RngCore for Counter {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ mixed >> 29
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.next_u64() as u8);
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Counter {}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let len = body.len();
    let head = match len {
        0..0x80 => vec![tag, len as u8],
        0x80..0x100 => vec![tag, 0x81, len as u8],
        _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
    };
    [head, body].concat()
}

fn algorithm(oid: &[u8]) -> Vec<u8> {
    tlv(0x30, &[&tlv(6, &[oid]), &[5, 0]])
}

fn subject(text: &str) -> Vec<u8> {
    let name = tlv(0x30, &[&tlv(6, &[&[0x55, 4, 3]]), &tlv(0x0C, &[text.as_bytes()])]);
    tlv(0x30, &[&tlv(0x31, &[&name])])
}

/// A key with its certificate.
struct Identity {
    key: RsaPrivateKey,
    issuer: &'static str,
    certificate: Vec<u8>,
}

impl Identity {
    fn new(seed: u64, text: &str, above: Option<(&Identity, &'static str)>) -> Self {
        let key = RsaPrivateKey::new(&mut Counter(seed), 2048).unwrap();
        let issuer = above.map_or("", |(_, issuer)| issuer);
        let issuer_text = if issuer.is_empty() { text } else { issuer };
        let public = key.to_public_key().to_pkcs1_der().unwrap();
        let info = tlv(0x30, &[&algorithm(RSA_OID), &tlv(3, &[&[0], public.as_bytes()])]);
        let time = tlv(0x17, &[b"260101000000Z"]);
        let constraints = tlv(0x30, &[&tlv(1, &[&[0xFF]])]);
        let extension = tlv(0x30, &[&tlv(6, &[&[0x55, 0x1D, 0x13]]), &tlv(4, &[&constraints])]);
        let body = tlv(
            0x30,
            &[
                &tlv(0xA0, &[&[2, 1, 2]]),
                &[2, 1, 9],
                &algorithm(SHA256_RSA_OID),
                &subject(issuer_text),
                &tlv(0x30, &[&time, &time]),
                &subject(text),
                &info,
                &tlv(0xA3, &[&tlv(0x30, &[&extension])]),
            ],
        );
        let signature = sign(above.map_or(&key, |(above, _)| &above.key), &body);
        let certificate = tlv(
            0x30,
            &[&body, &algorithm(SHA256_RSA_OID), &tlv(3, &[&[0], &signature])],
        );
        let issuer = if issuer.is_empty() {
            Box::leak(text.to_owned().into_boxed_str())
        } else {
            issuer
        };
        Self {
            key,
            issuer,
            certificate,
        }
    }

    /// Detached SignedData over `message`.
    fn pkcs7(&self, message: &[u8]) -> Vec<u8> {
        let info = tlv(
            0x30,
            &[
                &[2, 1, 1],
                &tlv(0x30, &[&subject(self.issuer), &[2, 1, 9]]),
                &algorithm(SHA256_OID),
                &algorithm(RSA_OID),
                &tlv(4, &[&sign(&self.key, message)]),
            ],
        );
        tlv(
            0x30,
            &[
                &[2, 1, 1],
                &tlv(0x31, &[&algorithm(SHA256_OID)]),
                &tlv(0x30, &[&tlv(6, &[DATA_OID])]),
                &tlv(0xA0, &[&self.certificate]),
                &tlv(0x31, &[&info]),
            ],
        )
    }

    /// The data of a signed SetVariable, in the year 2000 + `year`.
    fn write(&self, key: &Key, attributes: u32, year: u8, content: &[u8]) -> Vec<u8> {
        let mut time = [0; 16];
        time[..4].copy_from_slice(&[0xD0 + year, 7, 1, 1]);
        let text = key.name_bytes();
        let message = [
            &text[..text.len() - 2],
            &key.vendor().to_bytes_le(),
            &attributes.to_le_bytes(),
            &time,
            content,
        ]
        .concat();
        let signature = self.pkcs7(&message);
        let pkcs7 = uuid!("4aafd29d-68df-49ee-8aa9-347d375665a7").to_bytes_le();
        let len = 24 + signature.len() as u32;
        [
            &time[..],
            &len.to_le_bytes(),
            &[0, 2, 0xF1, 0x0E],
            &pkcs7,
            &signature,
            content,
        ]
        .concat()
    }
}

fn sign(key: &RsaPrivateKey, message: &[u8]) -> Vec<u8> {
    let prefix = [
        0x30, 0x31, 0x30, 0x0D, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 32,
    ];
    let scheme = Pkcs1v15Sign {
        hash_len: Some(32),
        prefix: prefix.into(),
    };
    key.sign(scheme, &Sha256::digest(message)).unwrap()
}

fn list(kind: Uuid, entries: &[&[u8]]) -> Vec<u8> {
    let size = 16 + entries[0].len();
    let mut bytes = kind.to_bytes_le().to_vec();
    for number in [28 + size * entries.len(), 0, size] {
        bytes.extend_from_slice(&(number as u32).to_le_bytes());
    }
    for entry in entries {
        bytes.extend_from_slice(&[7; 16]);
        bytes.extend_from_slice(entry);
    }
    bytes
}

static PLATFORM: LazyLock<Identity> = LazyLock::new(|| Identity::new(1, "platform", None));
static EXCHANGE: LazyLock<Identity> = LazyLock::new(|| Identity::new(2, "exchange", None));
/// Issued by the exchange key.
static BELOW: LazyLock<Identity> =
    LazyLock::new(|| Identity::new(3, "below", Some((&*EXCHANGE, "exchange"))));

fn db() -> Key {
    name(vendor::IMAGE_SECURITY, "db")
}

/// PK and KEK enrolled in setup mode.
fn enrolled() -> Nvram {
    let mut nvram = Nvram::new();
    let keys = list(X509, &[&EXCHANGE.certificate]);
    let write = BELOW.write(&key("KEK"), SIGNED, 1, &keys);
    // Nobody's signature counts in setup mode.
    nvram.set(&key("KEK"), SIGNED, &write).unwrap();
    let keys = list(X509, &[&PLATFORM.certificate]);
    nvram
        .set(&key("PK"), SIGNED, &PLATFORM.write(&key("PK"), SIGNED, 1, &keys))
        .unwrap();
    nvram
}

#[test]
fn the_platform_key_ends_setup_mode_and_its_own_signature_brings_it_back() {
    let mut nvram = enrolled();
    let mode = |nvram: &Nvram| ["SetupMode", "SecureBoot"].map(|text| nvram.get(&key(text)).unwrap().data[0]);
    assert_eq!(mode(&nvram), [0, 0]);
    nvram.want_secure_boot(true);
    assert_eq!(mode(&nvram), [0, 1]);
    let pk = key("PK");
    let foreign = EXCHANGE.write(&pk, SIGNED, 2, &[]);
    assert_eq!(nvram.set(&pk, SIGNED, &foreign), Err(Status::SecurityViolation));
    assert_eq!(nvram.set(&pk, 0, &[]), Err(Status::SecurityViolation));
    nvram
        .set(&pk, SIGNED, &PLATFORM.write(&pk, SIGNED, 2, &[]))
        .unwrap();
    assert_eq!(mode(&nvram), [1, 0]);
}

#[test]
fn databases_are_written_by_either_key_and_by_whoever_it_issued() {
    let mut nvram = enrolled();
    let hashes = list(SHA256, &[&[1; 32], &[2; 32]]);
    for (year, signer) in [(1, &PLATFORM), (2, &EXCHANGE), (3, &BELOW)] {
        let write = signer.write(&db(), SIGNED, year, &hashes);
        nvram.set(&db(), SIGNED, &write).unwrap();
    }
    assert_eq!(nvram.get(&db()).unwrap().data, hashes);
    // The exchange key has no say over itself.
    let write = EXCHANGE.write(&key("KEK"), SIGNED, 4, &list(X509, &[&BELOW.certificate]));
    assert_eq!(
        nvram.set(&key("KEK"), SIGNED, &write),
        Err(Status::SecurityViolation)
    );
}

#[test]
fn every_changed_byte_breaks_a_signed_write() {
    let mut nvram = enrolled();
    let good = EXCHANGE.write(&db(), SIGNED, 1, &list(SHA256, &[&[1; 32]]));
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        // The name of the outer algorithm, the version and the like are not signed; what counts is that
        // nothing else than the signed content is ever stored.
        if nvram.set(&db(), SIGNED, &bad).is_ok() {
            assert_eq!(
                nvram.get(&db()).unwrap().data,
                list(SHA256, &[&[1; 32]]),
                "byte {at}"
            );
            nvram = enrolled();
        }
        assert!(nvram.set(&db(), SIGNED, &bad[..at]).is_err(), "cut at {at}");
    }
    // Signed for another name, other attributes.
    let other = EXCHANGE.write(&name(vendor::IMAGE_SECURITY, "dbx"), SIGNED, 2, &[]);
    assert_eq!(nvram.set(&db(), SIGNED, &other), Err(Status::SecurityViolation));
    let other = EXCHANGE.write(&db(), SIGNED | APPEND, 2, &list(SHA256, &[&[1; 32]]));
    assert_eq!(nvram.set(&db(), SIGNED, &other), Err(Status::SecurityViolation));
    nvram.set(&db(), SIGNED, &good).unwrap();
}

#[test]
fn an_old_write_is_not_replayed_and_appends_keep_the_later_time() {
    let mut nvram = enrolled();
    let [one, two] = [[1; 32], [2; 32]];
    let write =
        |year, attributes, hashes: &[&[u8]]| EXCHANGE.write(&db(), attributes, year, &list(SHA256, hashes));
    nvram.set(&db(), SIGNED, &write(5, SIGNED, &[&one])).unwrap();
    for year in [4, 5] {
        let again = write(year, SIGNED, &[&two]);
        assert_eq!(nvram.set(&db(), SIGNED, &again), Err(Status::SecurityViolation));
    }
    let append = SIGNED | APPEND;
    nvram
        .set(&db(), append, &write(3, append, &[&one, &two]))
        .unwrap();
    let both = [list(SHA256, &[&one]), list(SHA256, &[&two])].concat();
    assert_eq!(nvram.get(&db()).unwrap().data, both);
    assert_eq!(nvram.get(&db()).unwrap().time[0], 0xD5);
}

#[test]
fn what_is_no_list_of_signatures_is_refused() {
    let mut nvram = Nvram::new();
    let two = list(X509, &[&PLATFORM.certificate, &PLATFORM.certificate]);
    for content in [
        &[1, 2, 3][..],
        &two,
        &list(SHA256, &[&[1; 32]]),
        &list(X509, &[&[1; 40]]),
    ] {
        let write = PLATFORM.write(&key("PK"), SIGNED, 1, content);
        assert_eq!(
            nvram.set(&key("PK"), SIGNED, &write),
            Err(Status::InvalidParameter)
        );
    }
    let write = PLATFORM.write(&key("PK"), SIGNED, 1, &list(X509, &[&PLATFORM.certificate]));
    let boot = NON_VOLATILE | BOOT_SERVICE | TIME_BASED;
    assert_eq!(nvram.set(&key("PK"), boot, &write), Err(Status::InvalidParameter));
    assert_eq!(nvram.set(&key("PK"), USUAL, &[1]), Err(Status::InvalidParameter));
    assert_eq!(names(&nvram), ["SecureBoot", "SetupMode"]);
}

#[test]
fn a_private_variable_belongs_to_who_made_it() {
    let mut nvram = Nvram::new();
    let own = key("Private");
    nvram
        .set(&own, SIGNED, &EXCHANGE.write(&own, SIGNED, 1, &[1]))
        .unwrap();
    let foreign = PLATFORM.write(&own, SIGNED, 2, &[2]);
    assert_eq!(nvram.set(&own, SIGNED, &foreign), Err(Status::SecurityViolation));
    assert_eq!(nvram.set(&own, USUAL, &[2]), Err(Status::SecurityViolation));
    nvram
        .set(&own, SIGNED, &EXCHANGE.write(&own, SIGNED, 2, &[3]))
        .unwrap();
    assert_eq!(nvram.get(&own).unwrap().data, [3]);
    nvram
        .set(&own, SIGNED, &EXCHANGE.write(&own, SIGNED, 3, &[]))
        .unwrap();
    assert_eq!(nvram.get(&own), Err(Status::NotFound));
}
