// SPDX-License-Identifier: MIT
//! The configuration of one VM.

use crate::layout::Machine;
use crate::pci::PciConfig;
use crate::vmbus::VmbusConfig;
use std::net::SocketAddr;
use std::path::PathBuf;
use uuid::Uuid;

/// Everything that the worker needs to build and run one VM.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the guest starts from.
    pub load: LoadMode,
    /// RAM in bytes, a multiple of 4 KiB.
    pub memory: u64,
    /// Number of virtual processors, at least 1.
    pub processors: u32,
    /// Requested isolation.
    pub isolation: IsolationRequest,
    /// The machine.
    pub machine: Machine,
    /// COM1 to COM4.
    pub com: [SerialBackend; 4],
    /// Adds the test-exit device (32-bit write to port 0xF4) to a machine that does not have it.
    pub test_exit: bool,
    /// Devices on PCI.
    pub pci: PciConfig,
    /// VMBus, on the Hyper-V machine only; `None` for a machine without it.
    pub vmbus: Option<VmbusConfig>,
    /// With `type=auto`: what the machine has instead of `pci` if the file turns out to be Microsoft's UEFI.
    pub if_uefi: Option<UefiDevices>,
    /// The file that keeps the variables of OVMF (`--vars`); `None` keeps them in RAM until a reset.
    pub vars: Option<PathBuf>,
    /// The file that keeps the variables of Microsoft's UEFI (`--nvram`); `None` keeps them for this VM only.
    pub nvram: Option<PathBuf>,
    /// The control socket of swtpm (`--tpm`), on the Hyper-V machine only.
    pub tpm: Option<PathBuf>,
    /// What guest-initiated ends do.
    pub on: EndActions,
    /// BIOS GUID, made once per VM.
    pub bios_guid: Uuid,
    /// Host-driven time, entropy and input (`--deterministic[=SEED]`); `None` is host time and entropy.
    pub deterministic: Option<u64>,
    /// Start paused (`-P`).
    pub paused: bool,
}

/// Devices of a machine with VMBus, where what was given without a controller is on VMBus.
#[derive(Debug, Clone)]
pub struct UefiDevices {
    /// Devices on PCI.
    pub pci: PciConfig,
    /// VMBus.
    pub vmbus: VmbusConfig,
}

impl Config {
    /// Takes the devices of `machine`, which is what the file needs, now that it has been read.
    pub fn decide(&mut self, machine: Machine) {
        self.machine = machine;
        if let Some(devices) = self.if_uefi.take().filter(|_| machine == Machine::HyperV) {
            self.pci = devices.pci;
            self.vmbus = Some(devices.vmbus);
        }
    }

    /// Whether Microsoft's UEFI starts, and is to place BARs itself.
    pub fn firmware_places_bars(&self) -> bool {
        let settings = match &self.load {
            LoadMode::Uefi { settings, .. } => Some(settings),
            LoadMode::Igvm { payload, .. } => match payload {
                IgvmPayload::Uefi(settings) => Some(settings),
                IgvmPayload::Auto(settings) => Some(settings).filter(|_| self.machine == Machine::HyperV),
                _ => None,
            },
            _ => None,
        };
        settings.is_some_and(|settings| !settings.pci_preassigned)
    }
}

/// What the guest starts from.
#[derive(Debug, Clone)]
pub enum LoadMode {
    /// An IGVM file.
    Igvm {
        /// The file.
        path: PathBuf,
        /// What the host prepares besides the file.
        payload: IgvmPayload,
        /// Where VTL2 goes; `File` for everything but OpenHCL.
        relocation: Vtl2Base,
        /// Command line parameter.
        cmdline: String,
    },
    /// Microsoft's UEFI, directly (`--uefi --uefi-firmware`).
    Uefi {
        /// MSVM.fd.
        firmware: PathBuf,
        /// Settings.
        settings: UefiSettings,
    },
    /// A Linux kernel, directly (`-k`): bzImage or ELF with a PVH note.
    Linux {
        /// Kernel file.
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: Option<PathBuf>,
        /// Command line.
        cmdline: String,
    },
    /// Debian's OVMF, directly (`--ovmf FILE.fd`).
    Ovmf {
        /// OVMF.fd.
        firmware: PathBuf,
        /// A kernel that the firmware boots first (`-k`), handed over through fw_cfg.
        direct: Option<KernelFiles>,
    },
}

/// A kernel for firmware to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFiles {
    /// Kernel with an EFI stub, or another EFI program.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Command line.
    pub cmdline: String,
}

