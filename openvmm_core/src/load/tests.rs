// SPDX-License-Identifier: MIT
//! Files of every kind, from disk to a decision or a message.

use super::*;
use crate::layout::{HostLimits, resolve};
use crate::testing;
use launch_plan::{
    Arch, Contents, ExpectMemory, Import, Isolation, Origin, PageKind, PlanBuilder, PlatformFacts,
    VbsRegister, VbsRegisterName, VbsValue, VpContext, VpState,
};
use std::path::PathBuf;
use vm_loaders::igvm::{EncodeOptions, FormatVersion, encode};

const HERE: Origin = Origin::Host("test");

/// A platform with a page, a boot processor context and perhaps more.
fn image(isolation: Isolation, more: impl FnOnce(&mut PlanBuilder<'static>)) -> LaunchPlan<'static> {
    let mut builder = PlanBuilder::new(PlatformFacts::new(isolation, Arch::X64));
    page(&mut builder, 0x10_0000);
    if let Isolation::Vsm = isolation {
        let rip = VbsRegister {
            vtl: 0,
            name: VbsRegisterName::Rip,
            value: VbsValue::U64(0x10_0000),
        };
        let context = VpContext {
            vp: 0,
            gpa: 0,
            state: VpState::Vbs(vec![rip]),
        };
        builder.vp_context(context, HERE).unwrap();
    }
    more(&mut builder);
    builder.finish()
}

fn page(builder: &mut PlanBuilder<'_>, gpa: u64) {
    let import = Import {
        gpa,
        len: 0x1000,
        large: false,
        kind: PageKind::Measured,
        contents: Contents::Zero,
    };
    builder.import(import, HERE).unwrap();
}

fn nothing(_: &mut PlanBuilder<'static>) {}

/// A file with these platforms, in its folder.
fn written(plans: &[LaunchPlan<'_>]) -> (tempfile::TempDir, PathBuf) {
    let cca = plans.iter().any(|p| p.facts.arch == Arch::Aarch64);
    let format = if cca { FormatVersion::V2 } else { FormatVersion::V1 };
    let encoded = encode(
        plans,
        &EncodeOptions {
            format,
            version_string: None,
        },
    )
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.bin");
    encoded
        .write_to(&mut std::fs::File::create(&path).unwrap())
        .unwrap();
    (dir, path)
}

/// Loads a file with these platforms as `payload`; the notes, or the error's chain.
fn load(
    plans: &[LaunchPlan<'_>],
    payload: IgvmPayload,
    machine: Machine,
) -> Result<(Vec<String>, Machine), String> {
    let (_dir, path) = written(plans);
    load_file(&path, payload, machine).map_err(|text| text.replace(path.to_str().unwrap(), "x.bin"))
}

fn config_of(path: &Path, payload: IgvmPayload, machine: Machine) -> Config {
    let load = LoadMode::Igvm {
        path: path.into(),
        payload,
        relocation: Vtl2Base::File,
        cmdline: String::new(),
    };
    Config {
        load,
        machine,
        ..testing::config()
    }
}

fn load_file(path: &Path, payload: IgvmPayload, machine: Machine) -> Result<(Vec<String>, Machine), String> {
    let config = config_of(path, payload, machine);
    let files = Files::open(&config.load).map_err(|e| format!("{:#}", anyhow::Error::from(e)))?;
    let mut notes = Notes::quiet();
    let decision = decide(&config, &files, &mut notes).map_err(|e| format!("{e:#}"))?;
    let machine = decision.machine;
    let layout = resolve(&config, machine, HostLimits::ASSUMED).unwrap();
    plan(&config, &files, decision, &layout, &mut notes).map_err(|e| format!("{e:#}"))?;
    Ok((notes.lines().to_vec(), machine))
}

fn uefi() -> IgvmPayload {
    IgvmPayload::Uefi(UefiSettings::default())
}

#[test]
fn native_comes_before_vsm_and_every_other_platform_is_explained() {
    let plans = [image(Isolation::Vsm, nothing), image(Isolation::Native, nothing)];
    let (notes, _) = load(&plans, IgvmPayload::Generic, Machine::Plain).unwrap();
    assert_eq!(
        notes,
        [
            "platform vsm of the file not taken: native comes first",
            "platform native of the file taken"
        ]
    );
    let plans = [image(Isolation::Snp, nothing), image(Isolation::Vsm, nothing)];
    let (notes, _) = load(&plans, IgvmPayload::Generic, Machine::Plain).unwrap();
    assert_eq!(
        notes,
        [
            "platform snp of the file not taken: it needs isolation, and the launch has none",
            "platform vsm of the file taken"
        ]
    );
}

#[test]
fn pages_outside_ram_get_memory_on_the_plain_machine_only() {
    let top = image(Isolation::Vsm, |b| page(b, 0xFFFF_F000));
    let (notes, _) = load(std::slice::from_ref(&top), IgvmPayload::Generic, Machine::Plain).unwrap();
    assert_eq!(
        notes[1],
        "pages at 0xfffff000..0x100000000 are outside ram and get memory of their own, which no memory map lists"
    );
    let error = load(&[top], IgvmPayload::Linux, Machine::Linux).unwrap_err();
    assert!(error.contains("no -m puts memory there"), "{error}");
}

#[test]
fn variables_of_a_firmware_that_is_not_there_are_refused() {
    let (_dir, path) = written(&[image(Isolation::Vsm, nothing)]);
    let config = Config {
        nvram: Some("v".into()),
        ..config_of(&path, IgvmPayload::Auto(UefiSettings::default()), Machine::Plain)
    };
    let files = Files::open(&config.load).unwrap();
    let error = decide(&config, &files, &mut Notes::quiet()).err().unwrap();
    assert!(
        format!("{error:#}").ends_with(
            "--nvram keeps the variables of Microsoft's UEFI, and this is the plain machine; drop --nvram"
        ),
        "{error:#}"
    );
}

#[test]
fn auto_says_what_it_decided() {
    let (notes, machine) = load(
        &[image(Isolation::Vsm, nothing)],
        IgvmPayload::Auto(UefiSettings::default()),
        Machine::Plain,
    )
    .unwrap();
    assert_eq!(machine, Machine::Plain);
    assert!(
        notes[1].starts_with("type=auto decided type=generic ("),
        "{}",
        notes[1]
    );
}

#[test]
fn files_that_cannot_be_launched_say_why_and_what_to_do() {
    let vtl2 = || {
        let mut plan = image(Isolation::Vsm, nothing);
        plan.facts.highest_vtl = 2;
        plan
    };
    let required = || {
        image(Isolation::Vsm, |b| {
            b.expect_memory(
                ExpectMemory {
                    gpa: 0,
                    len: 0x800_0000,
                    vtl2_protectable: false,
                },
                HERE,
            )
            .unwrap();
        })
    };
    let no_context = || {
        let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::X64));
        page(&mut builder, 0x10_0000);
        builder.finish()
    };
    for (plans, payload, machine, message) in [
        (
            vec![vtl2()],
            IgvmPayload::Generic,
            Machine::Plain,
            "x.bin: no platform of the file can be launched without isolation, which takes native, or vsm at vtl 0 \
             (vsm: it needs vtl2 (OpenHCL), which is not available on this hypervisor)",
        ),
        (
            vec![image(Isolation::Snp, nothing), image(Isolation::Sev, nothing)],
            IgvmPayload::Generic,
            Machine::Plain,
            "x.bin: no platform of the file can be launched without isolation, which takes native, or vsm at vtl 0 \
             (snp: it needs isolation, and the launch has none; sev: it needs isolation, and the launch has none)",
        ),
        (
            vec![image(Isolation::Vsm, nothing)],
            IgvmPayload::OpenHcl,
            Machine::Plain,
            "x.bin: type=openhcl: OpenHCL runs in vtl2, which is not available on this hypervisor; boot the vtl0 \
             payload itself, for example with --igvm type=uefi,path=FILE",
        ),
        (
            vec![no_context()],
            uefi(),
            Machine::HyperV,
            "x.bin: the file has no context for the boot processor, so nothing would start the firmware",
        ),
    ] {
        assert_eq!(load(&plans, payload, machine).unwrap_err(), message);
    }
    let error = load(&[required()], uefi(), Machine::HyperV).unwrap_err();
    assert!(
        error.ends_with(
            "the image requires memory at 0x0..0x8000000, but there is none at 0x4000000..0x8000000; -m 128M fits it"
        ),
        "{error}"
    );
}

#[test]
fn aarch64_files_are_refused_by_name() {
    let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::Aarch64));
    page(&mut builder, 0x10_0000);
    let message = "x.bin: the file is for aarch64 guests, and this program runs x86-64 guests";
    assert_eq!(
        load(&[builder.finish()], IgvmPayload::Generic, Machine::Plain).unwrap_err(),
        message
    );
}

#[test]
fn files_that_are_no_igvm_files_are_refused_with_their_name() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [("empty", &b""[..]), ("short", b"IGVM"), ("text", &[b'x'; 4096])] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = load_file(&path, IgvmPayload::Generic, Machine::Plain).unwrap_err();
        assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
    }
    let missing = dir.path().join("missing");
    assert_eq!(
        load_file(&missing, IgvmPayload::Generic, Machine::Plain).unwrap_err(),
        format!(
            "cannot open {}: No such file or directory (os error 2)",
            missing.display()
        )
    );
}

#[test]
fn an_isolated_request_never_becomes_a_plain_launch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, b"x").unwrap();
    let load = LoadMode::Ovmf {
        firmware: path,
        direct: None,
    };
    let config = Config {
        isolation: IsolationRequest::Snp,
        load,
        ..testing::config()
    };
    let files = Files::open(&config.load).unwrap();
    let error = decide(&config, &files, &mut Notes::quiet())
        .map(drop)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Snp isolation was asked for, and only igvm files are launched isolated"
    );
}
