// SPDX-License-Identifier: MIT
//! What a processor does, case by case, on every backend: the transcript of the payload `conformance`.
//!
//! Always true: `conformance/expected.txt` is what the manuals say (APM volume 2 chapters 4, 5, 8, 12 and 13;
//! Intel SDM volume 3 chapters 4 to 7 and 17) for a processor with the software CPU's features; the software
//! CPU prints that. Hardware KVM may differ where the manuals let it ([`HARDWARE`]), software-nested
//! KVM also where it is known to be wrong ([`NESTED`]), each with its cause. Anything else fails.

use crate::images::{self, Folder};
use launch_plan::Isolation;
use payloads::plan::FlatPayload;
use std::collections::BTreeMap;
use std::path::Path;
use vmm_tests::{Backend, Vm, on_every_backend};

const EXPECTED: &str = include_str!("conformance/expected.txt");

/// Cases, by name or by a pattern with `*`, and why they differ.
type Deviations = &'static [(&'static str, &'static str)];

/// What another processor may do otherwise.
const HARDWARE: Deviations = &[
    (
        "pf-smap*",
        "the host's processor has SMAP, the software CPU has not",
    ),
    ("pf-smep*", "the host's processor may have no SMEP"),
    ("timer-tsc-deadline", "advertised by neither backend today"),
    (
        "sysenter-*",
        "Intel's processors have SYSENTER in long mode, AMD's do not",
    ),
    ("sysexit-*", "as above"),
];

/// What kvm_pvm does wrong: its ring 0 is an emulator's, its ring 3 is the host's.
const NESTED: Deviations = &[
    (
        "pf-*-cpl0-modify",
        "its emulator reads before it finds that it must not write, and marks the page accessed",
    ),
    (
        "pf-cross-write",
        "its emulator writes the first page before it looks at the second",
    ),
    (
        "canonical-upper-half-cpl3",
        "the host's kernel is mapped there, so the page is present",
    ),
    (
        "seg-look-*-cpl3",
        "LAR and LSL run natively and see the host's descriptors",
    ),
    (
        "seg-verify-*-cpl3",
        "VERR and VERW run natively and see the host's descriptors",
    ),
    (
        "seg-ltr-16-bit",
        "its emulator takes a 16-bit task state segment in long mode",
    ),
    (
        "seg-ltr-local",
        "its emulator names no selector in the error code",
    ),
    (
        "far-*-tss-cpl3",
        "its emulator knows no far transfer to system descriptors: #UD in ring 3",
    ),
    ("far-*-task-gate-cpl3", "as above"),
    ("far-*-empty-cpl3", "as above"),
    ("gate-*-cpl3", "as above"),
    ("gate-call-upper-type", "as above"),
    ("gate-call-frame", "as above"),
    ("gate-call-stack-*", "as above"),
    (
        "far-compatible-jmp-past-limit",
        "its emulator loads CS before it checks the limit",
    ),
    (
        "iret-*-not-canonical",
        "its emulator loads RIP before it checks it",
    ),
    ("iret-data-code", "its emulator takes a data segment as CS"),
    (
        "iret-outer-data-nulled",
        "data segments keep their selectors on the way to ring 3",
    ),
    ("iretd-*", "its emulator refuses IRETD in 64-bit code"),
    (
        "syscall-disabled",
        "the host has SYSCALL enabled, and ring 3 runs on it",
    ),
    (
        "syscall-user*",
        "its SYSCALL keeps the selectors and IF of the host's ring 3 in the frame",
    ),
    (
        "sysret-*",
        "its emulator takes SYSRET without EFER.SCE and keeps what the last SYSCALL saved",
    ),
    ("idt-*-cpl3", "INT n in ring 3 is #UD there"),
    ("stack-ring0", "as above"),
    ("stack-ist2-cpl3", "as above"),
    (
        "software-int3-cpl3",
        "INT3 and INT 3 run natively: the privilege of the guest's gate is not checked",
    ),
    ("software-int-3-cpl3", "as above"),
    (
        "software-int1-cpl3*",
        "INT1 runs natively and is reported at its own address",
    ),
    ("software-into-compatible*", "INTO in ring 3 is #UD there"),
    ("software-bound-compatible-*", "BOUND in ring 3 is #UD there"),
    (
        "nested-undefined-no-gate",
        "any fault while a fault is delivered becomes a double fault there",
    ),
    ("nested-stack-*-undefined", "as above"),
    ("nested-stack-not-mapped-gp", "as above"),
    (
        "interrupt-sti*",
        "it looks for interrupts between batches of emulated instructions, not after each",
    ),
    ("interrupt-popf*", "as above"),
    ("interrupt-priority", "as above"),
    ("interrupt-cr8", "as above"),
    (
        "step-mov-ss",
        "its emulator does not hold traps back behind MOV SS",
    ),
    ("step-rep*", "its emulator runs REP as one step"),
    ("debug-execute", "its emulator does not set RF in the frame"),
    ("debug-general-detect", "as above"),
    (
        "debug-write",
        "debug registers do not watch the data of emulated instructions",
    ),
    ("debug-access-by-read", "as above"),
    ("privileged-*-iopl3", "IOPL is ignored in ring 3"),
    ("port-iopl", "as above"),
    (
        "port-map-cut-in-two",
        "its emulator reads one byte of the map where the processor reads two",
    ),
    ("rdtsc-disabled", "RDTSC runs natively: CR4.TSD is ignored"),
    ("control-cr0-bit-40", "its emulator ignores the upper half of CR0"),
    ("control-pat-reserved", "its emulator takes reserved memory types"),
    (
        "alignment-no-am",
        "the host's CR0.AM is on, and ring 3 runs on it",
    ),
    ("legacy-gate-dpl", "INT n in ring 3 is #UD there"),
    ("legacy-gate-cpl3", "as above"),
];

