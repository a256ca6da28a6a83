// SPDX-License-Identifier: MIT
//! Each law against a fixture that breaks it, and against one that does not.

use super::rust_text::{Function, code_only, functions};
use super::sources::SourceFile;
use super::*;

/// A package of the fixture graph: name, folder, licence, (dependency, kind).
type Row<'a> = (
    &'a str,
    &'a str,
    Option<&'a str>,
    &'a [(&'a str, Option<&'a str>)],
);

/// What `cargo metadata` would print for `rows`; rows with an empty folder come from a registry.
fn graph(rows: &[Row<'_>]) -> Graph {
    let packages: Vec<_> = rows
        .iter()
        .map(|(name, folder, licence, _)| {
            let root = if folder.is_empty() {
                "/registry".to_owned()
            } else {
                format!("/ws/{folder}")
            };
            serde_json::json!({
                "id": format!("{name} 1"), "name": name, "license": licence,
                "manifest_path": format!("{root}/Cargo.toml"),
            })
        })
        .collect();
    let nodes: Vec<_> = rows
        .iter()
        .map(|(name, _, _, needs)| {
            let deps: Vec<_> = needs
                .iter()
                .map(|(need, kind)| serde_json::json!({"pkg": format!("{need} 1"), "dep_kinds": [{"kind": kind}]}))
                .collect();
            serde_json::json!({"id": format!("{name} 1"), "deps": deps})
        })
        .collect();
    let members: Vec<_> = rows
        .iter()
        .filter(|row| !row.1.is_empty())
        .map(|row| format!("{} 1", row.0))
        .collect();
    let metadata = serde_json::json!({
        "packages": packages, "workspace_members": members, "workspace_root": "/ws",
        "resolve": {"nodes": nodes},
    });
    Graph::parse(&metadata.to_string()).unwrap()
}

fn ours<'a>(name: &'a str, folder: &'a str, needs: &'a [(&'a str, Option<&'a str>)]) -> Row<'a> {
    (name, folder, Some("MIT"), needs)
}

