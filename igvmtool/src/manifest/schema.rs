// SPDX-License-Identifier: MIT
//! The schema's types (uefi-launch 6.1) and the rules of a single guest.

use super::Guest;
use super::flat::{FlatImage, Number};
use serde::Deserialize;

/// `guest_arch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GuestArch {
    X64,
    Aarch64,
}

/// `isolation_type`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum IsolationType {
    /// Not isolated.
    None,
    /// VBS.
    Vbs { enable_debug: bool },
    /// AMD SEV; ours.
    Sev(SevIsolation),
    /// AMD SEV-ES; ours.
    SevEs(SevIsolation),
    /// AMD SEV-SNP.
    Snp(SnpIsolation),
    /// Intel TDX.
    Tdx {
        enable_debug: bool,
        sept_ve_disable: bool,
    },
}

/// `isolation_type.sev` and `isolation_type.sev_es`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a sev isolation object")]
pub(crate) struct SevIsolation {
    /// Guest policy; the platform's usual one (no debugging) by default.
    pub(crate) policy: Option<Number>,
}

/// `isolation_type.snp`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a snp isolation object")]
pub(crate) struct SnpIsolation {
    /// vTOM as a power of two.
    pub(crate) shared_gpa_boundary_bits: Option<u8>,
    /// Guest policy; `enable_debug` adds bit 19.
    pub(crate) policy: u64,
    pub(crate) enable_debug: bool,
    pub(crate) injection_type: InjectionType,
    #[serde(default)]
    pub(crate) secure_avic: SecureAvic,
}

/// `isolation_type.snp.injection_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InjectionType {
    Normal,
    Restricted,
}

/// `isolation_type.snp.secure_avic`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SecureAvic {
    Enabled,
    #[default]
    Disabled,
}

impl IsolationType {
    /// The name that `--guest` takes.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Vbs { .. } => "vbs",
            Self::Sev(_) => "sev",
            Self::SevEs(_) => "sev-es",
            Self::Snp(_) => "snp",
            Self::Tdx { .. } => "tdx",
        }
    }

    pub(super) fn check(&self, arch: GuestArch) -> Result<(), String> {
        let on_x64 = !matches!(self, Self::None | Self::Vbs { .. });
        if arch == GuestArch::Aarch64 && on_x64 {
            return Err(format!("isolation {} exists on x64 only", self.name()));
        }
        if let Self::Snp(SnpIsolation {
            shared_gpa_boundary_bits: Some(bits),
            ..
        }) = self
            && !(32..=51).contains(bits)
        {
            return Err(format!(
                "shared_gpa_boundary_bits is {bits}; it must be from 32 to 51"
            ));
        }
        Ok(())
    }
}

/// `image`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Image {
    /// Nothing: a file without pages.
    None,
    /// Microsoft's UEFI, resource `uefi`.
    Uefi(UefiImage),
    /// OpenHCL.
    Openhcl(OpenhclImage),
    /// A Linux kernel, resources `linux_kernel` and `linux_initrd`.
    Linux(LinuxImage),
    /// A Linux kernel started directly by SEV-SNP.
    SnpLinuxDirect(SnpLinuxDirectImage),
    /// An OVMF image, resource `ovmf`; ours.
    Ovmf(OvmfImage),
    /// A flat binary with everything around it said here; ours.
    Flat(Box<FlatImage>),
}

/// `image.ovmf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an ovmf image object")]
pub(crate) struct OvmfImage {
    /// Processors that get an initial state (sev-es, snp).
    #[serde(default = "default_linux_processors")]
    pub(crate) processor_count: u32,
    /// Enter a guest that is not isolated in flat 32-bit protected mode.
    #[serde(default)]
    pub(crate) flat32: bool,
    /// Repeat the last 128 KiB below 1 MiB for a guest that is not isolated.
    #[serde(default)]
    pub(crate) mirror: bool,
    /// CPUID signature that processors have in RDX; KVM's own by default.
    #[serde(default = "default_signature")]
    pub(crate) cpu_signature: Number,
}

const fn default_signature() -> Number {
    Number(0x600)
}

/// `image.uefi`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an uefi image object")]
pub(crate) struct UefiImage {
    pub(crate) config_type: UefiConfigType,
}

/// `image.uefi.config_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UefiConfigType {
    /// The host writes a configuration blob; its place stays free.
    None,
    /// The file carries the parameter area (uefi-launch 3.10).
    Igvm,
}

/// `image.linux`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a linux image object")]
pub(crate) struct LinuxImage {
    pub(crate) use_initrd: bool,
    pub(crate) command_line: String,
    /// RAM that the kernel is told of, in 4 KiB pages; ours, because the zero page is part of the file.
    #[serde(default = "default_linux_pages")]
    pub(crate) memory_page_count: u64,
    /// Processors in the kernel's tables; ours, for the same reason.
    #[serde(default = "default_linux_processors")]
    pub(crate) processor_count: u32,
}

