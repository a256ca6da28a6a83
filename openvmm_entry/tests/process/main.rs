// SPDX-License-Identifier: MIT
//! The binary from outside: exit codes, streams, the prompt, the terminal. A small guest of its own
//! follows keys (see `image`), so every way to end is at hand.

mod debugger;
mod guest;
mod image;
mod terminal;
mod trace;

use guest::Guest;
use serde_json::Value;

#[test]
fn the_guest_talks_on_stdout_and_ends_with_the_code_of_its_action() {
    for (key, options, code) in [
        ("q", "", 0),
        ("q", "--guest-shutdown-action exit:17", 17),
        ("r", "--guest-reset-action exit:18", 18),
        ("c", "", 3),
        ("c", "--guest-crash-action exit:19", 19),
        ("t", "--test-exit", 42),
    ] {
        let mut guest = Guest::start(options);
        guest.wait_stdout(">");
        guest.send(key);
        let end = guest.wait_end();
        assert_eq!(end.code, Some(code), "{key} {options}: {}", end.stderr);
        assert_eq!(end.stdout, format!(">{key}"));
    }
}

#[test]
fn the_test_type_brings_the_exit_device() {
    let mut guest = Guest::start_as("type=test,path=", "");
    guest.wait_stdout(">");
    guest.send("t");
    assert_eq!(guest.wait_end().code, Some(42));
}

#[test]
fn a_reset_starts_the_guest_again() {
    let mut guest = Guest::start("");
    guest.wait_stdout(">");
    guest.send("xr");
    guest.wait_stdout(">xr>");
    guest.send("q");
    let end = guest.wait_end();
    assert_eq!((end.code, &end.stdout[..]), (Some(0), ">xr>q"));
}

#[test]
fn a_crash_is_reported_with_registers_code_and_error_ranges() {
    let mut guest = Guest::start("");
    guest.wait_stdout(">");
    guest.send("c");
    let stderr = guest.wait_end().stderr;
    for text in [
        "the guest has crashed: vp 0 triple faulted",
        "vp 0: rip 0x100052 in protected mode",
        "code at 0x100052: 0f 0b",
        "error range 0x200000..0x201000:",
        "0x200000: 6f 6f 70 73",
    ] {
        assert!(stderr.contains(text), "{text:?} is not in:\n{stderr}");
    }
}

#[test]
fn what_the_guest_left_in_an_error_range_survives_a_reset() {
    let mut guest = Guest::start("--guest-crash-action reset");
    guest.wait_stdout(">");
    guest.send("c");
    guest.wait_stdout(">c>");
    guest.send("\u{11}memory 0x200000 4\nquit\n");
    let end = guest.wait_end();
    assert_eq!(end.code, Some(0));
    assert!(end.stderr.contains("6f 6f 70 73"), "{}", end.stderr);
}

#[test]
fn the_prompt_drives_the_vm() {
    let mut guest = Guest::start("--paused");
    guest.send("\u{11}inspect\nmemory 0x100000 4\nresume\n\n");
    guest.wait_stdout(">");
    guest.send("a\u{11}pause\ninspect\nfrobnicate\nmemory 0xffffffff0000 1\nresume\ndump\n\nb");
    guest.wait_stdout(">ab");
    guest.send("\u{11}reset\n\n");
    guest.wait_stdout(">ab>");
    guest.send("\u{11}quit\n");
    let end = guest.wait_end();
    assert_eq!((end.code, &end.stdout[..]), (Some(0), ">ab>"));
    let mut rest = &end.stderr[..];
    for text in [
        "the guest is paused; Ctrl-Q opens the prompt, resume starts it",
        "created, not started",
        "ba f8 03 00",
        "running",
        "paused",
        "paused\nclock",
        "[com1]",
        "unknown command \"frobnicate\"; help lists them",
        "access of 0x1 bytes at gpa 0xffffffff0000 is not wholly inside ram",
        "vp 0: rip 0x1000",
        "reset",
    ] {
        let at = rest
            .find(text)
            .unwrap_or_else(|| panic!("{text:?} does not follow in:\n{}", end.stderr));
        rest = &rest[at + text.len()..];
    }
}

