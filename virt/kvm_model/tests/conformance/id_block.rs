// SPDX-License-Identifier: MIT
//! Row 22: what the firmware says to ID blocks. They are made by `launch_digest`, which the model does not
//! use.

use crate::rig::*;
use launch_digest::id_block::{IdBlockFields, id_auth, signing_key_from_pem};
use launch_plan::IdBlock;
use libc::EIO;
use p384::ecdsa::SigningKey;
use p384::pkcs8::{EncodePrivateKey, LineEnding};

fn key(seed: u8) -> SigningKey {
    let secret = p384::SecretKey::from_slice(&[seed; 48]).unwrap();
    let pem = secret.to_pkcs8_pem(LineEnding::LF).unwrap();
    signing_key_from_pem("test key", &pem).unwrap()
}

fn fields(launch_digest: [u8; 48]) -> IdBlockFields {
    IdBlockFields {
        launch_digest,
        family_id: [1; 16],
        image_id: [2; 16],
        version: 1,
        guest_svn: 7,
        policy: POLICY,
    }
}

fn launched_page() -> Rig {
    let rig = Rig::new(SNP);
    assert_eq!(rig.start(), (0, 0));
    rig.add(0x1000, 1);
    rig
}

fn digest() -> [u8; 48] {
    launched_page().digest().try_into().unwrap()
}

/// FINISH with the block and the page as `change` leaves them.
fn finish(
    rig: &Rig,
    signed: &IdBlock,
    fields: &IdBlockFields,
    change: impl FnOnce(&mut [u8; 96], &mut [u8; 4096]),
) -> (i32, u32) {
    let (mut block, mut auth) = (fields.to_bytes(), id_auth(signed));
    change(&mut block, &mut auth);
    let addresses = [block.as_ptr() as u64, auth.as_ptr() as u64].map(u64::to_le_bytes);
    let author = signed.author_key_enabled;
    let mut argument = structure::<88>(&[
        (0, &addresses[0]),
        (8, &addresses[1]),
        (16, &[1, author]),
        (19, &[9; 32]),
    ]);
    rig.command(SNP_FINISH, &mut argument)
}

#[test]
fn a_right_block_is_accepted_and_kept_for_reports() {
    let fields = fields(digest());
    for author in [None, Some(key(2))] {
        let rig = launched_page();
        let signed = fields.sign(&key(1), author.as_ref());
        assert_eq!(finish(&rig, &signed, &fields, |_, _| ()), (0, 0));
        let launched = rig.launched();
        let identity = launched.identity.unwrap();
        assert_eq!(
            (identity.family_id, identity.image_id, identity.guest_svn),
            ([1; 16], [2; 16], 7)
        );
        assert_eq!(
            identity.id_key_digest,
            launch_digest::id_block::key_digest(&signed.id_key)
        );
        let author_digest = author.map(|_| launch_digest::id_block::key_digest(&signed.author_key));
        assert_eq!(identity.author_key_digest, author_digest);
        assert_eq!(
            (launched.host_data, launched.digest),
            ([9; 32], fields.launch_digest.to_vec())
        );
    }
}

#[test]
fn row_22_wrong_digest_signature_policy_and_algorithm_have_their_codes() {
    const BAD_SIGNATURE: u32 = 0x0A;
    let right = fields(digest());
    let other_digest = fields([5; 48]);
    let other_policy = IdBlockFields {
        policy: POLICY | 1 << 19,
        ..right
    };
    type Change = fn(&mut [u8; 96], &mut [u8; 4096]);
    let cases: [(&str, IdBlockFields, Change, u32); 9] = [
        ("digest", other_digest, |_, _| (), 0x0B),
        ("policy", other_policy, |_, _| (), 0x07),
        (
            "a byte of the block",
            right,
            |block, _| block[50] ^= 1,
            BAD_SIGNATURE,
        ),
        (
            "a byte of the signature",
            right,
            |_, auth| auth[0x40] ^= 1,
            BAD_SIGNATURE,
        ),
        (
            "a signature of zeros",
            right,
            |_, auth| auth[0x40..0xD0].fill(0),
            BAD_SIGNATURE,
        ),
        (
            "the author's signature",
            right,
            |_, auth| auth[0x680] ^= 1,
            BAD_SIGNATURE,
        ),
        ("the id key's algorithm", right, |_, auth| auth[0] = 2, 0x16),
        ("the author key's algorithm", right, |_, auth| auth[4] = 0, 0x16),
        ("a key that is no point", right, |_, auth| auth[0x244] ^= 1, 0x16),
    ];
    for (what, fields, change, code) in cases {
        let rig = launched_page();
        let signed = fields.sign(&key(1), Some(&key(2)));
        assert_eq!(finish(&rig, &signed, &fields, change), (EIO, code), "{what}");
        assert!(rig.model.launches().is_empty(), "{what}");
    }
}

#[test]
fn row_22_a_block_of_another_key_is_refused() {
    let fields = fields(digest());
    let rig = launched_page();
    let (mut signed, other) = (fields.sign(&key(1), None), fields.sign(&key(3), None));
    signed.id_key = other.id_key;
    assert_eq!(finish(&rig, &signed, &fields, |_, _| ()), (EIO, 0x0A));
}

#[test]
fn reports_say_what_was_launched_and_verify_with_the_models_key() {
    use p384::ecdsa::Signature;
    use p384::ecdsa::signature::Verifier;
    let fields = fields(digest());
    let rig = launched_page();
    assert_eq!(
        rig.guest().attestation_report(&[1; 64], 0),
        None,
        "not launched yet"
    );
    let signed = fields.sign(&key(1), Some(&key(2)));
    assert_eq!(finish(&rig, &signed, &fields, |_, _| ()), (0, 0));
    let bytes = rig.guest().attestation_report(&[0xDA; 64], 0).unwrap();
    let report = launch_digest::report::Report::read(&bytes[..]).unwrap();
    assert_eq!((report.version, report.policy, report.guest_svn), (2, POLICY, 7));
    assert_eq!(
        (report.measurement, report.host_data),
        (fields.launch_digest, [9; 32])
    );
    assert_eq!((report.family_id, report.image_id), ([1; 16], [2; 16]));
    let [id, author] = [&signed.id_key, &signed.author_key].map(launch_digest::id_block::key_digest);
    assert_eq!((report.id_key_digest, report.author_key_digest), (id, author));
    assert_eq!(bytes[0x50..0x90], [0xDA; 64]);
    let number = |at: usize| -> [u8; 48] { std::array::from_fn(|n| bytes[at + 47 - n]) };
    let signature = Signature::from_scalars(number(0x2A0), number(0x2A0 + 72)).unwrap();
    rig.model
        .report_key()
        .verify(&bytes[..0x2A0], &signature)
        .unwrap();
    assert!(
        rig.model
            .report_key()
            .verify(&bytes[..0x29F], &signature)
            .is_err()
    );
}
