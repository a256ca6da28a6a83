// SPDX-License-Identifier: MIT
//! Whose reading of an image a digest follows: named profiles, and the rules that they are made of.
//!
//! Always true: a profile is nothing but its [`Rules`], so a foreign digest can be searched for rule by
//! rule (`explain`). Facts: sev.md 2.9, igvm-format sections 10 and 11. Not here: applying them
//! (`events`).

/// Whose reading of a file a digest follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// What a launch through KVM gives: pages in file order, VMSAs last at KVM's fixed address, one for
    /// each VP in creation order, as KVM rebuilds them.
    Kvm,
    /// File order, file addresses: the `igvm` crate, igvmfilegen, Hyper-V.
    FileOrder,
    /// COCONUT's igvmmeasure: only the first page of a parameter area, shared pages and other platforms'
    /// save areas measured.
    IgvmMeasure,
    /// The same with `--native-zero`: pages without data are ZERO pages.
    IgvmMeasureNativeZero,
    /// QEMU 10.2: runs of pages are held back while parameter inserts go out at once; VMSAs last.
    Qemu,
    /// Cloud Hypervisor on KVM: pages without data are ZERO pages, VMSAs last.
    CloudHypervisor,
}

impl Profile {
    /// Every profile, in the order of listings.
    pub const ALL: [Self; 6] = [
        Self::Kvm,
        Self::FileOrder,
        Self::IgvmMeasure,
        Self::IgvmMeasureNativeZero,
        Self::Qemu,
        Self::CloudHypervisor,
    ];

    /// The name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::FileOrder => "file-order",
            Self::IgvmMeasure => "igvmmeasure",
            Self::IgvmMeasureNativeZero => "igvmmeasure-native-zero",
            Self::Qemu => "qemu",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }

    /// The profile called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// What it is made of.
    pub const fn rules(self) -> Rules {
        const KVM: Rules = Rules {
            order: Order::File,
            empty: EmptyPages::Normal,
            areas: Areas::AllPages,
            shared: SharedPages::Skipped,
            large: LargeEmptyPages::AllPages,
            legacy: LegacyPages::Submitted,
            vmsas: Vmsas::Last,
            contents: VmsaContents::Kvm,
            address: VmsaAddress::Kvm,
            foreign: ForeignVmsas::Skipped,
        };
        const IGVMMEASURE: Rules = Rules {
            areas: Areas::FirstPage,
            shared: SharedPages::Measured,
            legacy: LegacyPages::WithData,
            vmsas: Vmsas::InPlace,
            contents: VmsaContents::File,
            address: VmsaAddress::File,
            foreign: ForeignVmsas::Included,
            ..KVM
        };
        match self {
            Self::Kvm => KVM,
            Self::FileOrder => Rules {
                large: LargeEmptyPages::OneRecord,
                vmsas: Vmsas::InPlace,
                contents: VmsaContents::File,
                address: VmsaAddress::File,
                ..KVM
            },
            Self::IgvmMeasure => IGVMMEASURE,
            Self::IgvmMeasureNativeZero => Rules {
                empty: EmptyPages::Zero,
                ..IGVMMEASURE
            },
            Self::Qemu => Rules {
                order: Order::RunsHeldBack,
                ..KVM
            },
            Self::CloudHypervisor => Rules {
                empty: EmptyPages::Zero,
                ..KVM
            },
        }
    }
}

/// Everything in which loaders and tools were seen to differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Rules {
    pub order: Order,
    pub empty: EmptyPages,
    pub areas: Areas,
    pub shared: SharedPages,
    pub large: LargeEmptyPages,
    pub legacy: LegacyPages,
    pub vmsas: Vmsas,
    pub contents: VmsaContents,
    pub address: VmsaAddress,
    pub foreign: ForeignVmsas,
}

/// In which order pages are submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// As the headers stand.
    File,
    /// QEMU 10.2: parameter inserts overtake the run of pages before them.
    RunsHeldBack,
    /// By ascending address.
    Address,
}

/// What pages without data are (SEV-SNP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EmptyPages {
    /// NORMAL pages of zeros, as the format wants.
    Normal,
    /// ZERO pages.
    Zero,
    /// Not submitted.
    Skipped,
}

/// Which pages of a parameter area are submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Areas {
    AllPages,
    FirstPage,
    Skipped,
}

/// What shared pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SharedPages {
    /// Not submitted.
    Skipped,
    /// Submitted as if they were private.
    Measured,
}

/// How many records a 2 MiB page without data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LargeEmptyPages {
    /// One for each 4 KiB.
    AllPages,
    /// One.
    OneRecord,
}

/// Which pages SEV and SEV-ES submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LegacyPages {
    /// Measured ones, also those without data.
    Submitted,
    /// Those that have data, also unmeasured ones.
    WithData,
}

/// When save areas are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vmsas {
    /// One for each VP, after all pages.
    Last,
    /// Those of the image, where its headers stand.
    InPlace,
    /// Never.
    Skipped,
}

/// What a save area holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VmsaContents {
    /// The image's bytes.
    File,
    /// What KVM rebuilds from them.
    Kvm,
    /// What KVM rebuilds under the old KVM_SEV_ES_INIT, which leaves MXCSR and FCW zero.
    KvmWithoutFpu,
    /// What KVM rebuilds, with this processor signature in RDX of VPs in reset state.
    KvmWithSignature(u32),
    /// What KVM rebuilds, with these SEV_FEATURES bits more.
    KvmWithFeatures(u64),
}

/// The address that a save area is measured at (SEV-SNP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VmsaAddress {
    /// KVM's fixed one.
    Kvm,
    /// The image's.
    File,
}

/// What happens to the save areas of other platforms in the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForeignVmsas {
    /// Nothing.
    Skipped,
    /// They are measured too.
    Included,
}