#[test]
fn an_nmi_from_the_prompt_reaches_the_guest() {
    let mut guest = Guest::start("");
    guest.wait_stdout(">");
    // The guest's interrupt table is empty. The crash may end the process before an answer is printed, unless
    // the guest waits for it.
    guest.send("\u{11}pause\nnmi\nresume\n\n");
    let end = guest.wait_end();
    assert_eq!(end.code, Some(3));
    assert!(
        end.stderr.contains("nmi raised on vp 0") && end.stderr.contains("vp 0 triple faulted"),
        "{}",
        end.stderr
    );
}

#[test]
fn a_halted_guest_waits_at_the_prompt() {
    let mut guest = Guest::start("--guest-shutdown-action halt");
    guest.wait_stdout(">");
    guest.send("q");
    guest.wait_stderr("the guest has powered off; the vm is halted and stays open to inspection");
    guest.send("\u{11}resume\nquit\n");
    let end = guest.wait_end();
    assert_eq!(end.code, Some(0));
    assert!(
        end.stderr
            .contains("the guest has ended (the guest has powered off); reset starts it again")
    );
}

#[test]
fn the_end_of_stdin_does_not_end_the_guest() {
    let mut guest = Guest::start("");
    guest.wait_stdout(">");
    guest.close_stdin();
    guest.send_signal(rustix::process::Signal::TERM);
    let end = guest.wait_end();
    assert_eq!((end.code, &end.stdout[..]), (Some(128 + 15), ">"));
}

#[test]
fn signals_stop_cleanly_with_their_number() {
    for (signal, code) in [
        (rustix::process::Signal::INT, 130),
        (rustix::process::Signal::TERM, 143),
    ] {
        let guest = Guest::start("");
        guest.wait_stdout(">");
        guest.send_signal(signal);
        assert_eq!(guest.wait_end().code, Some(code));
    }
}

#[test]
fn com1_can_be_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("com1.txt");
    let guest = Guest::start(&format!("--com1 file={}", out.display()));
    guest.wait_until(|| std::fs::read(&out).is_ok_and(|text| text == b">"));
    guest.send_signal(rustix::process::Signal::TERM);
    let end = guest.wait_end();
    assert_eq!((end.code, &end.stdout[..]), (Some(143), ""));
}

#[test]
fn dry_run_and_report_show_the_plan_without_a_hypervisor() {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report.json");
    let options = format!("--dry-run --report {}", report.display());
    let end = Guest::start(&options).wait_end();
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    for text in [
        "platform native of the file taken",
        "machine plain",
        "vp context   vp 0",
        "rip 0x100000",
    ] {
        assert!(end.stdout.contains(text), "{text:?} is not in:\n{}", end.stdout);
    }
    let json: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(
        (&json["platform"], &json["registers"][0]["rip"]),
        (&"native".into(), &0x10_0000.into())
    );
    assert_eq!(json["runs"][0]["contents"], "data");
    assert!(json["timings_ms"]["plan"].is_number());
}

#[test]
fn errors_are_one_line_and_say_by_their_code_whose_fault_it_is() {
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_openvmm"))
            .args(args)
            .output()
            .unwrap();
        assert!(output.stdout.is_empty());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = run(&["--igvm", "x", "--vtl2"]);
    assert_eq!(code, Some(2));
    assert!(
        text.starts_with("openvmm: --vtl2: vtl2 (OpenHCL) is not available") && text.lines().count() == 1,
        "{text}"
    );
    let (code, _) = run(&["--igvm", "type=uefi"]);
    assert_eq!(code, Some(2));
    let missing = "openvmm: cannot open /no/such/file: No such file or directory (os error 2)\n";
    assert_eq!(
        run(&["--igvm", "/no/such/file", "--dry-run"]),
        (Some(1), missing.into())
    );
}
