// SPDX-License-Identifier: MIT
//! `--gdb`, driven by Debian's gdb from the guest's first instruction on.

use crate::guest::Guest;
use std::process::{Command, Stdio};

/// The address that the guest waits on for a debugger.
fn address(guest: &Guest) -> String {
    guest.wait_stderr("target remote ");
    let text = guest.stderr_text();
    let after = text.split("target remote ").nth(1).unwrap();
    after.split_whitespace().next().unwrap().to_owned()
}

/// Runs gdb with commands; its output.
fn gdb(address: &str, commands: &[&str]) -> String {
    let mut gdb = Command::new("gdb");
    gdb.args([
        "-nx",
        "-batch",
        "-ex",
        "set architecture i386:x86-64",
        "-ex",
        &format!("target remote {address}"),
    ]);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = gdb.stdin(Stdio::null()).output().unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn has_gdb(test: &str) -> bool {
    let found = Command::new("gdb")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !found {
        println!("skipped: {test}: gdb is not installed");
    }
    found
}

#[test]
fn gdb_steps_breaks_reads_memory_and_lets_the_guest_go() {
    if !has_gdb("gdb_steps_breaks_reads_memory_and_lets_the_guest_go") {
        return;
    }
    let mut guest = Guest::start("--gdb 0");
    let commands = [
        "print/x $pc",
        "stepi",
        "print/x $pc",
        "x/2xb 0x100005",
        "break *0x10000d",
        "continue",
        "print/x $pc",
        "print/x $rdx",
        // Off the breakpoint, which stays.
        "stepi",
        "print $pc == 0x10000d",
        "info threads",
        "delete",
        "detach",
    ];
    let text = gdb(&address(&guest), &commands);
    for wanted in [
        "$1 = 0x100000",
        "$2 = 0x100005",
        "0xb0\t0x3e",
        "$3 = 0x10000d",
        "$4 = 0x3fd",
        "$5 = 0\n",
        "vp 0 (bsp)",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
    }
    guest.wait_stdout(">");
    guest.send("q");
    assert_eq!(guest.wait_end().code, Some(0));
}

#[test]
fn a_second_gdb_stops_a_running_guest_and_a_kill_ends_it() {
    if !has_gdb("a_second_gdb_stops_a_running_guest_and_a_kill_ends_it") {
        return;
    }
    let guest = Guest::start("--gdb 0");
    let address = address(&guest);
    gdb(&address, &["detach"]);
    guest.wait_stdout(">");
    let text = gdb(&address, &["print $pc >= 0x100008 && $pc < 0x100014", "kill"]);
    assert!(text.contains("$1 = 1"), "{text}");
    assert_eq!(guest.wait_end().code, Some(0));
}

#[test]
fn a_crash_stops_at_the_debugger_before_it_ends_the_guest() {
    if !has_gdb("a_crash_stops_at_the_debugger_before_it_ends_the_guest") {
        return;
    }
    let mut guest = Guest::start("--gdb 0");
    let address = address(&guest);
    guest.send("c");
    let text = gdb(&address, &["continue", "print/x $pc", "x/1xw 0x200000", "kill"]);
    for wanted in ["SIGABRT", "$1 = 0x100052", "0x73706f6f"] {
        assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
    }
    assert_eq!(guest.wait_end().code, Some(0));
}
