// SPDX-License-Identifier: MIT
//! Isolated launches with the real binary: on models of hosts, and on this machine's kernel.
//!
//! Always true: what the model computes is compared with what `igvmtool measure` says of the same file.

mod endorsed;
mod files;
#[path = "../../../virt/virt_sev/tests/launches/host_answers.rs"]
mod host_answers;
mod hosts;
mod launches;
mod table;
mod uefi;

use launch_plan::Isolation;
use std::path::Path;
use vmm_tests::{Ended, Vm, VmBuilder};

/// The isolated platforms that are launched.
const PLATFORMS: [Isolation; 3] = [Isolation::Sev, Isolation::SevEs, Isolation::Snp];

/// `openvmm --igvm FILE --isolation ... --sev-model`.
fn on_model(isolation: &str, file: &Path) -> VmBuilder {
    on_model_with("64M", isolation, file)
}

/// The same with another size of RAM.
fn on_model_with(memory: &str, isolation: &str, file: &Path) -> VmBuilder {
    Vm::without_backend()
        .igvm(file)
        .args(["--isolation", isolation, "--sev-model", "-m", memory])
}

/// A launch that must succeed.
#[track_caller]
fn launched(vm: &VmBuilder) -> Ended {
    let ended = vm.run();
    assert_eq!(ended.code, 0, "{ended:?}");
    ended
}

/// The message of a launch that must be refused.
#[track_caller]
fn refused(vm: &VmBuilder) -> String {
    let ended = vm.run();
    assert_eq!(ended.code, 1, "{ended:?}");
    let line = ended.stderr.split_once("openvmm: ");
    line.unwrap_or_else(|| panic!("no message in {ended:?}"))
        .1
        .to_owned()
}

/// The value of a line `NAME VALUE` of a launch's report.
#[track_caller]
fn field<'t>(text: &'t str, name: &str) -> &'t str {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// What `igvmtool measure` says of a platform of a file.
#[track_caller]
fn measured(file: &Path, platform: &str, vp_count: u32) -> String {
    let count = vp_count.to_string();
    let file = file.to_str().unwrap();
    let args = ["measure", file, "--platform", platform, "--vp-count", &count];
    let out = vmm_tests::programs::run_igvmtool(args);
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    text.split(' ').next().unwrap_or_default().to_owned()
}
