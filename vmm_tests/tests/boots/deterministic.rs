// SPDX-License-Identifier: MIT
//! `--deterministic`: two boots of Debian's kernel are the same run.
//!
//! Always true: the two boots are compared by their console's bytes, their instruction counts and their
//! clock; they run at the same time, so that they disturb each other.

use crate::guests::Linux;
use serde_json::Value;
use vmm_tests::files::TestFile;
use vmm_tests::{Backend, Vm, skip};

/// Looks at what could differ: time, random bytes, interrupt counts, where interrupts went.
const LOOK: &str = "cat /proc/uptime /proc/interrupts /proc/stat /proc/sys/kernel/random/uuid\n\
                    date\ndd if=/dev/urandom bs=64 count=1 2>/dev/null | sha256sum\npoweroff -f\n";

/// What is compared.
#[derive(Debug, PartialEq)]
struct Run {
    console: String,
    end: Value,
}

/// Boots the guest twice at the same time.
fn twice(linux: &Linux, processors: &str) -> [Run; 2] {
    let files = ["a", "b"].map(|name| TestFile::new(name, &[]));
    let vms = files.each_ref().map(|report| {
        let mut vm = Vm::builder(Backend::Soft)
            .args(["-m", "512M", "-p", processors, "--deterministic=7"])
            .args(["-c", "console=ttyS0"])
            .args(["-k".as_ref(), linux.kernel.as_os_str()])
            .args(["-r".as_ref(), linux.initramfs.path().as_os_str()])
            .args(["--report".as_ref(), report.path().as_os_str()])
            .start();
        vm.close_input();
        vm
    });
    let ended = vms.map(|mut vm| vm.wait_for_exit());
    let mut runs = ended.into_iter().zip(files).map(|(ended, report)| {
        assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
        let text = std::fs::read(report.path()).unwrap();
        let report: Value = serde_json::from_slice(&text).unwrap();
        Run {
            console: ended.stdout,
            end: report["end"].clone(),
        }
    });
    [runs.next().unwrap(), runs.next().unwrap()]
}

fn are_the_same(name: &str, processors: u32) {
    let linux = match Linux::with(LOOK) {
        Ok(linux) => linux,
        Err(reason) => return skip(name, &reason),
    };
    let [one, other] = twice(&linux, &processors.to_string());
    for (a, b) in one.console.lines().zip(other.console.lines()) {
        assert_eq!(a, b);
    }
    assert_eq!(one, other);
    let counts = one.end["instructions"].as_array().unwrap();
    assert_eq!(counts.len(), processors as usize);
    for count in counts {
        assert!(count.as_u64().unwrap() > 1_000_000, "{}", one.end);
    }
    assert_eq!(one.end["reason"], "the guest has powered off");
    // Time starts there, whatever the host's clock says.
    assert!(one.console.contains("Thu Jan  1 00:00"), "{}", one.console);
}

#[test]
fn two_boots_of_one_processor_are_the_same() {
    are_the_same("two_boots_of_one_processor_are_the_same", 1);
}

#[test]
fn two_boots_of_two_processors_are_the_same() {
    are_the_same("two_boots_of_two_processors_are_the_same", 2);
}
