// SPDX-License-Identifier: MIT
//! Refused calls in words that say what to do (`spec/sev.md` 1.6, 5.5).

use crate::firmware::{self, status};
use crate::host::Offer;
use crate::platform::Platform;
use kvm_sys::FirmwareVersion;

/// A step of a launch that talks to KVM or the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    CreateVm,
    EnableHypercalls,
    Init,
    Memory,
    Pin,
    Start,
    Vp(u32),
    Attributes(u64),
    Update(u64),
    Vmsa,
    Measure,
    Finish,
}

impl Step {
    /// As messages name it.
    fn name(self) -> String {
        match self {
            Self::CreateVm => "making the vm".into(),
            Self::EnableHypercalls => "asking kvm for the guest's page conversions".into(),
            Self::Init => "initialising the vm".into(),
            Self::Memory => "giving the vm its memory".into(),
            Self::Pin => "pinning guest memory".into(),
            Self::Start => "starting the launch".into(),
            Self::Vp(vp) => format!("setting up vp {vp}"),
            Self::Attributes(gpa) => format!("making the pages at gpa {gpa:#x} private"),
            Self::Update(gpa) => format!("adding the pages at gpa {gpa:#x}"),
            Self::Vmsa => "sealing the save areas".into(),
            Self::Measure => "reading the launch measurement".into(),
            Self::Finish => "finishing the launch".into(),
        }
    }
}

/// What is known about a launch when a call fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation<'s> {
    pub(crate) platform: Platform,
    pub(crate) policy: u64,
    pub(crate) features: u64,
    pub(crate) offer: &'s Offer,
    /// ASIDs of the platform, as CPUID counts them.
    pub(crate) asids: u32,
    /// Bytes of guest memory.
    pub(crate) memory: u64,
    /// Where it tells.
    pub(crate) firmware: Option<FirmwareVersion>,
}

impl Situation<'_> {
    /// The firmware, with its version if that is known.
    fn firmware_name(&self) -> String {
        self.firmware.map_or_else(
            || "the firmware".to_owned(),
            |version| format!("firmware {}.{}", version.major, version.minor),
        )
    }
}

/// An answer: the kernel's error number and, with EIO, the firmware's status (0 when it was not asked).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) errno: i32,
    pub(crate) firmware: u32,
}

/// A failed step in words; `call` is the call with the host's own words.
pub(crate) fn explain(step: Step, answer: Answer, situation: &Situation<'_>, call: &str) -> String {
    let reason = specific(step, answer, situation).unwrap_or_else(|| general(answer));
    format!("{}: {reason} ({call})", step.name())
}

fn specific(step: Step, answer: Answer, s: &Situation<'_>) -> Option<String> {
    let platform = s.platform;
    Some(match (step, answer.errno, answer.firmware) {
        (Step::Init, libc::EBUSY, _) => format!(
            "all {} {platform} ASIDs are in use, or a cgroup misc limit is reached; stop another such guest, or raise the limit",
            s.asids
        ),
        (Step::Init, libc::ENOTTY, _) => {
            format!(
                "this host reserves no ASIDs for {platform}; change the SEV-ES ASID limit in the firmware setup"
            )
        }
        (Step::Init, libc::EINVAL, _) if s.features != 0 => format!(
            "kvm does not take SEV features {:#x}; it offers {:#x} on this host",
            s.features, s.offer.features
        ),
        (Step::Pin, libc::ENOMEM, _) => {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
            let limit = limit.map_or("unlimited".into(), |bytes| format!("{} KiB", bytes / 1024));
            format!(
                "cannot pin {} MiB: raise RLIMIT_MEMLOCK (now {limit}), give the guest less memory, or run with CAP_IPC_LOCK",
                s.memory >> 20
            )
        }
        (Step::Start, _, status::POLICY_FAILURE) => format!(
            "{} refused policy {:#x}: its minimum version, or SMT (bit 16 of a SEV-SNP policy) being on, is the usual \
             cause",
            s.firmware_name(),
            s.policy
        ),
        (Step::Start, libc::EINVAL, _) if platform == Platform::Snp => {
            format!(
                "kvm refused policy {:#x}; some kernels take fewer of its bits",
                s.policy
            )
        }
        (Step::Start, libc::ENOTTY, status) if platform == Platform::Snp => {
            let cause = if status == 0 {
                "it was not asked".into()
            } else {
                firmware::name(status)
            };
            format!("the firmware gave no guest context: {cause}")
        }
        (Step::Start, _, status::RESOURCE_LIMIT) => {
            "the firmware has no room for another guest; stop one".into()
        }
        (Step::Update(gpa), libc::EIO, 0) => format!(
            "page {gpa:#x} was refused by kvm, not by the firmware: added twice, not private, or interrupted"
        ),
        (Step::Finish, _, status::BAD_MEASUREMENT) => {
            "the firmware's launch digest is not the one of the id block (BAD_MEASUREMENT)".into()
        }
        (Step::Finish, _, status::BAD_SIGNATURE) => {
            "a signature of the id block does not verify (BAD_SIGNATURE)".into()
        }
        (Step::Finish, _, status::POLICY_FAILURE) => format!(
            "the id block was signed for another policy than {:#x} (POLICY_FAILURE)",
            s.policy
        ),
        _ => return None,
    })
}

