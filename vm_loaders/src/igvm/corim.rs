// SPDX-License-Identifier: MIT
//! CoRIM documents that endorse a launch digest: reference value and security version (sev.md 2.12).
//!
//! Always true: the bytes depend on platform, digest and security version only, and are what the `igvm`
//! crate's builder makes (deterministic CBOR, RFC 8949 section 4.2).
//! Not here: computing digests (`launch_digest`), signing a document, reading foreign ones.

use launch_plan::Isolation;

/// Tags: unsigned CoRIM map, concise module id, security version number.
const TAG_CORIM: u64 = 501;
const TAG_COMID: u64 = 506;
const TAG_SVN: u64 = 552;
/// Named information hash algorithms (IANA).
const SHA_256: u64 = 1;
const SHA_384: u64 = 7;
const PROFILE: &str = "tag:microsoft.com,2026:launch-measurement/v1";

/// What a platform is called in its document.
struct Names {
    vendor: &'static str,
    model: &'static str,
    /// Key of the measurement.
    key: &'static str,
    algorithm: u64,
    digest_len: usize,
    /// UUIDv5 of "vendor/model" in namespace 85f3f1c2-22a8-441e-a1b9-bccfb63ed5f7.
    tag_id: &'static str,
}

const fn names(isolation: Isolation) -> Option<Names> {
    Some(match isolation {
        Isolation::Snp => Names {
            vendor: "AMD",
            model: "SEV-SNP",
            key: "MEASUREMENT",
            algorithm: SHA_384,
            digest_len: 48,
            tag_id: "77e8061e-4634-5e53-a848-d1d09e996843",
        },
        Isolation::Tdx => Names {
            vendor: "Intel",
            model: "TDX",
            key: "MRTD",
            algorithm: SHA_384,
            digest_len: 48,
            tag_id: "e0510081-7b78-5b2a-97a6-d73d890e07b6",
        },
        Isolation::Vsm => Names {
            vendor: "Microsoft",
            model: "VBS",
            key: "MEASUREMENT",
            algorithm: SHA_256,
            digest_len: 32,
            tag_id: "2e29068e-e0fa-59e6-b0ff-3bfe09132e13",
        },
        _ => return None,
    })
}

/// The document that endorses `digest` at security version `svn`; `None` for platforms without such
/// documents and digests of another length than the platform's.
pub fn corim_document(isolation: Isolation, digest: &[u8], svn: u32) -> Option<Vec<u8>> {
    let names = names(isolation).filter(|names| names.digest_len == digest.len())?;
    let mut out = Cbor::default();
    out.tag(TAG_CORIM).map(3);
    let id = format!("{}/{}/launch-measurement", names.vendor, names.model);
    out.unsigned(0).text(&id);
    out.unsigned(1)
        .array(1)
        .tag(TAG_COMID)
        .bytes(&comid(&names, digest, svn));
    out.unsigned(3).text(PROFILE);
    Some(out.0)
}

/// The concise module id: a reference value, and the security version that holds under it.
fn comid(names: &Names, digest: &[u8], svn: u32) -> Vec<u8> {
    let mut out = Cbor::default();
    out.map(2);
    out.unsigned(1).map(1).unsigned(0).text(names.tag_id);
    out.unsigned(4).map(2);
    // Reference triples: [[environment, [measurement]]].
    out.unsigned(0).array(1).array(2);
    environment(&mut out, names);
    out.array(1);
    measurement(&mut out, names, digest);
    // Conditional endorsement series: [[[environment, []], [[[measurement], [{1: {1: svn}}]]]]].
    out.unsigned(8).array(1).array(2).array(2);
    environment(&mut out, names);
    out.array(0);
    out.array(1).array(2).array(1);
    measurement(&mut out, names, digest);
    out.array(1).map(1).unsigned(1).map(1).unsigned(1);
    out.tag(TAG_SVN).unsigned(svn.into());
    out.0
}

fn environment(out: &mut Cbor, names: &Names) {
    out.map(1).unsigned(0).map(2);
    out.unsigned(1).text(names.vendor);
    out.unsigned(2).text(names.model);
}

fn measurement(out: &mut Cbor, names: &Names, digest: &[u8]) {
    out.map(2).unsigned(0).text(names.key);
    out.unsigned(1).map(1).unsigned(2).array(1).array(2);
    out.unsigned(names.algorithm).bytes(digest);
}

/// CBOR in the making, shortest heads.
#[derive(Default)]
struct Cbor(Vec<u8>);

impl Cbor {
    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let major = major << 5;
        let bytes = value.to_be_bytes();
        match value {
            0..24 => self.0.push(major | value as u8),
            24..0x100 => self.0.extend([major | 24, value as u8]),
            0x100..0x1_0000 => {
                self.0.push(major | 25);
                self.0.extend(&bytes[6..]);
            }
            0x1_0000..0x1_0000_0000 => {
                self.0.push(major | 26);
                self.0.extend(&bytes[4..]);
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend(bytes);
            }
        }
        self
    }

    fn unsigned(&mut self, value: u64) -> &mut Self {
        self.head(0, value)
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(2, value.len() as u64).0.extend(value);
        self
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.head(3, value.len() as u64).0.extend(value.as_bytes());
        self
    }

    fn array(&mut self, len: u64) -> &mut Self {
        self.head(4, len)
    }

    fn map(&mut self, len: u64) -> &mut Self {
        self.head(5, len)
    }

    fn tag(&mut self, number: u64) -> &mut Self {
        self.head(6, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests of g12-multi.igvm and the documents that the `igvm` crate 0.5.0 makes for them.
    #[test]
    fn documents_equal_those_of_the_igvm_crate() {
        const DATA: [(Isolation, &str, &[u8]); 3] = [
            (
                Isolation::Snp,
                "1ba97e4c1516fd73d2d5e65980c1f5e74cb44742226a59e4d8ed68d4732d87a8b1905fb7c65ad3234196c5d47486590a",
                include_bytes!("../../tests/data/g12.SEV_SNP.corim.cbor"),
            ),
            (
                Isolation::Tdx,
                "a209c585b7239d63604d4878f4f38d6bf6a06b1c60a2c6da8dd32ba55e1f887671d2427bbfc7910850816af7defcad08",
                include_bytes!("../../tests/data/g12.TDX.corim.cbor"),
            ),
            (
                Isolation::Vsm,
                "288879ac70cb7766af8381d0e35efeb25f362e43e420cbe8253bdbc40bc66479",
                include_bytes!("../../tests/data/g12.VSM_ISOLATION.corim.cbor"),
            ),
        ];
        for (isolation, hex, expected) in DATA {
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let digest: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            assert_eq!(corim_document(isolation, &digest, 1).unwrap(), expected);
            assert!(corim_document(isolation, &digest[1..], 1).is_none());
        }
        assert!(corim_document(Isolation::Sev, &[0; 32], 1).is_none());
    }

    #[test]
    fn heads_are_the_shortest() {
        let mut cbor = Cbor::default();
        cbor.unsigned(23)
            .unsigned(24)
            .unsigned(256)
            .unsigned(0x1_0000)
            .unsigned(1 << 32);
        let wanted = [
            0x17, 0x18, 0x18, 0x19, 1, 0, 0x1A, 0, 1, 0, 0, 0x1B, 0, 0, 0, 1, 0, 0, 0, 0,
        ];
        assert_eq!(cbor.0, wanted);
    }
}
