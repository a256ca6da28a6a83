// SPDX-License-Identifier: MIT
//! `--trace` and its filters.

use crate::guest::Guest;

/// Runs the test guest until it powers off, with a trace; the trace's lines.
fn trace(options: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace.txt");
    let mut guest = Guest::start(&format!("--trace {} {options}", file.display()));
    guest.wait_stdout(">");
    guest.send("q");
    assert_eq!(guest.wait_end().code, Some(0));
    std::fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn port_accesses_are_traced_with_direction_and_value() {
    let lines = trace("--trace-filter ports=0x3f8");
    assert_eq!(
        lines,
        [
            "vp0 0000000000100007 port 0x3f8 <- 3e",
            "vp0 0000000000100017 port 0x3f8 -> 71",
            "vp0 0000000000100018 port 0x3f8 <- 71",
        ]
    );
}

#[test]
fn instructions_are_disassembled_and_filtered_by_address() {
    let lines = trace("--trace-filter instructions=0x100000-0x100007");
    assert_eq!(
        lines,
        [
            "vp0 0000000000100000 run 0008 baf8030000 mov edx,3F8h",
            "vp0 0000000000100005 run 0008 b03e mov al,3Eh",
            "vp0 0000000000100007 run 0008 ee out dx,al",
        ]
    );
}

#[test]
fn without_a_filter_everything_but_instructions_is_traced() {
    let lines = trace("");
    assert!(lines.iter().any(|l| l.contains("port 0x3fd -> ")));
    assert!(
        lines.iter().any(|l| l.ends_with("port 0x404 <- 2000")),
        "{lines:?}"
    );
    assert!(!lines.iter().any(|l| l.contains(" run ")));
}

#[test]
fn a_backend_that_cannot_be_watched_says_so() {
    if !std::path::Path::new("/dev/kvm").exists() {
        println!("skipped: a_backend_that_cannot_be_watched_says_so: no /dev/kvm");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace.txt");
    let end = Guest::start(&format!("--hypervisor kvm --trace {}", file.display())).wait_end();
    assert_eq!(end.code, Some(1));
    assert!(
        end.stderr
            .contains("only the software cpu can be watched; add --hypervisor soft"),
        "{}",
        end.stderr
    );
}
