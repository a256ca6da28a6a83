// SPDX-License-Identifier: MIT
use super::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 48]).unwrap()
}

fn fields() -> IdBlockFields {
    IdBlockFields {
        launch_digest: [7; 48],
        family_id: [1; 16],
        image_id: [2; 16],
        version: 1,
        guest_svn: 3,
        policy: 0x30000,
    }
}

#[test]
fn a_signed_block_verifies_and_signing_is_reproducible() {
    let block = fields().sign(&key(5), Some(&key(6)));
    assert_eq!(verify(&block, 0x30000, &[7; 48]), Ok(()));
    assert_eq!(block, fields().sign(&key(5), Some(&key(6))));
}

#[test]
fn another_digest_policy_or_key_is_refused() {
    let block = fields().sign(&key(5), None);
    assert!(matches!(
        verify(&block, 0x30000, &[8; 48]),
        Err(IdBlockError::Digest { .. })
    ));
    assert_eq!(
        verify(&block, 0xB0000, &[7; 48]),
        Err(IdBlockError::Signature { what: "id block" })
    );
    let other = IdBlock {
        id_key: fields().sign(&key(9), None).id_key,
        ..block.clone()
    };
    assert_eq!(
        verify(&other, 0x30000, &[7; 48]),
        Err(IdBlockError::Signature { what: "id block" })
    );
    let bad = IdBlock {
        id_key: IdKey {
            curve: 1,
            ..block.id_key
        },
        ..block
    };
    assert_eq!(
        verify(&bad, 0x30000, &[7; 48]),
        Err(IdBlockError::Key { what: "id key" })
    );
}

#[test]
fn the_author_signature_is_checked_when_enabled() {
    let mut block = fields().sign(&key(5), Some(&key(6)));
    block.author_signature.s[0] ^= 1;
    assert_eq!(
        verify(&block, 0x30000, &[7; 48]),
        Err(IdBlockError::Signature { what: "id key" })
    );
    block.author_key_enabled = 0;
    assert_eq!(verify(&block, 0x30000, &[7; 48]), Ok(()));
}

#[test]
fn a_detached_signature_joins_to_the_same_block() {
    let signature: Signature = key(5).sign(&fields().to_bytes());
    let read = signature_from_bytes(signature.to_der().as_bytes()).unwrap();
    assert_eq!(
        fields().with_signature(&read, key(5).verifying_key()),
        fields().sign(&key(5), None)
    );
    let raw = signature_from_bytes(&signature.to_bytes()).unwrap();
    assert_eq!(raw, signature);
    assert!(signature_from_bytes(&[0; 7]).is_err());
}

#[test]
fn the_authentication_page_has_the_documented_layout() {
    let block = fields().sign(&key(5), Some(&key(6)));
    let page = id_auth(&block);
    assert_eq!(page[0..8], [1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(page[0x40..0x40 + 72], block.id_signature.r);
    assert_eq!(page[0x240..0x244], [2, 0, 0, 0]);
    assert_eq!(page[0x244..0x244 + 72], block.id_key.qx);
    assert_eq!(page[0x680 + 72..0x680 + 144], block.author_signature.s);
    assert_eq!(page[0x884..0x884 + 72], block.author_key.qx);
    assert!(page[0x884 + 144..].iter().all(|b| *b == 0));
    let digest: [u8; 48] = Sha384::digest(&page[0x240..0x240 + 1028]).into();
    assert_eq!(key_digest(&block.id_key), digest);
}
