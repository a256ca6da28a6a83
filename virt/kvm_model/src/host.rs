// SPDX-License-Identifier: MIT
//! The hosts that a model can stand for (`spec/sev.md` 4.3, 5.6).
//!
//! Always true: what KVM answers follows from these facts by the rules of its source; nothing here says
//! "this launch works". Not here: the CPUID table ([`crate::cpuid_table`]).

use kvm_sys::bindings::kvm_cpuid_entry2;

/// The device node of the security processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SevNode {
    /// Opens.
    Present,
    /// Does not exist.
    Absent,
    /// Exists, and this user may not open it.
    Denied,
}

/// What only AMD's documents or hardware could settle (`spec/sev.md` 4.11): the model's choice by default,
/// changed by tests that want to know whether a backend depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assumptions {
    /// LAUNCH_MEASURE may be repeated.
    pub measure_repeats: bool,
    /// KVM itself refuses SNP_LAUNCH_UPDATE after the finish (EINVAL), before the firmware does.
    pub update_after_finish_is_einval: bool,
    /// The firmware checks CPUID pages.
    pub cpuid_pages_are_checked: bool,
}

/// A host.
#[derive(Debug, Clone)]
pub struct FakeHost {
    /// Its name in messages and tests.
    pub name: &'static str,
    /// CPUID vendor string.
    pub vendor: &'static str,
    /// Highest extended CPUID leaf.
    pub max_extended_leaf: u32,
    /// CPUID 0x8000001F, EAX to EDX, as the instruction answers (also above the highest leaf).
    pub encryption_leaf: [u32; 4],
    /// Flags of `/proc/cpuinfo` that concern encryption.
    pub cpu_flags: Vec<&'static str>,
    /// Parameters of `kvm_amd`; empty when the module is not loaded.
    pub parameters: Vec<(&'static str, &'static str)>,
    /// Kernel release.
    pub kernel: &'static str,
    /// `/dev/sev`.
    pub sev_node: SevNode,
    /// `/dev/kvm` answers device attributes of group SEV.
    pub device_attributes: bool,
    /// With ciphertext hiding: the highest ASID of SEV-SNP; SEV-ES has those between it and SEV's.
    pub snp_asid_limit: Option<u32>,
    /// Guests of a cgroup's misc limit, if there is one.
    pub guest_limit: Option<usize>,
    /// Bytes that may be pinned (RLIMIT_MEMLOCK), if limited.
    pub pin_limit: Option<u64>,
    /// Firmware interface, major and minor.
    pub api: (u8, u8),
    /// Firmware build.
    pub build: u8,
    /// Simultaneous multithreading is on.
    pub smt: bool,
    /// SEV-SNP policy bits that KVM takes.
    pub policy_bits: u64,
    /// Requirements among the policy bits (22, 23, 24) that this host meets.
    pub requirements_met: u64,
    /// SEV features that KVM takes in INIT2, beside SNP_ACTIVE.
    pub features: u64,
    /// CPUID as KVM offers it to guests, with what it synthesises.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    /// What is not proven.
    pub assumptions: Assumptions,
}

/// Policy bits of the API version, SMT, must-be-one, debug and single socket.
const POLICY_BITS: u64 = 0x1B_FFFF;
/// Those, and CXL, XTS, RAPL, ciphertext hiding and page swap.
const POLICY_BITS_TURIN: u64 = 0x3FB_FFFF;
/// CPUID 0x8000001F EAX: SME, SEV, page flush.
const EAX_SEV: u32 = 0x7;
const EAX_ES: u32 = 0x8;
const EAX_SNP: u32 = 0x10;
const EAX_SECURE_TSC: u32 = 0x100;
const EAX_DEBUG_SWAP: u32 = 1 << 14;

impl FakeHost {
    /// An EPYC of the third generation under Linux 7.2 with all of SEV: C-bit 51, 509 ASIDs, 99 of them for
    /// SEV-ES and SEV-SNP.
    pub fn snp() -> Self {
        Self {
            name: "snp",
            vendor: "AuthenticAMD",
            max_extended_leaf: 0x8000_0028,
            encryption_leaf: [
                EAX_SEV | EAX_ES | EAX_SNP | EAX_DEBUG_SWAP,
                51 | 5 << 6 | 4 << 12,
                509,
                100,
            ],
            cpu_flags: vec!["sme", "sev", "sev_es", "sev_snp"],
            parameters: vec![("sev", "Y"), ("sev_es", "Y"), ("sev_snp", "Y")],
            kernel: "7.2.13",
            sev_node: SevNode::Present,
            device_attributes: true,
            snp_asid_limit: None,
            guest_limit: None,
            pin_limit: None,
            api: (1, 55),
            build: 24,
            smt: true,
            policy_bits: POLICY_BITS,
            requirements_met: 0,
            features: 1 << 5,
            cpuid: crate::cpuid_table::offered(),
            assumptions: Assumptions {
                measure_repeats: true,
                update_after_finish_is_einval: false,
                cpuid_pages_are_checked: true,
            },
        }
    }

