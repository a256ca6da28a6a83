// SPDX-License-Identifier: MIT
//! Debian's OVMF up to its shell, from its flash image and from IGVM files of it.

use crate::guests;
use std::ffi::OsStr;
use std::path::Path;
use vmm_tests::files::TestFile;
use vmm_tests::{Backend, Vm, VmBuilder, programs, skip};

const PROMPT: &str = "Shell> ";
const ESCAPE: &[u8] = b"\x1B";

/// An OVMF machine without its firmware.
fn machine() -> VmBuilder {
    Vm::builder(Backend::Soft).args(["-m", "512M"])
}

/// Skips the countdown and waits for the prompt.
fn reach_shell(vm: &mut Vm) {
    vm.wait_for("UEFI Interactive Shell");
    vm.wait_for("seconds to skip");
    vm.send(ESCAPE);
    vm.wait_for(PROMPT);
}

/// Types a command and gives what it prints up to the next prompt. The shell draws what is typed one key
/// at a time, so the answer begins with the new line.
fn ask(vm: &mut Vm, command: &str) -> String {
    vm.send(command.as_bytes());
    vm.send(b"\r");
    vm.wait_for("\n");
    vm.wait_for(PROMPT)
}

fn power_off(mut vm: Vm) {
    vm.send(b"reset -s\r");
    let ended = vm.wait_for_exit();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("the guest has powered off"),
        "{}",
        ended.stderr
    );
}

#[test]
fn flash_image_reaches_its_shell_which_answers_resets_and_powers_off() {
    let ovmf = match guests::ovmf() {
        Ok(ovmf) => ovmf,
        Err(reason) => {
            return skip(
                "flash_image_reaches_its_shell_which_answers_resets_and_powers_off",
                &reason,
            );
        }
    };
    let mut vm = machine().args(["--ovmf".as_ref(), ovmf.as_os_str()]).start();
    reach_shell(&mut vm);
    let memory = ask(&mut vm, "memmap");
    assert!(memory.contains("Total Memory:            511 MB"), "{memory}");
    let disks = ask(&mut vm, "map");
    assert!(disks.contains("No mapping found"), "{disks}");
    vm.send(b"reset\r");
    reach_shell(&mut vm);
    power_off(vm);
}

#[test]
fn memory_above_4_gib_is_in_the_firmwares_map() {
    let ovmf = match guests::ovmf() {
        Ok(ovmf) => ovmf,
        Err(reason) => return skip("memory_above_4_gib_is_in_the_firmwares_map", &reason),
    };
    let mut vm = Vm::builder(Backend::Soft)
        .args(["-m", "5G"])
        .args(["--ovmf".as_ref(), ovmf.as_os_str()])
        .start();
    reach_shell(&mut vm);
    let memory = ask(&mut vm, "memmap");
    assert!(memory.contains("0000000100000000-00000001BFFFFFFF"), "{memory}");
    assert!(memory.contains("Total Memory:          5,119 MB"), "{memory}");
    power_off(vm);
}

const SETVAR: &str = "setvar kept -guid 0d0d1e2f-0102-0304-0506-0708090a0b0c";

#[test]
fn variables_in_a_file_survive_resets_and_new_starts() {
    let ovmf = match guests::ovmf() {
        Ok(ovmf) => ovmf,
        Err(reason) => return skip("variables_in_a_file_survive_resets_and_new_starts", &reason),
    };
    let folder = TestFile::new("marker", &[]);
    let file = folder.beside("vars");
    let vm = machine()
        .args(["--ovmf".as_ref(), ovmf.as_os_str()])
        .args(["--vars".as_ref(), file.as_os_str()]);
    let mut first = vm.start();
    reach_shell(&mut first);
    ask(&mut first, &format!("{SETVAR} -nv -bs =C0FFEE"));
    first.send(b"reset\r");
    reach_shell(&mut first);
    let answer = ask(&mut first, SETVAR);
    assert!(answer.contains("C0 FF EE"), "{answer}");
    let second = vm.run();
    assert_eq!(second.code, 1, "{}", second.stdout);
    assert!(
        second.stderr.contains("another vm uses this file"),
        "{}",
        second.stderr
    );
    power_off(first);
    let mut third = vm.start();
    reach_shell(&mut third);
    let answer = ask(&mut third, SETVAR);
    assert!(answer.contains("C0 FF EE"), "{answer}");
    power_off(third);
}

/// `igvmtool wrap` on OVMF with more options.
fn wrapped(ovmf: &Path, options: &[&str]) -> TestFile {
    let file = TestFile::new("ovmf.igvm", &[]);
    let mut args = vec![
        "wrap".as_ref(),
        ovmf.as_os_str(),
        "--output".as_ref(),
        file.path().as_os_str(),
    ];
    args.extend(options.iter().map(OsStr::new));
    let made = programs::run_igvmtool(args);
    assert!(made.status.success(), "{made:?}");
    file
}

fn igvm_reaches_shell(kind: &str, file: &Path) {
    let mut vm = machine().typed_igvm(kind, file).start();
    reach_shell(&mut vm);
    power_off(vm);
}

#[test]
fn wrapped_image_starts_at_the_reset_vector() {
    match guests::ovmf() {
        Ok(ovmf) => {
            let file = wrapped(ovmf, &["--platform", "native"]);
            igvm_reaches_shell("ovmf", file.path());
        }
        Err(reason) => skip("wrapped_image_starts_at_the_reset_vector", &reason),
    }
}

#[test]
fn wrapped_image_starts_in_flat_32_bit_mode() {
    match guests::ovmf() {
        Ok(ovmf) => {
            let file = wrapped(ovmf, &["--platform", "native", "--flat32"]);
            igvm_reaches_shell("auto", file.path());
        }
        Err(reason) => skip("wrapped_image_starts_in_flat_32_bit_mode", &reason),
    }
}

#[test]
fn image_of_igvm_wrap_reaches_its_shell() {
    const NAME: &str = "image_of_igvm_wrap_reaches_its_shell";
    let (ovmf, wrap) = match (guests::ovmf(), programs::foreign("igvm-wrap")) {
        (Ok(ovmf), Ok(wrap)) => (ovmf, wrap),
        (Err(reason), _) | (_, Err(reason)) => return skip(NAME, &reason),
    };
    let file = TestFile::new("ovmf.igvm", &[]);
    let args = [
        "-i".as_ref(),
        ovmf.as_os_str(),
        "-o".as_ref(),
        file.path().as_os_str(),
        "--native".as_ref(),
    ];
    let made = programs::run(&wrap, args);
    assert!(made.status.success(), "{made:?}");
    igvm_reaches_shell("auto", file.path());
}