/// 512 MiB.
const fn default_linux_pages() -> u64 {
    0x2_0000
}

const fn default_linux_processors() -> u32 {
    1
}

/// `image.openhcl`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an openhcl image object")]
pub(crate) struct OpenhclImage {
    #[serde(default)]
    pub(crate) command_line: String,
    #[serde(default)]
    pub(crate) static_command_line: bool,
    pub(crate) memory_page_base: Option<u64>,
    pub(crate) memory_page_count: u64,
    #[serde(default)]
    pub(crate) uefi: bool,
    pub(crate) linux: Option<LinuxImage>,
    pub(crate) product_policy: Option<serde_json::Value>,
}

/// `image.snp_linux_direct`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a snp linux direct image object")]
pub(crate) struct SnpLinuxDirectImage {
    pub(crate) linux: LinuxImage,
    pub(crate) processor_count: u32,
    pub(crate) memory_page_count: u64,
    pub(crate) c_bit_position: u8,
}

impl Image {
    pub(super) fn check(&self, guest: &Guest, arch: GuestArch) -> Result<(), String> {
        let aarch64 = arch == GuestArch::Aarch64;
        match self {
            Self::None => Ok(()),
            Self::Uefi(uefi) if aarch64 && uefi.config_type == UefiConfigType::Igvm => {
                Err("config_type igvm exists on x64 only".to_owned())
            }
            Self::Uefi(_) => Ok(()),
            Self::Openhcl(openhcl) if openhcl.uefi && openhcl.linux.is_some() => {
                Err("openhcl cannot start both uefi and linux".to_owned())
            }
            Self::Openhcl(_) => Ok(()),
            Self::Linux(_) | Self::Flat(_) | Self::Ovmf(_) | Self::SnpLinuxDirect(_) if aarch64 => {
                Err(format!("image {} exists on x64 only", self.name()))
            }
            Self::Linux(linux) => linux.check(),
            Self::SnpLinuxDirect(direct) => direct.check(guest),
            Self::Ovmf(ovmf) => ovmf.check(),
            Self::Flat(flat) => flat.check(),
        }
    }

    /// The name in the manifest.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Uefi(_) => "uefi",
            Self::Openhcl(_) => "openhcl",
            Self::Linux(_) => "linux",
            Self::SnpLinuxDirect(_) => "snp_linux_direct",
            Self::Ovmf(_) => "ovmf",
            Self::Flat(_) => "flat",
        }
    }
}

impl OvmfImage {
    fn check(&self) -> Result<(), String> {
        if !(1..=512).contains(&self.processor_count) {
            return Err(format!(
                "ovmf processor_count is {}; it must be from 1 to 512",
                self.processor_count
            ));
        }
        if u32::try_from(self.cpu_signature.0).is_err() {
            return Err(format!(
                "cpu_signature {:#x} has more than 32 bits",
                self.cpu_signature.0
            ));
        }
        Ok(())
    }
}

impl LinuxImage {
    fn check(&self) -> Result<(), String> {
        // 8 MiB hold what direct boot puts below the kernel; 4 TiB is more than any layout has.
        if !(0x800..=1 << 30).contains(&self.memory_page_count) {
            return Err(format!(
                "linux memory_page_count is {}; it must be from 2048 to {}",
                self.memory_page_count,
                1u64 << 30
            ));
        }
        if !(1..=255).contains(&self.processor_count) {
            return Err(format!(
                "linux processor_count is {}; it must be from 1 to 255",
                self.processor_count
            ));
        }
        Ok(())
    }
}

impl SnpLinuxDirectImage {
    fn check(&self, guest: &Guest) -> Result<(), String> {
        let IsolationType::Snp(snp) = &guest.isolation else {
            return Err("snp_linux_direct needs isolation_type snp".to_owned());
        };
        if guest.max_vtl != 0 {
            return Err("snp_linux_direct needs max_vtl 0".to_owned());
        }
        if snp.shared_gpa_boundary_bits.is_some() {
            return Err("snp_linux_direct needs shared_gpa_boundary_bits null".to_owned());
        }
        if snp.injection_type != InjectionType::Normal || snp.secure_avic != SecureAvic::Disabled {
            return Err("snp_linux_direct needs normal injection and secure AVIC disabled".to_owned());
        }
        if self.processor_count == 0 || self.memory_page_count == 0 {
            return Err("processor_count and memory_page_count must not be 0".to_owned());
        }
        if u32::try_from(self.memory_page_count.saturating_mul(4096)).is_err() {
            return Err("memory_page_count must stay below 4 GiB".to_owned());
        }
        if !(32..=51).contains(&self.c_bit_position) {
            return Err(format!(
                "c_bit_position is {}; it must be from 32 to 51",
                self.c_bit_position
            ));
        }
        Ok(())
    }
}
