// SPDX-License-Identifier: MIT
//! The command line, as typed.
//!
//! Always true: a value that parses is well formed by itself; which options go together is decided in
//! [`crate::config`], where every conflict has its own message. Options that OpenVMM has too are spelled
//! as there. Not here: defaults that depend on other options, files, environment variables.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "doc comments are help texts, brackets included"
)]

mod disk;
mod end_action;
mod igvm;
pub(crate) mod isolation;
mod net;
mod pcie;
mod refused;
mod relocation;
mod serial;
mod size;
mod trace;

pub(crate) use disk::DiskArg;
pub(crate) use end_action::EndActionArg;
pub(crate) use igvm::{IgvmArg, IgvmType};
pub(crate) use isolation::{IsolationArg, SevSettings};
pub(crate) use net::NetArg;
pub(crate) use pcie::NvmeArg;
pub(crate) use refused::RefusedArgs;
pub(crate) use trace::{TraceFilter, TraceKind};

use crate::backends;
use clap::{Args, Parser, ValueEnum};
use openvmm_defs::{
    FirmwareLogLevel, RootComplexConfig, SerialBackend, UefiConsoleMode, VsockConfig, Vtl2Base,
};
use std::path::PathBuf;

/// Boots a guest from an IGVM file, Microsoft's UEFI or a Linux kernel.
///
/// Example: openvmm --igvm type=uefi,path=uefi-x64.bin -m 2GB -p 1
#[derive(Debug, Parser)]
#[command(name = "openvmm", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten, next_help_heading = "What to boot")]
    pub(crate) boot: BootArgs,
    #[command(flatten, next_help_heading = "Microsoft's UEFI (--uefi and --igvm type=uefi)")]
    pub(crate) uefi: UefiArgs,
    #[command(flatten, next_help_heading = "Machine")]
    pub(crate) machine: MachineArgs,
    #[command(flatten, next_help_heading = "Disks and other devices")]
    pub(crate) devices: DeviceArgs,
    #[command(
        flatten,
        next_help_heading = "Serial ports: console, stderr, none, file=PATH, listen=PATH, listen=tcp:IP:PORT"
    )]
    pub(crate) serial: SerialArgs,
    #[command(flatten, next_help_heading = "Run")]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) refused: RefusedArgs,
}

/// What the guest starts from.
#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    /// IGVM file: type=uefi|linux|test|auto|openhcl|ovmf,path=FILE, or just FILE (write ./FILE if it
    /// begins with type= or path=; write path=[FILE] if it contains commas).
    #[arg(long, value_name = "SPEC", value_parser = igvm::parse)]
    pub(crate) igvm: Option<IgvmArg>,
    /// Another way to say the type of a bare --igvm FILE.
    #[arg(long, value_name = "TYPE")]
    pub(crate) igvm_personality: Option<Personality>,
    /// Where VTL2 goes: disable, auto=filesize|SIZE, absolute=N, vtl2=filesize|SIZE.
    #[arg(long, value_name = "WHERE", value_parser = relocation::parse)]
    pub(crate) igvm_vtl2_relocation_type: Option<Vtl2Base>,
    /// Boot Microsoft's UEFI directly.
    #[arg(short = 'e', long)]
    pub(crate) uefi: bool,
    /// MSVM.fd for --uefi; default: environment variable OPENVMM_UEFI_FIRMWARE.
    #[arg(long, value_name = "FILE")]
    pub(crate) uefi_firmware: Option<PathBuf>,
    /// Boot OVMF directly.
    #[arg(long, value_name = "FILE")]
    pub(crate) ovmf: Option<PathBuf>,
    /// Keeps the variables of OVMF in this file, which is made from the firmware image if it is not there.
    #[arg(long, value_name = "FILE")]
    pub(crate) vars: Option<PathBuf>,
    /// Keeps the variables of Microsoft's UEFI in this file, which is made if it is not there.
    #[arg(long, value_name = "FILE")]
    pub(crate) nvram: Option<PathBuf>,
    /// Boot a Linux kernel directly: bzImage, or ELF with a PVH note; with --ovmf, through the firmware.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Initial RAM disk for --kernel.
    #[arg(short = 'r', long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// Command line for --kernel and for IGVM files that ask for one; repeated pieces are joined by a space.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) cmdline: Vec<String>,
}

/// OpenVMM's merged spelling of the payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Personality {
    Uefi,
    LinuxDirect,
}

