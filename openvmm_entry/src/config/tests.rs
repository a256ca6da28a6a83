// SPDX-License-Identifier: MIT
//! Command lines, good and bad, from argv to a configuration or a message.

use super::*;
use clap::Parser;
use openvmm_defs::{EndAction, FirmwareLogLevel, IsolationRequest};

fn no_env(name: &str) -> Option<OsString> {
    panic!("this command line must not read {name}")
}

fn parse_with(args: &str, env: Environment<'_>) -> Result<Launch, String> {
    let argv = std::iter::once("openvmm").chain(args.split_whitespace());
    let cli = Cli::try_parse_from(argv).map_err(|e| first_line(&e.render().to_string()))?;
    from_cli(cli, env).map_err(|e| {
        assert!(e.is::<UsageError>(), "exits with 2");
        e.to_string()
    })
}

/// clap's message without its usage text.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn parse(args: &str) -> Launch {
    parse_with(args, &no_env).unwrap()
}

fn igvm(args: &str) -> (IgvmPayload, Vtl2Base, String) {
    match parse(args).config.load {
        LoadMode::Igvm {
            payload,
            relocation,
            cmdline,
            ..
        } => (payload, relocation, cmdline),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_uefi_igvm_gets_the_hyper_v_machine_and_the_default_settings() {
    let launch = parse("--igvm type=uefi,path=x.bin -m 2GB -p 1");
    let c = launch.config;
    assert_eq!((c.memory, c.processors, c.machine), (2 << 30, 1, Machine::HyperV));
    assert_eq!(c.isolation, IsolationRequest::None);
    assert_eq!(c.on, EndActions::default());
    assert_eq!(c.com[0], SerialBackend::Console);
    assert!(c.com[1..].iter().all(|b| *b == SerialBackend::None));
    assert_eq!(launch.hypervisor, "auto");
    let LoadMode::Igvm {
        payload: IgvmPayload::Uefi(settings),
        relocation,
        ..
    } = c.load
    else {
        panic!()
    };
    assert_eq!(relocation, Vtl2Base::File);
    assert_eq!(
        settings,
        UefiSettings {
            serial: true,
            console_mode: UefiConsoleMode::Com1,
            vmbus: true,
            pci_preassigned: true,
            ..UefiSettings::default()
        }
    );
}

#[test]
fn every_type_has_its_machine() {
    for (args, machine) in [
        ("--igvm x.bin", Machine::Plain),
        ("--igvm type=auto,path=x", Machine::Plain),
        ("--igvm type=test,path=x", Machine::Plain),
        ("--igvm type=openhcl,path=x", Machine::Plain),
        ("--igvm type=linux,path=x", Machine::Linux),
        ("--igvm x --igvm-personality linux-direct", Machine::Linux),
        ("--igvm x --igvm-personality uefi", Machine::HyperV),
        ("--igvm type=ovmf,path=x", Machine::Ovmf),
        ("--ovmf x.fd", Machine::Ovmf),
        ("-k bzImage -r initrd -c a=b", Machine::Linux),
        ("--uefi --uefi-firmware x.fd", Machine::HyperV),
    ] {
        assert_eq!(parse(args).config.machine, machine, "{args}");
    }
}

#[test]
fn personality_and_type_say_the_same() {
    let direct = igvm("--igvm type=uefi,path=x --disable-frontpage");
    assert_eq!(
        igvm("--igvm x --igvm-personality uefi --disable-frontpage"),
        direct
    );
    assert_eq!(
        igvm("--igvm x --igvm-personality linux-direct").0,
        IgvmPayload::Linux
    );
    assert_eq!(igvm("--igvm x").0, IgvmPayload::Generic);
}

#[test]
fn a_uefi_igvm_accepts_disable_as_its_only_relocation() {
    assert_eq!(
        igvm("--igvm type=uefi,path=x --igvm-vtl2-relocation-type disable").1,
        Vtl2Base::File
    );
    assert_eq!(
        igvm("--igvm x --igvm-vtl2-relocation-type absolute=0x4000000").1,
        Vtl2Base::Absolute(0x400_0000)
    );
    assert_eq!(
        igvm("--igvm x --igvm-vtl2-relocation-type auto=filesize").1,
        Vtl2Base::MemoryLayout(None)
    );
}

#[test]
fn uefi_switches_work_with_both_forms_and_mean_the_same() {
    let switches = "--uefi-debug --disable-frontpage --uefi-console-mode com2 --default-boot-always-attempt \
                    --uefi-enable-memory-protections --uefi-force-dma-bounce --uefi-enumerate-pci --com2 none \
                    --com1 none --efi-diagnostics-log-level info";
    let direct = match parse(&format!("--uefi --uefi-firmware f.fd {switches}"))
        .config
        .load
    {
        LoadMode::Uefi { settings, .. } => settings,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        direct,
        UefiSettings {
            debug: true,
            memory_protections: true,
            force_dma_bounce: true,
            disable_frontpage: true,
            default_boot_always_attempt: true,
            console_mode: UefiConsoleMode::Com2,
            serial: false,
            vmbus: true,
            pci_preassigned: false,
            log_level: FirmwareLogLevel::Info,
            ..UefiSettings::default()
        }
    );
    assert_eq!(
        igvm(&format!("--igvm type=uefi,path=x {switches}")).0,
        IgvmPayload::Uefi(direct.clone())
    );
    assert_eq!(
        igvm(&format!("--igvm type=auto,path=x {switches}")).0,
        IgvmPayload::Auto(direct)
    );
}

#[test]
fn the_console_is_com1_unless_another_port_has_it() {
    let com = parse("--igvm x --com2 console").config.com;
    assert_eq!(com[..2], [SerialBackend::None, SerialBackend::Console]);
    let com = parse("--igvm x --com3 stderr").config.com;
    assert_eq!(
        (&com[0], &com[2]),
        (&SerialBackend::Console, &SerialBackend::Stderr)
    );
}

#[test]
fn end_actions_take_their_own_default_codes() {
    let on =
        parse("--igvm x --guest-shutdown-action exit --guest-reset-action halt --guest-crash-action exit")
            .config
            .on;
    assert_eq!(
        (on.shutdown, on.reset, on.crash),
        (EndAction::Exit(0), EndAction::Halt, EndAction::Exit(3))
    );
    let on = parse(
        "--igvm x --guest-shutdown-action reset --guest-reset-action exit:9 --guest-crash-action reset",
    )
    .config
    .on;
    assert_eq!(
        (on.shutdown, on.reset, on.crash),
        (EndAction::Reset, EndAction::Exit(9), EndAction::Reset)
    );
}

#[test]
fn the_test_type_brings_the_exit_device_and_any_other_can_ask_for_it() {
    assert!(parse("--igvm type=test,path=x").config.test_exit);
    assert!(parse("--igvm x --test-exit").config.test_exit);
    assert!(!parse("--igvm x").config.test_exit);
}

#[test]
fn command_line_pieces_are_joined() {
    assert_eq!(igvm("--igvm x -c a=b --cmdline -c").2, "a=b -c");
}

#[test]
fn guids_differ_between_vms_and_repeat_with_a_seed() {
    assert_ne!(
        parse("--igvm x").config.bios_guid,
        parse("--igvm x").config.bios_guid
    );
    let seeded = |seed: &str| parse(&format!("--igvm x --deterministic{seed}")).config;
    assert_eq!(seeded("=5").bios_guid, seeded("=5").bios_guid);
    assert_ne!(seeded("=5").bios_guid, seeded("").bios_guid);
    assert_eq!(seeded("").deterministic, Some(0));
    assert_eq!(seeded("=5").bios_guid.get_version_num(), 4);
}

#[test]
fn the_firmware_variables_serve_direct_uefi_only() {
    let firmware = |args: &str, env: Environment<'_>| match parse_with(args, env)?.config.load {
        LoadMode::Uefi { firmware, .. } => Ok(firmware),
        other => Err(format!("{other:?}")),
    };
    let general = |name: &str| (name == "OPENVMM_UEFI_FIRMWARE").then(|| "general.fd".into());
    let both = |name: &str| match name {
        "X86_64_OPENVMM_UEFI_FIRMWARE" => Some("x64.fd".into()),
        "OPENVMM_UEFI_FIRMWARE" => Some("general.fd".into()),
        other => panic!("{other}"),
    };
    assert_eq!(firmware("--uefi", &general), Ok("general.fd".into()));
    assert_eq!(firmware("--uefi", &both), Ok("x64.fd".into()));
    assert_eq!(
        firmware("--uefi --uefi-firmware given.fd", &no_env),
        Ok("given.fd".into())
    );
    let missing = "--uefi needs a firmware; add --uefi-firmware FILE or set OPENVMM_UEFI_FIRMWARE";
    assert_eq!(firmware("--uefi", &|_| None), Err(missing.into()));
    assert_eq!(
        firmware("--uefi", &|_| Some(OsString::new())),
        Err(missing.into())
    );
}

/// Bad command lines and their exact messages. Values that clap refuses carry its prefix.
const BAD: &[(&str, &str)] = include!("tests/bad.in");

#[test]
fn every_bad_command_line_has_its_own_message() {
    for (args, message) in BAD {
        match parse_with(args, &no_env) {
            Err(text) => assert_eq!(text, *message, "{args}"),
            Ok(_) => panic!("accepted: {args}"),
        }
    }
    assert!(BAD.len() >= 60, "{}", BAD.len());
}

#[test]
fn disks_and_networks_go_to_vmbus_where_there_is_vmbus() {
    let places = |args: &str| {
        let config = parse(args).config;
        let scsi = config.vmbus.map(|vmbus| (vmbus.scsi.len(), vmbus.nics.len()));
        let told = match config.load {
            LoadMode::Igvm {
                payload: IgvmPayload::Uefi(settings) | IgvmPayload::Auto(settings),
                ..
            } => Some(settings.vmbus),
            _ => None,
        };
        (scsi, config.pci.devices.len(), told)
    };
    let uefi = "--igvm type=uefi,path=x.bin";
    let devices = "--disk a --disk b,on=n --virtio-blk c --nvme-pci id=n --net tap:t";
    assert_eq!(places(uefi), (Some((0, 0)), 0, Some(true)));
    assert_eq!(
        places(&format!("{uefi} {devices}")),
        (Some((1, 1)), 2, Some(true))
    );
    assert_eq!(
        places(&format!("{uefi} {devices} --no-vmbus")),
        (None, 4, Some(false))
    );
    assert_eq!(
        places(&format!("--kernel k --hv {devices}")),
        (Some((1, 1)), 2, None)
    );
    assert_eq!(
        places(&format!("--kernel k --hv --no-vmbus {devices}")),
        (None, 4, None)
    );
    assert_eq!(places(&format!("--kernel k {devices}")), (None, 4, None));
}

#[test]
fn file_that_decides_on_the_machine_decides_on_the_devices_places() {
    let devices = "--disk a --disk b,on=n --virtio-blk c --nvme-pci id=n --net tap:t";
    let places = |args: &str, machine| {
        let mut config = parse(&format!("--igvm type=auto,path=x.bin {devices} {args}")).config;
        config.decide(machine);
        let scsi = config.vmbus.map(|vmbus| (vmbus.scsi.len(), vmbus.nics.len()));
        (config.machine, scsi, config.pci.devices.len())
    };
    let (uefi, ovmf) = (Machine::HyperV, Machine::Ovmf);
    assert_eq!(places("", uefi), (uefi, Some((1, 1)), 2));
    assert_eq!(places("", ovmf), (ovmf, None, 4));
    assert_eq!(places("--no-vmbus", uefi), (uefi, None, 4));
    assert_eq!(places("--isolation snp", uefi), (uefi, None, 4));
}
