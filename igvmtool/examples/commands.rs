// SPDX-License-Identifier: MIT
//! Soak: damaged files through read, plan, check, portability, diff and measure.
//!
//! `cargo run --release -p igvmtool --example commands -- --count N [--seed S] [--first N]`

#[path = "shared/soak.rs"]
mod soak;

use igvmtool::compare::compare;
use igvmtool::portability::{LOADERS, ask};
use launch_digest::{Options, Profile, measure};
use std::process::ExitCode;
use vm_loaders::igvm::File;

/// Takes a file through everything; errors are fine, panics are not.
fn case(bytes: &[u8], original: &[u8]) {
    let (Ok(file), Ok(whole)) = (File::read(bytes), File::read(original)) else {
        return;
    };
    let problems = file.check();
    for loader in LOADERS {
        ask(loader, &file, &problems);
    }
    for platform in file.platforms() {
        let Ok(plan) = file.plan(platform.isolation) else {
            continue;
        };
        let options = Options {
            profile: Profile::FileOrder,
            ..Options::default()
        };
        // A platform without a digest and a page that a platform cannot take are answers too.
        let _ = measure(&plan, &options);
    }
    compare(&whole, &file);
}

fn main() -> ExitCode {
    soak::run(case)
}
