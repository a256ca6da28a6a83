// SPDX-License-Identifier: MIT
//! From the command line to a [`Config`]: which options go together, defaults that depend on others, and
//! the environment variables that serve `--uefi`.
//!
//! Always true: a [`Launch`] that exists is free of conflicts; an IGVM launch reads no environment
//! variable. Not here: reading files, choosing the hypervisor.

mod conflicts;
mod devices;

use crate::cli::{
    Cli, IgvmArg, IgvmType, Personality, RunArgs, SerialArgs, SevSettings, TraceFilter, TraceKind, UefiArgs,
};
use openvmm_core::TraceOptions;
use openvmm_core::entropy::{self, EntropySource};
use openvmm_defs::{
    Config, EndActions, IgvmPayload, IsolationRequest, KernelFiles, LoadMode, Machine, SerialBackend,
    UefiConsoleMode, UefiSettings, Vtl2Base,
};
use std::ffi::OsString;
use std::path::PathBuf;
use uuid::Uuid;

/// A command line that cannot be carried out as written. Exit code 2.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// What the command line asks of the process.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The VM.
    pub(crate) config: Config,
    /// Random bytes for the VM; its GUID has been drawn from here.
    pub(crate) entropy: EntropySource,
    /// `--hypervisor`.
    pub(crate) hypervisor: String,
    /// `--isolation` and `--sev-model`.
    pub(crate) isolated: Option<Isolated>,
    /// `--dry-run`.
    pub(crate) dry_run: bool,
    /// `--report`.
    pub(crate) report: Option<PathBuf>,
    /// `--gdb`.
    pub(crate) gdb: Option<u16>,
    /// `--trace`.
    pub(crate) trace: Option<TraceOptions>,
}

/// An isolated launch.
#[derive(Debug)]
pub(crate) struct Isolated {
    /// The platform; one that is launched.
    pub(crate) kind: IsolationRequest,
    /// Its settings.
    pub(crate) sev: SevSettings,
    /// The model to launch on, instead of this machine.
    pub(crate) model: Option<String>,
}

/// The trace that the filters ask for; each kind's last filter counts.
fn trace_options(file: PathBuf, filters: &[TraceFilter]) -> TraceOptions {
    let last = |kind| filters.iter().rfind(|f| f.kind == kind).map(|f| f.range.clone());
    let by_default = filters.is_empty().then_some(0..=u64::MAX);
    TraceOptions {
        file,
        instructions: last(TraceKind::Instructions),
        exceptions: filters.is_empty() || last(TraceKind::Exceptions).is_some(),
        ports: last(TraceKind::Ports).or(by_default.clone()),
        mmio: last(TraceKind::Mmio).or(by_default),
    }
}

