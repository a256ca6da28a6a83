// SPDX-License-Identifier: MIT
//! Every command over the whole corpus, golden texts, and what `igvm-inspect` sees.

use crate::build::*;
use crate::corpus::{Sample, samples, wrapped};
use crate::largest::largest_file;
use crate::program::{Folder, igvmtool, ok, peer, run, text};
use igvmtool::overview::schema::Overview;
use launch_plan::*;
use std::path::Path;
use std::process::Command;
use vm_loaders::igvm::File;

fn all(test: &str) -> Vec<Sample> {
    let mut all = samples();
    all.extend(wrapped(test));
    all
}

#[test]
fn inspect_check_diff_and_measure_take_every_file() {
    let folder = Folder::new();
    for Sample { name, bytes } in all("inspect_check_diff_and_measure_take_every_file") {
        let path = folder.write(&name, &bytes);
        let shown = ok(&["inspect", &path, "--pages", "--registers"]);
        assert!(shown.contains("IGVM format"), "{name}: {shown}");
        let json: serde_json::Value = serde_json::from_str(&ok(&["inspect", "--json", &path])).unwrap();
        assert_eq!(json["schema"], 1, "{name}");
        ok(&["check", &path]);
        assert_eq!(run(&["diff", &path, &path]), (0, String::new()), "{name}");
        let file = File::read(&bytes).unwrap();
        let measured = file
            .platforms()
            .iter()
            .any(|p| !matches!(p.isolation, Isolation::Native | Isolation::Cca));
        let code = igvmtool(&["measure", &path]).status.code();
        assert_eq!(code, Some(if measured { 0 } else { 2 }), "{name}");
    }
}

#[test]
fn extract_and_pack_give_every_file_back_bit_for_bit() {
    let folder = Folder::new();
    for Sample { name, bytes } in all("extract_and_pack_give_every_file_back_bit_for_bit") {
        let path = folder.write(&name, &bytes);
        let (parts, again) = (
            folder.path(&format!("{name}.d")),
            folder.path(&format!("{name}.2")),
        );
        ok(&["extract", &path, "-o", text(&parts)]);
        ok(&["pack", text(&parts), "-o", text(&again)]);
        assert!(std::fs::read(&again).unwrap() == bytes, "{name}");
    }
}

/// Golden texts are kept beside the test; `UPDATE_GOLDEN=1` writes them.
#[test]
fn inspect_prints_a_dozen_files_as_golden() {
    const NAMES: [&str; 14] = [
        "native-v1",
        "vsm-v1",
        "sev-v1",
        "sev-es-v1",
        "snp-v1",
        "tdx-v1",
        "cca",
        "vsm-aarch64-device-tree",
        "native-relocatable",
        "snp-2mib",
        "snp-id-block",
        "vsm-measurement",
        "tdx-corim",
        "ovmf-snp",
    ];
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folder = Folder::new();
    let samples = samples();
    for name in NAMES {
        let sample = samples.iter().find(|sample| sample.name == name).unwrap();
        let path = folder.write(name, &sample.bytes);
        let shown = ok(&["inspect", "--registers", &path]).replace(&path, name);
        let place = golden.join(name).with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&place, &shown).unwrap();
        }
        let wanted = std::fs::read_to_string(&place).unwrap();
        assert_eq!(shown, wanted, "{name}");
    }
}

/// Pages as (gpa, pages, kind, has data) per platform mask, as igvm-inspect lists them.
fn as_igvm_inspect_lists(shown: &str, mask: u64) -> Vec<(u64, u64, String, bool)> {
    let mut pages: Vec<(u64, u64, String, bool)> = Vec::new();
    for line in shown.lines() {
        let Some(fields) = line.strip_prefix("PageData: ") else {
            continue;
        };
        let field = |name: &str| {
            let rest = fields.split(", ").find_map(|field| field.strip_prefix(name))?;
            Some(rest.split([' ', ',']).next().unwrap_or(rest).to_owned())
        };
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        if let Some(gpa) = field("gpa ") {
            if number(&field("compat ").unwrap()) & mask == 0 {
                pages.push((u64::MAX, 0, String::new(), false));
                continue;
            }
            let kind = match &*field("type ").unwrap() {
                "NORMAL" if fields.contains("unmeasured") => "unmeasured",
                "NORMAL" => "measured",
                "SECRETS" => "secrets",
                "CPUID_DATA" => "cpuid",
                other => panic!("{other}"),
            };
            pages.push((number(&gpa), 1, kind.to_owned(), !fields.contains("empty")));
        } else if let Some(count) = fields.split('(').nth(1) {
            let more: u64 = count.split(' ').next().unwrap().parse().unwrap();
            pages.last_mut().unwrap().1 += more;
        }
    }
    pages.retain(|row| row.1 > 0 && row.0 != u64::MAX);
    pages
}