    /// A machine of another vendor, as measured (`spec/sev.md` 5.1).
    pub fn intel() -> Self {
        Self {
            name: "intel",
            vendor: "GenuineIntel",
            max_extended_leaf: 0x8000_0008,
            encryption_leaf: [0, 0x0007_0001, 0, 0],
            cpu_flags: Vec::new(),
            parameters: Vec::new(),
            kernel: "6.18.44",
            sev_node: SevNode::Absent,
            device_attributes: false,
            ..Self::snp()
        }
    }

    /// An AMD processor that has no SEV.
    pub fn amd_without_sev() -> Self {
        Self {
            name: "amd-without-sev",
            max_extended_leaf: 0x8000_0020,
            encryption_leaf: [0; 4],
            cpu_flags: Vec::new(),
            parameters: vec![("sev", "N"), ("sev_es", "N"), ("sev_snp", "N")],
            sev_node: SevNode::Absent,
            ..Self::snp()
        }
    }

    /// SEV alone: the firmware setup keeps no ASIDs for SEV-ES.
    pub fn sev_only() -> Self {
        Self {
            name: "sev-only",
            encryption_leaf: [EAX_SEV | EAX_ES, 47 | 5 << 6, 15, 1],
            cpu_flags: vec!["sme", "sev"],
            parameters: vec![("sev", "Y"), ("sev_es", "N"), ("sev_snp", "N")],
            features: 0,
            api: (0, 24),
            build: 15,
            ..Self::snp()
        }
    }

    /// SEV and SEV-ES: an EPYC of the second generation.
    pub fn sev_es() -> Self {
        Self {
            name: "sev-es",
            encryption_leaf: [EAX_SEV | EAX_ES, 47 | 5 << 6, 509, 6],
            cpu_flags: vec!["sme", "sev", "sev_es"],
            parameters: vec![("sev", "Y"), ("sev_es", "Y"), ("sev_snp", "N")],
            features: 0,
            api: (0, 24),
            build: 15,
            ..Self::snp()
        }
    }

    /// SEV-SNP with ciphertext hiding, which has left no ASID to SEV-ES.
    pub fn snp_ciphertext_hiding() -> Self {
        Self {
            name: "snp-ciphertext-hiding",
            encryption_leaf: [
                EAX_SEV | EAX_ES | EAX_SNP | EAX_DEBUG_SWAP | EAX_SECURE_TSC,
                51 | 6 << 6 | 4 << 12,
                1006,
                100,
            ],
            snp_asid_limit: Some(99),
            api: (1, 58),
            policy_bits: POLICY_BITS_TURIN,
            requirements_met: 1 << 24 | 1 << 22,
            features: 1 << 5 | 1 << 9,
            ..Self::snp()
        }
    }

    /// SEV-SNP under the first kernels that had it: no device attributes.
    pub fn without_device_attributes() -> Self {
        Self {
            name: "without-device-attributes",
            kernel: "6.11.0",
            device_attributes: false,
            features: 0,
            ..Self::snp()
        }
    }

    /// Linux 6.9: SEV and SEV-ES on VMs of the default type only.
    pub fn linux_6_9() -> Self {
        Self {
            name: "linux-6.9",
            kernel: "6.9.12",
            device_attributes: false,
            cpu_flags: vec!["sme", "sev", "sev_es"],
            parameters: vec![("sev", "Y"), ("sev_es", "Y")],
            ..Self::snp()
        }
    }

    /// As [`FakeHost::snp`], for a user who may not open `/dev/sev`.
    pub fn no_sev_permission() -> Self {
        Self {
            name: "no-sev-permission",
            sev_node: SevNode::Denied,
            ..Self::snp()
        }
    }

    /// As [`FakeHost::snp`], without `/dev/sev`.
    pub fn no_sev_node() -> Self {
        Self {
            name: "no-sev-node",
            sev_node: SevNode::Absent,
            ..Self::snp()
        }
    }

    /// All of them.
    pub fn all() -> Vec<Self> {
        vec![
            Self::intel(),
            Self::amd_without_sev(),
            Self::sev_only(),
            Self::sev_es(),
            Self::snp(),
            Self::snp_ciphertext_hiding(),
            Self::without_device_attributes(),
            Self::linux_6_9(),
            Self::no_sev_permission(),
            Self::no_sev_node(),
        ]
    }

