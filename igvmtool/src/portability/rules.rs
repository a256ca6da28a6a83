// SPDX-License-Identifier: MIT
//! The rules of each loader, one row each, with the source that the rule was read from.
//!
//! Always true: a row is a fact about a published version of a loader, not an opinion; `check --explain`
//! prints it. Not here: applying rows (`super`), looking (`super::probes`).

use super::probes::*;
use super::{EVERY, Test};
use launch_plan::Isolation::{self, Native, Sev, SevEs, Snp, Vsm};

/// A loader that can be asked about.
#[derive(Debug, Clone, Copy)]
pub struct Loader {
    /// Name on the command line.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// Platforms that it starts.
    pub platforms: &'static [Isolation],
    /// Where that was read.
    pub source: &'static str,
}

/// All loaders.
pub const LOADERS: &[Loader] = &[
    Loader {
        name: "qemu-11",
        title: "QEMU 11",
        platforms: &[Native, Sev, SevEs, Snp],
        source: "QEMU backends/igvm.c, platform selection",
    },
    Loader {
        name: "openvmm",
        title: "upstream OpenVMM (2026-08)",
        platforms: &[Vsm, Snp],
        source: "openvmm worker/vm_loaders/igvm.rs: isolation none and VBS need VSM_ISOLATION, SNP needs SEV_SNP",
    },
    Loader {
        name: "cloud-hypervisor",
        title: "Cloud Hypervisor",
        platforms: &[Native, Snp],
        source: "cloud-hypervisor vmm/src/igvm/igvm_loader.rs: parsed with the SNP filter, first platform header",
    },
    Loader {
        name: "kvm-snp",
        title: "a SEV-SNP launch through KVM",
        platforms: &[Snp],
        source: "Linux arch/x86/kvm/svm/sev.c",
    },
    Loader {
        name: "spec",
        title: "the specification (igvm_defs 0.5.0)",
        platforms: EVERY,
        source: "igvm_defs 0.5.0",
    },
];

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The loader ends with an error.
    Refused,
    /// The loader ends with a panic or an assertion.
    Crash,
    /// It loads, but the guest or its digest is not what the file says.
    Differs,
    /// Worth knowing.
    Note,
}

impl Weight {
    /// `refused`, `crash`, `differs` or `note`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Crash => "crash",
            Self::Differs => "differs",
            Self::Note => "note",
        }
    }
}

/// A rule of a loader.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Stable text form.
    pub id: &'static str,
    /// The loaders that have it.
    pub loaders: &'static [&'static str],
    /// The platforms that it is about; empty for the file as a whole.
    pub on: &'static [Isolation],
    /// What breaking it does.
    pub weight: Weight,
    /// The rule as a statement.
    pub rule: &'static str,
    /// A file that breaks it, and what to do.
    pub example: &'static str,
    /// Where it was read.
    pub source: &'static str,
    /// How it is found.
    pub test: Test,
}

/// Loaders that read files with the `igvm` crate.
const CRATE: &[&str] = &["qemu-11", "openvmm", "cloud-hypervisor"];
const QEMU: &[&str] = &["qemu-11"];
const OPENVMM: &[&str] = &["openvmm"];
const CLOUD: &[&str] = &["cloud-hypervisor"];
const KVM: &[&str] = &["kvm-snp"];
const SPEC: &[&str] = &["spec"];
const CRATE_SOURCE: &str = "igvm crate 0.5.0, IgvmFile::new_from_binary, run on such files (igvm-format 3)";
const QEMU_SOURCE: &str = "QEMU backends/igvm.c, handlers (igvm-format 6)";
const QEMU_SEV: &str = "QEMU target/i386/sev.c (igvm-format 8 and 9)";
const CLOUD_SOURCE: &str = "cloud-hypervisor vmm/src/igvm/igvm_loader.rs (peers 5.1)";
const OPENVMM_SOURCE: &str = "openvmm worker/vm_loaders/igvm.rs (peers 5.2)";
const KVM_SOURCE: &str = "Linux 7.2 arch/x86/kvm/svm/sev.c (sev 0 and 1.3)";

/// A rule with everything in its place; keeps the table a table.
macro_rules! rules {
    ($($loaders:ident $on:expr, $weight:ident $id:literal $rule:literal $example:literal $source:expr, $test:expr;)*) => {
        /// Every rule.
        pub const RULES: &[Rule] = &[
            $(Rule {
                id: $id,
                loaders: $loaders,
                on: $on,
                weight: Weight::$weight,
                rule: $rule,
                example: $example,
                source: $source,
                test: $test,
            },)*
        ];
    };
}