fn broken_laws(rows: &[Row<'_>]) -> Vec<(&'static str, String)> {
    check_graph(&graph(rows))
        .into_iter()
        .map(|v| (v.law, v.what))
        .collect()
}

#[track_caller]
fn assert_breaks(rows: &[Row<'_>], law: &str, chain: &str) {
    let broken = broken_laws(rows);
    let named = broken
        .iter()
        .any(|(name, what)| *name == law && what.starts_with(chain));
    assert!(named, "{law} with {chain} is not in {broken:?}");
}

#[test]
fn lawful_graph_breaks_nothing() {
    let rows = [
        ours(
            "vm_loaders",
            "vm_loaders",
            &[("launch_plan", None), ("igvm", Some("dev"))],
        ),
        ours("launch_plan", "launch_plan", &[]),
        ours(
            "openvmm_core",
            "openvmm_core",
            &[("virt", None), ("guest_memory", None), ("vm_loaders", None)],
        ),
        ours("virt", "virt/virt", &[]),
        ours(
            "virt_kvm",
            "virt/virt_kvm",
            &[("virt", None), ("kvm_sys", None), ("x86emu", None)],
        ),
        ours("kvm_sys", "virt/kvm_sys", &[("kvm-ioctls", None)]),
        ours("x86emu", "x86/x86emu", &[("iced-x86", None)]),
        ours("guest_memory", "virt/guest_memory", &[("vm-memory", None)]),
        ours("chipset", "devices/chipset", &[("chipset_device", None)]),
        ours("chipset_device", "devices/chipset_device", &[]),
        ours(
            "openvmm_entry",
            "openvmm_entry",
            &[("openvmm_core", None), ("virt_kvm", None)],
        ),
        ("kvm-ioctls", "", Some("Apache-2.0 OR MIT"), &[]),
        ("vm-memory", "", Some("Apache-2.0 OR BSD-3-Clause"), &[]),
        ("iced-x86", "", Some("MIT"), &[]),
        ("igvm", "", Some("MIT"), &[]),
    ];
    assert_eq!(broken_laws(&rows), []);
}

#[test]
fn loader_that_reaches_guest_memory_is_found_through_others() {
    let rows = [
        ours("igvmtool", "igvmtool", &[("vm_loaders", None)]),
        ours("vm_loaders", "vm_loaders", &[("middle", None)]),
        ours("middle", "middle", &[("guest_memory", Some("build"))]),
        ours("guest_memory", "virt/guest_memory", &[]),
    ];
    assert_breaks(
        &rows,
        "loaders-need-no-hypervisor",
        "igvmtool -> vm_loaders -> middle -> guest_memory",
    );
    assert_breaks(
        &rows,
        "loaders-need-no-hypervisor",
        "vm_loaders -> middle -> guest_memory",
    );
}

#[test]
fn test_dependencies_of_loaders_are_free() {
    let rows = [
        ours("launch_plan", "launch_plan", &[("guest_memory", Some("dev"))]),
        ours("guest_memory", "virt/guest_memory", &[]),
    ];
    assert_eq!(broken_laws(&rows), []);
}

#[test]
fn core_that_names_a_backend_is_refused_even_in_tests() {
    let kvm = ours("virt_kvm", "virt/virt_kvm", &[]);
    let rows = [
        ours("openvmm_core", "openvmm_core", &[("virt_kvm", Some("dev"))]),
        kvm,
    ];
    assert_breaks(&rows, "core-names-no-backend", "openvmm_core -> virt_kvm");
    let rows = [
        ours("openvmm_core", "openvmm_core", &[("kvm_sys", None)]),
        ours("kvm_sys", "virt/kvm_sys", &[]),
    ];
    assert_breaks(&rows, "core-names-no-backend", "openvmm_core -> kvm_sys");
}

#[test]
fn other_crate_that_lists_a_backend_is_refused() {
    let rows = [
        ours("vmm_tests", "vmm_tests", &[("virt_soft", None)]),
        ours("virt_soft", "virt/virt_soft", &[]),
    ];
    assert_breaks(&rows, "only-entry-lists-backends", "vmm_tests -> virt_soft");
}

#[test]
fn backend_on_a_backend_is_refused() {
    let rows = [
        ours("virt_sev", "virt/virt_sev", &[("virt_kvm", None)]),
        ours("virt_kvm", "virt/virt_kvm", &[]),
    ];
    assert_breaks(&rows, "backends-stand-alone", "virt_sev -> virt_kvm");
}

#[test]
fn device_on_the_vmm_is_refused() {
    let rows = [
        ours("pci", "devices/pci", &[("virt", None)]),
        ours("virt", "virt/virt", &[]),
    ];
    assert_breaks(&rows, "devices-know-no-vmm", "pci -> virt");
}

#[test]
fn definitions_on_the_vmm_are_refused() {
    let rows = [
        ours("x86emu", "x86/x86emu", &[("chipset", None)]),
        ours("chipset", "devices/chipset", &[]),
    ];
    assert_breaks(&rows, "x86-stands-alone", "x86emu -> chipset");
}

#[test]
fn second_holder_of_host_pointers_is_refused() {
    let rows = [
        ours("virtio", "devices/virtio", &[("vm-memory", None)]),
        ("vm-memory", "", Some("MIT"), &[]),
    ];
    assert_breaks(&rows, "one-holder-of-host-pointers", "virtio -> vm-memory");
}

#[test]
fn second_door_to_kvm_is_refused() {
    let rows = [
        ours("virt_kvm", "virt/virt_kvm", &[("kvm-ioctls", None)]),
        ("kvm-ioctls", "", Some("MIT"), &[]),
    ];
    assert_breaks(&rows, "one-door-to-kvm", "virt_kvm -> kvm-ioctls");
}

#[test]
fn model_that_uses_predictions_is_refused() {
    let rows = [
        ours("kvm_model", "virt/kvm_model", &[("launch_digest", None)]),
        ours("launch_digest", "launch_digest", &[]),
    ];
    assert_breaks(&rows, "model-predicts-nothing", "kvm_model -> launch_digest");
}

#[test]
fn second_instruction_engine_is_refused() {
    let rows = [
        ours("virt_kvm", "virt/virt_kvm", &[("iced-x86", None)]),
        ("iced-x86", "", Some("MIT"), &[]),
    ];
    assert_breaks(&rows, "one-instruction-engine", "virt_kvm -> iced-x86");
}

#[test]
fn igvm_crate_outside_tests_is_refused() {
    let rows = [
        ours("igvmtool", "igvmtool", &[("igvm", None)]),
        ("igvm", "", Some("MIT"), &[]),
    ];
    assert_breaks(&rows, "igvm-crate-is-the-judge", "igvmtool -> igvm");
}

#[test]
fn drawer_crates_are_refused() {
    assert_breaks(
        &[ours("vm_util", "vm_util", &[])],
        "no-drawer-names",
        "crate vm_util",
    );
    assert_breaks(
        &[ours("common", "common", &[])],
        "no-drawer-names",
        "crate common",
    );
}

#[test]
fn licences_outside_the_list_are_refused() {
    assert_breaks(
        &[("left", "", Some("GPL-3.0-only"), &[])],
        "licences",
        "is `GPL-3.0-only`",
    );
    assert_breaks(&[("none", "", None, &[])], "licences", "has no license field");
    assert_breaks(
        &[("ours", "ours", Some("Apache-2.0"), &[])],
        "licences",
        "is `Apache-2.0`; our crates",
    );
}

const HEADER: &str = "// SPDX-License-Identifier: MIT\n//! What this is.\n";
const NO_UNSAFE: &str = "<!-- unsafe files: begin -->\n<!-- unsafe files: end -->";

fn file(path: &str, body: &str) -> SourceFile {
    SourceFile {
        path: path.to_owned(),
        text: format!("{HEADER}{body}"),
    }
}

fn broken_in(files: Vec<SourceFile>, architecture: &str) -> Vec<(&'static str, String)> {
    let broken = check_sources(&Sources { files }, architecture);
    broken.into_iter().map(|v| (v.law, v.at)).collect()
}

#[test]
fn file_without_spdx_header_is_refused() {
    let bare = SourceFile {
        path: "a/src/x.rs".to_owned(),
        text: "//! Doc.\n//! More.\n".to_owned(),
    };
    assert_eq!(
        broken_in(vec![bare], NO_UNSAFE),
        [("spdx-header", "a/src/x.rs".to_owned())]
    );
    let manifest = SourceFile {
        path: "a/Cargo.toml".to_owned(),
        text: "[package]\n".to_owned(),
    };
    assert_eq!(
        broken_in(vec![manifest], NO_UNSAFE),
        [("spdx-header", "a/Cargo.toml".to_owned())]
    );
}

#[test]
fn file_without_module_doc_is_refused() {
    let text = "// SPDX-License-Identifier: MIT\nuse x;\n".to_owned();
    let bare = SourceFile {
        path: "a/src/x.rs".to_owned(),
        text,
    };
    assert_eq!(
        broken_in(vec![bare], NO_UNSAFE),
        [("module-doc", "a/src/x.rs".to_owned())]
    );
}

#[test]
fn mod_rs_and_drawer_modules_are_refused() {
    let files = vec![file("a/src/part/mod.rs", ""), file("a/src/utils.rs", "")];
    let expected = [
        ("no-mod-rs", "a/src/part/mod.rs"),
        ("no-drawer-names", "a/src/utils.rs"),
    ];
    assert_eq!(
        broken_in(files, NO_UNSAFE),
        expected.map(|(law, at)| (law, at.to_owned()))
    );
}

#[test]
fn file_above_the_ceiling_is_refused_and_above_the_aim_is_noted() {
    let long = vec![file("a/src/x.rs", &"\n".repeat(799))];
    assert_eq!(
        broken_in(long, NO_UNSAFE),
        [("file-length", "a/src/x.rs".to_owned())]
    );
    let longish = Sources {
        files: vec![file("a/src/x.rs", &"\n".repeat(600)), file("a/src/y.rs", "")],
    };
    assert_eq!(check_sources(&longish, NO_UNSAFE), []);
    assert_eq!(long_ones(&longish), ["file of 602 lines: a/src/x.rs"]);
}

#[test]
fn function_above_the_ceiling_is_refused() {
    let body = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(119));
    let broken = broken_in(vec![file("a/src/x.rs", &body)], NO_UNSAFE);
    assert_eq!(broken, [("function-length", "a/src/x.rs:3".to_owned())]);
    assert_eq!(broken_in(vec![file("a/tests/x.rs", &body)], NO_UNSAFE), []);
}

#[test]
fn functions_are_measured_past_strings_braces_and_bodiless_ones() {
    let code = "fn none(a: [u8; 4]);\nfn one() { let a = \"}\"; }\nfn two(f: fn(u8) -> u8)\nwhere\n    F: X,\n{\n    '}'; b'{';\n    { }\n}\n";
    let found = functions(&code_only(code));
    let expected = [("one", 2, 1), ("two", 3, 7)];
    let expected: Vec<_> = expected
        .iter()
        .map(|&(name, line, lines)| Function {
            name: name.to_owned(),
            line,
            lines,
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn comments_and_literals_are_blanked_and_lines_kept() {
    let text = "a /* x /* y */ \n z */ b // c\n\"u\\\"v\" r#\"w\"x\"# 'q' '\\'' &'life br\"k\" rest";
    let expected = "a              \n      b     \n                      &'life       rest";
    let blanked = code_only(text);
    assert_eq!(
        blanked.split_whitespace().collect::<Vec<_>>(),
        ["a", "b", "&'life", "rest"]
    );
    assert_eq!(blanked.lines().count(), expected.lines().count());
    assert_eq!(blanked.len(), text.len());
}

#[test]
fn unsafe_outside_the_list_is_refused() {
    let body = "// unsafe in a comment\nconst TEXT: &str = \"unsafe\";\nfn f() { unsafe { g() } }\n";
    let broken = broken_in(vec![file("a/src/x.rs", body)], NO_UNSAFE);
    assert_eq!(broken, [("unsafe-is-listed", "a/src/x.rs:5".to_owned())]);
}

#[test]
fn raw_pointer_outside_the_list_is_refused() {
    let broken = broken_in(vec![file("a/src/x.rs", "struct Ram(*mut u8);\n")], NO_UNSAFE);
    assert_eq!(broken, [("no-raw-pointers", "a/src/x.rs:3".to_owned())]);
}

#[test]
fn listed_unsafe_needs_a_reason() {
    let list = "<!-- unsafe files: begin -->\n| `a/src/x.rs` | why |\n<!-- unsafe files: end -->";
    let with = "// SAFETY: g has no conditions.\nfn f() { unsafe { g() } }\n";
    assert_eq!(broken_in(vec![file("a/src/x.rs", with)], list), []);
    let without = "fn f() { unsafe { g() } }\nunsafe impl Send for X {}\n";
    let broken = broken_in(vec![file("a/src/x.rs", without)], list);
    let expected = ["a/src/x.rs:3", "a/src/x.rs:4"].map(|at| ("unsafe-has-a-reason", at.to_owned()));
    assert_eq!(broken, expected);
}

#[test]
fn stale_or_missing_list_is_refused() {
    let stale = "<!-- unsafe files: begin -->\n| `a/src/gone.rs` | why |\n<!-- unsafe files: end -->";
    let at = "ARCHITECTURE.md".to_owned();
    assert_eq!(
        broken_in(vec![file("a/src/x.rs", "")], stale),
        [("unsafe-is-listed", at.clone())]
    );
    assert_eq!(
        broken_in(vec![file("a/src/x.rs", "")], "no table"),
        [("unsafe-is-listed", at)]
    );
}

#[test]
fn crate_without_unsafe_must_forbid_it() {
    let manifest = SourceFile {
        path: "a/Cargo.toml".to_owned(),
        text: "# SPDX-License-Identifier: MIT\n".to_owned(),
    };
    let broken = broken_in(vec![manifest, file("a/src/lib.rs", "")], NO_UNSAFE);
    assert_eq!(broken, [("forbid-unsafe", "a/src/lib.rs".to_owned())]);
    let manifest = SourceFile {
        path: "a/Cargo.toml".to_owned(),
        text: "# SPDX-License-Identifier: MIT\n".to_owned(),
    };
    let forbids = file("a/src/lib.rs", "#![forbid(unsafe_code)]\n");
    assert_eq!(broken_in(vec![manifest, forbids], NO_UNSAFE), []);
}
