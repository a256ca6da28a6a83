// SPDX-License-Identifier: MIT
//! What `--json` prints is what the guide's page `json.md` documents: every field that is printed has a
//! row and its type, every row's field is there, and every row is seen.

use crate::build::*;
use crate::corpus::{ovmf_image, samples};
use crate::program::{Folder, igvmtool, ok, text};
use launch_plan::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/id-key.pem");

/// A documented field.
struct Row {
    path: String,
    kind: String,
    nullable: bool,
    optional: bool,
}

/// The rows under a heading of the page.
fn table(heading: &str) -> Vec<Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Guide/src/json.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|line| {
        let (path, rest) = line.split_once("` | ").unwrap();
        let kind = rest.split(" | ").next().unwrap().trim_end_matches(" |");
        let nullable = kind.ends_with(" or null");
        let optional = kind.ends_with(", optional");
        let kind = kind.trim_end_matches(" or null").trim_end_matches(", optional");
        Row {
            path: path.to_owned(),
            kind: kind.to_owned(),
            nullable,
            optional,
        }
    })
    .collect()
}

fn fits(value: &Value, kind: &str) -> bool {
    let digits = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    match (kind, value) {
        ("number", Value::Number(number)) => number.as_u64().is_some_and(|number| number < 1 << 53),
        ("hex", Value::String(text)) => text
            .strip_prefix("0x")
            .is_some_and(|rest| !rest.is_empty() && rest.len() <= 16 && digits(rest)),
        ("digest", Value::String(text)) => [64, 96].contains(&text.len()) && digits(text),
        ("text", Value::String(_)) | ("yes/no", Value::Bool(_)) => true,
        _ => false,
    }
}

/// A table and what was seen of it.
struct Checker {
    heading: &'static str,
    rows: Vec<Row>,
    seen: BTreeSet<String>,
}

impl Checker {
    fn new(heading: &'static str) -> Self {
        let (rows, seen) = (table(heading), BTreeSet::new());
        assert!(!rows.is_empty(), "{heading}");
        Self { heading, rows, seen }
    }

    /// Holds a document against the table.
    fn check(&mut self, document: &str) {
        let value: Value = serde_json::from_str(document).unwrap();
        self.value(String::new(), &value);
    }

    fn value(&mut self, path: String, value: &Value) {
        match value {
            Value::Array(elements) => {
                for element in elements {
                    self.value(format!("{path}[]"), element);
                }
                let known = self
                    .rows
                    .iter()
                    .any(|row| row.path.starts_with(&format!("{path}[]")));
                assert!(known, "{}: {path} is a list", self.heading);
            }
            Value::Object(fields) => {
                let prefix = if path.is_empty() { path } else { format!("{path}.") };
                for row in self.rows.iter().filter(|row| !row.optional) {
                    let Some(rest) = row.path.strip_prefix(&prefix) else {
                        continue;
                    };
                    let name = rest.split(['.', '[']).next().unwrap();
                    // Pages alone have hashes.
                    let present = fields.contains_key(name) || name == "hashes";
                    assert!(present, "{}: {} is missing", self.heading, row.path);
                }
                for (name, field) in fields {
                    self.value(format!("{prefix}{name}"), field);
                }
            }
            _ => self.leaf(&path, value),
        }
    }

    fn leaf(&mut self, path: &str, value: &Value) {
        let heading = self.heading;
        let Some(row) = self.rows.iter().find(|row| row.path == path) else {
            let object = self
                .rows
                .iter()
                .any(|row| row.path.starts_with(&format!("{path}.")));
            assert!(
                value.is_null() && object,
                "{heading}: {path} is not documented: {value}"
            );
            return;
        };
        let fits = if value.is_null() {
            row.nullable
        } else {
            fits(value, &row.kind)
        };
        assert!(fits, "{heading}: {path} is not {}: {value}", row.kind);
        if !value.is_null() {
            self.seen.insert(path.to_owned());
        }
    }

    /// Every row was seen, with a value.
    fn done(self) {
        let unseen = self.rows.iter().filter(|row| !self.seen.contains(&row.path));
        let unseen: Vec<_> = unseen.map(|row| &row.path).collect();
        assert!(unseen.is_empty(), "{}: never seen: {unseen:?}", self.heading);
    }
}

/// Standard output of a command that ends with 0 or 1.
fn printed(args: &[&str]) -> String {
    let output = igvmtool(args);
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{args:?}: {shown}");
    String::from_utf8(output.stdout).unwrap()
}

/// Two pages at one place, so that there is no plan, and unused data.
fn refused() -> Vec<u8> {
    let mut bytes = v1(builder(Shape::of(Isolation::Native)));
    let wanted = 0x11_0000_u64.to_le_bytes();
    let place = bytes.windows(8).position(|window| window == wanted).unwrap();
    bytes[place..place + 8].copy_from_slice(&0x10_0000_u64.to_le_bytes());
    resized(bytes, 100)
}

