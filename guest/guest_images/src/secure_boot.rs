// SPDX-License-Identifier: MIT
//! Keys of secure boot for tests: certificates, signed writes of variables, signed programs, variable stores with keys
//! (UEFI 2.10 sections 8.2.2 and 32).
//!
//! Always true: a key depends on its seed alone and is no secret; RSA of 2048 bits with SHA-256. Not here: checking
//! signatures.

use anyhow::{Context, Result, ensure};
use rsa::pkcs1::EncodeRsaPublicKey;
use rsa::rand_core::{CryptoRng, Error, RngCore};
use rsa::{Pkcs1v15Sign, RsaPrivateKey};
use sha2::{Digest, Sha256};
use uuid::{Uuid, uuid};

/// EFI_CERT_X509_GUID.
pub const X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
/// EFI_CERT_SHA256_GUID.
pub const SHA256: Uuid = uuid!("c1c41626-504c-4092-aca9-41f936934328");
const SHA256_OID: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const RSA_OID: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1];
const SHA256_RSA_OID: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 11];
const DATA_OID: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 1];
const SIGNED_DATA_OID: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 2];
/// SPC_INDIRECT_DATA and SPC_PE_IMAGE_DATA.
const INDIRECT_OID: &[u8] = &[0x2B, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 4];
const PE_IMAGE_OID: &[u8] = &[0x2B, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 15];

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
pub struct Identity {
    key: RsaPrivateKey,
    issuer: String,
    certificate: Vec<u8>,
}

impl Identity {
    /// A key that depends on `seed` alone, named `text`; its certificate is signed by `above`, or by itself.
    ///
    /// # Panics
    /// If the seed gives no key, which is never.
    pub fn new(seed: u64, text: &str, above: Option<(&Identity, &str)>) -> Self {
        let key = RsaPrivateKey::new(&mut Counter(seed), 2048).expect("a key");
        let issuer = above.map_or(text, |(_, issuer)| issuer);
        let public = key.to_public_key().to_pkcs1_der().expect("a key in DER");
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
                &subject(issuer),
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
        Self {
            issuer: issuer.to_owned(),
            key,
            certificate,
        }
    }

    /// The certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// SignedData over `message`, with `content` as what it names.
    fn pkcs7(&self, message: &[u8], content: &[u8]) -> Vec<u8> {
        let info = tlv(
            0x30,
            &[
                &[2, 1, 1],
                &tlv(0x30, &[&subject(&self.issuer), &[2, 1, 9]]),
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
                content,
                &tlv(0xA0, &[&self.certificate]),
                &tlv(0x31, &[&info]),
            ],
        )
    }