/// What the host prepares besides an IGVM file, named by `--igvm type=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IgvmPayload {
    /// The legacy form: nothing beyond the file's own parameters.
    Generic,
    /// Config blob and R12.
    Uefi(UefiSettings),
    /// fw_cfg items and ACPI through it.
    Ovmf,
    /// Command line, memory map, ACPI parameters.
    Linux,
    /// The test-exit device.
    Test,
    /// VTL2; parsed, then refused at load.
    OpenHcl,
    /// Decided from the file.
    Auto(UefiSettings),
}

/// Where VTL2 loads (`--igvm-vtl2-relocation-type`, uefi-launch 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vtl2Base {
    /// Addresses in the file.
    File,
    /// A fixed base.
    Absolute(u64),
    /// Chosen by the layout, with an optional size override.
    MemoryLayout(Option<u64>),
    /// File addresses; VTL2 allocates its own memory.
    Vtl2Allocate(Option<u64>),
}

/// Where UEFI puts its console (blob flags 7-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UefiConsoleMode {
    /// Firmware decides.
    #[default]
    Default,
    /// COM1.
    Com1,
    /// COM2.
    Com2,
    /// No console.
    None,
}

/// Settings of Microsoft's UEFI, the same for `--uefi` and `--igvm type=uefi` (blob flags,
/// uefi-launch 3.4).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UefiSettings {
    /// `--uefi-debug`: flag 3.
    pub debug: bool,
    /// `--uefi-enable-memory-protections`: flags 21-22 = 1.
    pub memory_protections: bool,
    /// `--uefi-force-dma-bounce`: flag 32.
    pub force_dma_bounce: bool,
    /// `--disable-frontpage`: flag 14.
    pub disable_frontpage: bool,
    /// `--default-boot-always-attempt`: flag 15.
    pub default_boot_always_attempt: bool,
    /// `--uefi-console-mode`: flags 7-8.
    pub console_mode: UefiConsoleMode,
    /// Any COM port configured: flag 0.
    pub serial: bool,
    /// `--tpm`: flags 5, 13, 25.
    pub tpm: bool,
    /// `--battery`: flag 10.
    pub battery: bool,
    /// `--guest-watchdog`: flag 24.
    pub watchdog: bool,
    /// `--secure-boot`: on as soon as there is a platform key.
    pub secure_boot: bool,
    /// `--secure-boot-template`: a file with the keys of a VM that has none.
    pub secure_boot_template: Option<PathBuf>,
    /// VMBus present; clear sets flag 30.
    pub vmbus: bool,
    /// BARs are placed by the VMM: flag 31. Clear with `--uefi-enumerate-pci`: the firmware does it.
    pub pci_preassigned: bool,
    /// `--efi-diagnostics-log-level`.
    pub log_level: FirmwareLogLevel,
    /// SMBIOS strings by blob structure type (0x06..0x11, 0x1A..0x1F).
    pub smbios: Vec<(u32, String)>,
}

/// `--efi-diagnostics-log-level`: which lines of the firmware's log are lines of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirmwareLogLevel {
    /// Errors and warnings.
    #[default]
    Default,
    /// What the firmware calls information as well.
    Info,
    /// All.
    Full,
}

/// `--isolation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationRequest {
    /// Not isolated.
    None,
    /// Virtualization-based security.
    Vbs,
    /// AMD SEV.
    Sev,
    /// AMD SEV-ES.
    SevEs,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// Arm CCA.
    Cca,
}

/// What a COM port is connected to (`--com1..4`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SerialBackend {
    /// Absent: the port's I/O addresses read all ones.
    #[default]
    None,
    /// The terminal.
    Console,
    /// Output only, to stderr.
    Stderr,
    /// Output only, to a file that is created or truncated.
    File(PathBuf),
    /// A Unix socket that the VMM listens on.
    Listen(PathBuf),
    /// A TCP socket that the VMM listens on.
    ListenTcp(SocketAddr),
}

/// What happens when the guest ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndAction {
    /// The process exits with this code.
    Exit(u8),
    /// The VM is reset.
    Reset,
    /// The VM stops and stays inspectable.
    Halt,
}

/// End actions by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndActions {
    /// PM1a sleep or another clean power off. Default `exit:0`.
    pub shutdown: EndAction,
    /// Reset register. Default `reset`.
    pub reset: EndAction,
    /// Triple fault or reported crash. Default `exit:3`.
    pub crash: EndAction,
}

impl Default for EndActions {
    fn default() -> Self {
        Self {
            shutdown: EndAction::Exit(0),
            reset: EndAction::Reset,
            crash: EndAction::Exit(3),
        }
    }
}
