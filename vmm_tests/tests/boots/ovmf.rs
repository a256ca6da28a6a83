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
    ended.assert_powered_off();
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

/// Pages of RAM, and which they are, in what the shell's `memmap` prints: merged ranges of all types but those that
/// firmware gives to what is no RAM.
fn ram_of(memmap: &str) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for line in memmap.lines() {
        let mut words = line.split_whitespace();
        let (Some(kind), Some((start, end))) = (words.next(), words.next().and_then(|w| w.split_once('-')))
        else {
            continue;
        };
        let number = |text| u64::from_str_radix(text, 16);
        let (Ok(start), Ok(end)) = (number(start), number(end)) else {
            continue;
        };
        // The only attribute of ECAM is that it is not cached; RAM that is reserved has all of them.
        let is_ram = !kind.starts_with("MMIO") && line.trim_end().ends_with('F');
        match ranges.last_mut() {
            Some((_, last)) if is_ram && *last == start => *last = end + 1,
            _ if is_ram => ranges.push((start, end + 1)),
            _ => {}
        }
    }
    ranges
}

/// What four processors and this much memory look like in the shell.
fn shell_shows(name: &str, memory: &str, low_end: u64, high_end: Option<u64>) {
    let ovmf = match guests::ovmf() {
        Ok(ovmf) => ovmf,
        Err(reason) => return skip(name, &reason),
    };
    let mut vm = Vm::builder(Backend::Soft)
        .args(["-m", memory, "-p", "4"])
        .args(["--ovmf".as_ref(), ovmf.as_os_str()])
        .start();
    reach_shell(&mut vm);
    let map = ask(&mut vm, "memmap");
    // The hole is what video memory and option ROMs of a PC take.
    let expected = [(0, 0xA_0000), (0x10_0000, low_end)];
    let expected: Vec<_> = expected
        .into_iter()
        .chain(high_end.map(|end| (1 << 32, end)))
        .collect();
    assert_eq!(ram_of(&map), expected, "{map}");
    let tables = ask(&mut vm, "smbiosview -t 4");
    for socket in ["CPU 0", "CPU 1", "CPU 2", "CPU 3"] {
        assert!(
            tables.contains(&format!("SocketDesignation: {socket}")),
            "{tables}"
        );
    }
    assert!(!tables.contains("CPU 4"), "{tables}");
    power_off(vm);
}

#[test]
fn shell_shows_four_processors_and_512_mib() {
    shell_shows("shell_shows_four_processors_and_512_mib", "512M", 512 << 20, None);
}

#[test]
fn shell_shows_four_processors_and_2_gib() {
    shell_shows("shell_shows_four_processors_and_2_gib", "2G", 2 << 30, None);
}

#[test]
fn shell_shows_four_processors_and_5_gib() {
    let name = "shell_shows_four_processors_and_5_gib";
    shell_shows(name, "5G", 2 << 30, Some((4 << 30) + (3 << 30)));
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

#[test]
fn code_without_variables_takes_a_copy_of_the_packages_store() {
    let [code, store] = match guests::ovmf_in_parts() {
        Ok(parts) => parts,
        Err(reason) => {
            return skip(
                "code_without_variables_takes_a_copy_of_the_packages_store",
                &reason,
            );
        }
    };
    let vars = TestFile::new("vars", &std::fs::read(store).unwrap());
    let vm = machine()
        .args(["--ovmf".as_ref(), code.as_os_str()])
        .args(["--vars".as_ref(), vars.path().as_os_str()]);
    let mut first = vm.start();
    reach_shell(&mut first);
    ask(&mut first, &format!("{SETVAR} -nv -bs =C0FFEE"));
    power_off(first);
    let mut second = vm.start();
    reach_shell(&mut second);
    let answer = ask(&mut second, SETVAR);
    assert!(answer.contains("C0 FF EE"), "{answer}");
    power_off(second);
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
fn native_of_a_file_of_five_platforms_starts_with_four_processors() {
    const NAME: &str = "native_of_a_file_of_five_platforms_starts_with_four_processors";
    let ovmf = match guests::ovmf() {
        Ok(ovmf) => ovmf,
        Err(reason) => return skip(NAME, &reason),
    };
    let platforms = ["native", "sev", "sev-es", "sev-snp", "tdx"].map(|platform| ["--platform", platform]);
    let file = wrapped(ovmf, &[platforms.as_flattened(), &["--vp-count", "4"]].concat());
    let mut vm = machine()
        .typed_igvm("ovmf", file.path())
        .args(["-p", "4"])
        .start();
    reach_shell(&mut vm);
    power_off(vm);
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

/// A file of virtfw's tool with this entry reaches the shell.
fn igvm_wraps_file_reaches_shell(name: &str, entry: &str) {
    let (ovmf, wrap) = match (guests::ovmf(), programs::foreign("igvm-wrap")) {
        (Ok(ovmf), Ok(wrap)) => (ovmf, wrap),
        (Err(reason), _) | (_, Err(reason)) => return skip(name, &reason),
    };
    let file = TestFile::new("ovmf.igvm", &[]);
    let args = [
        "-i".as_ref(),
        ovmf.as_os_str(),
        "-o".as_ref(),
        file.path().as_os_str(),
        entry.as_ref(),
    ];
    let made = programs::run(&wrap, args);
    assert!(made.status.success(), "{made:?}");
    igvm_reaches_shell("auto", file.path());
}

#[test]
fn real_mode_image_of_igvm_wrap_reaches_its_shell() {
    igvm_wraps_file_reaches_shell("real_mode_image_of_igvm_wrap_reaches_its_shell", "--real16");
}

#[test]
fn protected_mode_image_of_igvm_wrap_reaches_its_shell() {
    igvm_wraps_file_reaches_shell("protected_mode_image_of_igvm_wrap_reaches_its_shell", "--flat32");
}
