// SPDX-License-Identifier: MIT
//! Files written by the `igvm` crate 0.5.0 and kept as vectors: read, check, plan, write back, encode.

use launch_plan::Isolation;
use vm_loaders::igvm::{EncodeOptions, File, Severity, encode};

pub(crate) const VECTORS: [(&str, &[u8], &[Isolation]); 7] = [
    (
        "g1-snp-all-kinds",
        include_bytes!("../data/igvm/g1-snp-all-kinds.igvm"),
        &[Isolation::Snp],
    ),
    (
        "g2-snp-area2p",
        include_bytes!("../data/igvm/g2-snp-area2p.igvm"),
        &[Isolation::Snp],
    ),
    (
        "g4-snp-vmsa-first",
        include_bytes!("../data/igvm/g4-snp-vmsa-first.igvm"),
        &[Isolation::Snp],
    ),
    (
        "g6-tdx",
        include_bytes!("../data/igvm/g6-tdx.igvm"),
        &[Isolation::Tdx],
    ),
    (
        "g7-vbs",
        include_bytes!("../data/igvm/g7-vbs.igvm"),
        &[Isolation::Vsm],
    ),
    (
        "g9-seves",
        include_bytes!("../data/igvm/g9-seves.igvm"),
        &[Isolation::SevEs],
    ),
    (
        "g12-multi",
        include_bytes!("../data/igvm/g12-multi.igvm"),
        &[Isolation::Native, Isolation::Vsm, Isolation::Snp, Isolation::Tdx],
    ),
];

#[test]
fn vectors_have_no_errors_and_the_expected_platforms() {
    for (name, bytes, platforms) in VECTORS {
        let file = File::read(bytes).unwrap();
        let errors: Vec<_> = file
            .check()
            .into_iter()
            .filter(|p| p.severity() == Severity::Error)
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        let mut found: Vec<_> = file
            .platforms()
            .iter()
            .map(|platform| platform.isolation)
            .collect();
        found.sort();
        let mut expected = platforms.to_vec();
        expected.sort();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn vectors_are_written_back_byte_for_byte() {
    for (name, bytes, _) in VECTORS {
        let mut written = Vec::new();
        File::read(bytes).unwrap().write(&mut written).unwrap();
        assert!(written == bytes, "{name}");
    }
}

#[test]
fn plans_of_vectors_survive_encoding() {
    for (name, bytes, platforms) in VECTORS {
        let file = File::read(bytes).unwrap();
        let plans: Vec<_> = platforms
            .iter()
            .map(|&isolation| file.plan(isolation).unwrap())
            .collect();
        let encoded = encode(&plans, &EncodeOptions::default()).unwrap().to_vec();
        let again = File::read(&encoded).unwrap();
        for plan in &plans {
            assert_eq!(&again.plan(plan.facts.isolation).unwrap(), plan, "{name}");
        }
        assert!(igvm::IgvmFile::new_from_binary(&encoded, None).is_ok(), "{name}");
    }
}
