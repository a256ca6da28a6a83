// SPDX-License-Identifier: MIT
//! Command lines that cannot be carried out, each with its exit code and its whole message.
//!
//! `x.bin` is a good IGVM file of the UEFI probe, `p.fd` its firmware; every other name does not exist.

use std::process::{Command, Stdio};
use vmm_tests::{files, programs};

/// Arguments, exit code, message. `--dry-run` is added, so that no row depends on the hypervisor.
const TABLE: &[(&str, i32, &str)] = &[
    (
        "--igvm type=ueif,path=x.bin",
        2,
        r#"error: invalid value 'type=ueif,path=x.bin' for '--igvm <SPEC>': unknown type "ueif"; known types are uefi, linux, test, auto, openhcl and ovmf"#,
    ),
    (
        "--igvm type=uefi",
        2,
        "error: invalid value 'type=uefi' for '--igvm <SPEC>': type=uefi has no file; add path=FILE",
    ),
    (
        "--igvm type=uefi,path=",
        2,
        "error: invalid value 'type=uefi,path=' for '--igvm <SPEC>': path= is empty; give the path of an igvm file",
    ),
    (
        "--igvm path=x.bin",
        2,
        "error: invalid value 'path=x.bin' for '--igvm <SPEC>': path= without a type; add type=uefi (or linux, test, auto, openhcl, ovmf), or give the bare file name",
    ),
    (
        "--igvm type=uefi,type=test,path=x.bin",
        2,
        r#"error: invalid value 'type=uefi,type=test,path=x.bin' for '--igvm <SPEC>': key "type" is given twice; give it once (if it belongs to the file name, write path=[FILE])"#,
    ),
    (
        "--igvm type=uefi,path=x.bin,path=y.bin",
        2,
        r#"error: invalid value 'type=uefi,path=x.bin,path=y.bin' for '--igvm <SPEC>': key "path" is given twice; give it once (if it belongs to the file name, write path=[FILE])"#,
    ),
    (
        "--igvm type=uefi,file=x.bin",
        2,
        r#"error: invalid value 'type=uefi,file=x.bin' for '--igvm <SPEC>': unknown key "file"; known keys are type and path (if it belongs to the file name, write path=[FILE])"#,
    ),
    (
        "--igvm type=uefi,x.bin",
        2,
        r#"error: invalid value 'type=uefi,x.bin' for '--igvm <SPEC>': "x.bin" is not key=value (if it belongs to the file name, write path=[FILE])"#,
    ),
    (
        "",
        2,
        "openvmm: nothing to boot; add --igvm SPEC, --uefi, --kernel FILE or --ovmf FILE",
    ),
    (
        "--igvm type=uefi,path=x.bin --igvm-vtl2-relocation-type auto=filesize",
        2,
        "openvmm: --igvm-vtl2-relocation-type moves VTL2 payloads only, and a UEFI payload loads at the addresses in its file; drop the option, or write disable",
    ),
    (
        "--igvm type=uefi,path=x.bin --igvm-vtl2-relocation-type absolute=0x1000000",
        2,
        "openvmm: --igvm-vtl2-relocation-type moves VTL2 payloads only, and a UEFI payload loads at the addresses in its file; drop the option, or write disable",
    ),
    (
        "--igvm type=uefi,path=x.bin --igvm-vtl2-relocation-type vtl2=filesize",
        2,
        "openvmm: --igvm-vtl2-relocation-type moves VTL2 payloads only, and a UEFI payload loads at the addresses in its file; drop the option, or write disable",
    ),
    (
        "--igvm type=test,path=x.bin --igvm-vtl2-relocation-type absolute=0x1000000",
        2,
        "openvmm: --igvm-vtl2-relocation-type moves VTL2 payloads only, and this type loads at the addresses in its file; drop the option, or write disable",
    ),
    (
        "--igvm x.bin --igvm-personality uefi --igvm-vtl2-relocation-type absolute=0x1000000",
        2,
        "openvmm: --igvm-vtl2-relocation-type moves VTL2 payloads only, and a UEFI payload loads at the addresses in its file; drop the option, or write disable",
    ),
    (
        "--igvm x.bin --igvm-vtl2-relocation-type vtl2=2M",
        2,
        "openvmm: --igvm-vtl2-relocation-type vtl2= lets VTL2 choose its memory, and VTL2 (OpenHCL) is not available on this hypervisor; write auto=filesize, absolute=N or disable",
    ),
    (
        "--igvm x.bin --igvm-vtl2-relocation-type sideways",
        2,
        r#"error: invalid value 'sideways' for '--igvm-vtl2-relocation-type <WHERE>': unknown VTL2 relocation type "sideways"; it is disable, auto=filesize, auto=SIZE, absolute=N, vtl2=filesize or vtl2=SIZE"#,
    ),
    (
        "--igvm x.bin --igvm-vtl2-relocation-type absolute=high",
        2,
        r#"error: invalid value 'absolute=high' for '--igvm-vtl2-relocation-type <WHERE>': invalid address "high" in the VTL2 relocation type; write a decimal or 0x number"#,
    ),
    (
        "--igvm x.bin --igvm-vtl2-relocation-type auto=2X",
        2,
        r#"error: invalid value 'auto=2X' for '--igvm-vtl2-relocation-type <WHERE>': invalid size "2X" in the VTL2 relocation type; write bytes or a number with K, M, G or T"#,
    ),
    (
        "--igvm type=uefi,path=x.bin --igvm-personality uefi",
        2,
        "openvmm: --igvm-personality repeats what type= in --igvm says; drop --igvm-personality",
    ),
    (
        "--igvm x.bin --igvm-personality pcat",
        2,
        "error: invalid value 'pcat' for '--igvm-personality <TYPE>' [possible values: uefi, linux-direct]",
    ),
    (
        "--igvm type=uefi,path=x.bin --vtl2",
        2,
        "openvmm: --vtl2: vtl2 (OpenHCL) is not available on this hypervisor; boot the vtl0 payload itself, for example with --igvm type=uefi,path=FILE",
    ),
    (
        "--igvm type=uefi,path=x.bin --pcat",
        2,
        "openvmm: --pcat: the generation 1 machine with a PC BIOS is not available; boot UEFI with --uefi or a kernel with -k",
    ),
    (
        "--igvm type=uefi,path=x.bin --uefi",
        2,
        "openvmm: --igvm and --uefi cannot be combined: --uefi boots a firmware file directly; for firmware inside an igvm file drop --uefi and write --igvm type=uefi,path=FILE",
    ),
    (
        "--igvm type=uefi,path=x.bin --uefi-firmware p.fd",
        2,
        "openvmm: --uefi-firmware cannot be combined with --igvm: the firmware of an igvm launch is in its file; drop --uefi-firmware",
    ),
    (
        "--igvm type=uefi,path=x.bin --kernel k",
        2,
        "openvmm: --kernel cannot be combined with --igvm: an igvm file brings its own code; drop one of them",
    ),
    (
        "--igvm type=uefi,path=x.bin --initrd i",
        2,
        "openvmm: --initrd cannot be combined with --igvm: an igvm file brings its own initrd; drop --initrd, or build the initrd into the file",
    ),
    (
        "--igvm type=uefi,path=x.bin --ovmf o.fd",
        2,
        "openvmm: --ovmf cannot be combined with --igvm: it boots a firmware file directly; for OVMF inside an igvm file drop --ovmf and write --igvm type=ovmf,path=FILE",
    ),
    (
        "--igvm type=uefi,path=x.bin --isolation vbs",
        2,
        "openvmm: --isolation vbs is measure only: this program does not launch such guests; igvmtool measure FILE --platform vbs gives the launch digest",
    ),
    (
        "--igvm type=uefi,path=x.bin --isolation snp",
        1,
        "openvmm: x.bin: file offset 0xc190: the file has no platform snp; it has vsm [platform-absent]",
    ),
    (
        "--igvm type=uefi,path=x.bin --isolation tdx",
        2,
        "openvmm: --isolation tdx is measure only: this program does not launch such guests; igvmtool measure FILE --platform tdx gives the launch digest",
    ),
    (
        "--igvm type=uefi,path=x.bin --isolation sev",
        1,
        "openvmm: x.bin: file offset 0xc190: the file has no platform sev; it has vsm [platform-absent]",
    ),
    (
        "--igvm type=uefi,path=x.bin --isolation sev-es",
        1,
        "openvmm: x.bin: file offset 0xc190: the file has no platform sev-es; it has vsm [platform-absent]",
    ),
    (
        "--igvm type=uefi,path=x.bin --isolation cca",
        2,
        "openvmm: --isolation cca is for AArch64 hosts and not launched by this program; igvmtool inspect and igvmtool check read such files",
    ),
    (
        "--igvm type=uefi,path=x.bin --isolation sgx",
        2,
        "error: invalid value 'sgx' for '--isolation <KIND[,KEY=VALUE]>': unknown kind \"sgx\"; known kinds are none, snp, sev-es, sev, and to be measured only tdx, vbs and cca",
    ),
    (
        "--igvm x.bin --isolation snp",
        1,
        "openvmm: x.bin: file offset 0xc190: the file has no platform snp; it has vsm [platform-absent]",
    ),
    (
        "--igvm x.bin --uefi-debug",
        2,
        "openvmm: --uefi-debug is a setting of Microsoft's UEFI; boot it with --uefi or --igvm type=uefi,path=FILE, or drop --uefi-debug",
    ),
    (
        "--igvm x.bin --uefi-console-mode com1",
        2,
        "openvmm: --uefi-console-mode is a setting of Microsoft's UEFI; boot it with --uefi or --igvm type=uefi,path=FILE, or drop --uefi-console-mode",
    ),
    (
        "--igvm type=test,path=x.bin --disable-frontpage",
        2,
        "openvmm: --disable-frontpage is a setting of Microsoft's UEFI; boot it with --uefi or --igvm type=uefi,path=FILE, or drop --disable-frontpage",
    ),
    (
        "--igvm x.bin --no-vmbus",
        2,
        "openvmm: --no-vmbus takes VMBus from the Hyper-V machine, and this guest gets another one; drop --no-vmbus",
    ),
    (
        "--igvm type=uefi,path=x.bin --secure-boot --uefi-debug",
        2,
        "openvmm: --secure-boot cannot be combined with --uefi-debug: the firmware stops itself when it finds both; drop one of them",
    ),
    (
        "--igvm type=uefi,path=x.bin --secure-boot-template windows",
        2,
        "openvmm: --secure-boot-template takes a file here, because no certificates are part of this program; name a variable store such as /usr/share/OVMF/OVMF_VARS_4M.ms.fd",
    ),
    (
        "--igvm x.bin --secure-boot",
        2,
        "openvmm: --secure-boot is a setting of Microsoft's UEFI; boot it with --uefi or --igvm type=uefi,path=FILE, or drop --secure-boot",
    ),
    (
        "--igvm-personality uefi",
        2,
        "openvmm: --igvm-personality says what is in an igvm file; add --igvm FILE",
    ),
    (
        "--igvm-vtl2-relocation-type disable",
        2,
        "openvmm: --igvm-vtl2-relocation-type says where an igvm file loads; add --igvm FILE",
    ),
    (
        "--uefi-firmware p.fd",
        2,
        "openvmm: --uefi-firmware is the file of a direct UEFI boot; add --uefi",
    ),
    (
        "--uefi",
        2,
        "openvmm: --uefi needs a firmware; add --uefi-firmware FILE or set OPENVMM_UEFI_FIRMWARE",
    ),
    (
        "--uefi --kernel k",
        2,
        "openvmm: --kernel cannot be combined with --uefi: each is a way to boot; drop one of them",
    ),
    (
        "--uefi --ovmf o.fd",
        2,
        "openvmm: --ovmf cannot be combined with --uefi: --uefi is Microsoft's firmware; drop one of them",
    ),
    (
        "--igvm type=uefi,path=x.bin --vars v",
        2,
        "openvmm: --vars keeps the variables of OVMF; add --ovmf FILE or --igvm type=ovmf,path=FILE, or drop --vars",
    ),
    (
        "--kernel k --nvram v",
        2,
        "openvmm: --nvram keeps the variables of Microsoft's UEFI; add --uefi or --igvm type=uefi,path=FILE, or drop --nvram",
    ),
    (
        "--kernel k --vars v",
        2,
        "openvmm: --vars keeps the variables of OVMF; add --ovmf FILE or --igvm type=ovmf,path=FILE, or drop --vars",
    ),
    (
        "--ovmf o.fd --cmdline x",
        2,
        "openvmm: --cmdline goes to a kernel or an igvm file, and this firmware boot takes none; drop --cmdline",
    ),
    (
        "--igvm type=ovmf,path=x.bin --ovmf o.fd",
        2,
        "openvmm: --ovmf cannot be combined with --igvm: it boots a firmware file directly; for OVMF inside an igvm file drop --ovmf and write --igvm type=ovmf,path=FILE",
    ),
    (
        "--igvm type=ovmf,path=x.bin --uefi-firmware o.fd",
        2,
        "openvmm: --uefi-firmware cannot be combined with --igvm: the firmware of an igvm launch is in its file; drop --uefi-firmware",
    ),
    (
        "--igvm type=ovmf,path=x.bin --kernel k",
        2,
        "openvmm: --kernel cannot be combined with --igvm: an igvm file brings its own code; drop one of them",
    ),
    (
        "--initrd i",
        2,
        "openvmm: --initrd belongs to a direct Linux boot; add --kernel FILE",
    ),
    (
        "--uefi --uefi-firmware p.fd -c text",
        2,
        "openvmm: --cmdline goes to a kernel or an igvm file, and this firmware boot takes none; drop --cmdline",
    ),
    (
        "-m 2GB,shared=on",
        2,
        r#"error: invalid value '2GB,shared=on' for '--memory <SIZE>': unknown key "shared"; the only key is size"#,
    ),
    (
        "-m size=1G,size=2G",
        2,
        "error: invalid value 'size=1G,size=2G' for '--memory <SIZE>': the size is given twice",
    ),
    (
        "--igvm x.bin -p 0",
        2,
        "error: invalid value '0' for '--processors <COUNT>': 0 is not in 1..=4294967295",
    ),
    (
        "--igvm x.bin -p two",
        2,
        "error: invalid value 'two' for '--processors <COUNT>': invalid digit found in string",
    ),
    (
        "--igvm x.bin -m 2X",
        2,
        r#"error: invalid value '2X' for '--memory <SIZE>': "2X" is not a size; write a number with K, M, G or T, as in 2GB"#,
    ),
    (
        "--igvm x.bin -m 0",
        2,
        "error: invalid value '0' for '--memory <SIZE>': a guest needs memory; write a size, as in 2GB",
    ),
    (
        "--igvm x.bin -m 4097",
        2,
        "error: invalid value '4097' for '--memory <SIZE>': 4097 bytes is not a multiple of 4096 (4K)",
    ),
    (
        "--igvm x.bin -m bytes=1G",
        2,
        r#"error: invalid value 'bytes=1G' for '--memory <SIZE>': unknown key "bytes"; the only key is size"#,
    ),
    (
        "--igvm x.bin -m 99999999999999999999",
        2,
        r#"error: invalid value '99999999999999999999' for '--memory <SIZE>': "99999999999999999999" is not a size; write a number with K, M, G or T, as in 2GB"#,
    ),
    (
        "--igvm x.bin --com1 telnet",
        2,
        r#"error: invalid value 'telnet' for '--com1 <BACKEND>': unknown serial backend "telnet"; known are console, none, stderr, file=PATH, listen=PATH and listen=tcp:IP:PORT"#,
    ),
    (
        "--igvm x.bin --com1 file=",
        2,
        "error: invalid value 'file=' for '--com1 <BACKEND>': file= is empty; give a path",
    ),
    (
        "--igvm x.bin --com1 listen=",
        2,
        "error: invalid value 'listen=' for '--com1 <BACKEND>': listen= is empty; give a path",
    ),
    (
        "--igvm x.bin --com1 listen=tcp:here",
        2,
        r#"error: invalid value 'listen=tcp:here' for '--com1 <BACKEND>': "here" is not IP:PORT; write for example listen=tcp:127.0.0.1:4444"#,
    ),
    (
        "--igvm x.bin --com1 console --com2 console",
        2,
        "openvmm: COM1 and COM2 are both console, but there is one terminal; give one of them another backend",
    ),
    (
        "--igvm x.bin --com1 none -P",
        2,
        "openvmm: --paused needs a serial port with the backend console, because resume is typed at its Ctrl-Q prompt; add --com1 console or drop --paused",
    ),
    (
        "--igvm x.bin --guest-crash-action explode",
        2,
        r#"error: invalid value 'explode' for '--guest-crash-action <ACTION>': unknown action "explode"; known are exit, exit:CODE, reset and halt"#,
    ),
    (
        "--igvm x.bin --guest-reset-action exit:300",
        2,
        r#"error: invalid value 'exit:300' for '--guest-reset-action <ACTION>': "300" is not an exit code; write a number from 0 to 255"#,
    ),
    (
        "--igvm x.bin --deterministic --hypervisor kvm",
        2,
        "openvmm: --deterministic cannot be combined with --hypervisor kvm, where time is the processor's; use --hypervisor soft",
    ),
    (
        "--igvm x.bin --no-such-option",
        2,
        "error: unexpected argument '--no-such-option' found",
    ),
    (
        "--igvm x.bin extra",
        2,
        "error: unexpected argument 'extra' found",
    ),
    (
        "--igvm x.bin --igvm y.bin",
        2,
        "error: the argument '--igvm <SPEC>' cannot be used multiple times",
    ),
    (
        "--igvm missing.bin",
        1,
        "openvmm: cannot open missing.bin: No such file or directory (os error 2)",
    ),
    (
        "--igvm type=uefi,path=missing.bin",
        1,
        "openvmm: cannot open missing.bin: No such file or directory (os error 2)",
    ),
    (
        "--igvm .",
        1,
        "openvmm: . is not a regular file; copy it to one first",
    ),
    (
        "--igvm type=openhcl,path=x.bin",
        1,
        "openvmm: x.bin: type=openhcl: OpenHCL runs in vtl2, which is not available on this hypervisor; boot the vtl0 payload itself, for example with --igvm type=uefi,path=FILE",
    ),
    (
        "--uefi --uefi-firmware missing.fd",
        1,
        "openvmm: cannot open missing.fd: No such file or directory (os error 2)",
    ),
    (
        "--uefi --uefi-firmware x.bin",
        1,
        "openvmm: x.bin: the UEFI firmware image is 0x613434 bytes; it must be exactly 0x600000 (a GCC DEBUG build is larger and cannot be used)",
    ),
    (
        "--kernel missing",
        1,
        "openvmm: cannot open missing: No such file or directory (os error 2)",
    ),
    (
        "--kernel p.fd",
        1,
        "openvmm: p.fd: not a kernel: neither a bzImage (signature HdrS at offset 0x202) nor an ELF file; it starts with [00, 00, 10, 00]",
    ),
    (
        "--igvm type=uefi,path=x.bin -m 4M",
        1,
        "openvmm: x.bin: header 1 at file offset 0x30: the image requires memory at 0x0..0x709000, but there is none at 0x400000..0x709000; -m 8M fits it",
    ),
    (
        "--igvm type=uefi,path=x.bin -m 2MB",
        1,
        "openvmm: x.bin: header 1 at file offset 0x30: the image requires memory at 0x0..0x709000, but there is none at 0x200000..0x709000; -m 8M fits it",
    ),
    (
        "--uefi --uefi-firmware p.fd -m 6MB",
        1,
        "openvmm: p.fd: uefi memory: the image requires memory at 0x0..0x709000, but there is none at 0x600000..0x709000; -m 8M fits it",
    ),
    (
        "--igvm type=uefi,path=x.bin -p 70000",
        1,
        "openvmm: -p 70000: without x2apic, which this hypervisor does not offer, a guest has at most 255 processors",
    ),
    (
        "--igvm type=uefi,path=x.bin -m 1024T",
        1,
        "openvmm: -m 1024 TiB: ram would end at gpa 0x4000008000000, beyond the 46 physical address bits of this guest; at most -m 67108736 MiB fits",
    ),
    (
        "--igvm x.bin --hypervisor hyperv",
        2,
        "error: invalid value 'hyperv' for '--hypervisor <NAME>' [possible values: auto, kvm, soft]",
    ),
];

