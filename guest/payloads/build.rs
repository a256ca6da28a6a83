// SPDX-License-Identifier: MIT
//! Compiles the guest payloads with plain `rustc` and flattens them.
//!
//! Always true: the compiler is the one that builds the workspace, for its host target; nothing is
//! downloaded; each payload becomes `NAME.elf` and `NAME.bin` (its memory from the link address to the
//! end of its zeroed data) in `OUT_DIR`. Why these flags: no SSE, because a host that emulates ring 0 may
//! not know it; fat LTO, because `core` is compiled with SSE and a red zone and has to be generated
//! again; abort on panic. Not here: firmware volumes, boot headers, plans (the library makes them).

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Where and how a payload is linked.
struct Payload {
    name: &'static str,
    /// Link address; 0 for a position-independent image.
    base: u64,
}

/// Link address of what is in a firmware image.
const FIRMWARE: u64 = 0x6E_2000;
/// Where its zeroed data are: in an empty part of the image, behind one of the marks that are 64 KiB apart.
const FIRMWARE_ZEROED: u64 = 0x40_0010;

/// Every payload. The addresses are part of `guest_protocol`'s contract and checked by the library's
/// tests.
const PAYLOADS: &[Payload] = &[
    at("uefi_probe", FIRMWARE),
    at("hv_probe", FIRMWARE),
    at("hv_devices", FIRMWARE),
    at("hv_stuck", FIRMWARE),
    at("efi_hello", 0),
    at("first_byte", 0x10_0000),
    at("test_suite", 0x20_0000),
    at("boot_probe", 0x10_0000),
    at("boot_setup", 0),
    at("igvm_probe", 0),
    at("spin", 0x20_0000),
    at("triple_fault", 0x20_0000),
    at("unhandled_instruction", 0x20_0000),
    at("virtio_probe", 0x20_0000),
    at("machine_suite", 0x20_0000),
    at("conformance", 0x20_0000),
];

const fn at(name: &'static str, base: u64) -> Payload {
    Payload { name, base }
}

/// Flags of everything that is compiled for the guest.
const COMPILE: &[&str] = &[
    "--edition=2024",
    "--target=x86_64-unknown-linux-gnu",
    "-Cpanic=abort",
    "-Ccodegen-units=1",
    "-Copt-level=2",
    "-Cno-redzone=yes",
    "-Cforce-unwind-tables=no",
    "-Ctarget-feature=-sse,-sse2",
    "-Wmissing_docs",
    "-Wunreachable_pub",
    "-Wunused_qualifications",
];

/// Flags that link a payload.
const LINK: &[&str] = &[
    "--crate-type=bin",
    "-Clto=fat",
    "-Cstrip=debuginfo",
    "-Clinker=rust-lld",
    "-Clinker-flavor=ld.lld",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=--build-id=none",
    "-Clink-arg=-znorelro",
    "-Clink-arg=-zmax-page-size=4096",
];

fn main() -> Result<()> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let guest = manifest.parent().ok_or("the package has no parent folder")?;
    let sources = manifest.join("guest");
    for folder in [
        guest.join("guest_protocol/src"),
        guest.join("guest_rt/src"),
        sources.clone(),
    ] {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    library(
        &out,
        "guest_protocol",
        &guest.join("guest_protocol/src/lib.rs"),
        &[],
    )?;
    library(
        &out,
        "guest_rt",
        &guest.join("guest_rt/src/lib.rs"),
        &["guest_protocol"],
    )?;
    std::thread::scope(|scope| {
        let jobs: Vec<_> = PAYLOADS
            .iter()
            .map(|payload| scope.spawn(|| link(&out, &sources, payload)))
            .collect();
        jobs.into_iter()
            .try_for_each(|job| job.join().map_err(|_| "a compiler thread panicked")?)
    })
}