/// Settings that the firmware reads from its configuration blob.
#[derive(Debug, Args)]
pub(crate) struct UefiArgs {
    /// Source-level debugging in the firmware.
    #[arg(long)]
    pub(crate) uefi_debug: bool,
    /// Memory protections in the firmware (some boot loaders fault with them).
    #[arg(long)]
    pub(crate) uefi_enable_memory_protections: bool,
    /// Bounce all DMA.
    #[arg(long)]
    pub(crate) uefi_force_dma_bounce: bool,
    /// Leave it to the firmware to place the BARs of PCI devices, which otherwise have addresses when it starts.
    #[arg(long)]
    pub(crate) uefi_enumerate_pci: bool,
    /// Do not show the front page when nothing boots.
    #[arg(long)]
    pub(crate) disable_frontpage: bool,
    /// Try the default boot entries even when others exist.
    #[arg(long)]
    pub(crate) default_boot_always_attempt: bool,
    /// A battery for the guest, full until `battery` at the Ctrl-Q prompt says otherwise.
    #[arg(long)]
    pub(crate) battery: bool,
    /// A watchdog for the guest's operating system.
    #[arg(long)]
    pub(crate) guest_watchdog: bool,
    /// Secure boot: the firmware starts only what the keys among its variables allow.
    #[arg(long)]
    pub(crate) secure_boot: bool,
    /// Keys for a VM that has none: a variable store with PK, KEK and db, such as Debian's OVMF_VARS_4M.ms.fd.
    #[arg(long, value_name = "FILE")]
    pub(crate) secure_boot_template: Option<PathBuf>,
    /// Where the firmware's console is; default: com1 when COM1 is connected.
    #[arg(long, value_name = "MODE")]
    pub(crate) uefi_console_mode: Option<ConsoleModeArg>,
    /// Lines of the firmware's log that are shown; default: errors and warnings.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) efi_diagnostics_log_level: Option<LogLevelArg>,
}

/// `--efi-diagnostics-log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevelArg {
    Default,
    Info,
    Full,
}

impl From<LogLevelArg> for FirmwareLogLevel {
    fn from(level: LogLevelArg) -> Self {
        match level {
            LogLevelArg::Default => Self::Default,
            LogLevelArg::Info => Self::Info,
            LogLevelArg::Full => Self::Full,
        }
    }
}

/// `--uefi-console-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConsoleModeArg {
    Default,
    Com1,
    Com2,
    None,
}

impl From<ConsoleModeArg> for UefiConsoleMode {
    fn from(mode: ConsoleModeArg) -> Self {
        match mode {
            ConsoleModeArg::Default => Self::Default,
            ConsoleModeArg::Com1 => Self::Com1,
            ConsoleModeArg::Com2 => Self::Com2,
            ConsoleModeArg::None => Self::None,
        }
    }
}

/// The machine around the guest.
#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// RAM: SIZE or size=SIZE, with a suffix K, M, G or T.
    #[arg(short, long, value_name = "SIZE", default_value = "1GB", value_parser = size::parse_memory)]
    pub(crate) memory: u64,
    /// Number of virtual processors.
    #[arg(short, long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) processors: u32,
    /// How the guest is isolated from the host: none, sev, sev-es or snp, perhaps with ,policy=N
    /// ,cbitpos=N ,reduced-phys-bits=N and for snp ,host-data=HEX.
    #[arg(long, value_name = "KIND[,KEY=VALUE]", default_value = "none", value_parser = isolation::parse)]
    pub(crate) isolation: IsolationArg,
    /// Launch the isolated guest on a model of KVM and the security processor; HOST says which machine it is
    /// a model of.
    #[arg(
        long,
        value_name = "HOST",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = backends::usual_model(),
        value_parser = backends::models()
    )]
    pub(crate) sev_model: Option<String>,
    /// What runs the guest.
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = backends::names())]
    pub(crate) hypervisor: String,
    /// With --kernel: the Hyper-V machine, with its hypervisor interface and VMBus.
    #[arg(long)]
    pub(crate) hv: bool,
    /// The Hyper-V machine without VMBus.
    #[arg(long)]
    pub(crate) no_vmbus: bool,
    /// A TPM 2.0: the control socket of swtpm socket --tpm2 --tpmstate dir=FOLDER --ctrl type=unixio,path=SOCKET.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) tpm: Option<PathBuf>,
    /// Adds the test-exit device: a 32-bit write to port 0xF4 ends the run with its low 7 bits as exit code.
    #[arg(long)]
    pub(crate) test_exit: bool,
    /// Time, entropy and input that depend on SEED only.
    #[arg(long, value_name = "SEED", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub(crate) deterministic: Option<u64>,
}

