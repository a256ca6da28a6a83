// SPDX-License-Identifier: MIT
//! The three platforms and what tells them apart (`spec/sev.md` 1.1, 1.4, 5.3).

use kvm_sys::VmType;
use launch_plan::Isolation;

/// How an AMD processor protects a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Memory.
    Sev,
    /// Memory and registers.
    SevEs,
    /// Memory, its mapping, and registers.
    Snp,
}

impl Platform {
    /// Every platform, from the weakest.
    pub const ALL: [Self; 3] = [Self::Sev, Self::SevEs, Self::Snp];

    /// AMD's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sev => "SEV",
            Self::SevEs => "SEV-ES",
            Self::Snp => "SEV-SNP",
        }
    }

    /// The platform of a plan.
    pub const fn isolation(self) -> Isolation {
        match self {
            Self::Sev => Isolation::Sev,
            Self::SevEs => Isolation::SevEs,
            Self::Snp => Isolation::Snp,
        }
    }

    /// KVM's type of VM. Its number is also its bit in `KVM_CAP_VM_TYPES`.
    pub const fn vm_type(self) -> VmType {
        match self {
            Self::Sev => VmType::Sev,
            Self::SevEs => VmType::SevEs,
            Self::Snp => VmType::Snp,
        }
    }

    /// Its bit in CPUID 0x8000001F EAX.
    pub const fn cpuid_bit(self) -> u32 {
        match self {
            Self::Sev => 1 << 1,
            Self::SevEs => 1 << 3,
            Self::Snp => 1 << 4,
        }
    }

    /// Its flag in `/proc/cpuinfo`, which is also the name of `kvm_amd`'s parameter.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Sev => "sev",
            Self::SevEs => "sev_es",
            Self::Snp => "sev_snp",
        }
    }

    /// The bits that a guest of this platform finds in CPUID 0x8000001F EAX.
    pub fn guest_cpuid_bits(self) -> u32 {
        Self::ALL
            .into_iter()
            .take_while(|&p| p != self)
            .chain([self])
            .fold(0, |bits, p| bits | p.cpuid_bit())
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