/// Reads an environment variable.
pub(crate) type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// Checks and completes the command line. `env` is only asked for what `--uefi` needs.
pub(crate) fn from_cli(cli: Cli, env: Environment<'_>) -> anyhow::Result<Launch> {
    conflicts::check(&cli).map_err(UsageError)?;
    let virtio_console = cli.devices.virtio_console.as_ref();
    let com = com_ports(&cli.serial, virtio_console).map_err(UsageError)?;
    let has_terminal = com
        .iter()
        .chain(virtio_console)
        .any(|backend| *backend == SerialBackend::Console);
    if cli.run.paused && !has_terminal {
        let text = "--paused needs a serial port with the backend console, because resume is typed at its Ctrl-Q \
                    prompt; add --com1 console or drop --paused";
        return Err(UsageError(text.into()).into());
    }
    let settings = UefiSettings {
        vmbus: !cli.machine.no_vmbus,
        tpm: cli.machine.tpm.is_some(),
        ..uefi_settings(&cli.uefi, &com, cli.devices.gfx)
    };
    let cmdline = cli.boot.cmdline.join(" ");
    let load = match (cli.boot.igvm, cli.boot.ovmf, cli.boot.kernel) {
        (Some(igvm), ..) => LoadMode::Igvm {
            payload: payload(&igvm, cli.boot.igvm_personality, settings),
            path: igvm.path,
            relocation: cli.boot.igvm_vtl2_relocation_type.unwrap_or(Vtl2Base::File),
            cmdline,
        },
        (None, Some(firmware), kernel) => LoadMode::Ovmf {
            firmware,
            direct: kernel.map(|kernel| KernelFiles {
                kernel,
                initrd: cli.boot.initrd,
                cmdline,
            }),
        },
        (None, None, Some(kernel)) => LoadMode::Linux {
            kernel,
            initrd: cli.boot.initrd,
            cmdline,
        },
        (None, None, None) => LoadMode::Uefi {
            firmware: uefi_firmware(cli.boot.uefi_firmware, env)?,
            settings,
        },
    };
    let mut entropy = EntropySource::new(cli.machine.deterministic);
    let hv_kernel = cli.machine.hv && matches!(load, LoadMode::Linux { .. });
    let mut devices = cli.devices;
    let isolated = cli.machine.isolation.kind != IsolationRequest::None;
    let hyperv = hv_kernel || machine(&load) == Machine::HyperV;
    let deterministic = cli.machine.deterministic.is_some();
    let may_vmbus = !isolated && !cli.machine.no_vmbus;
    let if_uefi = (may_vmbus && is_auto(&load))
        .then(|| devices::if_uefi(devices.clone(), deterministic))
        .transpose()
        .map_err(UsageError)?;
    let vmbus = (hyperv && may_vmbus)
        .then(|| devices::vmbus(&mut devices, deterministic, hv_kernel))
        .transpose()
        .map_err(UsageError)?;
    let mut pci = devices::pci(devices, deterministic).map_err(UsageError)?;
    if hv_kernel && vmbus.as_ref().is_some_and(|vmbus| vmbus.gfx.is_some()) {
        devices::add_video(&mut pci);
    }
    let config = Config {
        machine: if hyperv { Machine::HyperV } else { machine(&load) },
        test_exit: cli.machine.test_exit
            || matches!(
                load,
                LoadMode::Igvm {
                    payload: IgvmPayload::Test,
                    ..
                }
            ),
        load,
        memory: cli.machine.memory,
        processors: cli.machine.processors,
        isolation: cli.machine.isolation.kind,
        com,
        pci,
        vmbus,
        if_uefi,
        vars: cli.boot.vars,
        nvram: cli.boot.nvram,
        tpm: cli.machine.tpm,
        on: end_actions(&cli.run),
        bios_guid: bios_guid(&mut entropy)?,
        deterministic: cli.machine.deterministic,
        paused: cli.run.paused,
    };
    Ok(Launch {
        config,
        entropy,
        hypervisor: cli.machine.hypervisor,
        isolated: isolated.then_some(Isolated {
            kind: cli.machine.isolation.kind,
            sev: cli.machine.isolation.sev,
            model: cli.machine.sev_model,
        }),
        dry_run: cli.run.dry_run,
        report: cli.run.report,
        gdb: cli.run.gdb,
        trace: cli
            .run
            .trace
            .map(|file| trace_options(file, &cli.run.trace_filter)),
    })
}

/// COM1 is the console unless it, another port or the virtio console was told otherwise.
fn com_ports(serial: &SerialArgs, virtio: Option<&SerialBackend>) -> Result<[SerialBackend; 4], String> {
    let given = [&serial.com1, &serial.com2, &serial.com3, &serial.com4];
    let names = ["COM1", "COM2", "COM3", "COM4", "the virtio console"];
    let backends = given.into_iter().map(Option::as_ref).chain([virtio]);
    let mut consoles = names
        .into_iter()
        .zip(backends)
        .filter(|(_, b)| *b == Some(&SerialBackend::Console))
        .map(|(name, _)| name);
    let (first, second) = (consoles.next(), consoles.next());
    if let (Some(first), Some(second)) = (first, second) {
        return Err(format!(
            "{first} and {second} are both console, but there is one terminal; give one of them another backend"
        ));
    }
    let mut com = given.map(|b| b.clone().unwrap_or_default());
    if serial.com1.is_none() && first.is_none() {
        com[0] = SerialBackend::Console;
    }
    Ok(com)
}

