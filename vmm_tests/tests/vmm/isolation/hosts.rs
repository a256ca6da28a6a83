// SPDX-License-Identifier: MIT
//! Every kind of host: what it launches, and what it says otherwise. This machine's own kernel too.

use super::host_answers::ANSWERS;
use super::{PLATFORMS, files, launched, refused};
use launch_plan::Isolation;
use std::path::Path;
use vmm_tests::{Vm, VmBuilder, programs, skip};

const OFFER: &str =
    "add --sev-model to launch on a model of such a host, or use igvmtool measure for the digest";

fn on_host(host: &str, isolation: Isolation, file: &Path) -> VmBuilder {
    Vm::without_backend().igvm(file).args([
        "--isolation".to_owned(),
        isolation.name().to_owned(),
        format!("--sev-model={host}"),
        "-m".to_owned(),
        "64M".to_owned(),
    ])
}

#[test]
fn ovmf_is_launched_by_every_host_that_can_and_the_others_say_what_they_lack() {
    let name = "ovmf_is_launched_by_every_host_that_can_and_the_others_say_what_they_lack";
    let Some(file) = files::wrapped_ovmf(&["sev", "sev-es", "sev-snp"], 1) else {
        return skip(name, "OVMF.fd is not installed");
    };
    for (host, says) in ANSWERS {
        for (isolation, wanted) in PLATFORMS.into_iter().zip(says) {
            let vm = on_host(host, isolation, file.path());
            if wanted.is_empty() {
                launched(&vm);
            } else {
                let message = refused(&vm);
                assert!(message.contains(wanted), "{isolation} on {host}: {message}");
            }
        }
    }
}

/// The machine that runs the tests; the expectation comes from what it says of itself.
#[test]
fn this_machines_kernel_says_exactly_what_is_missing_and_offers_the_model() {
    let file = files::guest(&PLATFORMS, 1);
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let vendor = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("vendor_id\t: "))
        .unwrap_or_default();
    let flags = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    for (isolation, amd_name, flag) in [
        (Isolation::Sev, "SEV", "sev"),
        (Isolation::SevEs, "SEV-ES", "sev_es"),
        (Isolation::Snp, "SEV-SNP", "sev_snp"),
    ] {
        if flags.split_whitespace().any(|word| word == flag) {
            skip(
                "this_machines_kernel_says_exactly_what_is_missing_and_offers_the_model",
                "this machine may launch such guests",
            );
            continue;
        }
        let vm = Vm::without_backend()
            .igvm(file.path())
            .args(["--isolation", isolation.name(), "-m", "64M"]);
        let message = refused(&vm);
        let wanted = match vendor {
            "AuthenticAMD" | "HygonGenuine" => {
                format!("this AMD cpu has no {amd_name} (CPUID 0x8000001F EAX=")
            }
            other => format!("{amd_name} needs an AMD EPYC host; this cpu is {other}"),
        };
        let lacks_kvm = !Path::new("/dev/kvm").exists();
        assert!(message.contains(&wanted) || lacks_kvm, "{message}");
        assert!(message.trim_end().ends_with(OFFER), "{message}");
    }
}

#[test]
fn igvm_wraps_snp_file_is_refused_for_exactly_what_kvm_cannot_honour() {
    let name = "igvm_wraps_snp_file_is_refused_for_exactly_what_kvm_cannot_honour";
    let wrap = match programs::foreign("igvm-wrap") {
        Ok(wrap) => wrap,
        Err(reason) => return skip(name, &reason),
    };
    if !Path::new(files::OVMF).exists() {
        return skip(name, "OVMF.fd is not installed");
    }
    let file = vmm_tests::files::TestFile::new("wrapped.igvm", &[]);
    let path = file.path().to_str().unwrap();
    let made = programs::run(&wrap, ["-i", files::OVMF, "-o", path, "--no-native", "--snp"]);
    assert!(made.status.success(), "{made:?}");
    let message = refused(&super::on_model("snp", file.path()));
    // No MCE in CR4 and no bit 1 in RFLAGS: a processor cannot run so, and KVM sets both.
    for field in ["field CR4 at 0x148 is 0x0", "field RFLAGS at 0x170 is 0x0"] {
        assert!(message.contains(field), "{message}");
    }
    assert_eq!(message.matches("kvm would measure").count(), 2, "{message}");
}
