// SPDX-License-Identifier: MIT
//! Every command line of `openvmm` in the guide is run, with the files that its introduction lists.
//!
//! Always true: guests run on the software CPU; a confidential launch runs on the model. Lines of
//! `igvmtool` are run by that crate's tests.

use crate::images::{self, Folder};
use launch_plan::{Isolation, Origin, VpContext, VpState};
use payloads::boot_probe;
use payloads::plan::FlatPayload;
use vm_loaders::ovmf::{ResetVp, reset_save_area};
use vmm_tests::{Backend, Vm, files, programs, skip};
use x86defs::vmsa::KVM_VMSA_GPA;

/// Debian's firmware.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

/// The command lines of `openvmm` in all pages: page, line, arguments, exit code.
fn command_lines() -> Vec<(String, String, Vec<String>, i32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(programs::repository().join("Guide/src")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let page = path.file_name().unwrap().to_str().unwrap().to_owned();
        for block in text.split("```sh\n").skip(1) {
            let block = block.split("```").next().unwrap().replace("\\\n", " ");
            for line in block.lines().filter(|line| line.starts_with("openvmm ")) {
                let (command, code) = line.split_once("# exit code ").unwrap_or((line, "0"));
                let code = code.trim().parse().unwrap();
                found.push((page.clone(), line.to_owned(), words(command), code));
            }
        }
    }
    found
}

/// Words behind the program's name, as a shell splits them with double quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, piece) in line.split('"').enumerate() {
        if number % 2 == 1 {
            words.push(piece.to_owned());
        } else {
            words.extend(piece.split_whitespace().map(str::to_owned));
        }
    }
    words.remove(0);
    words
}

/// A SEV-SNP guest of one page and one save area.
fn snp_file() -> Vec<u8> {
    let mut builder = images::builder(Isolation::Snp);
    builder.plan_mut().facts.policy = Some(0x3_0000);
    images::add_page(&mut builder, 0x10_0000, vec![0xF4]);
    let reset = ResetVp {
        entry: 0xFFFF_FFF0,
        signature: 0x600,
    };
    let context = VpContext {
        vp: 0,
        gpa: KVM_VMSA_GPA,
        state: VpState::Vmsa(reset_save_area(Isolation::Snp, reset).into()),
    };
    builder.vp_context(context, Origin::Host("test")).unwrap();
    images::igvm(&[builder.finish()])
}

/// The files that the introduction lists; false where Debian's firmware is missing.
fn fixtures(folder: &Folder) -> bool {
    let kernel = boot_probe::bz_image();
    let initrd = [2; 3000];
    folder.write("bzImage", &kernel);
    folder.write("initrd", initrd);
    folder.write("MSVM.fd", payloads::uefi_probe::firmware());
    let linux = [("linux_kernel", &kernel[..]), ("linux_initrd", &initrd)];
    for (name, built) in [
        ("uefi-x64.bin", files::uefi_probe()),
        ("linux-x64.igvm", files::build("linux-x64.json", &linux, &[])),
    ] {
        std::fs::copy(built.path(), folder.path(name)).unwrap();
    }
    folder.write("suite.igvm", images::flat(FlatPayload::TestSuite, Isolation::Vsm));
    folder.write("sev-snp.igvm", snp_file());
    folder.write("guest.igvm", images::halting(&[Isolation::Native]));
    std::fs::copy(OVMF, folder.path("OVMF.fd")).is_ok()
}

#[test]
fn every_command_line_of_openvmm_in_the_guide_runs() {
    const NAME: &str = "every_command_line_of_openvmm_in_the_guide_runs";
    if let Some(reason) = Backend::Soft.unavailable() {
        return skip(NAME, &reason);
    }
    let folder = Folder::new();
    let ovmf = fixtures(&folder);
    let lines = command_lines();
    assert!(lines.len() >= 15, "{}", lines.len());
    let mut wrong = Vec::new();
    for (page, line, mut args, code) in lines {
        if line.contains("OVMF.fd") && !ovmf {
            skip(NAME, &format!("{line}: Debian's package ovmf is not installed"));
            continue;
        }
        let has = |args: &[String], option: &str| args.iter().any(|arg| arg.starts_with(option));
        if has(&args, "--isolation") && !has(&args, "--sev-model") {
            args.push("--sev-model".to_owned());
        }
        let boots = !["--isolation", "--hypervisor", "--dry-run"]
            .iter()
            .any(|option| has(&args, option));
        if boots {
            args.extend(["--hypervisor", "soft"].map(str::to_owned));
        }
        let ended = Vm::without_backend().args(args).folder(folder.path(".")).run();
        if ended.code != code {
            let (found, stderr) = (ended.code, ended.stderr);
            wrong.push(format!("{page}: {line}: exit code {found}\n{stderr}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for written in ["report.json", "trace.txt"] {
        let length = std::fs::metadata(folder.path(written)).map(|file| file.len());
        assert!(length.is_ok_and(|length| length > 0), "{written}");
    }
}