fn uefi_settings(args: &UefiArgs, com: &[SerialBackend; 4], gfx: bool) -> UefiSettings {
    let default_mode = if gfx || com[0] == SerialBackend::None {
        UefiConsoleMode::Default
    } else {
        UefiConsoleMode::Com1
    };
    UefiSettings {
        debug: args.uefi_debug,
        memory_protections: args.uefi_enable_memory_protections,
        force_dma_bounce: args.uefi_force_dma_bounce,
        disable_frontpage: args.disable_frontpage,
        default_boot_always_attempt: args.default_boot_always_attempt,
        console_mode: args.uefi_console_mode.map_or(default_mode, Into::into),
        battery: args.battery,
        watchdog: args.guest_watchdog,
        secure_boot: args.secure_boot,
        secure_boot_template: args.secure_boot_template.clone(),
        serial: com.iter().any(|b| *b != SerialBackend::None),
        pci_preassigned: !args.uefi_enumerate_pci,
        log_level: args
            .efi_diagnostics_log_level
            .map_or_else(Default::default, Into::into),
        ..UefiSettings::default()
    }
}

fn payload(igvm: &IgvmArg, personality: Option<Personality>, settings: UefiSettings) -> IgvmPayload {
    match (igvm.kind, personality) {
        (Some(IgvmType::Uefi), _) | (None, Some(Personality::Uefi)) => IgvmPayload::Uefi(settings),
        (Some(IgvmType::Linux), _) | (None, Some(Personality::LinuxDirect)) => IgvmPayload::Linux,
        (Some(IgvmType::Test), _) => IgvmPayload::Test,
        (Some(IgvmType::Auto), _) => IgvmPayload::Auto(settings),
        (Some(IgvmType::OpenHcl), _) => IgvmPayload::OpenHcl,
        (Some(IgvmType::Ovmf), _) => IgvmPayload::Ovmf,
        (None, None) => IgvmPayload::Generic,
    }
}

/// Whether the file decides on the machine.
fn is_auto(load: &LoadMode) -> bool {
    matches!(
        load,
        LoadMode::Igvm {
            payload: IgvmPayload::Auto(_),
            ..
        }
    )
}

/// The machine that a payload asks for. `type=auto` is decided from the file, later.
fn machine(load: &LoadMode) -> Machine {
    match load {
        LoadMode::Uefi { .. }
        | LoadMode::Igvm {
            payload: IgvmPayload::Uefi(_),
            ..
        } => Machine::HyperV,
        LoadMode::Linux { .. }
        | LoadMode::Igvm {
            payload: IgvmPayload::Linux,
            ..
        } => Machine::Linux,
        LoadMode::Ovmf { .. }
        | LoadMode::Igvm {
            payload: IgvmPayload::Ovmf,
            ..
        } => Machine::Ovmf,
        LoadMode::Igvm { .. } => Machine::Plain,
    }
}

fn uefi_firmware(given: Option<PathBuf>, env: Environment<'_>) -> Result<PathBuf, UsageError> {
    given
        .or_else(|| env("X86_64_OPENVMM_UEFI_FIRMWARE").map(PathBuf::from))
        .or_else(|| env("OPENVMM_UEFI_FIRMWARE").map(PathBuf::from))
        .filter(|path| !path.as_os_str().is_empty())
        .ok_or_else(|| {
            let text = "--uefi needs a firmware; add --uefi-firmware FILE or set OPENVMM_UEFI_FIRMWARE";
            UsageError(text.into())
        })
}

fn end_actions(run: &RunArgs) -> EndActions {
    EndActions {
        shutdown: run.guest_shutdown_action.resolve(0),
        reset: run.guest_reset_action.resolve(0),
        crash: run.guest_crash_action.resolve(3),
    }
}

fn bios_guid(source: &mut EntropySource) -> Result<Uuid, entropy::EntropyError> {
    let mut bytes = [0; 16];
    source.fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

#[cfg(test)]
mod tests;
