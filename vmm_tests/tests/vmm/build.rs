// SPDX-License-Identifier: MIT
//! `igvmtool build` as a user runs it: good manifests, and every message of bad ones.

use crate::images::{Folder, arg};
use vmm_tests::programs::{self, run_igvmtool};

/// A manifest of one guest with isolation none; the image stands on line 4.
fn manifest(image: &str) -> String {
    guest("\"none\"", image)
}

fn guest(isolation: &str, image: &str) -> String {
    format!(
        "{{\"guest_arch\": \"x64\", \"guest_configs\": [{{\n\"guest_svn\": 1, \"max_vtl\": 0,\n\"isolation_type\": {isolation},\n\"image\": {image}}}]}}\n"
    )
}

fn flat(more: &str) -> String {
    manifest(&format!(
        r#"{{"flat": {{"resource": "blob", "gpa": "0x100000", "mode": "long", "tables_gpa": "0x10000"{more}}}}}"#
    ))
}

/// Exit code and the message without folders.
fn build(folder: &Folder, manifest: &str, options: &[&str]) -> (Option<i32>, String) {
    let path = folder.write("m.json", manifest);
    let output = folder.path("out.igvm");
    let built = run_igvmtool([&["build", "-m", arg(&path), "-o", arg(&output)], options].concat());
    (
        built.status.code(),
        folder.strip(&String::from_utf8(built.stderr).unwrap()),
    )
}

#[test]
fn output_is_the_same_bit_for_bit_wherever_it_is_built() {
    let (one, two) = (Folder::new(), Folder::new());
    for folder in [&one, &two] {
        let blob = folder.write("blob", [0xF4; 5000]);
        let resource = format!("blob={}", arg(&blob));
        let more = r#", "parameters": [{"gpa": "0x300000", "count": 1, "values": [{"kind": "vp_count", "offset": 0}]}]"#;
        assert_eq!(
            build(folder, &flat(more), &["-r", &resource]),
            (Some(0), String::new())
        );
    }
    for name in ["out.igvm", "out.igvm.map"] {
        let read = |folder: &Folder| std::fs::read(folder.path(name)).unwrap();
        assert_eq!(read(&one), read(&two), "{name}");
        assert!(!read(&one).is_empty());
    }
}

#[test]
fn map_lists_what_lies_where() {
    let folder = Folder::new();
    let blob = folder.write("blob", [0xF4; 5000]);
    let resource = format!("blob={}", arg(&blob));
    let more = r#", "required_memory": [{"gpa": 0, "bytes": "0x400000"}]"#;
    assert_eq!(
        build(&folder, &flat(more), &["-r", &resource, "--platform", "native"]).0,
        Some(0)
    );
    let map = std::fs::read_to_string(folder.path("out.igvm.map")).unwrap();
    let expected = "\
out.igvm: IGVM format 1, 41360 bytes

platform native, x64, highest vtl 0
expect ram   0x0000000000000000..0x0000000000400000 4 MiB      [required_memory]
vp context   vp 0, native, rip 0x100000  [flat boot processor]
import       0x0000000000010000..0x0000000000017000 28 KiB    measured   data  [flat page tables]
import       0x0000000000100000..0x0000000000102000 8 KiB     measured   data  [flat binary]
";
    assert_eq!(map, expected);
}

#[test]
fn shipped_manifests_build_in_their_versions() {
    let folder = Folder::new();
    let firmware = folder.write("arm.fd", vec![0x14; 0x80_0000]);
    let resource = format!("uefi={}", arg(&firmware));
    let output = folder.path("arm.igvm");
    let args = [
        "build",
        "-m",
        "manifests/uefi-aarch64.json",
        "-r",
        &resource,
        "-o",
        arg(&output),
    ];
    assert!(run_igvmtool(args).status.success());
    let shown = String::from_utf8(run_igvmtool(["inspect", arg(&output)]).stdout).unwrap();
    assert!(
        folder.strip(&shown).starts_with("arm.igvm: IGVM format 2, "),
        "{shown}"
    );
    assert!(shown.contains("platform vsm, aarch64, highest vtl 0"), "{shown}");
    let again = run_igvmtool([&args[..], &["--format", "1"]].concat());
    let message = String::from_utf8(again.stderr).unwrap();
    assert_eq!(
        (again.status.code(), message.as_str()),
        (
            Some(2),
            "igvmtool: manifests/uefi-aarch64.json: format version 1 holds x64 images only; choose version 2\n"
        )
    );
}

