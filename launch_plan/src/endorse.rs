// SPDX-License-Identifier: MIT
//! Statements about a launch that an image carries beside its pages: the SEV-SNP ID block, the VBS
//! boot measurement and CoRIM documents.
//!
//! Always true: they change no byte of the guest and no launch digest; `bind` ignores them. Field
//! order and widths are those of `igvm_defs`. Not here: computing, signing or verifying any of them
//! (`launch_digest`).

use std::borrow::Cow;

/// A P-384 signature in AMD's form: two little-endian 72-byte components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdSignature {
    /// R component.
    pub r: [u8; 72],
    /// S component.
    pub s: [u8; 72],
}

/// A public key in AMD's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdKey {
    /// Curve number, 2 for P-384, 0 for no key.
    pub curve: u32,
    /// X coordinate, little-endian.
    pub qx: [u8; 72],
    /// Y coordinate, little-endian.
    pub qy: [u8; 72],
}

/// A SEV-SNP ID block with its signatures (IGVM header 0x30B).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdBlock {
    /// The file's "author key enabled" byte.
    pub author_key_enabled: u8,
    /// Expected launch digest.
    pub launch_digest: [u8; 48],
    /// Family id.
    pub family_id: [u8; 16],
    /// Image id.
    pub image_id: [u8; 16],
    /// ID block version.
    pub version: u32,
    /// Guest security version.
    pub guest_svn: u32,
    /// Algorithm of the id key, 1 for ECDSA P-384 with SHA-384.
    pub id_key_algorithm: u32,
    /// Algorithm of the author key.
    pub author_key_algorithm: u32,
    /// Signature over the block.
    pub id_signature: IdSignature,
    /// Key that made it.
    pub id_key: IdKey,
    /// Signature over the id key.
    pub author_signature: IdSignature,
    /// Key that made it.
    pub author_key: IdKey,
}

/// A VBS boot measurement (IGVM header 0x311).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VbsMeasurement {
    /// Structure version.
    pub version: u32,
    /// Product id.
    pub product_id: u32,
    /// Module id.
    pub module_id: u32,
    /// Security version.
    pub security_version: u32,
    /// Policy flags.
    pub policy_flags: u32,
    /// Digest algorithm, 1 for SHA-256.
    pub digest_algorithm: u32,
    /// Signing algorithm, 1 for ECDSA P-384.
    pub signing_algorithm: u32,
    /// Digest, left aligned.
    pub digest: [u8; 64],
    /// Signature.
    pub signature: [u8; 256],
    /// Public key.
    pub public_key: [u8; 512],
}

/// A CoRIM document and its detached signature (IGVM headers 0x104 and 0x105).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corim<'a> {
    /// CBOR `tagged-unsigned-corim-map`.
    pub document: Cow<'a, [u8]>,
    /// Detached COSE_Sign1 over it.
    pub signature: Option<Cow<'a, [u8]>>,
}

/// Everything of this kind that one platform's image carries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endorsements<'a> {
    /// SEV-SNP ID block.
    pub id_block: Option<Box<IdBlock>>,
    /// VBS boot measurement.
    pub vbs_measurement: Option<Box<VbsMeasurement>>,
    /// CoRIM document.
    pub corim: Option<Corim<'a>>,
}
