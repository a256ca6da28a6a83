// SPDX-License-Identifier: MIT
//! Pictures: measured in a browser, well-formed, bounded, and safe to open.

use crate::build::*;
use crate::corpus::samples;
use crate::program::{Folder, ok, text};
use igvmtool::overview::schema::Overview;
use igvmtool::picture;
use launch_plan::*;
use std::process::Command;
use vm_loaders::igvm::{File, FormatVersion};
use vm_loaders::ovmf;

/// How headless Chromium is started on a machine without a network.
const CHROMIUM: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=10000",
];

/// Lists every pair of texts of one picture that touch, and every text that leaves its picture.
const MEASURE: &str = r"
const found = [];
for (const svg of document.querySelectorAll('svg.igvm')) {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
  if (texts.length < 3) found.push('a picture without texts');
  for (const [i, [a, r]] of texts.entries()) {
    if (r.right > frame.right || r.left < frame.left || r.bottom > frame.bottom) found.push(`${a} leaves the picture`);
    for (const [b, s] of texts.slice(i + 1)) {
      const apart = r.right <= s.left || s.right <= r.left || r.bottom - 2 <= s.top || s.bottom - 2 <= r.top;
      if (!apart) found.push(`${a} | ${b}`);
    }
  }
}
document.title = 'measured ' + document.querySelectorAll('svg.igvm').length + ' overlaps ' + found.length;
document.body.dataset.found = found.join(' ;; ');
";

/// The same for whole pages with every table open: all texts against each other, cells as wide as their text.
const MEASURE_PAGES: &str = r"
for (const fold of document.querySelectorAll('details')) fold.open = true;
const found = [];
const texts = [...document.querySelectorAll('svg.igvm text, td, th, summary, h2, #details')].map(e => {
  const range = document.createRange();
  range.selectNodeContents(e);
  return [e.textContent, range.getBoundingClientRect()];
}).filter(([text, r]) => text && r.width > 0);
for (const [i, [a, r]] of texts.entries()) {
  if (r.left < 0 || r.right > document.documentElement.scrollWidth) found.push(`${a} leaves the page`);
  for (const [b, s] of texts.slice(i + 1)) {
    const apart = r.right <= s.left || s.right <= r.left || r.bottom - 2 <= s.top || s.bottom - 2 <= r.top;
    if (!apart) found.push(`${a} | ${b}`);
  }
}
const enough = texts.length > 200 ? '' : ' of only ' + texts.length;
document.title = 'measured ' + document.querySelectorAll('svg.igvm').length + ' overlaps ' + found.length + enough;
document.body.dataset.found = found.join(' ;; ');
";

/// Opens a page that measures itself; panics with what it found unless its title is `wanted`.
fn measured(chromium: &str, page: &str, wanted: &str) {
    let folder = Folder::new();
    let path = folder.write("pictures.html", page);
    let profile = format!("--user-data-dir={}", text(&folder.path("profile")));
    let output = Command::new(chromium)
        .args(CHROMIUM)
        .args([&profile, "--dump-dom", &format!("file://{path}")])
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let part = |begin: &str, end: char| dom.split(begin).nth(1)?.split(end).next();
    let (title, found) = (part("<title>", '<'), part("data-found=\"", '"'));
    let shown = String::from_utf8_lossy(&output.stderr);
    assert_eq!(title, Some(wanted), "{found:?} {shown}");
}

fn chromium(test: &str) -> Option<&'static str> {
    let path = "/usr/bin/chromium";
    if !std::path::Path::new(path).exists() {
        println!("skipped: {test}: chromium is not installed (Debian's package chromium)");
        return None;
    }
    Some(path)
}

/// Many small runs close to each other, long names, many VPs, a hostile name.
fn crowded() -> Vec<u8> {
    let mut plan = PlanBuilder::new(PlatformFacts::new(Isolation::SevEs, Arch::X64));
    for number in 0..300_u64 {
        let kind = if number % 2 == 0 {
            PageKind::Measured
        } else {
            PageKind::Unmeasured
        };
        plan.import(page(number * 0x1000, kind, Some(data(1, 3))), HERE)
            .unwrap();
        plan.import(page((number + 1) << 32, kind, None), HERE).unwrap();
    }
    plan.import(area(0x50_0000, &ParameterKind::ALL, vec![1]), HERE)
        .unwrap();
    for vp in 0..40 {
        let state = VpState::Vmsa(save_area(Isolation::SevEs).into());
        let gpa = x86defs::vmsa::KVM_VMSA_GPA;
        plan.vp_context(VpContext { vp, gpa, state }, HERE).unwrap();
    }
    v1(plan)
}

