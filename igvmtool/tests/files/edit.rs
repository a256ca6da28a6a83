// SPDX-License-Identifier: MIT
//! Folders of `extract` that were edited.

use crate::build::*;
use crate::corpus::samples;
use crate::program::{Folder, igvmtool, ok, run, text};
use launch_plan::*;
use std::path::PathBuf;
use vm_loaders::igvm::{File, Severity};

/// An extracted sample: its bytes, its folder.
fn extracted(folder: &Folder, name: &str) -> (String, PathBuf) {
    let sample = samples().into_iter().find(|sample| sample.name == name).unwrap();
    let path = folder.write(name, &sample.bytes);
    let parts = folder.path("parts");
    ok(&["extract", &path, "-o", text(&parts)]);
    (path, parts)
}

fn payload(parts: &std::path::Path, part_of_name: &str) -> PathBuf {
    let mut entries = std::fs::read_dir(parts)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries.find(|path| text(path).contains(part_of_name)).unwrap()
}

fn fine(bytes: &[u8]) {
    let file = File::read(bytes).unwrap();
    let errors: Vec<_> = file
        .check()
        .into_iter()
        .filter(|p| p.severity() == Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn a_changed_byte_changes_that_byte_alone() {
    let folder = Folder::new();
    let (before, parts) = extracted(&folder, "snp-v1");
    let page = payload(&parts, "pages-100000");
    let mut bytes = std::fs::read(&page).unwrap();
    bytes[0x1005] ^= 1;
    std::fs::write(&page, bytes).unwrap();
    let after = folder.path("after");
    let shown = ok(&["pack", text(&parts), "-o", text(&after)]);
    assert!(shown.contains("data where it was"), "{shown}");
    let (a, b) = (std::fs::read(&before).unwrap(), std::fs::read(&after).unwrap());
    assert_eq!(a.iter().zip(&b).filter(|(x, y)| x != y).count(), 1);
    let (_, shown) = run(&["diff", &before, text(&after)]);
    assert!(shown.starts_with("snp: page 0x101000: 1 byte differs"), "{shown}");
}

#[test]
fn a_longer_payload_becomes_more_pages() {
    let folder = Folder::new();
    // The crate stored two equal pages once.
    let (_, parts) = extracted(&folder, "crate-snp");
    let page = payload(&parts, "pages-100000");
    std::fs::write(&page, vec![7; 4096 * 2 + 5]).unwrap();
    let manifest = parts.join("manifest.json");
    let moved = std::fs::read_to_string(&manifest)
        .unwrap()
        .replace("\"0x102000\"", "\"0x108000\"");
    std::fs::write(&manifest, moved).unwrap();
    let after = folder.path("after");
    let shown = ok(&["pack", text(&parts), "-o", text(&after)]);
    assert!(shown.contains("data laid out anew"), "{shown}");
    let bytes = std::fs::read(&after).unwrap();
    fine(&bytes);
    let plan = File::read(&bytes).unwrap().plan(Isolation::Snp).unwrap();
    let pages: Vec<_> = plan.pages().map(|(page, _)| page.gpa).collect();
    assert_eq!(pages, [0x10_0000, 0x10_1000, 0x10_2000, 0x10_8000, 0x20_0000]);
    // Equal pages are stored once, as before: two pages of sevens, one of which is cut.
    assert!(bytes.len() < 0x4000, "{:#x}", bytes.len());
}

#[test]
fn an_edited_policy_and_a_new_header_are_taken() {
    let folder = Folder::new();
    let (_, parts) = extracted(&folder, "snp-v1");
    let manifest = parts.join("manifest.json");
    let edited = std::fs::read_to_string(&manifest).unwrap().replacen(
        "\"policy\": \"0x30000\"",
        "\"policy\": \"0xb0000\"",
        1,
    );
    let edited = edited.replacen(
        "{\n      \"header\": \"vp-context\"",
        "{\"header\": \"required-memory\", \"gpa\": \"0x0\", \"bytes\": 4096, \"mask\": 1},\n    {\n      \"header\": \"vp-context\"",
        1,
    );
    std::fs::write(&manifest, edited).unwrap();
    let after = folder.path("after");
    ok(&["pack", text(&parts), "-o", text(&after)]);
    let bytes = std::fs::read(&after).unwrap();
    fine(&bytes);
    let plan = File::read(&bytes).unwrap().plan(Isolation::Snp).unwrap();
    assert_eq!(plan.facts.policy, Some(0xB_0000));
    assert!(
        plan.steps()
            .iter()
            .any(|step| matches!(step.kind, StepKind::ExpectMemory(_)))
    );
}

#[test]
fn wrong_manifests_are_named_with_line_and_column() {
    let folder = Folder::new();
    let (_, parts) = extracted(&folder, "native-v1");
    let manifest = parts.join("manifest.json");
    let good = std::fs::read_to_string(&manifest).unwrap();
    let rows = [
        (
            good.replacen("\"schema\": 1", "\"schema\": 9", 1),
            "schema 9 is not known",
        ),
        (good.replacen("\"gpa\"", "\"gpaa\"", 1), "unknown field `gpaa`"),
        (
            good.replacen("\"normal\"", "\"usual\"", 1),
            "there is no page kind \"usual\"",
        ),
        (
            good.replacen("000-", "../000-", 1),
            "is not a file name in the folder",
        ),
        (
            good.replacen("\"memory map\"", "\"map\"", 1),
            "there is no parameter \"map\"",
        ),
    ];
    for (text_of_manifest, message) in rows {
        std::fs::write(&manifest, text_of_manifest).unwrap();
        let output = igvmtool(&["pack", text(&parts), "-o", text(&folder.path("after"))]);
        let shown = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{shown}");
        assert!(shown.contains(message), "{message}: {shown}");
        assert!(!folder.path("after").exists());
    }
}

#[test]
fn unused_data_and_gaps_survive_and_a_full_folder_is_refused() {
    let folder = Folder::new();
    let mut bytes = v1(builder(Shape::of(Isolation::Native)));
    let size = bytes.len() as u32 + 100;
    bytes.extend(std::iter::repeat_n(0xEE, 100));
    bytes[16..20].copy_from_slice(&size.to_le_bytes());
    let file = File::read(&bytes).unwrap();
    let checksum = file.fixed_header().compute_checksum(file.variable_headers());
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    let path = folder.write("unused", &bytes);
    let (parts, again) = (folder.path("parts"), folder.path("again"));
    ok(&["extract", &path, "-o", text(&parts)]);
    assert!(parts.join("unused-0.bin").exists());
    ok(&["pack", text(&parts), "-o", text(&again)]);
    assert!(std::fs::read(&again).unwrap() == bytes);
    assert_eq!(
        igvmtool(&["extract", &path, "-o", text(&parts)]).status.code(),
        Some(3)
    );
}