rules! {
    CRATE &[], Refused "crate-structure"
        "the igvm crate refuses it"
        "a file with one byte appended; copy it again or rebuild it"
        CRATE_SOURCE, Test::Problem(&[
            "total-size", "checksum", "architecture", "page-size", "header-type", "header-type-retired",
            "header-length", "section-order", "platform-duplicate", "platform-vtl", "platform-architecture",
            "data-range", "area-unknown", "area-inserted", "page-table-insert", "context-platform", "context-tail",
        ]);
    CRATE &[], Crash "crate-panic"
        "the igvm crate panics on it"
        "a relocation alignment of 0, or a VBS register list for VP 1"
        CRATE_SOURCE, Test::Problem(&["context-vp-index", "context-vtl"]);
    CRATE &[], Refused "crate-optional"
        "the igvm crate refuses headers with the optional bit"
        "an optional header of a newer tool; drop it with igvmtool update"
        CRATE_SOURCE, Test::File(optional);
    CRATE &[], Refused "crate-version-string"
        "the igvm crate 0.5.0 cannot read VERSION_STRING"
        "a file with a version string; drop it"
        CRATE_SOURCE, Test::AnyHeader(&[0x107]);
    CRATE &[], Refused "crate-no-data"
        "the igvm crate refuses a file without file data"
        "a file of zero pages only; append eight zero bytes and set the size"
        CRATE_SOURCE, Test::File(no_data);
    CRATE &[], Refused "crate-relocation"
        "the igvm crate accepts relocation for VSM_ISOLATION only"
        "a relocatable NATIVE file; drop the region"
        CRATE_SOURCE, Test::File(relocation_beyond_vsm);
    CRATE &[], Refused "crate-context-padding"
        "the igvm crate reads 4 KiB for a context"
        "a native context of 232 bytes at the end of the file; pad it with zeros"
        CRATE_SOURCE, Test::File(unpadded_context);
    QEMU &[], Refused "qemu-unknown-header"
        "QEMU has no handler for this header type and stops with 'unknown header type', whatever its mask"
        "a file with an ERROR_RANGE or an SRAT parameter; drop it or load it elsewhere"
        QEMU_SOURCE, Test::AnyHeader(&[
            0x30D, 0x308, 0x30F, 0x310, 0x30A, 0x30E, 0x311, 0x102, 0x103, 0x104, 0x105, 0x106,
        ]);
    QEMU &[Native], Refused "qemu-native-ap"
        "QEMU takes a native context for the bootstrap processor only"
        "a native file with a context for VP 1; drop it, APs start by INIT and SIPI"
        QEMU_SOURCE, Test::Plan(ap_context);
    QEMU &[Sev], Refused "qemu-sev-context"
        "QEMU takes no VP context for plain SEV"
        "a SEV file with a native context; drop it"
        QEMU_SEV, Test::Plan(any_context);
    QEMU &[Sev, SevEs], Refused "qemu-snp-pages"
        "secrets and CPUID pages are fatal unless the guest is SEV-SNP"
        "a SEV-ES file with a CPUID page; give the page a mask of SEV-SNP alone"
        QEMU_SEV, Test::Plan(snp_page);
    QEMU &[SevEs, Snp], Refused "qemu-vmsa-address"
        "QEMU takes a VMSA at gpa 0xfffffffff000 only"
        "a VMSA at gpa 0x80a000; build it at 0xfffffffff000"
        QEMU_SEV, Test::Plan(vmsa_address);
    QEMU &[SevEs, Snp], Refused "qemu-vmsa-active"
        "SNP active in a VMSA's features must fit the guest"
        "a SEV-SNP VMSA without it; set bit 0 of SEV_FEATURES"
        QEMU_SEV, Test::Plan(snp_active);
    QEMU &[SevEs, Snp], Refused "qemu-vmsa-field"
        "QEMU refuses a VMSA that sets a field outside its list"
        "a VMSA with CPL 3 or a virtual TOM; clear the field"
        QEMU_SEV, Test::Plan(vmsa_foreign_field);
    QEMU &[Native, Sev, SevEs, Snp], Differs "qemu-initial-data"
        "QEMU ignores the initial data of parameter areas"
        "a default command line in an area; the guest sees zeros"
        QEMU_SOURCE, Test::Plan(initial_data);
    QEMU &[Native, Sev, SevEs, Snp], Differs "qemu-large-data"
        "the igvm crate keeps 4 KiB of a 2 MiB page, QEMU fills the rest with zeros"
        "a 2 MiB page with data; use 4 KiB pages"
        CRATE_SOURCE, Test::Plan(large_data);
    QEMU &[Sev, SevEs, Snp], Differs "qemu-shared"
        "QEMU does not look at the shared flag"
        "a shared page; it becomes private"
        QEMU_SOURCE, Test::Plan(shared);
    QEMU &[Snp], Differs "qemu-order"
        "QEMU holds page runs back past parameter inserts, so the digest is not that of the file's order"
        "pages, an insert, pages; measure with --profile qemu"
        "QEMU backends/igvm.c, batches (igvm-format 10)", Test::Plan(insert_between_pages);
    OPENVMM &[Snp], Refused "openvmm-one-vmsa"
        "the KVM backend takes exactly one VMSA and makes those of other processors itself"
        "a SEV-SNP file for 2 VPs; build it for 1"
        OPENVMM_SOURCE, Test::Plan(second_context);
    OPENVMM &[Snp], Refused "openvmm-bsp-vmsa"
        "the KVM backend takes exactly one VMSA"
        "a SEV-SNP file without contexts"
        OPENVMM_SOURCE, Test::Plan(no_bsp_context);
    OPENVMM &[Snp], Refused "openvmm-cpuid-xf"
        "CPUID_XF pages exist on Hyper-V backends, not on KVM"
        "a CPUID_XF page; use CPUID_DATA"
        OPENVMM_SOURCE, Test::Plan(cpuid_xf);
    OPENVMM &[Vsm], Crash "openvmm-vbs-measurement"
        "a VBS measurement is not implemented and panics"
        "a signed VSM_ISOLATION file; drop the measurement"
        OPENVMM_SOURCE, Test::Header(&[0x311]);
    OPENVMM &[Vsm, Snp], Crash "openvmm-large-pages"
        "2 MiB pages end in an assertion"
        "a 2 MiB page; use 4 KiB pages"
        "openvmm worker/vm_loaders/igvm.rs (peers 7, row 2M pages)", Test::Plan(large);
    OPENVMM &[Vsm], Refused "openvmm-relocation"
        "relocation is for one region of VTL2"
        "a relocatable VTL 0 image; load it at its own addresses"
        OPENVMM_SOURCE, Test::Plan(relocation_not_vtl2);
    CLOUD &[Snp], Refused "cloud-first-platform"
        "Cloud Hypervisor takes the mask of the first platform header, whatever it is"
        "NATIVE listed before SEV_SNP; strip the other platforms"
        CLOUD_SOURCE, Test::File(snp_not_first);
    CLOUD &[Native], Refused "cloud-native-multi"
        "without SEV_SNP in front, nothing is filtered"
        "a NATIVE and VSM file; strip it to one platform"
        CLOUD_SOURCE, Test::File(unfiltered);
    CLOUD &[], Crash "cloud-parameter"
        "Cloud Hypervisor panics on this parameter"
        "a stock COCONUT file with ENVIRONMENT_INFO"
        CLOUD_SOURCE, Test::AnyHeader(&[0x308, 0x309, 0x30A, 0x30F, 0x310, 0x312, 0x313]);
    CLOUD &[Native], Crash "cloud-memory-map"
        "a memory map without SEV-SNP is not implemented"
        "a NATIVE OVMF file with a memory map parameter"
        CLOUD_SOURCE, Test::Header(&[0x30C]);
    CLOUD &[Native, Snp], Crash "cloud-directive"
        "Cloud Hypervisor panics on error ranges and VBS measurements"
        "an ERROR_RANGE for SEV-SNP"
        CLOUD_SOURCE, Test::Header(&[0x30D, 0x311]);
    CLOUD &[Native], Crash "cloud-native-context"
        "native VP contexts are not implemented"
        "igvm-wrap's flat32 file"
        CLOUD_SOURCE, Test::Plan(any_context);
    CLOUD &[Native], Refused "cloud-firmware-address"
        "memory just below 4 GiB exists for SEV-SNP guests only"
        "an OVMF NATIVE file: MemoryUnavailable (issue 8454)"
        CLOUD_SOURCE, Test::Plan(below_4_gib);
    CLOUD &[Snp], Crash "cloud-cpuid-xf"
        "CPUID_XF pages are not implemented"
        "a CPUID_XF page; use CPUID_DATA"
        CLOUD_SOURCE, Test::Plan(cpuid_xf);
    CLOUD &[Native, Snp], Crash "cloud-large-pages"
        "2 MiB pages end in an assertion"
        "a 2 MiB page; use 4 KiB pages"
        "cloud-hypervisor vmm/src/igvm/igvm_loader.rs (peers 7, row 2M pages)", Test::Plan(large);
    CLOUD &[Snp], Differs "cloud-zero-pages"
        "pages without data become ZERO pages, which gives another digest"
        "OVMF's SEV memory; measure with --profile cloud-hypervisor"
        "cloud-hypervisor on KVM (igvm-format 11)", Test::Plan(zero_page);
    KVM &[Snp], Refused "kvm-policy-one"
        "bit 17 of a SEV-SNP policy must be one"
        "policy 0; use 0x30000"
        KVM_SOURCE, Test::Plan(must_be_one);
    KVM &[Snp], Refused "kvm-migration-agent"
        "KVM refuses a policy with the migration agent bit"
        "policy 0x70000; use 0x30000"
        KVM_SOURCE, Test::Plan(migration_agent);
    KVM &[Snp], Refused "kvm-id-block-digest"
        "firmware refuses the launch when the ID block expects another digest"
        "an ID block of a tool that measures in file order; sign it again"
        KVM_SOURCE, Test::Plan(id_block_digest);
    KVM &[Snp], Differs "kvm-vmsa-address"
        "KVM measures every VMSA at gpa 0xfffffffff000"
        "a VMSA at gpa 0x80a000; the digest of its own address is never measured"
        KVM_SOURCE, Test::Plan(vmsa_address);
    KVM &[Snp], Differs "kvm-vmsa-field"
        "KVM builds the VMSA from VP state and cannot keep this field"
        "a VMSA with CR2; the digest is another than the file's"
        KVM_SOURCE, Test::Plan(vmsa_field);
    KVM &[Snp], Differs "kvm-vmsa-last"
        "KVM measures VMSAs behind all pages, whatever the file's order"
        "a file of igvmfilegen; its own digest is never measured, use igvmtool measure"
        KVM_SOURCE, Test::Plan(vmsa_before_pages);
    KVM &[Snp], Note "kvm-policy"
        "the launch falls back to the host's policy"
        "a SEV-SNP file without GUEST_POLICY"
        KVM_SOURCE, Test::Plan(no_policy);
    SPEC &[], Refused "spec-native-v1"
        "the definitions have native contexts in version 2 files only"
        "a version 1 NATIVE file; loaders take it all the same"
        "igvm_defs 0.5.0, IgvmNativeVpContextX64 (igvm-format 5)", Test::File(native_context_v1);
    SPEC EVERY, Refused "spec-one-context"
        "the definitions allow one VP_CONTEXT per file"
        "a SEV-ES file for 2 VPs; loaders take it all the same"
        "igvm_defs 0.5.0, IGVM_VHS_VP_CONTEXT (igvm-format 2 and 5)", Test::Plan(second_context);
    SPEC EVERY, Note "spec-device-tree"
        "a device tree is meant to replace all other parameters"
        "a device tree beside a memory map"
        "igvm_defs 0.5.0, IGVM_VHT_DEVICE_TREE (igvm-format 4)", Test::Plan(parameters_beside_device_tree);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rules_have_unique_names_known_loaders_and_a_source() {
        let mut names = BTreeSet::new();
        for rule in RULES {
            assert!(names.insert(rule.id), "{}", rule.id);
            assert!(vm_loaders::igvm::Code::from_id(rule.id).is_none(), "{}", rule.id);
            assert!(!rule.source.is_empty() && !rule.example.is_empty());
            for name in rule.loaders {
                assert!(LOADERS.iter().any(|loader| loader.name == *name), "{name}");
            }
            if let Test::Problem(codes) = rule.test {
                for code in codes {
                    assert!(vm_loaders::igvm::Code::from_id(code).is_some(), "{code}");
                }
            }
        }
    }
}
