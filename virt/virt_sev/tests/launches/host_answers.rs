// SPDX-License-Identifier: MIT
//! What every modelled host answers to a launch (`spec/sev.md` 5.5, 5.6); tests of the library and of the program
//! hold their own against it. Not here: the launches.

const NO_PERMISSION: &str = "no permission on /dev/sev: join the group that owns it, or run as root";
const NO_NODE: &str = "/dev/sev is missing: load the module ccp";

/// For each host: what SEV, SEV-ES and SEV-SNP launches say; empty where they succeed.
pub(crate) const ANSWERS: &[(&str, [&str; 3])] = &[
    (
        "intel",
        [
            "SEV needs an AMD EPYC host; this cpu is GenuineIntel",
            "SEV-ES needs an AMD EPYC host; this cpu is GenuineIntel",
            "SEV-SNP needs an AMD EPYC host; this cpu is GenuineIntel",
        ],
    ),
    (
        "amd-without-sev",
        [
            "this AMD cpu has no SEV (CPUID 0x8000001F EAX=0x0)",
            "this AMD cpu has no SEV-ES (CPUID 0x8000001F EAX=0x0)",
            "this AMD cpu has no SEV-SNP (CPUID 0x8000001F EAX=0x0)",
        ],
    ),
    (
        "sev-only",
        [
            "",
            "the firmware setup reserves no ASIDs for SEV-ES (CPUID 0x8000001F EDX=0x1)",
            "this AMD cpu has no SEV-SNP (CPUID 0x8000001F EAX=0xf)",
        ],
    ),
    (
        "sev-es",
        ["", "", "this AMD cpu has no SEV-SNP (CPUID 0x8000001F EAX=0xf)"],
    ),
    ("snp", ["", "", ""]),
    (
        "snp-ciphertext-hiding",
        [
            "",
            "ciphertext hiding has given all ASIDs of this range to SEV-SNP",
            "",
        ],
    ),
    ("without-device-attributes", ["", "", ""]),
    (
        "linux-6.9",
        [
            "",
            "field MXCSR at 0x408 is 0x1f80 in the file, kvm would measure 0x0",
            "kernel 6.9.12 has no SEV-SNP VMs (SEV and SEV-ES need 6.10, SEV-SNP 6.11)",
        ],
    ),
    ("no-sev-permission", [NO_PERMISSION; 3]),
    ("no-sev-node", [NO_NODE; 3]),
];
