// SPDX-License-Identifier: MIT
//! Exit codes of every command: 0 fine, 1 findings or different, 2 usage, 3 a file that cannot be read or
//! written or is not IGVM.

use crate::build::*;
use crate::corpus::ovmf_image;
use crate::program::{Folder, igvmtool};
use launch_plan::Isolation;

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/id-key.pem");
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/ovmf-x64.json");

/// Exit code, command line. `good` and `other` are SEV-SNP files, `native` has no digest, `bad` has
/// overlapping pages, `text` is no IGVM file, `none` does not exist.
const ROWS: &[(i32, &str)] = &[
    (0, "build -m MANIFEST -r ovmf=image -g snp -o out"),
    (2, "build -m MANIFEST -r ovmf=image -g vbs -o out"),
    (2, "build -m text -o out"),
    (3, "build -m none -o out"),
    (3, "build -m MANIFEST -r ovmf=none -o out"),
    (3, "build -m MANIFEST -r ovmf=image -g snp -o none/out"),
    (0, "inspect good"),
    (1, "inspect bad"),
    (2, "inspect good --platform tdx"),
    (2, "inspect good --json --pages"),
    (3, "inspect text"),
    (3, "inspect none"),
    (0, "diff good good"),
    (1, "diff good other"),
    (2, "diff good"),
    (3, "diff good text"),
    (3, "diff none good"),
    (0, "check good"),
    (1, "check bad"),
    (
        1,
        "check good --for spec --for openvmm --for cloud-hypervisor --for qemu-11 --for kvm-snp",
    ),
    (0, "check --explain checksum"),
    (2, "check --explain nothing"),
    (2, "check good --for nobody"),
    (3, "check text"),
    (0, "extract good -o parts"),
    (2, "extract good"),
    (3, "extract good -o parts"),
    (3, "extract text -o more"),
    (0, "pack parts -o out"),
    (2, "pack parts"),
    (3, "pack none -o out"),
    (0, "update good -o out --policy 0xb0000 --platform snp"),
    (2, "update good -o out"),
    (2, "update good -o out --strip tdx"),
    (2, "update good -o out --policy 0 --platform snp"),
    (3, "update text -o out --drop optional"),
    (3, "update good -o out --firmware none"),
    (0, "measure good"),
    (0, "measure good --against DIGEST"),
    (1, "measure other --against DIGEST"),
    (2, "measure native"),
    (2, "measure good --against 12"),
    (2, "measure good --vp-count 1"),
    (3, "measure bad"),
    (3, "measure text"),
    (0, "sign good -o out --id-key KEY"),
    (2, "sign native -o out --id-key KEY"),
    (2, "sign good -o out --id-key text"),
    (3, "sign text -o out --id-key KEY"),
    (3, "sign good -o out --id-key none"),
    (0, "verify good --digest DIGEST"),
    (1, "verify other --digest DIGEST"),
    (1, "verify other --against good"),
    (2, "verify good"),
    (3, "verify good --report text"),
    (3, "verify text --digest DIGEST"),
    (0, "wrap image -o out --platform snp"),
    (2, "wrap image -o out --platform cca"),
    (2, "wrap image -o out"),
    (3, "wrap text -o out --platform snp"),
    (3, "wrap none -o out --platform snp"),
    (0, "--help"),
    (0, "--version"),
    (2, ""),
    (2, "nothing"),
];

#[test]
fn every_command_ends_with_its_documented_codes() {
    let folder = Folder::new();
    let vps = |vps| {
        let shape = Shape {
            vps,
            ..Shape::of(Isolation::Snp)
        };
        v1(builder(shape))
    };
    let mut bad = vps(1);
    let place = bad
        .windows(8)
        .position(|window| window == 0x11_0000_u64.to_le_bytes())
        .unwrap();
    bad[place..place + 8].copy_from_slice(&0x10_0000_u64.to_le_bytes());
    for (name, bytes) in [
        ("good", vps(2)),
        ("other", vps(1)),
        ("native", v1(builder(Shape::of(Isolation::Native)))),
        ("bad", bad),
        ("text", b"no such thing".to_vec()),
        ("image", ovmf_image()),
    ] {
        folder.write(name, bytes);
    }
    let measured = igvmtool(&["measure", folder.path("good").to_str().unwrap()]);
    let digest = String::from_utf8(measured.stdout).unwrap();
    let digest = digest.split(' ').next().unwrap().to_owned();
    for (code, line) in ROWS {
        let words = line.split_whitespace().map(|word| match word {
            "MANIFEST" => MANIFEST,
            "KEY" => KEY,
            "DIGEST" => &digest,
            word => word,
        });
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_igvmtool"))
            .args(words)
            .current_dir(folder.path("."))
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{line}: {shown}");
        // What went wrong is said; findings are on standard output.
        assert_eq!(*code >= 2, !shown.is_empty(), "{line}: {shown}");
        assert!(!shown.contains("panicked"), "{line}: {shown}");
    }
}