#[test]
fn no_texts_overlap_in_a_browser() {
    let test = "no_texts_overlap_in_a_browser";
    let Some(chromium) = chromium(test) else { return };
    let mut page = "<!doctype html><meta charset=utf-8><body>".to_owned();
    let mut count = 0;
    let mut add = |name: &str, bytes: &[u8]| {
        page.push_str(&picture::svg(&Overview::of(
            name,
            &File::read(bytes).unwrap(),
            None,
        )));
        count += 1;
    };
    for sample in samples() {
        add(&sample.name, &sample.bytes);
    }
    add(&"a very long name & <b>markup</b> ".repeat(20), &crowded());
    page.push_str(&format!("<script>{MEASURE}</script></body>"));
    measured(chromium, &page, &format!("measured {count} overlaps 0"));
}

#[test]
fn no_texts_overlap_in_the_pages_of_ovmf_and_uefi() {
    let test = "no_texts_overlap_in_the_pages_of_ovmf_and_uefi";
    let Some(chromium) = chromium(test) else { return };
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for sample in samples() {
        if ["ovmf-snp", "uefi-blob", "uefi-parameters"].contains(&&*sample.name) {
            files.push((sample.name, sample.bytes));
        }
    }
    assert_eq!(files.len(), 3);
    if let Ok(image) = std::fs::read("/usr/share/ovmf/OVMF.fd") {
        let plan = ovmf::plan(&image, &ovmf::WrapOptions::new(Isolation::Snp, 2)).unwrap();
        files.push(("Debian's OVMF".to_owned(), file(&[plan], FormatVersion::V1)));
    }
    // All in one document, so that the browser starts once.
    let mut document = String::new();
    for (name, bytes) in &files {
        let page = picture::html(&Overview::of(name, &File::read(bytes).unwrap(), None));
        let (head, body) = page.split_once("<body>").unwrap();
        if document.is_empty() {
            document = format!("{head}<body>");
        }
        document.push_str(body.split("<script>").next().unwrap());
    }
    document.push_str(&format!("<script>{MEASURE_PAGES}</script></body></html>"));
    measured(
        chromium,
        &document,
        &format!("measured {} overlaps 0", files.len()),
    );
}

/// Every tag is closed, in order; enough of a check for what we write.
fn assert_balanced(xml: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in xml.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') && !tag.starts_with('!') {
            open.push(tag.split(' ').next().unwrap());
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn pictures_are_well_formed_and_need_nothing_from_elsewhere() {
    for sample in samples() {
        let file = File::read(&sample.bytes).unwrap();
        let overview = Overview::of(&sample.name, &file, None);
        let (svg, html) = (picture::svg(&overview), picture::html(&overview));
        assert_balanced(&svg);
        for text in [&svg, &html] {
            let links = text.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !links.contains("http") && !links.contains("url("),
                "{}",
                sample.name
            );
        }
        assert!(svg.len() < 200_000 && html.len() < 400_000, "{}", sample.name);
    }
}

#[test]
fn names_from_the_file_cannot_become_markup() {
    let bytes = v1(builder(Shape::of(Isolation::Native)));
    let name = "</text><script>alert('x')</script>\u{1}\"";
    let overview = Overview::of(name, &File::read(&bytes).unwrap(), None);
    for text in [picture::svg(&overview), picture::html(&overview)] {
        assert!(!text.contains("<script>alert") && !text.contains('\u{1}'));
    }
}

#[test]
fn crowded_files_stay_bounded_and_say_what_is_left_out() {
    let bytes = crowded();
    let overview = Overview::of("crowded", &File::read(&bytes).unwrap(), None);
    let svg = picture::svg(&overview);
    assert!(
        svg.contains(" more, which inspect lists") && svg.len() < 600_000,
        "{}",
        svg.len()
    );
    assert!(svg.contains("vp 0, vp 1, vp 2"));
}

#[test]
fn the_command_writes_both_and_prints_nothing() {
    let folder = Folder::new();
    let path = folder.write("a.igvm", v1(builder(Shape::of(Isolation::Snp))));
    let (svg, html) = (folder.path("a.svg"), folder.path("a.html"));
    let shown = ok(&["inspect", &path, "--svg", text(&svg), "--html", text(&html)]);
    assert_eq!(shown, "");
    let svg = std::fs::read_to_string(svg).unwrap();
    for wanted in ["secrets", "vp 0 starts", "VP count", "empty"] {
        assert!(svg.contains(wanted), "{wanted}: {svg}");
    }
    assert!(
        std::fs::read_to_string(html)
            .unwrap()
            .starts_with("<!doctype html>")
    );
}