/// Cases that do not come back from software-nested KVM.
const HANGS: Deviations = &[
    (
        "step-hlt",
        "HLT under TF goes to the VMM, and the trap behind it is lost",
    ),
    (
        "nmi*",
        "an NMI is delivered although the one before has not returned",
    ),
    (
        "legacy-2-level*",
        "it knows no paging outside long mode: the guest is lost when CR0.PG is set",
    ),
    ("legacy-pae*", "as above"),
];

/// Names and texts of a transcript.
fn lines(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.trim_end().split_once(": "))
        .collect()
}

fn transcript(backend: Backend, skipped: Deviations) -> Vec<(String, String)> {
    let folder = Folder::new();
    let image = images::flat(FlatPayload::Conformance, Isolation::Vsm);
    let file = folder.write("conformance.igvm", image);
    let skip: Vec<String> = skipped
        .iter()
        .map(|(name, _)| format!("skip={}", name.trim_end_matches('*')))
        .collect();
    // A busy host must not decide where a timer of the software CPU fires.
    let clock = (backend == Backend::Soft).then_some("--deterministic");
    let mut vm = Vm::builder(backend)
        .typed_igvm("test", &file)
        .args(["-m", "256MB", "-c", &format!("transcript {}", skip.join(" "))])
        .args(clock)
        .start();
    let report = vm.report();
    assert_eq!(vm.wait_for_exit().code, 0);
    report.infos
}

/// Whether `name` is what a pattern with `*` says.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        open = part.is_empty();
    }
    rest.is_empty() || open
}

fn is_known(name: &str, tables: &[Deviations]) -> bool {
    let known = tables.iter().copied().flatten();
    known.into_iter().any(|(pattern, _)| matches(pattern, name))
}

fn is_nested() -> bool {
    Path::new("/sys/module/kvm_pvm").exists()
}

on_every_backend! {
    fn processor_does_what_the_manuals_say(backend) {
        let (tables, hangs): (&[Deviations], Deviations) = match backend {
            Backend::Soft => (&[], &[]),
            Backend::Kvm if is_nested() => (&[HARDWARE, NESTED, HANGS], HANGS),
            Backend::Kvm => (&[HARDWARE], &[]),
        };
        let expected = lines(EXPECTED);
        let seen = transcript(backend, hangs);
        let mut wrong = String::new();
        for (name, text) in &seen {
            let right = expected.get(name.as_str()).copied().unwrap_or("no such case");
            if right != text && !is_known(name, tables) {
                wrong += &format!("{name}: {text}\n{:width$}  {right} expected\n", "", width = name.len());
            }
        }
        for name in expected.keys() {
            if !seen.iter().any(|(other, _)| other == name) && !is_known(name, tables) {
                wrong += &format!("{name}: did not run\n");
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }
}

#[test]
fn patterns_of_deviations_match_what_they_name() {
    for (pattern, name, is) in [
        ("gate-*", "gate-jmp-dpl3", true),
        ("idt-*-cpl3", "idt-trap-cpl3", true),
        ("idt-*-cpl3", "idt-trap-cpl0", false),
        ("step-hlt", "step-hlt", true),
        ("step-hlt", "step-hlt-2", false),
        ("software-int1-cpl3*", "software-int1-cpl3", true),
    ] {
        assert_eq!(matches(pattern, name), is, "{pattern} {name}");
    }
    let expected = lines(EXPECTED);
    for (pattern, cause) in [NESTED, HANGS].concat() {
        assert!(
            expected.keys().any(|name| matches(pattern, name)),
            "{pattern} names no case: {cause}"
        );
    }
}