#[test]
fn bad_manifests_and_command_lines_are_refused_with_their_message() {
    let folder = Folder::new();
    let blob = format!("blob={}", arg(&folder.write("blob", [0xF4; 5000])));
    let small = format!("uefi={}", arg(&folder.write("small.fd", [0; 16])));
    let uefi = manifest(r#"{"uefi": {"config_type": "none"}}"#);
    let tdx = guest(
        r#"{"tdx": {"enable_debug": false, "sept_ve_disable": true}}"#,
        r#"{"uefi": {"config_type": "igvm"}}"#,
    );
    let two_none = {
        let one = flat("");
        let body = one[one.find("[{").unwrap() + 1..one.rfind(']').unwrap()].to_owned();
        one.replace(&body, &format!("{body}, {body}"))
    };
    let overlap = r#", "pages": [{"gpa": "0x100000", "count": 1, "kind": "measured", "contents": "zero"}]"#;
    let unaligned = r#", "pages": [{"gpa": "0x200800", "count": 1, "kind": "measured", "contents": "zero"}]"#;
    let large = r#", "pages": [{"gpa": "0x300000", "count": 1, "kind": "measured", "large": true, "contents": "zero"}]"#;
    let too_long = r#", "pages": [{"gpa": "0x300000", "count": 1, "kind": "measured", "contents": {"resource": "blob"}}]"#;
    let huge =
        r#", "pages": [{"gpa": "0x300000", "count": 99999999, "kind": "measured", "contents": {"fill": 1}}]"#;
    let outside =
        r#", "parameters": [{"gpa": "0x300000", "count": 1, "values": [{"kind": "madt", "offset": 4096}]}]"#;
    let empty_error = r#", "error_ranges": [{"gpa": "0x300000", "bytes": 0}]"#;
    let movable = r#", "relocatable": {"gpa": 0, "bytes": "0x200000", "alignment": "0x200000", "min_gpa": 0, "max_gpa": "0x40000000"}"#;
    let openhcl = r#"{"openhcl": {"memory_page_count": 1}}"#;
    let table: &[(&str, &[&str], i32, &str)] = &[
        ("{", &[], 2, "m.json:1:1: EOF while parsing an object"),
        (
            &uefi,
            &[],
            2,
            "m.json:4:10: needs the resource uefi; add --resource uefi=PATH",
        ),
        (
            &uefi,
            &["-r", &small],
            2,
            "m.json:4:10: resource uefi: the UEFI firmware image is 0x10 bytes; it must be exactly 0x600000 (a GCC DEBUG build is larger and cannot be used)",
        ),
        (
            &tdx,
            &[],
            2,
            "m.json:4:10: needs the resource uefi; add --resource uefi=PATH",
        ),
        (
            &tdx,
            &["--guest", "none"],
            2,
            "m.json has no guest with isolation none; it has tdx",
        ),
        (
            &manifest(openhcl),
            &[],
            2,
            "m.json:4:10: image openhcl needs a VTL 2, which nothing here runs or builds",
        ),
        (
            &two_none,
            &["-r", &blob],
            2,
            "m.json: platform vsm is given twice; a file holds one plan per platform",
        ),
        (
            &flat(""),
            &[],
            2,
            "m.json:4:10: needs the resource blob; add --resource blob=PATH",
        ),
        (
            &flat(""),
            &["-r", &blob, "-r", &blob],
            2,
            "resource blob is given twice",
        ),
        (
            &flat(""),
            &["-r", "blob=/nowhere/x"],
            3,
            "resource blob: cannot read /nowhere/x: No such file or directory (os error 2)",
        ),
        (
            &flat(overlap),
            &["-r", &blob],
            2,
            "m.json:4:10: pages: gpa 0x100000 of 0x1000 bytes overlaps gpa 0x100000 of 0x2000 bytes from flat binary",
        ),
        (
            &flat(unaligned),
            &["-r", &blob],
            2,
            "m.json:4:10: pages: gpa 0x200800 and length 0x1000 must be multiples of 0x1000",
        ),
        (
            &flat(large),
            &["-r", &blob],
            2,
            "m.json:4:10: pages: gpa 0x300000 and length 0x200000 must be multiples of 0x200000",
        ),
        (
            &flat(too_long),
            &["-r", &blob],
            2,
            "m.json:4:10: contents of 5000 bytes do not fit 4096 bytes of pages",
        ),
        (
            &flat(huge),
            &["-r", &blob],
            2,
            "m.json:4:10: 99999999 pages are more than 4 GiB",
        ),
        (
            &flat(outside),
            &["-r", &blob],
            2,
            "m.json:4:10: parameters: MADT at byte offset 0x1000 starts outside its parameter area of 0x1000 bytes at gpa 0x300000",
        ),
        (
            &flat(empty_error),
            &["-r", &blob],
            2,
            "m.json:4:10: error_ranges: the range at gpa 0x300000 is empty",
        ),
        (
            &flat(movable),
            &["-r", &blob, "--platform", "native"],
            2,
            "m.json:1:41: platform native cannot be relocatable; use --platform vsm",
        ),
    ];
    for (text, options, code, message) in table {
        let got = build(&folder, text, options);
        assert_eq!(
            got,
            (Some(*code), format!("igvmtool: {message}\n")),
            "{text} {options:?}"
        );
        assert!(
            !folder.path("out.igvm").exists(),
            "a refused build left a file: {text}"
        );
    }
}

#[test]
fn files_that_are_not_igvm_end_with_exit_code_3() {
    let folder = Folder::new();
    let text = folder.write("text", "this is a text, long enough for a header of 24 bytes");
    for command in ["inspect", "check"] {
        let shown = run_igvmtool([command, arg(&text)]);
        let message = folder.strip(&String::from_utf8(shown.stderr).unwrap());
        let expected = "igvmtool: text: file offset 0x0: the file starts with 0x73696874, not IGVM (0x4d564749) [magic]\n";
        assert_eq!((shown.status.code(), message.as_str()), (Some(3), expected));
        let missing = run_igvmtool([command, arg(&folder.path("missing"))]);
        let message = folder.strip(&String::from_utf8(missing.stderr).unwrap());
        let expected = "igvmtool: cannot open missing: No such file or directory (os error 2)\n";
        assert_eq!((missing.status.code(), message.as_str()), (Some(3), expected));
    }
}

#[test]
fn usage_errors_end_with_exit_code_2() {
    for args in [
        &["build"][..],
        &["nothing"],
        &["inspect"],
        &["build", "-m", "x", "-o", "y", "--format", "3"],
    ] {
        assert_eq!(run_igvmtool(args).status.code(), Some(2), "{args:?}");
    }
    assert!(programs::igvmtool().is_file());
}
