// SPDX-License-Identifier: MIT
//! Detached PKCS#7 signatures and the chains of their certificates.
//!
//! Always true: RSA of 2048 bits or more, PKCS#1 v1.5, with SHA-256, SHA-384 or SHA-512; whatever else is
//! found is no signature. Times of validity and revocation lists do not count, as in other firmware, which
//! trusts no clock. Not here: whom to trust.

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use der::asn1::{ObjectIdentifier, OctetString};
use der::{Decode, Encode};
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Sign, RsaPublicKey};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::ext::pkix::{BasicConstraints, SubjectKeyIdentifier};

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Certificates of a signature, and links of a chain.
const MOST_CERTIFICATES: usize = 16;
/// Bytes of the shortest key.
const SHORTEST_KEY: usize = 256;

/// Hash functions: their own names, their names with RSA, and the DER in front of a digest in a signature.
struct Hash {
    name: ObjectIdentifier,
    with_rsa: ObjectIdentifier,
    prefix: [u8; 19],
    digest: fn(&[u8]) -> Vec<u8>,
}

const fn prefix(which: u8, len: u8) -> [u8; 19] {
    [
        0x30,
        0x11 + len,
        0x30,
        0x0D,
        6,
        9,
        0x60,
        0x86,
        0x48,
        1,
        0x65,
        3,
        4,
        2,
        which,
        5,
        0,
        4,
        len,
    ]
}

const HASHES: [Hash; 3] = [
    Hash {
        name: ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
        with_rsa: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"),
        prefix: prefix(1, 32),
        digest: |bytes| Sha256::digest(bytes).to_vec(),
    },
    Hash {
        name: ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"),
        with_rsa: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"),
        prefix: prefix(2, 48),
        digest: |bytes| Sha384::digest(bytes).to_vec(),
    },
    Hash {
        name: ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"),
        with_rsa: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"),
        prefix: prefix(3, 64),
        digest: |bytes| Sha512::digest(bytes).to_vec(),
    },
];

/// A certificate that is trusted, or may be.
pub(crate) fn certificate(der: &[u8]) -> Option<Certificate> {
    Certificate::from_der(der).ok()
}

/// Who signed, and the certificates that came along.
pub(crate) struct Signer {
    leaf: Certificate,
    others: Vec<Certificate>,
}

impl Signer {
    /// The signer of `message`; `None` when `pkcs7` is no signature of it.
    pub(crate) fn verify(pkcs7: &[u8], message: &[u8]) -> Option<Self> {
        let data = signed_data(pkcs7)?;
        if data.encap_content_info.econtent.is_some() {
            return None;
        }
        let [info] = data.signer_infos.0.as_slice() else {
            return None;
        };
        let mut others: Vec<Certificate> = Vec::new();
        for choice in data.certificates.as_ref()?.0.iter() {
            if let CertificateChoices::Certificate(certificate) = choice {
                others.push(certificate.clone());
            }
        }
        if others.len() > MOST_CERTIFICATES {
            return None;
        }
        let at = others.iter().position(|one| names(&info.sid, one))?;
        let leaf = others.swap_remove(at);
        let hash = HASHES.iter().find(|hash| hash.name == info.digest_alg.oid)?;
        let algorithm = info.signature_algorithm.oid;
        if algorithm != RSA && algorithm != hash.with_rsa {
            return None;
        }
        let digest = signed_digest(info, &data.encap_content_info.econtent_type, hash, message)?;
        check_rsa(&leaf, hash, &digest, info.signature.as_bytes())?;
        Some(Self { leaf, others })
    }

    /// Whether `trusted` signed, or stands above who did.
    pub(crate) fn is_below(&self, trusted: &Certificate) -> bool {
        self.chain().any(|link| link == trusted || issued(trusted, link))
    }

    /// From the signer upwards.
    fn chain(&self) -> impl Iterator<Item = &Certificate> {
        let above = |link: &&Certificate| {
            let child = *link;
            self.others
                .iter()
                .find(|other| *other != child && issued(other, child))
        };
        std::iter::successors(Some(&self.leaf), above).take(MOST_CERTIFICATES)
    }