    /// The host of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|host| host.name == name)
    }

    /// Major and minor number of the kernel.
    pub(crate) fn kernel_version(&self) -> (u32, u32) {
        let mut numbers = self.kernel.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        (next(), next())
    }

    /// Whether KVM loaded with a parameter on.
    pub(crate) fn is_on(&self, parameter: &str) -> bool {
        self.parameters.contains(&(parameter, "Y"))
    }

    /// First and last ASID of a platform, empty when first is above last (Linux `sev_hardware_setup`).
    pub(crate) fn asids(&self, platform: Platform) -> (u32, u32) {
        let [_, _, last, first_sev] = self.encryption_leaf;
        let below = first_sev.saturating_sub(1);
        match (platform, self.snp_asid_limit) {
            _ if !self.is_on(platform.parameter()) => (1, 0),
            (Platform::Sev, _) => (first_sev, last),
            (Platform::SevEs, Some(limit)) => (limit + 1, below),
            (Platform::Snp, Some(limit)) => (1, limit.min(below)),
            _ => (1, below),
        }
    }

    /// KVM was built with per-page attributes (they came with SEV-SNP).
    pub(crate) fn has_memory_attributes(&self) -> bool {
        !self.parameters.is_empty() && self.kernel_version() >= (6, 11)
    }

    /// KVM_CAP_VM_TYPES.
    pub(crate) fn vm_types(&self) -> u32 {
        let since = |platform| match platform {
            Platform::Snp => (6, 11),
            _ => (6, 10),
        };
        let has = |platform: Platform| {
            let (first, last) = self.asids(platform);
            self.kernel_version() >= since(platform) && first <= last
        };
        Platform::ALL
            .into_iter()
            .filter(|platform| has(*platform))
            .fold(1, |types, platform| types | 1 << platform.vm_type())
    }

    /// The features that INIT2 takes for a platform.
    pub(crate) fn features_of(&self, platform: Platform) -> u64 {
        const SECURE_TSC: u64 = 1 << 9;
        match platform {
            Platform::Sev => 0,
            Platform::SevEs => self.features & !SECURE_TSC,
            Platform::Snp => self.features,
        }
    }
}

/// The three technologies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    /// Memory encrypted.
    Sev,
    /// Registers too.
    SevEs,
    /// Memory has an owner.
    Snp,
}

impl Platform {
    pub(crate) const ALL: [Self; 3] = [Self::Sev, Self::SevEs, Self::Snp];

    pub(crate) fn vm_type(self) -> u32 {
        match self {
            Self::Sev => 2,
            Self::SevEs => 3,
            Self::Snp => 4,
        }
    }

    pub(crate) fn of_vm_type(vm_type: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|platform| u64::from(platform.vm_type()) == vm_type)
    }

    fn parameter(self) -> &'static str {
        match self {
            Self::Sev => "sev",
            Self::SevEs => "sev_es",
            Self::Snp => "sev_snp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vm_types_follow_from_each_hosts_facts() {
        for (host, types) in [
            (FakeHost::intel(), 1),
            (FakeHost::amd_without_sev(), 1),
            (FakeHost::sev_only(), 0b101),
            (FakeHost::sev_es(), 0b1101),
            (FakeHost::snp(), 0b1_1101),
            (FakeHost::snp_ciphertext_hiding(), 0b1_0101),
            (FakeHost::without_device_attributes(), 0b1_1101),
            (FakeHost::linux_6_9(), 1),
        ] {
            assert_eq!(host.vm_types(), types, "{}", host.name);
        }
    }

    #[test]
    fn hosts_are_found_by_their_names() {
        for host in FakeHost::all() {
            assert_eq!(
                FakeHost::by_name(host.name).map(|found| found.kernel),
                Some(host.kernel)
            );
        }
        assert!(FakeHost::by_name("vax").is_none());
    }

    #[test]
    fn asid_ranges_do_not_overlap_between_sev_and_the_others() {
        let host = FakeHost::snp();
        assert_eq!(host.asids(Platform::Sev), (100, 509));
        assert_eq!(host.asids(Platform::SevEs), (1, 99));
        assert_eq!(host.asids(Platform::Snp), (1, 99));
        let hiding = FakeHost::snp_ciphertext_hiding();
        assert_eq!(hiding.asids(Platform::Snp), (1, 99));
        assert_eq!(hiding.asids(Platform::SevEs), (100, 99));
    }
}