fn general(answer: Answer) -> String {
    match answer {
        Answer {
            errno: libc::EIO,
            firmware: 0,
        } => "kvm failed without asking the firmware".into(),
        Answer {
            errno: libc::EIO,
            firmware,
        } => format!("the firmware answered {}", firmware::name(firmware)),
        Answer {
            errno: libc::EBUSY, ..
        } => "the security processor does not answer any more; reload the module ccp, or restart the host"
            .into(),
        Answer {
            errno: libc::ENODEV, ..
        } => "the host has no security processor; load the module ccp".into(),
        Answer {
            errno: libc::EBADF, ..
        } => "/dev/sev is not open any more".into(),
        Answer {
            errno: libc::ENOMEM, ..
        } => "the host has no memory left for it".into(),
        Answer {
            errno: libc::EINVAL, ..
        } => "kvm does not take it in this state; see the kernel log".into(),
        Answer {
            errno: libc::ENOTTY, ..
        } => "kvm does not know it for this vm".into(),
        _ => "the host refused".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Interface;

    const OFFER: Offer = Offer {
        interface: Interface::Init2,
        features: 1 << 5,
        policy_bits: None,
        c_bit: 51,
        reduced_bits: 5,
    };

    fn text(platform: Platform, step: Step, errno: i32, firmware: u32) -> String {
        let situation = Situation {
            platform,
            policy: 0x3_0000,
            features: 8,
            offer: &OFFER,
            asids: 99,
            memory: 64 << 20,
            firmware: None,
        };
        explain(step, Answer { errno, firmware }, &situation, "CALL: words")
    }

    #[test]
    fn every_refusal_of_the_table_says_what_to_do() {
        use Platform::{Sev, SevEs, Snp};
        for (platform, step, errno, firmware, wanted) in [
            (Snp, Step::Init, libc::EBUSY, 0, "all 99 SEV-SNP ASIDs are in use"),
            (
                SevEs,
                Step::Init,
                libc::ENOTTY,
                0,
                "this host reserves no ASIDs for SEV-ES",
            ),
            (
                Snp,
                Step::Init,
                libc::EINVAL,
                0,
                "kvm does not take SEV features 0x8; it offers 0x20",
            ),
            (
                Sev,
                Step::Pin,
                libc::ENOMEM,
                0,
                "cannot pin 64 MiB: raise RLIMIT_MEMLOCK (now ",
            ),
            (
                Snp,
                Step::Start,
                libc::EIO,
                7,
                "the firmware refused policy 0x30000",
            ),
            (
                Snp,
                Step::Start,
                libc::ENOTTY,
                0x17,
                "no guest context: RESOURCE_LIMIT (0x17)",
            ),
            (
                Snp,
                Step::Update(0x5000),
                libc::EIO,
                0,
                "page 0x5000 was refused by kvm, not by the firmware",
            ),
            (
                Snp,
                Step::Update(0x5000),
                libc::EIO,
                0x1A,
                "the firmware answered INVALID_PAGE_STATE (0x1a)",
            ),
            (Snp, Step::Finish, libc::EIO, 0xB, "(BAD_MEASUREMENT)"),
            (Snp, Step::Finish, libc::EIO, 0xA, "(BAD_SIGNATURE)"),
            (Snp, Step::Finish, libc::EIO, 7, "(POLICY_FAILURE)"),
            (
                Snp,
                Step::Vp(3),
                libc::EINVAL,
                0,
                "setting up vp 3: kvm does not take it in this state",
            ),
            (
                Sev,
                Step::Measure,
                libc::EBUSY,
                0,
                "the security processor does not answer any more",
            ),
            (
                Sev,
                Step::Vmsa,
                libc::ENODEV,
                0,
                "the host has no security processor",
            ),
            (Sev, Step::Finish, libc::EBADF, 0, "/dev/sev is not open any more"),
            (
                Sev,
                Step::CreateVm,
                libc::EPERM,
                0,
                "making the vm: the host refused (CALL: words)",
            ),
        ] {
            let found = text(platform, step, errno, firmware);
            assert!(found.contains(wanted), "{found}");
            assert!(found.ends_with(" (CALL: words)"), "{found}");
        }
    }
}
