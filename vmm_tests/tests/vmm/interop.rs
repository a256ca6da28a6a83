// SPDX-License-Identifier: MIT
//! Files of others read here, files made here read by others (`virtfw-igvm-tools`).

use crate::images::{Folder, arg};
use launch_plan::{Isolation, PageContents, PageKind};
use std::collections::BTreeSet;
use std::path::Path;
use vm_loaders::igvm::{File, Severity};
use vmm_tests::{programs, skip};

const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

/// A page as both tools name it: platform, gpa, kind, and whether it holds data.
type Page = (String, u64, &'static str, bool);

#[test]
fn files_of_igvm_wrap_are_read_without_errors() {
    let wrap = match programs::foreign("igvm-wrap") {
        Ok(wrap) => wrap,
        Err(reason) => return skip("files_of_igvm_wrap_are_read_without_errors", &reason),
    };
    if !Path::new(OVMF).exists() {
        return skip(
            "files_of_igvm_wrap_are_read_without_errors",
            "OVMF.fd is not installed",
        );
    }
    let folder = Folder::new();
    for (options, platforms) in [
        (&["--native"][..], &[Isolation::Native][..]),
        (&["--snp"], &[Isolation::Native, Isolation::Snp]),
        (&["--no-native", "--snp"], &[Isolation::Snp]),
        (&["--no-params"], &[Isolation::Native]),
        (&["--flat32"], &[Isolation::Native]),
    ] {
        let path = folder.path("wrapped.igvm");
        let made = programs::run(&wrap, [&["-i", OVMF, "-o", arg(&path)], options].concat());
        assert!(made.status.success(), "{options:?}: {made:?}");
        let bytes = std::fs::read(&path).unwrap();
        let file = File::read(&bytes).unwrap();
        let errors: Vec<_> = file
            .check()
            .into_iter()
            .filter(|p| p.severity() == Severity::Error)
            .collect();
        assert_eq!(errors, [], "{options:?}");
        let found: Vec<_> = file
            .platforms()
            .iter()
            .map(|platform| platform.isolation)
            .collect();
        assert_eq!(found, platforms, "{options:?}");
        for &platform in platforms {
            let plan = file.plan(platform).unwrap();
            let reset_page = plan.pages().any(|(page, _)| page.gpa == 0xFFFF_F000);
            assert!(
                reset_page,
                "{options:?}: {platform} has no page with the reset vector"
            );
        }
        let checked = programs::run_igvmtool(["check", arg(&path)]);
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    }
}

#[test]
fn igvm_inspect_lists_our_files_as_we_do() {
    let inspect = match programs::foreign("igvm-inspect") {
        Ok(inspect) => inspect,
        Err(reason) => return skip("igvm_inspect_lists_our_files_as_we_do", &reason),
    };
    let folder = Folder::new();
    let blob = folder.write("blob", [0x5A; 3 * 4096 + 7]);
    let manifest = folder.write("flat.json", FLAT);
    let path = folder.path("flat.igvm");
    for options in [
        &["--format", "1"][..],
        &["--format", "2"],
        &["--platform", "native"],
    ] {
        let resource = format!("blob={}", arg(&blob));
        let build = ["build", "-m", arg(&manifest), "-r", &resource, "-o", arg(&path)];
        let built = programs::run_igvmtool([&build[..], options].concat());
        assert!(built.status.success(), "{built:?}");
        let listed = programs::run(&inspect, [arg(&path)]);
        assert!(listed.status.success(), "{listed:?}");
        let theirs = their_pages(&String::from_utf8(listed.stdout).unwrap());
        assert_eq!(theirs, our_pages(&std::fs::read(&path).unwrap()), "{options:?}");
        assert!(theirs.len() > 10);
    }
}

const FLAT: &str = r#"{
    "guest_arch": "x64",
    "guest_configs": [{
        "guest_svn": 1, "max_vtl": 0, "isolation_type": "none",
        "image": {"flat": {
            "resource": "blob", "gpa": "0x100000", "mode": "long", "tables_gpa": "0x10000",
            "required_memory": [{"gpa": 0, "bytes": "0x200000"}],
            "pages": [
                {"gpa": "0x200000", "count": 3, "kind": "unmeasured", "contents": {"fill": 7}},
                {"gpa": "0x300000", "count": 2, "kind": "shared", "contents": "zero"},
                {"gpa": "0x400000", "count": 1, "kind": "measured", "contents": {"text": "hello"}}
            ]
        }}
    }]
}"#;

/// Expands `PageData: gpa .., type .., flags ..[, empty], compat .. [PLATFORMS]`, where a following
/// `PageData: end .. (N more pages)` continues the line before.
fn their_pages(listing: &str) -> BTreeSet<Page> {
    let mut pages = BTreeSet::new();
    let mut last: Vec<Page> = Vec::new();
    for line in listing.lines() {
        if let Some(rest) = line.strip_prefix("PageData: gpa ") {
            let (gpa, rest) = rest.split_once(", ").unwrap();
            let gpa = hex(gpa);
            let kind = if rest.contains("shared") {
                "shared"
            } else if rest.contains("unmeasured") {
                "unmeasured"
            } else {
                "measured"
            };
            let data = !rest.contains("empty");
            let platforms = rest.rsplit_once('[').unwrap().1.trim_end_matches(']');
            last = platforms
                .split(", ")
                .map(|platform| (platform.to_owned(), gpa, kind, data))
                .collect();
            pages.extend(last.iter().cloned());
        } else if let Some(rest) = line.strip_prefix("PageData: end ") {
            let (_, more) = rest.split_once('(').unwrap();
            let more: u64 = more.split_once(' ').unwrap().0.parse().unwrap();
            for (platform, gpa, kind, data) in &last {
                pages.extend((1..=more).map(|n| (platform.clone(), gpa + n * 4096, *kind, *data)));
            }
        }
    }
    pages
}

fn our_pages(bytes: &[u8]) -> BTreeSet<Page> {
    let file = File::read(bytes).unwrap();
    let mut pages = BTreeSet::new();
    for platform in file.platforms() {
        let name = match platform.isolation {
            Isolation::Vsm => "VSM_ISOLATION",
            Isolation::Native => "NATIVE",
            other => panic!("{other}"),
        };
        for (page, _) in file.plan(platform.isolation).unwrap().pages() {
            let kind = match page.kind {
                PageKind::Measured => "measured",
                PageKind::Unmeasured => "unmeasured",
                PageKind::Shared => "shared",
                other => panic!("{other}"),
            };
            let data = page.contents != PageContents::Zero;
            pages.insert((name.to_owned(), page.gpa, kind, data));
        }
    }
    pages
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}