/// Disks and other devices.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArgs {
    /// Disk image: [file:]PATH[,ro][,format=raw|qcow2] (write [PATH] if it contains commas): on VMBus SCSI
    /// where there is VMBus (Microsoft's UEFI, --hv), else a virtio-blk disk.
    #[arg(long, value_name = "SPEC", value_parser = disk::parse)]
    pub(crate) disk: Vec<DiskArg>,
    /// The same as --disk, whatever other controllers there are.
    #[arg(long, value_name = "SPEC", value_parser = disk::parse)]
    pub(crate) virtio_blk: Vec<DiskArg>,
    /// NVMe controller on PCIe: id=NAME[,rc=ROOT_COMPLEX]; disks are put on it with on=NAME.
    #[arg(long, value_name = "SPEC", value_parser = pcie::parse_nvme)]
    pub(crate) nvme_pci: Vec<NvmeArg>,
    /// PCIe root complex: NAME[,segment=N][,start_bus=N][,end_bus=N][,low_mmio=SIZE][,high_mmio=SIZE]; without one,
    /// devices go on an implicit one, or on the machine's own PCI bus.
    #[arg(long, value_name = "SPEC", value_parser = pcie::parse_root_complex)]
    pub(crate) pcie_root_complex: Vec<RootComplexConfig>,
    /// Network interface: tap:NAME, or none; on VMBus where there is VMBus, else virtio-net.
    #[arg(long, value_name = "BACKEND", value_parser = net::parse)]
    pub(crate) net: Vec<NetArg>,
    /// The same as --net, always as virtio-net.
    #[arg(long, value_name = "BACKEND", value_parser = net::parse)]
    pub(crate) virtio_net: Vec<NetArg>,
    /// A screen and a keyboard on VMBus, shown by a VNC server on 127.0.0.1.
    #[arg(long)]
    pub(crate) gfx: bool,
    /// The VNC server's port; 0 is any that is free, and the log says which.
    #[arg(long, value_name = "PORT", default_value_t = 5900, requires = "gfx")]
    pub(crate) vnc_port: u16,
    /// Entropy device.
    #[arg(long)]
    pub(crate) virtio_rng: bool,
    /// Sockets to and from the guest: PATH[,cid=N]; programs connect to PATH, and the guest to PATH_PORT.
    #[arg(long, value_name = "SPEC", value_parser = net::parse_vsock)]
    pub(crate) virtio_vsock: Option<VsockConfig>,
    /// Virtio console; backends as for --com1.
    #[arg(long, value_name = "BACKEND", value_parser = serial::parse)]
    pub(crate) virtio_console: Option<SerialBackend>,
}

/// Serial ports.
#[derive(Debug, Args)]
pub(crate) struct SerialArgs {
    /// COM1; default: console, unless another port is the console.
    #[arg(long, value_name = "BACKEND", value_parser = serial::parse)]
    pub(crate) com1: Option<SerialBackend>,
    /// COM2; default: none.
    #[arg(long, value_name = "BACKEND", value_parser = serial::parse)]
    pub(crate) com2: Option<SerialBackend>,
    /// COM3; default: none.
    #[arg(long, value_name = "BACKEND", value_parser = serial::parse)]
    pub(crate) com3: Option<SerialBackend>,
    /// COM4; default: none.
    #[arg(long, value_name = "BACKEND", value_parser = serial::parse)]
    pub(crate) com4: Option<SerialBackend>,
}

/// How the run starts, ends and reports.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Start paused; `resume` at the Ctrl-Q prompt starts the guest.
    #[arg(short = 'P', long)]
    pub(crate) paused: bool,
    /// When the guest powers off: exit[:CODE], reset or halt.
    #[arg(long, value_name = "ACTION", default_value = "exit:0", value_parser = end_action::parse)]
    pub(crate) guest_shutdown_action: EndActionArg,
    /// When the guest resets the machine: exit[:CODE], reset or halt.
    #[arg(long, value_name = "ACTION", default_value = "reset", value_parser = end_action::parse)]
    pub(crate) guest_reset_action: EndActionArg,
    /// When the guest crashes, after a register report: exit[:CODE], reset or halt.
    #[arg(long, value_name = "ACTION", default_value = "exit:3", value_parser = end_action::parse)]
    pub(crate) guest_crash_action: EndActionArg,
    /// Print what would be launched and why, without starting; needs no hypervisor.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wait for a debugger on this loopback port before the guest's first instruction.
    #[arg(long, value_name = "PORT", conflicts_with_all = ["dry_run", "paused"])]
    pub(crate) gdb: Option<u16>,
    /// Write what the guest does to this file (software CPU only).
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub(crate) trace: Option<PathBuf>,
    /// What to trace: instructions, ports or mmio, each perhaps with =LOW-HIGH addresses, or exceptions.
    /// Repeatable; default: exceptions, ports and mmio.
    #[arg(long, value_name = "KIND", requires = "trace", value_parser = trace::parse)]
    pub(crate) trace_filter: Vec<TraceFilter>,
    /// Write what the loader did as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