/// `bytes` with unused data behind them.
fn resized(mut bytes: Vec<u8>, more: usize) -> Vec<u8> {
    bytes.extend(std::iter::repeat_n(0xEE, more));
    let size = bytes.len() as u32;
    bytes[16..20].copy_from_slice(&size.to_le_bytes());
    let file = vm_loaders::igvm::File::read(&bytes).unwrap();
    let checksum = file.fixed_header().compute_checksum(file.variable_headers());
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn what_inspect_and_check_print_is_documented() {
    let folder = Folder::new();
    let mut all: Vec<(String, Vec<u8>)> = samples().into_iter().map(|s| (s.name, s.bytes)).collect();
    all.push(("refused".to_owned(), refused()));
    let mut protectable = builder(Shape::of(Isolation::Tdx));
    let expect = ExpectMemory {
        gpa: 0,
        len: 16 << 20,
        vtl2_protectable: true,
    };
    protectable.plan_mut().facts.highest_vtl = 2;
    protectable.expect_memory(expect, HERE).unwrap();
    all.push(("protectable".to_owned(), v1(protectable)));
    let (mut inspect, mut check) = (Checker::new("inspect"), Checker::new("check"));
    let loaders = ["qemu-11", "openvmm", "cloud-hypervisor", "kvm-snp", "spec"];
    let loaders = loaders.map(|loader| ["--for", loader]).concat();
    for (name, bytes) in all {
        let path = folder.write(&name, bytes);
        inspect.check(&printed(&["inspect", "--json", &path]));
        check.check(&printed(&[&["check", "--json", &path][..], &loaders].concat()));
    }
    inspect.done();
    check.done();
    let mut explained = Checker::new("check --explain");
    for code in ["checksum", "qemu-order"] {
        explained.check(&ok(&["check", "--json", "--explain", code]));
    }
    explained.done();
}

#[test]
fn what_diff_prints_is_documented() {
    let folder = Folder::new();
    let all = samples();
    let bytes = |name: &str| {
        all.iter()
            .find(|sample| sample.name == name)
            .unwrap()
            .bytes
            .clone()
    };
    let mut diff = Checker::new("diff");
    let mut stored = bytes("snp-v1");
    let at = stored.len() - 4096 - 2048;
    stored[at] ^= 1;
    let a = folder.write("a", bytes("snp-v1"));
    for other in [
        stored,
        bytes("snp-v1"),
        bytes("snp-v2"),
        bytes("snp-2mib"),
        bytes("multi-v1"),
        bytes("native-v1"),
    ] {
        let b = folder.write("b", other);
        diff.check(&printed(&["diff", "--json", &a, &b]));
    }
    // A field that KVM does not keep changes other readings only.
    let mut area = bytes("snp-v1");
    let rip = [0xF0, 0xFF, 0, 0, 0, 0, 0, 0];
    let place = area.windows(8).rposition(|window| window == rip).unwrap() - x86defs::vmsa::offset::RIP;
    area[place + 0x240] = 1;
    let b = folder.write("b", area);
    diff.check(&printed(&["diff", "--json", &a, &b]));
    diff.done();
}

#[test]
fn what_measure_and_verify_print_is_documented() {
    let folder = Folder::new();
    let (mut measure, mut against) = (Checker::new("measure"), Checker::new("measure --against"));
    let mut verify = Checker::new("verify");
    for sample in samples() {
        let path = folder.write(&sample.name, &sample.bytes);
        let output = igvmtool(&["measure", "--json", "--trace", &path]);
        if output.status.code() == Some(2) {
            continue;
        }
        let shown = String::from_utf8(output.stdout).unwrap();
        measure.check(&shown);
        let records: Value = serde_json::from_str(&shown).unwrap();
        let Some(snp) = records
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["platform"] == "snp")
        else {
            continue;
        };
        let others = snp["other_profiles"].as_array().unwrap().iter().take(1);
        for record in others.chain([snp]) {
            let digest = record["digest"].as_str().unwrap();
            against.check(&printed(&[
                "measure",
                "--json",
                "--against",
                digest,
                "--platform",
                "snp",
                &path,
            ]));
            verify.check(&printed(&["verify", "--json", "--digest", digest, &path]));
        }
    }
    measure.done();
    against.done();
    verify.done();
}

#[test]
fn what_commands_that_write_files_print_is_documented() {
    let folder = Folder::new();
    let image = folder.write("OVMF.fd", ovmf_image());
    let path = |name: &str| text(&folder.path(name)).to_owned();
    let (wrapped, signed, built) = (path("w"), path("s"), path("b"));
    let mut made = Checker::new("build, wrap, sign");
    let platforms = ["--platform", "native", "--platform", "snp"];
    made.check(&ok(&[
        &["wrap", &image, "-o", &wrapped, "--json"],
        &platforms[..],
    ]
    .concat()));
    made.check(&ok(&["sign", &wrapped, "-o", &signed, "--id-key", KEY, "--json"]));
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/ovmf-x64.json");
    let resource = format!("ovmf={image}");
    let guests = ["--guest", "sev", "--guest", "snp"];
    let build = [
        "build",
        "-m",
        manifest,
        "-r",
        &resource,
        "-o",
        &built,
        "--json",
        "--provenance",
    ];
    made.check(&ok(&[&build[..], &guests].concat()));
    made.done();
    let mut emitted = Checker::new("sign --emit-block");
    emitted.check(&ok(&["sign", &wrapped, "--emit-block", &path("block"), "--json"]));
    emitted.done();
    let mut updated = Checker::new("update");
    let drop = ["--policy", "0xb0000", "--platform", "snp", "--drop", "id-block"];
    for (from, args) in [(&signed, &drop[..]), (&built, &["--strip", "sev"])] {
        updated.check(&ok(
            &[&["update", from, "-o", &path("u"), "--json"], args].concat()
        ));
    }
    updated.done();
    let (mut extracted, mut packed) = (Checker::new("extract"), Checker::new("pack"));
    extracted.check(&ok(&["extract", &wrapped, "-o", &path("parts"), "--json"]));
    packed.check(&ok(&["pack", &path("parts"), "-o", &path("p"), "--json"]));
    extracted.done();
    packed.done();
}