#[test]
fn igvm_inspect_sees_the_same_pages_and_platforms() {
    let test = "igvm_inspect_sees_the_same_pages_and_platforms";
    let Some(inspect) = peer("igvm-inspect", test) else {
        return;
    };
    let folder = Folder::new();
    let mut compared = 0;
    for Sample { name, bytes } in all(test) {
        let path = folder.write(&name, &bytes);
        let Ok(output) = Command::new(&inspect).arg(&path).output() else {
            continue;
        };
        let theirs = String::from_utf8_lossy(&output.stdout).into_owned();
        let large = name.contains("2mib") || name.contains("shared");
        if !output.status.success() || !theirs.contains("platform: ") || large {
            // It reads fewer files than we do, and prints 2 MiB and shared pages in a form of their own.
            continue;
        }
        let file = File::read(&bytes).unwrap();
        let ours = Overview::of(&name, &file, None);
        let platforms: Vec<_> = theirs
            .lines()
            .filter(|line| line.starts_with("platform: "))
            .collect();
        assert_eq!(platforms.len(), ours.platforms.len(), "{name}: {theirs}");
        for view in &ours.platforms {
            assert!(
                platforms
                    .iter()
                    .any(|line| line.ends_with(&format!("compat {}", view.mask))),
                "{name}"
            );
            let mut pages: Vec<(u64, u64, String, bool)> = Vec::new();
            for run in view.runs.iter().filter(|run| run.step == "import") {
                if run.contents != Some("parameters") {
                    let data = run.contents == Some("data");
                    pages.push((run.gpa.0, run.bytes / 4096, run.kind.unwrap().to_owned(), data));
                }
            }
            assert_eq!(
                join(as_igvm_inspect_lists(&theirs, view.mask.0)),
                join(pages),
                "{name}: {theirs}"
            );
        }
        compared += 1;
    }
    assert!(compared >= 20, "{compared}");
}

/// Joins what touches, since both tools join by rules of their own.
fn join(pages: Vec<(u64, u64, String, bool)>) -> Vec<(u64, u64, String, bool)> {
    let mut joined: Vec<(u64, u64, String, bool)> = Vec::new();
    for page in pages {
        match joined.last_mut() {
            Some(last) if last.0 + last.1 * 4096 == page.0 && (&last.2, last.3) == (&page.2, page.3) => {
                last.1 += page.1;
            }
            _ => joined.push(page),
        }
    }
    joined
}

#[test]
fn a_page_at_the_end_of_the_address_space_is_like_any_other() {
    let mut plan = builder(Shape::of(Isolation::Snp));
    let last = u64::MAX - 4095;
    plan.import(page(last, PageKind::Measured, Some(data(1, 9))), HERE)
        .unwrap();
    let folder = Folder::new();
    let path = folder.write("last.igvm", v1(plan));
    let shown = ok(&["inspect", &path, "--pages"]);
    assert!(shown.contains("0xfffffffffffff000"), "{shown}");
    let picture = folder.path("last.html");
    ok(&["inspect", &path, "--html", text(&picture)]);
    assert_eq!(run(&["diff", &path, &path]), (0, String::new()));
    assert_eq!(igvmtool(&["check", &path]).status.code(), Some(0));
    ok(&["measure", &path]);
}

#[test]
fn a_file_of_3_9_gib_is_inspected_in_flat_memory() {
    let folder = Folder::new();
    let path = folder.path("large.igvm");
    largest_file(&path).unwrap();
    // Private memory in KiB; the file's mapping is not private memory.
    let script = r#"ulimit -d 262144 && exec "$@""#;
    let output = Command::new("sh")
        .args([
            "-c",
            script,
            "sh",
            env!("CARGO_BIN_EXE_igvmtool"),
            "inspect",
            text(&path),
        ])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(shown.contains("1020000 measured (3.9 GiB)"), "{shown}");
    assert!(shown.contains("[headers 2-1020001]"), "{shown}");
}
