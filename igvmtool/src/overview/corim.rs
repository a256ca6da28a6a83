// SPDX-License-Identifier: MIT
//! A summary of a CoRIM document and its signature: enough CBOR (RFC 8949) to name what is there.
//!
//! Always true: nothing is trusted; what does not parse is said to be unreadable. Nesting and item counts
//! are bounded by the bytes that are there. Not here: verifying signatures or reference values.

use super::schema::Field;
use launch_plan::Corim;

/// Deepest nesting that is followed.
const MAX_DEPTH: u32 = 32;
/// Tag of an unsigned CoRIM map, of a concise module id tag, and of COSE_Sign1.
const TAG_CORIM: u64 = 501;
const TAG_COMID: u64 = 506;
const TAG_SIGN1: u64 = 18;

/// The fields of a summary.
pub(crate) fn summary(corim: &Corim<'_>) -> Vec<Field> {
    let mut fields = vec![Field::new("document", format!("{} bytes", corim.document.len()))];
    if document(&corim.document, &mut fields).is_none() {
        fields.push(Field::new("contents", "not a readable tagged-unsigned-corim-map"));
    }
    match &corim.signature {
        None => fields.push(Field::new("signature", "none")),
        Some(bytes) => {
            let text = signature(bytes).unwrap_or_else(|| "not a readable cose_sign1 structure".to_owned());
            fields.push(Field::new("signature", format!("{} bytes, {text}", bytes.len())));
        }
    }
    fields
}

fn document(bytes: &[u8], fields: &mut Vec<Field>) -> Option<()> {
    let mut cbor = Cbor(bytes);
    let (major, tag) = cbor.head()?;
    if (major, tag) != (6, TAG_CORIM) {
        return None;
    }
    let (major, pairs) = cbor.head()?;
    if major != 5 {
        return None;
    }
    for _ in 0..pairs {
        let (major, key) = cbor.head()?;
        if major != 0 {
            return None;
        }
        let value = cbor.item(MAX_DEPTH)?;
        match key {
            0 => fields.push(Field::new("id", text_of(value)?)),
            1 => fields.push(Field::new("tags", tags(value)?)),
            2 => fields.push(Field::new("dependent manifests", count_of(value)?)),
            3 => fields.push(Field::new("profile", text_of(value)?)),
            4 => fields.push(Field::new("validity", "limited")),
            5 => fields.push(Field::new("entities", count_of(value)?)),
            other => fields.push(Field::new(format!("key {other}"), "present")),
        }
    }
    Some(())
}

/// A text, a byte string as hex, or a tagged one of these.
fn text_of(bytes: &[u8]) -> Option<String> {
    let mut cbor = Cbor(bytes);
    let (mut major, mut value) = cbor.head()?;
    if major == 6 {
        (major, value) = cbor.head()?;
    }
    let content = cbor.0.get(..usize::try_from(value).ok()?);
    match major {
        2 => Some(content?.iter().map(|byte| format!("{byte:02x}")).collect()),
        3 => String::from_utf8(content?.to_vec())
            .ok()
            .map(|text| format!("{text:?}")),
        0 => Some(value.to_string()),
        _ => Some("present".to_owned()),
    }
}

fn count_of(bytes: &[u8]) -> Option<u64> {
    let (major, count) = Cbor(bytes).head()?;
    (major == 4).then_some(count)
}

/// How many tags of which kind: each is a byte string that is tagged, or a tagged map.
fn tags(bytes: &[u8]) -> Option<String> {
    let mut cbor = Cbor(bytes);
    let (major, count) = cbor.head()?;
    if major != 4 {
        return None;
    }
    let mut modules = 0;
    for _ in 0..count {
        let mut item = Cbor(cbor.item(MAX_DEPTH)?);
        let (major, tag) = item.head()?;
        if (major, tag) == (6, TAG_COMID) {
            modules += 1;
        }
    }
    Some(format!("{count}, {modules} of them concise module ids"))
}

