// SPDX-License-Identifier: MIT
//! What the host says of itself outside KVM: processor, kernel, module parameters. Used to explain a no,
//! never to decide a yes (`spec/sev.md` 5.2).

use std::collections::BTreeMap;

/// The CPUID leaf that describes memory encryption.
pub const ENCRYPTION_LEAF: u32 = 0x8000_001F;

/// The flags of `/proc/cpuinfo` that matter here.
const FLAGS: [&str; 4] = ["sme", "sev", "sev_es", "sev_snp"];

/// A host, as far as explanations need it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// CPUID vendor string.
    pub vendor: String,
    /// Highest extended CPUID leaf.
    pub max_extended_leaf: u32,
    /// Answer of [`ENCRYPTION_LEAF`] (EAX to EDX), also when the highest leaf is below it.
    pub leaf: [u32; 4],
    /// Which of "sme", "sev", "sev_es" and "sev_snp" `/proc/cpuinfo` lists; `None` when it cannot be read.
    pub flags: Option<Vec<String>>,
    /// Parameters of `kvm_amd` by name; empty when the module is not loaded.
    pub parameters: BTreeMap<String, String>,
    /// Kernel release, as `uname -r` gives it.
    pub kernel: String,
}

impl HostFacts {
    /// Reads them from this machine.
    pub fn read() -> Self {
        let leaf = std::arch::x86_64::__cpuid(ENCRYPTION_LEAF);
        let flags = std::fs::read_to_string("/proc/cpuinfo").ok();
        let parameter = |name: &str| {
            let path = format!("/sys/module/kvm_amd/parameters/{name}");
            let value = std::fs::read_to_string(path).ok()?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        Self {
            vendor: vendor(),
            max_extended_leaf: std::arch::x86_64::__cpuid(0x8000_0000).eax,
            leaf: [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx],
            flags: flags.map(|text| encryption_flags(&text)),
            parameters: ["sev", "sev_es", "sev_snp"]
                .into_iter()
                .filter_map(parameter)
                .collect(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        }
    }

    /// Whether AMD, or its licensee, made the processor.
    pub fn is_amd(&self) -> bool {
        matches!(&*self.vendor, "AuthenticAMD" | "HygonGenuine")
    }

    /// The encryption leaf, when it exists: processors answer leaves above their highest with stale data.
    pub fn encryption(&self) -> Option<[u32; 4]> {
        (self.is_amd() && self.max_extended_leaf >= ENCRYPTION_LEAF).then_some(self.leaf)
    }

    /// Position of the C-bit and the physical address bits that encryption takes.
    pub fn c_bit(&self) -> Option<(u32, u32)> {
        let [eax, ebx, ..] = self.encryption()?;
        (eax & 2 != 0).then_some((ebx & 0x3F, ebx >> 6 & 0x3F))
    }

    /// Major and minor number of the kernel; 0.0 when its release says neither.
    pub fn kernel_version(&self) -> (u32, u32) {
        let mut numbers = self.kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
        (next(), next())
    }
}

fn vendor() -> String {
    let leaf = std::arch::x86_64::__cpuid(0);
    let bytes: Vec<u8> = [leaf.ebx, leaf.edx, leaf.ecx]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn encryption_flags(cpuinfo: &str) -> Vec<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let words = line
        .and_then(|line| line.split_once(':'))
        .map_or("", |(_, words)| words);
    words
        .split_whitespace()
        .filter(|word| FLAGS.contains(word))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words_of_the_flags_line() {
        let text = "model name\t: sev\nflags\t\t: fpu sme sev sev_es sev_snpx\nbugs\t: sev_snp\n";
        assert_eq!(encryption_flags(text), ["sme", "sev", "sev_es"]);
        assert!(encryption_flags("nothing").is_empty());
    }

    #[test]
    fn leaf_above_the_highest_is_stale_data() {
        let mut facts = HostFacts {
            vendor: "AuthenticAMD".into(),
            max_extended_leaf: 0x8000_0008,
            leaf: [0x1F, 0x0007_0001, 0, 0],
            ..HostFacts::default()
        };
        assert_eq!((facts.encryption(), facts.c_bit()), (None, None));
        facts.max_extended_leaf = ENCRYPTION_LEAF;
        facts.leaf[1] = 5 << 6 | 51;
        assert_eq!(facts.c_bit(), Some((51, 5)));
        facts.vendor = "GenuineIntel".into();
        assert_eq!(facts.encryption(), None);
    }

    #[test]
    fn kernel_version_is_the_first_two_numbers() {
        let version = |release: &str| {
            HostFacts {
                kernel: release.into(),
                ..HostFacts::default()
            }
            .kernel_version()
        };
        assert_eq!(version("6.18.44-fc-v595"), (6, 18));
        assert_eq!(version("6.9-rc1"), (6, 9));
        assert_eq!(version("mystery"), (0, 0));
    }

    #[test]
    fn this_machine_has_a_vendor_and_a_kernel() {
        let facts = HostFacts::read();
        assert_eq!(facts.vendor.len(), 12);
        assert!(facts.kernel_version() > (0, 0), "{facts:?}");
    }
}
