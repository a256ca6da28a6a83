// SPDX-License-Identifier: MIT
//! Manifests that parse, and every way in which one does not, with its exact message.

use super::*;

const UEFI: &str = r#"{"uefi": {"config_type": "none"}}"#;

/// A manifest of one guest, with its isolation on line 6 and its image on line 7.
fn one(arch: &str, max_vtl: &str, isolation: &str, image: &str) -> String {
    format!(
        "{{\n  \"guest_arch\": {arch},\n  \"guest_configs\": [{{\n    \"guest_svn\": 1,\n    \"max_vtl\": {max_vtl},\n    \"isolation_type\": {isolation},\n    \"image\": {image}\n  }}]\n}}\n"
    )
}

fn x64(isolation: &str, image: &str) -> String {
    one("\"x64\"", "0", isolation, image)
}

fn parse(text: &str) -> Result<Manifest, String> {
    Manifest::parse("m.json", text).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_refused(text: &str, message: &str) {
    assert_eq!(parse(text).unwrap_err(), message, "for {text}");
}

#[test]
fn shipped_manifests_parse() {
    let uefi = Manifest::parse("uefi-x64.json", include_str!("../../../manifests/uefi-x64.json")).unwrap();
    let isolations: Vec<_> = uefi.guests.iter().map(|guest| guest.isolation.name()).collect();
    assert_eq!(isolations, ["none", "tdx", "snp"]);
    assert_eq!(
        uefi.guests[0].image,
        Image::Uefi(UefiImage {
            config_type: UefiConfigType::None
        })
    );
    assert_eq!(uefi.guests[2].isolation_place, Place { line: 32, column: 31 });
    let arm = include_str!("../../../manifests/uefi-aarch64.json");
    assert_eq!(
        Manifest::parse("uefi-aarch64.json", arm).unwrap().arch,
        GuestArch::Aarch64
    );
}

#[test]
fn every_isolation_and_image_parses() {
    let snp = r#"{"snp": {"policy": 196608, "enable_debug": true, "injection_type": "normal"}}"#;
    let linux = r#"{"linux": {"use_initrd": true, "command_line": "console=ttyS0"}}"#;
    let direct = r#"{"snp_linux_direct": {"linux": {"use_initrd": false, "command_line": ""},
        "processor_count": 1, "memory_page_count": 40960, "c_bit_position": 51}}"#;
    for (isolation, image) in [
        ("\"none\"", "\"none\""),
        ("\"none\"", UEFI),
        (r#"{"vbs": {"enable_debug": false}}"#, UEFI),
        (
            r#"{"tdx": {"enable_debug": false, "sept_ve_disable": true}}"#,
            UEFI,
        ),
        (snp, r#"{"uefi": {"config_type": "igvm"}}"#),
        ("\"none\"", linux),
        (snp, direct),
    ] {
        let text = x64(isolation, image);
        assert!(parse(&text).is_ok(), "{:?} for {text}", parse(&text));
    }
    let openhcl =
        r#"{"openhcl": {"memory_page_count": 131072, "linux": {"use_initrd": true, "command_line": ""}}}"#;
    assert!(parse(&one("\"x64\"", "2", "\"none\"", openhcl)).is_ok());
}

#[test]
fn broken_json_is_placed() {
    assert_refused("", "m.json:1:1: EOF while parsing a value");
    assert_refused("{\n  \"guest_arch\": \"x64\",\n}", "m.json:3:1: trailing comma");
    assert_refused(
        "7",
        "m.json:1:1: invalid type: integer `7`, expected a manifest object",
    );
    assert_refused(&x64("7", UEFI), "m.json:6:23: expected value");
    assert_refused(&x64("\"none\"", "[}"), "m.json:7:15: expected value");
}

#[test]
fn unknown_missing_and_duplicate_fields_are_placed() {
    let known = "expected `guest_arch` or `guest_configs`";
    assert_refused(
        "{\"guest_arc\": \"x64\"}",
        &format!("m.json:1:12: unknown field `guest_arc`, {known}"),
    );
    assert_refused(
        "{\"guest_arch\": \"x64\"}",
        "m.json:1:21: missing field `guest_configs`",
    );
    let twice = "{\"guest_arch\": \"x64\", \"guest_arch\": \"x64\"}";
    assert_refused(twice, "m.json:1:34: duplicate field `guest_arch`");
    let known = "expected one of `guest_svn`, `max_vtl`, `isolation_type`, `image`";
    let text = x64("\"none\"", "\"none\",\n    \"imag\": 1");
    assert_refused(&text, &format!("m.json:8:10: unknown field `imag`, {known}"));
    let text = x64("\"none\"", "\"none\"").replace("    \"guest_svn\": 1,\n", "");
    assert_refused(&text, "m.json:7:3: missing field `guest_svn`");
    let text = x64("\"none\"", r#"{"uefi": {"config": "none"}}"#);
    assert_refused(
        &text,
        "m.json:7:31: unknown field `config`, expected `config_type`",
    );
    let text = x64(r#"{"vbs": {}}"#, UEFI);
    assert_refused(&text, "m.json:6:32: missing field `enable_debug`");
}

#[test]
fn wrong_types_are_named() {
    let text = x64("\"none\"", UEFI).replace("\"guest_svn\": 1", "\"guest_svn\": \"1\"");
    assert_refused(&text, "m.json:4:20: invalid type: string \"1\", expected u32");
    let text = x64("\"none\"", UEFI).replace("\"guest_svn\": 1", "\"guest_svn\": -1");
    assert_refused(&text, "m.json:4:19: invalid value: integer `-1`, expected u32");
    let text = x64(r#"{"vbs": {"enable_debug": 1}}"#, UEFI);
    assert_refused(
        &text,
        "m.json:6:48: invalid type: integer `1`, expected a boolean",
    );
    let text = "{\"guest_arch\": \"x64\", \"guest_configs\": {}}";
    assert_refused(text, "m.json:1:39: invalid type: map, expected a sequence");
}

#[test]
fn unknown_words_list_the_known_ones() {
    let text = one("\"x86\"", "0", "\"none\"", UEFI);
    assert_refused(
        &text,
        "m.json:2:21: unknown variant `x86`, expected `x64` or `aarch64`",
    );
    let text = x64("\"cca\"", UEFI);
    let known = "expected one of `none`, `vbs`, `sev`, `sev_es`, `snp`, `tdx`";
    assert_refused(&text, &format!("m.json:6:27: unknown variant `cca`, {known}"));
    let text = x64("\"none\"", r#"{"bios": {}}"#);
    let known = "expected one of `none`, `uefi`, `openhcl`, `linux`, `snp_linux_direct`, `ovmf`, `flat`";
    assert_refused(&text, &format!("m.json:7:20: unknown variant `bios`, {known}"));
    let text = x64("\"none\"", r#"{"uefi": {"config_type": "blob"}}"#);
    assert_refused(
        &text,
        "m.json:7:44: unknown variant `blob`, expected `none` or `igvm`",
    );
}

#[test]
fn rules_of_one_guest_are_checked() {
    assert_refused(
        "{\"guest_arch\": \"x64\", \"guest_configs\": []}",
        "m.json:1:1: guest_configs is empty; a file needs at least one guest",
    );
    let text = one("\"x64\"", "1", "\"none\"", UEFI);
    assert_refused(&text, "m.json:5:16: max_vtl is 1; it must be 0 or 2");
    let tdx = r#"{"tdx": {"enable_debug": false, "sept_ve_disable": true}}"#;
    let text = one("\"aarch64\"", "0", tdx, UEFI);
    assert_refused(&text, "m.json:6:23: isolation tdx exists on x64 only");
    let text = one(
        "\"aarch64\"",
        "0",
        "\"none\"",
        r#"{"uefi": {"config_type": "igvm"}}"#,
    );
    assert_refused(&text, "m.json:7:14: config_type igvm exists on x64 only");
    let both = r#"{"openhcl": {"memory_page_count": 1, "uefi": true, "linux": {"use_initrd": true, "command_line": ""}}}"#;
    assert_refused(
        &x64("\"none\"", both),
        "m.json:7:14: openhcl cannot start both uefi and linux",
    );
    let snp = r#"{"snp": {"shared_gpa_boundary_bits": 60, "policy": 1, "enable_debug": true, "injection_type": "normal"}}"#;
    assert_refused(
        &x64(snp, UEFI),
        "m.json:6:23: shared_gpa_boundary_bits is 60; it must be from 32 to 51",
    );
}

#[test]
fn snp_linux_direct_rules_are_checked() {
    let direct = |vps: u32, pages: u64, bit: u8| {
        format!(
            r#"{{"snp_linux_direct": {{"linux": {{"use_initrd": false, "command_line": ""}}, "processor_count": {vps}, "memory_page_count": {pages}, "c_bit_position": {bit}}}}}"#
        )
    };
    let snp = |extra: &str, injection: &str| {
        format!(r#"{{"snp": {{{extra}"policy": 1, "enable_debug": true, "injection_type": "{injection}"}}}}"#)
    };
    let good = snp("", "normal");
    let image = direct(1, 1, 51);
    let at = "m.json:7:14:";
    assert_refused(
        &x64("\"none\"", &image),
        &format!("{at} snp_linux_direct needs isolation_type snp"),
    );
    let text = one("\"x64\"", "2", &good, &image);
    assert_refused(&text, &format!("{at} snp_linux_direct needs max_vtl 0"));
    let text = x64(&snp("\"shared_gpa_boundary_bits\": 39, ", "normal"), &image);
    assert_refused(
        &text,
        &format!("{at} snp_linux_direct needs shared_gpa_boundary_bits null"),
    );
    let text = x64(&snp("", "restricted"), &image);
    assert_refused(
        &text,
        &format!("{at} snp_linux_direct needs normal injection and secure AVIC disabled"),
    );
    let text = x64(&good, &direct(0, 1, 51));
    assert_refused(
        &text,
        &format!("{at} processor_count and memory_page_count must not be 0"),
    );
    let text = x64(&good, &direct(1, 1 << 20, 51));
    assert_refused(&text, &format!("{at} memory_page_count must stay below 4 GiB"));
    let text = x64(&good, &direct(1, 1, 31));
    assert_refused(
        &text,
        &format!("{at} c_bit_position is 31; it must be from 32 to 51"),
    );
    let one_guest = x64(&good, &image);
    let body = &one_guest[one_guest.find("[{").unwrap() + 1..one_guest.rfind(']').unwrap()];
    let text = one_guest.replace(body, &format!("{body}, {body}"));
    assert_refused(
        &text,
        &format!("{at} an snp_linux_direct guest must be the only guest of its manifest"),
    );
}

#[test]
fn machines_of_linux_images_are_checked() {
    let linux = |pages: u64, processors: u32| {
        let machine = format!(r#""memory_page_count": {pages}, "processor_count": {processors}"#);
        x64(
            "\"none\"",
            &format!(r#"{{"linux": {{"use_initrd": false, "command_line": "", {machine}}}}}"#),
        )
    };
    assert!(parse(&linux(2048, 255)).is_ok());
    let at = "m.json:7:14: linux";
    let range = "it must be from 2048 to 1073741824";
    assert_refused(
        &linux(2047, 1),
        &format!("{at} memory_page_count is 2047; {range}"),
    );
    assert_refused(
        &linux(2048, 0),
        &format!("{at} processor_count is 0; it must be from 1 to 255"),
    );
    assert_refused(
        &linux(2048, 256),
        &format!("{at} processor_count is 256; it must be from 1 to 255"),
    );
}

#[test]
fn flat_images_are_checked() {
    let flat = |more: &str| {
        format!(
            r#"{{"flat": {{"resource": "r", "gpa": "0x100000", "mode": "long", "tables_gpa": 65536{more}}}}}"#
        )
    };
    assert!(parse(&x64("\"none\"", &flat(""))).is_ok());
    let text = x64("\"none\"", &flat("").replace("0x100000", "0x100"));
    assert_refused(
        &text,
        "m.json:7:14: gpa is 0x100; it must be a multiple of 0x1000",
    );
    let text = x64("\"none\"", &flat("").replace("65536", "65537"));
    assert_refused(
        &text,
        "m.json:7:14: tables_gpa is 0x10001; it must be a multiple of 0x1000",
    );
    let text = x64("\"none\"", &flat("").replace("0x100000", "100000h"));
    let message =
        "invalid value: string \"100000h\", expected an unsigned number or a string like \"0x1000\"";
    assert_refused(&text, &format!("m.json:7:56: {message}"));
    let twice = r#", "registers": [{"name": "r12", "value": 1}, {"name": "r12", "value": 2}]"#;
    assert_refused(
        &x64("\"none\"", &flat(twice)),
        "m.json:7:14: register r12 is given twice",
    );
    let text = one("\"aarch64\"", "0", "\"none\"", &flat(""));
    assert_refused(&text, "m.json:7:14: image flat exists on x64 only");
}