fn signature(bytes: &[u8]) -> Option<String> {
    let mut cbor = Cbor(bytes);
    let (mut major, mut value) = cbor.head()?;
    if (major, value) == (6, TAG_SIGN1) {
        (major, value) = cbor.head()?;
    }
    if (major, value) != (4, 4) {
        return None;
    }
    let mut protected = Cbor(cbor.item(MAX_DEPTH)?);
    let (major, _) = protected.head()?;
    if major != 2 {
        return None;
    }
    cbor.item(MAX_DEPTH)?;
    let payload = cbor.item(MAX_DEPTH)?;
    let place = if payload == [0xF6] {
        "detached"
    } else {
        "with its payload"
    };
    Some(format!(
        "cose_sign1, {place}, {}",
        algorithm(protected).unwrap_or("unknown algorithm")
    ))
}

/// The algorithm (label 1) of a protected header (RFC 9053).
fn algorithm(mut header: Cbor<'_>) -> Option<&'static str> {
    let (major, pairs) = header.head()?;
    if major != 5 {
        return None;
    }
    for _ in 0..pairs {
        let key = header.head()?;
        let value = header.item(MAX_DEPTH)?;
        if key != (0, 1) {
            continue;
        }
        // Negative integers are -1 - n.
        return Some(match Cbor(value).head()? {
            (1, 6) => "es256",
            (1, 34) => "es384",
            (1, 35) => "es512",
            (1, 36) => "ps256",
            (1, 37) => "ps384",
            (1, 38) => "ps512",
            _ => return None,
        });
    }
    None
}

/// Bytes that are still to be read.
struct Cbor<'b>(&'b [u8]);

impl<'b> Cbor<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    /// Major type and argument; indefinite lengths, which CoRIM does not use, are refused.
    fn head(&mut self) -> Option<(u8, u64)> {
        let first = self.take(1)?[0];
        let argument = match first & 0x1F {
            small @ 0..=23 => small.into(),
            size @ 24..=27 => {
                let bytes = self.take(1 << (size - 24))?;
                bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
            }
            _ => return None,
        };
        Some((first >> 5, argument))
    }

    /// Skips one item and gives its bytes.
    fn item(&mut self, depth: u32) -> Option<&'b [u8]> {
        let all = self.0;
        let depth = depth.checked_sub(1)?;
        let (major, argument) = self.head()?;
        match major {
            2 | 3 => {
                self.take(usize::try_from(argument).ok()?)?;
            }
            4 | 5 => {
                let items = if major == 5 {
                    argument.checked_mul(2)?
                } else {
                    argument
                };
                for _ in 0..items {
                    self.item(depth)?;
                }
            }
            6 => {
                self.item(depth)?;
            }
            _ => {}
        }
        all.get(..all.len() - self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(document: &[u8], signature: Option<&[u8]>) -> Vec<String> {
        let corim = Corim {
            document: document.into(),
            signature: signature.map(Into::into),
        };
        summary(&corim)
            .iter()
            .map(|f| format!("{}: {}", f.name, f.value))
            .collect()
    }

    #[test]
    fn document_and_signature_are_summed_up() {
        // 501({0: "abc", 1: [506(h'01')], 3: h'0a0b'})
        let document = [
            0xD9, 0x01, 0xF5, 0xA3, 0x00, 0x63, b'a', b'b', b'c', 0x01, 0x81, 0xD9, 0x01, 0xFA, 0x41, 0x01,
            0x03, 0x42, 0x0A, 0x0B,
        ];
        // 18([h'a1013822', {}, null, h'00'])
        let signature = [0xD2, 0x84, 0x44, 0xA1, 0x01, 0x38, 0x22, 0xA0, 0xF6, 0x41, 0x00];
        assert_eq!(
            fields(&document, Some(&signature)),
            [
                "document: 20 bytes",
                "id: \"abc\"",
                "tags: 1, 1 of them concise module ids",
                "profile: 0a0b",
                "signature: 11 bytes, cose_sign1, detached, es384",
            ]
        );
    }

    #[test]
    fn damaged_documents_are_said_to_be_unreadable() {
        for bytes in [&b""[..], &[0xD9, 0x01], &[0xBB; 64], &[0x9B; 9], &[0x81; 300]] {
            assert_eq!(
                fields(bytes, Some(bytes))[1],
                "contents: not a readable tagged-unsigned-corim-map"
            );
        }
    }

    #[test]
    fn huge_counts_end_with_the_bytes() {
        // A map of 2^64-1 pairs in ten bytes.
        let mut bytes = vec![0xD9, 0x01, 0xF5, 0xBB];
        bytes.extend([0xFF; 8]);
        assert!(fields(&bytes, None)[1].contains("not a readable"));
    }
}