    /// The data of a signed SetVariable of `name`, which names `vendor`, in the year 2000 + `year` (UEFI 8.2.2).
    pub fn write(&self, (vendor, name): (Uuid, &str), attributes: u32, year: u8, content: &[u8]) -> Vec<u8> {
        let mut time = [0; 16];
        time[..4].copy_from_slice(&[0xD0 + year, 7, 1, 1]);
        let text: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let message = [
            &text,
            &vendor.to_bytes_le()[..],
            &attributes.to_le_bytes(),
            &time,
            content,
        ]
        .concat();
        let signature = self.pkcs7(&message, &tlv(0x30, &[&tlv(6, &[DATA_OID])]));
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

    /// `program`, a PE32+ file, with this identity's Authenticode signature at its end (Microsoft "Windows
    /// Authenticode Portable Executable Signature Format").
    ///
    /// # Errors
    /// If it is no such file, or has a signature already.
    pub fn sign_program(&self, program: &[u8]) -> Result<Vec<u8>> {
        let mut signed = program.to_vec();
        signed.resize(signed.len().next_multiple_of(8), 0);
        let directory = security_directory(&signed)?;
        let digest = program_digest(&signed, directory);
        let image = tlv(0x30, &[&[3, 1, 0], &tlv(0xA0, &[&tlv(0xA2, &[&[0x80, 0]])])]);
        let data = tlv(0x30, &[&tlv(6, &[PE_IMAGE_OID]), &image]);
        let told = tlv(0x30, &[&algorithm(SHA256_OID), &tlv(4, &[&digest])]);
        let message = [data, told].concat();
        let content = tlv(
            0x30,
            &[&tlv(6, &[INDIRECT_OID]), &tlv(0xA0, &[&tlv(0x30, &[&message])])],
        );
        let info = tlv(0xA0, &[&self.pkcs7(&message, &content)]);
        let mut pkcs7 = tlv(0x30, &[&tlv(6, &[SIGNED_DATA_OID]), &info]);
        let len = 8 + pkcs7.len();
        pkcs7.resize(len.next_multiple_of(8) - 8, 0);
        let entry = [signed.len(), len.next_multiple_of(8)].map(|field| (field as u32).to_le_bytes());
        signed[directory..directory + 8].copy_from_slice(&entry.concat());
        // Length, revision 2.0, PKCS#7.
        signed.extend((len as u32).to_le_bytes());
        signed.extend([0, 2, 2, 0]);
        signed.extend(pkcs7);
        Ok(signed)
    }
}

/// Where the certificate table's directory entry is in the file; it is empty.
fn security_directory(program: &[u8]) -> Result<usize> {
    let word = |at: usize| {
        let bytes = program
            .get(at..at + 4)
            .context("the program ends inside its headers")?;
        Ok::<_, anyhow::Error>(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let optional = word(0x3C)? as usize + 24;
    ensure!(word(optional)? & 0xFFFF == 0x20B, "the program is no PE32+ file");
    ensure!(
        word(optional + 108)? > 4,
        "the program has no place for a signature"
    );
    let directory = optional + 112 + 4 * 8;
    ensure!(word(directory + 4)? == 0, "the program is signed already");
    Ok(directory)
}

/// The hash of everything but the checksum, the directory entry and signatures.
fn program_digest(program: &[u8], directory: usize) -> [u8; 32] {
    let checksum = directory - 4 * 8 - 112 + 64;
    let mut hash = Sha256::new();
    hash.update(&program[..checksum]);
    hash.update(&program[checksum + 4..directory]);
    hash.update(&program[directory + 8..]);
    hash.finalize().into()
}

fn sign(key: &RsaPrivateKey, message: &[u8]) -> Vec<u8> {
    let prefix = [
        0x30, 0x31, 0x30, 0x0D, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 32,
    ];
    let scheme = Pkcs1v15Sign {
        hash_len: Some(32),
        prefix: prefix.into(),
    };
    key.sign(scheme, &Sha256::digest(message)).expect("a signature")
}

/// An EFI_SIGNATURE_LIST of entries that are all as long as the first; there is one.
pub fn signature_list(kind: Uuid, entries: &[&[u8]]) -> Vec<u8> {
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

/// An empty variable store of EDK2's, such as Debian's `OVMF_VARS_4M.fd`, with more variables behind those in it; each
/// with its vendor, its name, and data that is kept, always visible and signed.
///
/// # Errors
/// If `empty` is no such store or has no room.
pub fn enrolled_store(empty: &[u8], variables: &[(Uuid, &str, &[u8])]) -> Result<Vec<u8>> {
    const STORE: usize = 0x48;
    const VARIABLE: usize = 60;
    let mut file = empty.to_vec();
    ensure!(file.get(40..44) == Some(b"_FVH"), "this is no variable store");
    let mut at = STORE + 28;
    while file.get(at..at + 2) == Some(&[0xAA, 0x55]) {
        let number =
            |at: usize| u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]) as usize;
        at = (at + VARIABLE + number(at + 36) + number(at + 40)).next_multiple_of(4);
    }
    for (vendor, name, data) in variables {
        let name: Vec<u8> = name
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect();
        let mut entry = vec![0xAA, 0x55, 0x3F, 0];
        entry.extend(0x27_u32.to_le_bytes());
        // Counter, time and key index.
        entry.extend([0; 28]);
        entry.extend((name.len() as u32).to_le_bytes());
        entry.extend((data.len() as u32).to_le_bytes());
        entry.extend(vendor.to_bytes_le());
        entry.extend(name);
        entry.extend_from_slice(data);
        let place = file
            .get_mut(at..at + entry.len())
            .context("the store has no room")?;
        place.copy_from_slice(&entry);
        at = (at + entry.len()).next_multiple_of(4);
    }
    Ok(file)
}
