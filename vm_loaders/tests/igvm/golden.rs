// SPDX-License-Identifier: MIT
//! Golden text of plans that were read from files.

use crate::vectors::VECTORS;
use launch_plan::Isolation;
use vm_loaders::igvm::File;

fn text(name: &str, isolation: Isolation) -> String {
    let (_, bytes, _) = VECTORS.iter().find(|(vector, ..)| *vector == name).unwrap();
    File::read(bytes).unwrap().plan(isolation).unwrap().to_string()
}

#[test]
fn plans_of_vectors_print_as_golden() {
    let rows = [
        (
            "g1-snp-all-kinds",
            Isolation::Snp,
            include_str!("golden/g1-snp.txt"),
        ),
        ("g6-tdx", Isolation::Tdx, include_str!("golden/g6-tdx.txt")),
        ("g7-vbs", Isolation::Vsm, include_str!("golden/g7-vbs.txt")),
        ("g9-seves", Isolation::SevEs, include_str!("golden/g9-seves.txt")),
        (
            "g12-multi",
            Isolation::Native,
            include_str!("golden/g12-native.txt"),
        ),
    ];
    for (name, isolation, golden) in rows {
        assert_eq!(text(name, isolation), golden, "{name}");
    }
}