fn library(out: &Path, name: &str, source: &Path, needs: &[&str]) -> Result<()> {
    let mut command = rustc(out, name, needs)?;
    command
        .args([
            "--crate-type=rlib",
            "-Crelocation-model=pie",
            "-Cembed-bitcode=yes",
        ])
        .arg(source)
        .arg("-o")
        .arg(out.join(format!("lib{name}.rlib")));
    run(command)
}

fn link(out: &Path, sources: &Path, payload: &Payload) -> Result<()> {
    let elf = out.join(format!("{}.elf", payload.name));
    let script = sources.join("link.ld");
    let model = if payload.base == 0 { "pie" } else { "static" };
    let mut command = rustc(out, payload.name, &["guest_rt"])?;
    command
        .args(LINK)
        .arg(format!("-Crelocation-model={model}"))
        .arg(format!("-Clink-arg=-T{}", script.display()))
        .arg(format!("-Clink-arg=--defsym=LINK_BASE={:#x}", payload.base))
        .arg(sources.join(format!("{}.rs", payload.name)))
        .arg("-o")
        .arg(&elf);
    if payload.base == FIRMWARE {
        // It has to fit its volume, and is not there to be fast.
        command
            .arg("-Copt-level=s")
            .arg(format!("-Clink-arg=--defsym=ZEROED_BASE={FIRMWARE_ZEROED:#x}"));
    }
    run(command)?;
    let flat = flatten(&std::fs::read(&elf)?, payload.base)
        .ok_or_else(|| format!("{}: not an image from {:#x} on", payload.name, payload.base))?;
    std::fs::write(out.join(format!("{}.bin", payload.name)), flat)?;
    Ok(())
}

fn rustc(out: &Path, name: &str, needs: &[&str]) -> Result<Command> {
    let guest = Path::new(&env::var("CARGO_MANIFEST_DIR")?).with_file_name("");
    let mut command = Command::new(env::var("RUSTC")?);
    command
        .args(COMPILE)
        // Panic messages name files; the images must not depend on where the sources are.
        .arg(format!("--remap-path-prefix={}=guest/", guest.display()))
        .arg("--crate-name")
        .arg(name)
        .arg("-L")
        .arg(out);
    for need in needs {
        let library = out.join(format!("lib{need}.rlib"));
        command
            .arg("--extern")
            .arg(format!("{need}={}", library.display()));
    }
    Ok(command)
}

/// Runs the compiler. Its warnings become ours, but for the one about the missing SSE.
fn run(mut command: Command) -> Result<()> {
    let output = command.output()?;
    if output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let warnings = text.split("\n\n").filter(|part| {
            let known = part.contains("target feature `sse2`") || part.contains(" emitted");
            part.trim_start().starts_with("warning") && !known
        });
        for line in warnings.flat_map(str::lines) {
            println!("cargo::warning={line}");
        }
        return Ok(());
    }
    // Printed here: the error that main returns is shown on one line.
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    Err(format!("{command:?} failed").into())
}

/// The loadable segments of an ELF file as one run of memory from `base` on.
fn flatten(elf: &[u8], base: u64) -> Option<Vec<u8>> {
    const PT_LOAD: u64 = 1;
    let number = |at: usize, len: usize| -> Option<u64> {
        let bytes = elf.get(at..at.checked_add(len)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u64::from(byte)),
        )
    };
    let mut memory = Vec::new();
    let first = number(0x20, 8)? as usize;
    for header in (0..number(0x38, 2)? as usize).map(|index| first + index * 0x38) {
        if number(header, 4)? != PT_LOAD {
            continue;
        }
        let [offset, gpa, in_file, in_memory] =
            [0x08, 0x10, 0x20, 0x28].map(|field| number(header + field, 8));
        let (offset, in_file) = (offset? as usize, in_file? as usize);
        if in_file == 0 && gpa? < base {
            continue;
        }
        let start = gpa?.checked_sub(base)? as usize;
        let bytes = elf.get(offset..offset + in_file)?;
        memory.resize(memory.len().max(start + in_memory? as usize), 0);
        memory[start..start + in_file].copy_from_slice(bytes);
    }
    (!memory.is_empty()).then_some(memory)
}
