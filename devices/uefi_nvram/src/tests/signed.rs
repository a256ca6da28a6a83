// SPDX-License-Identifier: MIT
//! Signed writes, with keys and certificates that are made here.

use super::{key, names};
use crate::attribute::{APPEND, BOOT_SERVICE, NON_VOLATILE, TIME_BASED, USUAL};
use crate::{Key, Nvram, Status, name, vendor};
use guest_images::secure_boot::{Identity, SHA256, X509, signature_list};
use std::sync::LazyLock;

const SIGNED: u32 = USUAL | TIME_BASED;

/// A signed write of `key`.
fn signed(signer: &Identity, key: &Key, attributes: u32, year: u8, content: &[u8]) -> Vec<u8> {
    let name = String::from_utf16(key.name()).unwrap();
    signer.write((key.vendor(), &name), attributes, year, content)
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
    let keys = signature_list(X509, &[EXCHANGE.certificate()]);
    let write = signed(&BELOW, &key("KEK"), SIGNED, 1, &keys);
    // Nobody's signature counts in setup mode.
    nvram.set(&key("KEK"), SIGNED, &write).unwrap();
    let keys = signature_list(X509, &[PLATFORM.certificate()]);
    nvram
        .set(
            &key("PK"),
            SIGNED,
            &signed(&PLATFORM, &key("PK"), SIGNED, 1, &keys),
        )
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
    let foreign = signed(&EXCHANGE, &pk, SIGNED, 2, &[]);
    assert_eq!(nvram.set(&pk, SIGNED, &foreign), Err(Status::SecurityViolation));
    assert_eq!(nvram.set(&pk, 0, &[]), Err(Status::SecurityViolation));
    nvram
        .set(&pk, SIGNED, &signed(&PLATFORM, &pk, SIGNED, 2, &[]))
        .unwrap();
    assert_eq!(mode(&nvram), [1, 0]);
}

#[test]
fn databases_are_written_by_either_key_and_by_whoever_it_issued() {
    let mut nvram = enrolled();
    let hashes = signature_list(SHA256, &[&[1; 32], &[2; 32]]);
    for (year, signer) in [(1, &PLATFORM), (2, &EXCHANGE), (3, &BELOW)] {
        let write = signed(signer, &db(), SIGNED, year, &hashes);
        nvram.set(&db(), SIGNED, &write).unwrap();
    }
    assert_eq!(nvram.get(&db()).unwrap().data, hashes);
    // The exchange key has no say over itself.
    let write = signed(
        &EXCHANGE,
        &key("KEK"),
        SIGNED,
        4,
        &signature_list(X509, &[BELOW.certificate()]),
    );
    assert_eq!(
        nvram.set(&key("KEK"), SIGNED, &write),
        Err(Status::SecurityViolation)
    );
}

#[test]
fn every_changed_byte_breaks_a_signed_write() {
    let mut nvram = enrolled();
    let good = signed(&EXCHANGE, &db(), SIGNED, 1, &signature_list(SHA256, &[&[1; 32]]));
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        // The name of the outer algorithm, the version and the like are not signed; what counts is that
        // nothing else than the signed content is ever stored.
        if nvram.set(&db(), SIGNED, &bad).is_ok() {
            assert_eq!(
                nvram.get(&db()).unwrap().data,
                signature_list(SHA256, &[&[1; 32]]),
                "byte {at}"
            );
            nvram = enrolled();
        }
        assert!(nvram.set(&db(), SIGNED, &bad[..at]).is_err(), "cut at {at}");
    }
    // Signed for another name, other attributes.
    let other = signed(&EXCHANGE, &name(vendor::IMAGE_SECURITY, "dbx"), SIGNED, 2, &[]);
    assert_eq!(nvram.set(&db(), SIGNED, &other), Err(Status::SecurityViolation));
    let other = signed(
        &EXCHANGE,
        &db(),
        SIGNED | APPEND,
        2,
        &signature_list(SHA256, &[&[1; 32]]),
    );
    assert_eq!(nvram.set(&db(), SIGNED, &other), Err(Status::SecurityViolation));
    nvram.set(&db(), SIGNED, &good).unwrap();
}

#[test]
fn an_old_write_is_not_replayed_and_appends_keep_the_later_time() {
    let mut nvram = enrolled();
    let [one, two] = [[1; 32], [2; 32]];
    let write = |year, attributes, hashes: &[&[u8]]| {
        signed(
            &EXCHANGE,
            &db(),
            attributes,
            year,
            &signature_list(SHA256, hashes),
        )
    };
    nvram.set(&db(), SIGNED, &write(5, SIGNED, &[&one])).unwrap();
    for year in [4, 5] {
        let again = write(year, SIGNED, &[&two]);
        assert_eq!(nvram.set(&db(), SIGNED, &again), Err(Status::SecurityViolation));
    }
    let append = SIGNED | APPEND;
    nvram
        .set(&db(), append, &write(3, append, &[&one, &two]))
        .unwrap();
    let both = [signature_list(SHA256, &[&one]), signature_list(SHA256, &[&two])].concat();
    assert_eq!(nvram.get(&db()).unwrap().data, both);
    assert_eq!(nvram.get(&db()).unwrap().time[0], 0xD5);
}

#[test]
fn what_is_no_list_of_signatures_is_refused() {
    let mut nvram = Nvram::new();
    let two = signature_list(X509, &[PLATFORM.certificate(), PLATFORM.certificate()]);
    for content in [
        &[1, 2, 3][..],
        &two,
        &signature_list(SHA256, &[&[1; 32]]),
        &signature_list(X509, &[&[1; 40]]),
    ] {
        let write = signed(&PLATFORM, &key("PK"), SIGNED, 1, content);
        assert_eq!(
            nvram.set(&key("PK"), SIGNED, &write),
            Err(Status::InvalidParameter)
        );
    }
    let write = signed(
        &PLATFORM,
        &key("PK"),
        SIGNED,
        1,
        &signature_list(X509, &[PLATFORM.certificate()]),
    );
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
        .set(&own, SIGNED, &signed(&EXCHANGE, &own, SIGNED, 1, &[1]))
        .unwrap();
    let foreign = signed(&PLATFORM, &own, SIGNED, 2, &[2]);
    assert_eq!(nvram.set(&own, SIGNED, &foreign), Err(Status::SecurityViolation));
    assert_eq!(nvram.set(&own, USUAL, &[2]), Err(Status::SecurityViolation));
    nvram
        .set(&own, SIGNED, &signed(&EXCHANGE, &own, SIGNED, 2, &[3]))
        .unwrap();
    assert_eq!(nvram.get(&own).unwrap().data, [3]);
    nvram
        .set(&own, SIGNED, &signed(&EXCHANGE, &own, SIGNED, 3, &[]))
        .unwrap();
    assert_eq!(nvram.get(&own), Err(Status::NotFound));
}
