// SPDX-License-Identifier: MIT
//! `cargo xtask ci`: exactly what CI runs, as stages.

use crate::command::{Cmd, installed};
use crate::stages::Stages;
use crate::test::Processor;
use crate::{check, docs, soak, test, tools};
use anyhow::Result;

/// Runs every stage; the table at the end has their times.
pub(crate) fn run() -> Result<()> {
    let mut stages = Stages::default();
    stages.run("format", || Cmd::cargo(["fmt", "--all", "--check"]).run());
    stages.run("laws", check::run);
    stages.run("cargo deny", deny);
    stages.run("clippy", || {
        Cmd::cargo([
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
        .run()
    });
    stages.run("documentation", || {
        Cmd::cargo([
            "doc",
            "--locked",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ])
        // Private items are documented too, so links to them work.
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")
        .run()
    });
    stages.run("tools", || {
        tools::install();
        Ok(())
    });
    stages.run("guide", docs::guide);
    stages.run("programs", test::build_programs);
    stages.run("documentation tests", test::doc_tests);
    stages.run("unit tests", || {
        test::run_tests(
            &scope(&["--workspace", "--exclude", "vmm_tests"]),
            &Processor::default(),
        )
    });
    stages.run("end-to-end tests", || {
        test::run_tests(&scope(&["--package", "vmm_tests"]), &Processor::default())
    });
    // The whole suite like this: cargo xtask test --without-kvm.
    stages.run("software CPU without kvm", || {
        let alone = Processor {
            without_kvm: true,
            ..Processor::default()
        };
        test::run_tests(&scope(&["--package", "vmm_tests", "::soft"]), &alone)
    });
    stages.run("soaks at 1/100", soak::run_reduced);
    stages.finish()
}

fn scope(args: &[&str]) -> Vec<String> {
    args.iter().map(|&arg| arg.to_owned()).collect()
}

/// `cargo deny`, where it is installed; the laws check licences without it.
fn deny() -> Result<()> {
    if installed("cargo-deny") {
        Cmd::cargo(["deny", "check", "licenses", "bans", "sources"]).run()
    } else {
        println!("cargo-deny is not installed; the licence law has checked the licences");
        Ok(())
    }
}
