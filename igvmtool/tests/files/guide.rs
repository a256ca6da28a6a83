// SPDX-License-Identifier: MIT
//! The guide: every command line of `igvmtool` in it is run, its links lead somewhere, mdbook builds it.
//! Command lines of `openvmm` are run by `vmm_tests`.

use crate::build::*;
use crate::corpus::ovmf_image;
use crate::program::{Folder, peer, text};
use crate::update::{bzimage, linux_file};
use launch_plan::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use vm_loaders::igvm::FormatVersion;
use vm_loaders::ovmf;

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../Guide/src")
}

fn pages() -> Vec<(String, String)> {
    let mut pages: Vec<(String, String)> = std::fs::read_dir(guide())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    pages.sort();
    pages
}

/// The command lines of a page's `sh` blocks, continued lines joined.
fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap().replace("\\\n", " ");
        let lines = block.lines().map(str::trim);
        commands.extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
    }
    commands
}

/// The files that the introduction lists.
fn fixtures(folder: &Folder) {
    let image = ovmf_image();
    let mut other = image.clone();
    other[0x5000] ^= 0xFF;
    folder.write("OVMF.fd", &image);
    folder.write("OVMF-new.fd", &other);
    let snp = ovmf::plan(&image, &ovmf::WrapOptions::new(Isolation::Snp, 2)).unwrap();
    folder.write("guest.igvm", file(&[snp], FormatVersion::V1));
    let mut bytes = v1(builder(Shape::of(Isolation::Snp)));
    folder.write("old.igvm", &bytes);
    *bytes.last_mut().unwrap() ^= 1;
    let at = bytes.len() - 4096 - 2048;
    bytes[at] ^= 1;
    folder.write("new.igvm", &bytes);
    folder.write(
        "linux.igvm",
        linux_file(&bzimage(0x90, 0x5000), &[1; 5000], "console=ttyS0"),
    );
    folder.write("vmlinuz", bzimage(0xCC, 0x7400));
    folder.write("initrd", vec![2; 3000]);
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/id-key.pem");
    std::fs::copy(key, folder.path("id-key.pem")).unwrap();
}

#[test]
fn every_command_line_of_the_guide_runs() {
    let mut count = 0;
    for (name, page) in pages() {
        let folder = Folder::new();
        fixtures(&folder);
        for line in commands(&page) {
            let Some(rest) = line.strip_prefix("igvmtool ") else {
                continue;
            };
            let (rest, expected) = match rest.split_once("# exit code ") {
                Some((rest, code)) => (rest, code.trim().parse::<i32>().unwrap()),
                None => (rest, 0),
            };
            let output = Command::new(env!("CARGO_BIN_EXE_igvmtool"))
                .args(rest.split_whitespace())
                .current_dir(folder.path("."))
                .output()
                .unwrap();
            let shown = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(expected), "{name}: {line}: {shown}");
            count += 1;
        }
    }
    assert!(count >= 25, "{count}");
}

#[test]
fn the_guide_builds() {
    let Some(mdbook) = peer("mdbook", "the_guide_builds") else {
        return;
    };
    let folder = Folder::new();
    let output = Command::new(mdbook)
        .args(["build", "--dest-dir", text(&folder.path("book"))])
        .arg(guide().join(".."))
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !shown.contains("ERROR") && !shown.contains("WARN"),
        "{shown}"
    );
    for (name, _) in pages() {
        let made = folder.path("book").join(name.replace(".md", ".html"));
        assert!(name == "SUMMARY.md" || made.exists(), "{name}");
    }
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let pages = pages();
    let summary = &pages.iter().find(|(name, _)| name == "SUMMARY.md").unwrap().1;
    for (name, page) in &pages {
        assert!(
            name == "SUMMARY.md" || summary.contains(&format!("({name})")),
            "{name}"
        );
        for link in page.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            let path = guide().join(target);
            assert!(target.is_empty() || path.exists(), "{name}: {}", text(&path));
        }
    }
}