    /// What identifies a signer of private variables: its common name and the certificate at the top of its
    /// chain (UEFI 8.2.2).
    pub(crate) fn identity(&self) -> Option<[u8; 32]> {
        let mut hash = Sha256::new();
        let names = self
            .leaf
            .tbs_certificate
            .subject
            .0
            .iter()
            .flat_map(|rdn| rdn.0.iter());
        for name in names.filter(|name| name.oid == COMMON_NAME) {
            hash.update(name.value.value());
        }
        let top = self.chain().last()?;
        hash.update(top.tbs_certificate.to_der().ok()?);
        Some(hash.finalize().into())
    }
}

/// With or without the outer ContentInfo: both are in use.
fn signed_data(pkcs7: &[u8]) -> Option<SignedData> {
    if let Ok(info) = ContentInfo::from_der(pkcs7) {
        if info.content_type != SIGNED_DATA {
            return None;
        }
        return info.content.decode_as().ok();
    }
    SignedData::from_der(pkcs7).ok()
}

/// Whether `id` names `certificate`.
fn names(id: &SignerIdentifier, certificate: &Certificate) -> bool {
    let tbs = &certificate.tbs_certificate;
    match id {
        SignerIdentifier::IssuerAndSerialNumber(id) => {
            id.issuer == tbs.issuer && id.serial_number == tbs.serial_number
        }
        SignerIdentifier::SubjectKeyIdentifier(id) => {
            matches!(tbs.get::<SubjectKeyIdentifier>(), Ok(Some((_, own))) if own == *id)
        }
    }
}

/// The digest that the signature is over: of the message, or of attributes that hold the message's.
fn signed_digest(
    info: &SignerInfo,
    content: &ObjectIdentifier,
    hash: &Hash,
    message: &[u8],
) -> Option<Vec<u8>> {
    let digest = (hash.digest)(message);
    let Some(attributes) = &info.signed_attrs else {
        return Some(digest);
    };
    let value = |oid| {
        let attribute = attributes.iter().find(|attribute| attribute.oid == oid)?;
        let [value] = attribute.values.as_slice() else {
            return None;
        };
        Some(value)
    };
    let told: OctetString = value(MESSAGE_DIGEST)?.decode_as().ok()?;
    let kind: ObjectIdentifier = value(CONTENT_TYPE)?.decode_as().ok()?;
    if told.as_bytes() != digest || kind != *content {
        return None;
    }
    Some((hash.digest)(&attributes.to_der().ok()?))
}

fn check_rsa(by: &Certificate, hash: &Hash, digest: &[u8], signature: &[u8]) -> Option<()> {
    let info = &by.tbs_certificate.subject_public_key_info;
    if info.algorithm.oid != RSA {
        return None;
    }
    let key = RsaPublicKey::from_pkcs1_der(info.subject_public_key.as_bytes()?).ok()?;
    if key.size() < SHORTEST_KEY {
        return None;
    }
    let scheme = Pkcs1v15Sign {
        hash_len: Some(digest.len()),
        prefix: hash.prefix.into(),
    };
    key.verify(scheme, digest, signature).ok()
}

/// Whether `issuer` may issue and has issued `certificate`.
fn issued(issuer: &Certificate, certificate: &Certificate) -> bool {
    if issuer.tbs_certificate.subject != certificate.tbs_certificate.issuer {
        return false;
    }
    let is_authority = issuer.tbs_certificate.get::<BasicConstraints>();
    if !matches!(is_authority, Ok(Some((_, constraints))) if constraints.ca) {
        return false;
    }
    let algorithm = certificate.signature_algorithm.oid;
    let Some(hash) = HASHES.iter().find(|hash| hash.with_rsa == algorithm) else {
        return false;
    };
    let (Ok(tbs), Some(signature)) = (
        certificate.tbs_certificate.to_der(),
        certificate.signature.as_bytes(),
    ) else {
        return false;
    };
    check_rsa(issuer, hash, &(hash.digest)(&tbs), signature).is_some()
}
