// SPDX-License-Identifier: MIT
//! Every pair of options that does not go together, one line each: when it applies, and the message,
//! which says the way out. The first that applies is reported.

use crate::cli::{Cli, IgvmType, isolation};
use openvmm_defs::{IsolationRequest, Vtl2Base};
use std::path::Path;

/// When a rule applies, and what to say then.
type Rule = (fn(&Cli) -> bool, &'static str);

/// Refuses the first conflict.
pub(super) fn check(cli: &Cli) -> Result<(), String> {
    if let Some((name, why)) = cli.refused.first() {
        return Err(format!("{name}: {why}"));
    }
    if let Some((_, message)) = SOURCES
        .iter()
        .chain(IGVM)
        .chain(MACHINE)
        .find(|(applies, _)| applies(cli))
    {
        return Err((*message).into());
    }
    uefi_switches(cli)?;
    isolation(cli)
}

/// What to boot.
const SOURCES: &[Rule] = &[
    (
        |c| c.boot.igvm.is_some() && c.boot.uefi,
        "--igvm and --uefi cannot be combined: --uefi boots a firmware file directly; for firmware inside an igvm \
         file drop --uefi and write --igvm type=uefi,path=FILE",
    ),
    (
        |c| c.boot.igvm.is_some() && c.boot.uefi_firmware.is_some(),
        "--uefi-firmware cannot be combined with --igvm: the firmware of an igvm launch is in its file; drop \
         --uefi-firmware",
    ),
    (
        |c| c.boot.igvm.is_some() && c.boot.ovmf.is_some(),
        "--ovmf cannot be combined with --igvm: it boots a firmware file directly; for OVMF inside an igvm file \
         drop --ovmf and write --igvm type=ovmf,path=FILE",
    ),
    (
        |c| c.boot.igvm.is_some() && c.boot.kernel.is_some(),
        "--kernel cannot be combined with --igvm: an igvm file brings its own code; drop one of them",
    ),
    (
        |c| c.boot.igvm.is_some() && c.boot.initrd.is_some(),
        "--initrd cannot be combined with --igvm: an igvm file brings its own initrd; drop --initrd, or build the \
         initrd into the file",
    ),
    (
        |c| c.boot.uefi && c.boot.kernel.is_some(),
        "--kernel cannot be combined with --uefi: each is a way to boot; drop one of them",
    ),
    (
        |c| c.boot.uefi && c.boot.ovmf.is_some(),
        "--ovmf cannot be combined with --uefi: --uefi is Microsoft's firmware; drop one of them",
    ),
    (
        |c| !c.boot.uefi && c.boot.uefi_firmware.is_some(),
        "--uefi-firmware is the file of a direct UEFI boot; add --uefi",
    ),
    (
        |c| c.boot.kernel.is_none() && c.boot.initrd.is_some(),
        "--initrd belongs to a direct Linux boot; add --kernel FILE",
    ),
    (
        |c| {
            c.boot.vars.is_some()
                && c.boot.ovmf.is_none()
                && !matches!(c.igvm_type(), Some(IgvmType::Ovmf | IgvmType::Auto))
        },
        "--vars keeps the variables of OVMF; add --ovmf FILE or --igvm type=ovmf,path=FILE, or drop --vars",
    ),
    (
        |c| {
            c.boot.nvram.is_some()
                && !c.boot.uefi
                && !c.igvm_is_uefi()
                && c.igvm_type() != Some(IgvmType::Auto)
        },
        "--nvram keeps the variables of Microsoft's UEFI; add --uefi or --igvm type=uefi,path=FILE, or drop --nvram",
    ),
    (
        |c| c.boot.igvm_personality.is_some() && c.boot.igvm.is_none(),
        "--igvm-personality says what is in an igvm file; add --igvm FILE",
    ),
    (
        |c| c.boot.igvm_vtl2_relocation_type.is_some() && c.boot.igvm.is_none(),
        "--igvm-vtl2-relocation-type says where an igvm file loads; add --igvm FILE",
    ),
    (
        |c| c.boot.igvm.is_none() && !c.boot.uefi && c.boot.kernel.is_none() && c.boot.ovmf.is_none(),
        "nothing to boot; add --igvm SPEC, --uefi, --kernel FILE or --ovmf FILE",
    ),
    (
        |c| !c.boot.cmdline.is_empty() && c.boot.igvm.is_none() && c.boot.kernel.is_none(),
        "--cmdline goes to a kernel or an igvm file, and this firmware boot takes none; drop --cmdline",
    ),
    (
        |c| c.boot.cmdline.iter().any(|piece| piece.contains('\0')),
        "--cmdline contains a NUL character; guests would see it cut off there",
    ),
];

/// How to load an IGVM file.
const IGVM: &[Rule] = &[
    (
        |c| c.boot.igvm_personality.is_some() && c.igvm_type().is_some(),
        "--igvm-personality repeats what type= in --igvm says; drop --igvm-personality",
    ),
    (
        |c| c.igvm_is_uefi() && c.relocates(),
        "--igvm-vtl2-relocation-type moves VTL2 payloads only, and a UEFI payload loads at the addresses in its \
         file; drop the option, or write disable",
    ),
    (
        |c| c.igvm_type().is_some_and(|t| t != IgvmType::OpenHcl) && c.relocates(),
        "--igvm-vtl2-relocation-type moves VTL2 payloads only, and this type loads at the addresses in its file; \
         drop the option, or write disable",
    ),
    (
        |c| c.boot.igvm_personality.is_some() && c.relocates(),
        "--igvm-vtl2-relocation-type moves VTL2 payloads only, and a file with a personality loads at the addresses \
         in it; drop the option, or write disable",
    ),
    (
        |c| {
            c.igvm_type().is_none()
                && matches!(c.boot.igvm_vtl2_relocation_type, Some(Vtl2Base::Vtl2Allocate(_)))
        },
        "--igvm-vtl2-relocation-type vtl2= lets VTL2 choose its memory, and VTL2 (OpenHCL) is not available on this \
         hypervisor; write auto=filesize, absolute=N or disable",
    ),
];

/// The machine.
const MACHINE: &[Rule] = &[
    (
        |c| c.devices.gfx && (c.machine.no_vmbus || !c.machine.hv && !c.boot.uefi && !c.igvm_is_uefi()),
        "--gfx puts screen and keyboard on VMBus, which this guest does not have; boot Microsoft's UEFI with --uefi or \
         --igvm type=uefi,path=FILE, or a kernel with -k FILE --hv, and drop --no-vmbus",
    ),
    (
        |c| c.machine.tpm.is_some() && c.machine.deterministic.is_some(),
        "--tpm cannot be combined with --deterministic, because swtpm's random numbers depend on more than the seed; \
         drop one of them",
    ),
    (
        |c| c.machine.tpm.is_some() && !c.machine.hv && !c.boot.uefi && !c.igvm_is_uefi(),
        "--tpm is a device of the Hyper-V machine; boot Microsoft's UEFI with --uefi or --igvm type=uefi,path=FILE, or \
         a kernel with -k FILE --hv, or drop --tpm",
    ),
    (
        |c| c.machine.deterministic.is_some() && c.machine.hypervisor == "kvm",
        "--deterministic cannot be combined with --hypervisor kvm, where time is the processor's; use --hypervisor \
         soft",
    ),
    (
        |c| {
            c.machine.hv
                && !c.boot.uefi
                && !c.igvm_is_uefi()
                && (c.boot.kernel.is_none() || c.boot.ovmf.is_some())
        },
        "--hv is for a kernel that is booted directly on the Hyper-V machine (Microsoft's UEFI has it anyway); \
         add -k FILE, or drop --hv",
    ),
    (
        |c| c.uefi.secure_boot && c.uefi.uefi_debug,
        "--secure-boot cannot be combined with --uefi-debug: the firmware stops itself when it finds both; drop one of \
         them",
    ),
    (
        |c| {
            let named = |name| {
                c.uefi
                    .secure_boot_template
                    .as_deref()
                    .is_some_and(|file| file == Path::new(name))
            };
            named("windows") || named("uefi-ca")
        },
        "--secure-boot-template takes a file here, because no certificates are part of this program; name a variable \
         store such as /usr/share/OVMF/OVMF_VARS_4M.ms.fd",
    ),
    (
        |c| {
            c.machine.no_vmbus
                && !c.machine.hv
                && !c.boot.uefi
                && !c.igvm_is_uefi()
                && c.igvm_type() != Some(IgvmType::Auto)
        },
        "--no-vmbus takes VMBus from the Hyper-V machine, and this guest gets another one; drop --no-vmbus",
    ),
];

impl Cli {
    fn igvm_type(&self) -> Option<IgvmType> {
        self.boot.igvm.as_ref().and_then(|igvm| igvm.kind)
    }

    fn igvm_is_uefi(&self) -> bool {
        self.igvm_type() == Some(IgvmType::Uefi)
            || self.boot.igvm_personality == Some(crate::cli::Personality::Uefi)
    }

    /// A relocation was asked for, other than "disable".
    fn relocates(&self) -> bool {
        self.boot
            .igvm_vtl2_relocation_type
            .is_some_and(|base| base != Vtl2Base::File)
    }
}

fn uefi_switches(cli: &Cli) -> Result<(), String> {
    if cli.boot.uefi || cli.igvm_is_uefi() || cli.igvm_type() == Some(IgvmType::Auto) {
        return Ok(());
    }
    refuse_given(&uefi_settings(cli), |name| {
        format!(
            "{name} is a setting of Microsoft's UEFI; boot it with --uefi or --igvm type=uefi,path=FILE, or drop {name}"
        )
    })
}

/// The settings of the configuration blob, and which were given.
fn uefi_settings(cli: &Cli) -> [(bool, &'static str); 12] {
    let args = &cli.uefi;
    [
        (args.uefi_debug, "--uefi-debug"),
        (
            args.uefi_enable_memory_protections,
            "--uefi-enable-memory-protections",
        ),
        (args.uefi_force_dma_bounce, "--uefi-force-dma-bounce"),
        (args.uefi_enumerate_pci, "--uefi-enumerate-pci"),
        (args.disable_frontpage, "--disable-frontpage"),
        (args.default_boot_always_attempt, "--default-boot-always-attempt"),
        (args.battery, "--battery"),
        (args.guest_watchdog, "--guest-watchdog"),
        (args.uefi_console_mode.is_some(), "--uefi-console-mode"),
        (
            args.efi_diagnostics_log_level.is_some(),
            "--efi-diagnostics-log-level",
        ),
        (args.secure_boot, "--secure-boot"),
        (args.secure_boot_template.is_some(), "--secure-boot-template"),
    ]
}

/// A confidential request is never carried out as something weaker, and nothing that it cannot have is
/// dropped silently.
fn isolation(cli: &Cli) -> Result<(), String> {
    let kind = cli.machine.isolation.kind;
    let name = isolation::name(kind);
    match kind {
        IsolationRequest::None if cli.machine.sev_model.is_some() => {
            return Err(
                "--sev-model is a model of hosts that launch encrypted guests; add --isolation snp, sev-es or sev".into(),
            );
        }
        IsolationRequest::None => return Ok(()),
        IsolationRequest::Sev | IsolationRequest::SevEs | IsolationRequest::Snp => {}
        IsolationRequest::Tdx | IsolationRequest::Vbs => {
            return Err(format!(
                "--isolation {name} is measure only: this program does not launch such guests; igvmtool measure FILE \
                 --platform {name} gives the launch digest"
            ));
        }
        IsolationRequest::Cca => {
            return Err(
                "--isolation cca is for AArch64 hosts and not launched by this program; igvmtool inspect and igvmtool check \
                 read such files"
                    .into(),
            );
        }
    }
    if cli.boot.igvm.is_none() {
        return Err(format!(
            "--isolation {name} needs an igvm file, whose pages, order and policy are measured; add --igvm FILE (igvmtool \
             wrap makes one from OVMF)"
        ));
    }
    if cli.igvm_type() == Some(IgvmType::OpenHcl) {
        return Err(format!(
            "--isolation {name} cannot be combined with type=openhcl, because vtl2 is not available on this hypervisor"
        ));
    }
    refuse_given(&uefi_settings(cli), |option| {
        format!(
            "{option} is a setting of the configuration blob, which an isolated guest does not get; drop {option}"
        )
    })?;
    if cli.machine.hypervisor != "auto" {
        return Err(format!(
            "--isolation {name} is launched through kvm alone; drop --hypervisor"
        ));
    }
    let run = &cli.run;
    let unused = [
        (cli.machine.deterministic.is_some(), "--deterministic"),
        (cli.machine.tpm.is_some(), "--tpm"),
        (cli.devices.gfx, "--gfx"),
        (run.gdb.is_some(), "--gdb"),
        (run.trace.is_some(), "--trace"),
        (run.paused, "--paused"),
        (cli.relocates(), "--igvm-vtl2-relocation-type"),
    ];
    refuse_given(&unused, |option| {
        format!(
            "{option} cannot be combined with --isolation {name}, which launches the guest at the file's addresses and does not run it yet; drop {option}"
        )
    })
}

/// Refuses the first option that was given.
fn refuse_given(options: &[(bool, &str)], message: impl Fn(&str) -> String) -> Result<(), String> {
    match options.iter().find(|(given, _)| *given) {
        None => Ok(()),
        Some((_, option)) => Err(message(option)),
    }
}