#[test]
fn every_refusal_has_its_own_message() {
    let file = files::uefi_probe();
    std::fs::rename(file.path(), file.beside("x.bin")).unwrap();
    std::fs::write(file.beside("p.fd"), payloads::uefi_probe::firmware()).unwrap();
    let mut wrong = Vec::new();
    for &(line, code, message) in TABLE {
        let output = Command::new(programs::openvmm())
            .args(line.split_whitespace())
            .arg("--dry-run")
            .current_dir(file.beside(""))
            .env_remove("OPENVMM_UEFI_FIRMWARE")
            .env_remove("X86_64_OPENVMM_UEFI_FIRMWARE")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let got = (
            output.status.code(),
            message_of(&String::from_utf8(output.stderr).unwrap()),
        );
        if got != (Some(code), message.to_owned()) {
            wrong.push(format!("{line}\n  wanted {code} {message}\n  got    {got:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        TABLE.len(),
        wrong.join("\n")
    );
}

/// The first line, and the possible values if they follow.
fn message_of(stderr: &str) -> String {
    let mut lines = stderr.lines();
    let first = lines.next().unwrap_or_default();
    match lines.next() {
        Some(values) if values.starts_with("  [possible values") => {
            format!("{first} {}", values.trim_start())
        }
        _ => first.to_owned(),
    }
}
