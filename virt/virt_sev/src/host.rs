// SPDX-License-Identifier: MIT
//! Whether this host can launch a platform, and if not, exactly what is missing (`spec/sev.md` 5.2, 5.5).
//!
//! Always true: KVM's own answer (`KVM_CAP_VM_TYPES`) decides; everything else only explains a no, or
//! covers kernels before 6.10, which had SEV and SEV-ES without the answer.

use crate::facts::HostFacts;
use crate::platform::Platform;
use guest_memory::GuestMemory;
use kvm_sys::bindings as kb;
use kvm_sys::{API_VERSION, Handle, KvmError, Node, Sys, System, VmType};
use std::sync::Arc;

/// What every refusal offers.
const OTHERWISE: &str =
    "add --sev-model to launch on a model of such a host, or use igvmtool measure for the digest";
/// `KVM_HC_MAP_GPA_RANGE`: the guest's page conversions, as a bit of `KVM_CAP_EXIT_HYPERCALL`.
pub(crate) const MAP_GPA_RANGE: i32 = 1 << 12;
/// Group of the SEV attributes of `/dev/kvm`, and its attributes.
const GROUP_SEV: u32 = 1;
const VMSA_FEATURES: u64 = 0;
const SNP_POLICY_BITS: u64 = 1;
/// What SEV-SNP needs of KVM beside the type of VM.
const SNP_CAPABILITIES: [(u32, &str); 3] = [
    (kb::KVM_CAP_USER_MEMORY2, "KVM_CAP_USER_MEMORY2"),
    (kb::KVM_CAP_MEMORY_ATTRIBUTES, "KVM_CAP_MEMORY_ATTRIBUTES"),
    (kb::KVM_CAP_GUEST_MEMFD, "KVM_CAP_GUEST_MEMFD"),
];

/// How VMs of a platform are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// A type of VM and INIT2 (Linux 6.10).
    Init2,
    /// A VM of the default type and INIT or ES_INIT.
    Legacy,
}

/// What the host offers a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// How VMs are made.
    pub interface: Interface,
    /// SEV features that INIT2 takes; 0 when KVM does not say.
    pub features: u64,
    /// Policy bits that SEV-SNP takes; `None` when KVM does not say.
    pub policy_bits: Option<u64>,
    /// Position of the C-bit.
    pub c_bit: u32,
    /// Physical address bits that encryption takes.
    pub reduced_bits: u32,
}

/// Why a host cannot launch a platform.
#[derive(Debug, thiserror::Error)]
#[error("{reason}; {OTHERWISE}")]
pub struct Unsupported {
    /// What is missing and, where there is one, the way to get it.
    pub reason: String,
}

fn no(reason: impl Into<String>) -> Unsupported {
    Unsupported {
        reason: reason.into(),
    }
}

/// A failed question.
fn failed(error: KvmError) -> Unsupported {
    no(error.to_string())
}

/// An open host that can launch a platform.
#[derive(Debug)]
pub struct Host {
    /// `/dev/kvm`.
    pub system: System,
    /// `/dev/sev`.
    pub sev: Handle,
    /// What it offers.
    pub offer: Offer,
}

/// Opens the host for `platform`.
pub fn open(sys: &Arc<dyn Sys>, facts: &HostFacts, platform: Platform) -> Result<Host, Unsupported> {
    let system = System::open(sys.clone()).map_err(|e| no(why_no_kvm(&e, facts)))?;
    let version = system.api_version().map_err(failed)?;
    if version != API_VERSION {
        return Err(no(format!(
            "kvm's interface has version {version}, not {API_VERSION}; update the kernel"
        )));
    }
    let types = system.check_extension(kb::KVM_CAP_VM_TYPES).map_err(failed)?;
    let interface = if types >> (platform.vm_type() as u32) & 1 != 0 {
        Interface::Init2
    } else if is_legacy(&system, facts, platform) {
        Interface::Legacy
    } else {
        return Err(no(explain(facts, platform, types)));
    };
    if platform == Platform::Snp {
        check_snp(&system)?;
    }
    let sev = Handle::open(sys.clone(), Node::Sev).map_err(|e| no(why_no_sev_node(&e)))?;
    let attribute = |attr| system.handle().get_attribute(GROUP_SEV, attr).ok();
    let (c_bit, reduced_bits) = facts.c_bit().ok_or_else(|| {
        no("kvm offers it but the processor does not say where its C-bit is (CPUID 0x8000001F)")
    })?;
    let offer = Offer {
        interface,
        features: attribute(VMSA_FEATURES).unwrap_or(0),
        policy_bits: attribute(SNP_POLICY_BITS),
        c_bit,
        reduced_bits,
    };
    Ok(Host { system, sev, offer })
}

fn why_no_kvm(error: &KvmError, facts: &HostFacts) -> String {
    match error.errno() {
        _ if !facts.is_amd() => not_amd("a memory-encrypted guest", facts),
        Some(libc::ENOENT) => "/dev/kvm does not exist; load the module kvm_amd".to_owned(),
        Some(libc::EACCES | libc::EPERM) => {
            "no permission on /dev/kvm; join the group that owns it, or run as root".to_owned()
        }
        _ => format!("cannot open /dev/kvm: {}", error.source),
    }
}

fn why_no_sev_node(error: &KvmError) -> String {
    match error.errno() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "/dev/sev is missing: load the module ccp, whose driver talks to the security processor"
                .to_owned()
        }
        Some(libc::EACCES | libc::EPERM) => {
            "no permission on /dev/sev: join the group that owns it, or run as root".to_owned()
        }
        _ => format!("cannot open /dev/sev: {}", error.source),
    }
}

/// Linux before 6.10: SEV and SEV-ES on VMs of the default type. A null command tells whether SEV is on;
/// whether SEV-ES is, only its parameter says.
fn is_legacy(system: &System, facts: &HostFacts, platform: Platform) -> bool {
    let parameter = |name: &str| {
        facts
            .parameters
            .get(name)
            .is_some_and(|value| matches!(&**value, "Y" | "1"))
    };
    let wanted = match platform {
        Platform::Sev => parameter("sev"),
        Platform::SevEs => parameter("sev_es"),
        Platform::Snp => false,
    };
    wanted && facts.kernel_version() < (6, 10) && sev_is_on(system).unwrap_or(false)
}

fn sev_is_on(system: &System) -> Result<bool, KvmError> {
    let memory = GuestMemory::allocate(&[(0, 0x1000)])
        .map_err(|e| KvmError::new("memory of a probe", std::io::Error::other(e)))?;
    let vm = system.create_vm(VmType::Default, &memory)?;
    Ok(vm.sev_is_enabled())
}

fn check_snp(system: &System) -> Result<(), Unsupported> {
    let mut missing = Vec::new();
    for (capability, name) in SNP_CAPABILITIES {
        if system.check_extension(capability).map_err(failed)? <= 0 {
            missing.push(name);
        }
    }
    let hypercalls = system
        .check_extension(kb::KVM_CAP_EXIT_HYPERCALL)
        .map_err(failed)?;
    if hypercalls & MAP_GPA_RANGE == 0 {
        missing.push("KVM_CAP_EXIT_HYPERCALL with KVM_HC_MAP_GPA_RANGE");
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(no(format!(
        "this kernel's kvm lacks {}, which SEV-SNP needs; update the kernel",
        missing.join(", ")
    )))
}

fn not_amd(what: impl std::fmt::Display, facts: &HostFacts) -> String {
    format!("{what} needs an AMD EPYC host; this cpu is {}", facts.vendor)
}

/// Why KVM has no VMs of the type, from the processor up.
fn explain(facts: &HostFacts, platform: Platform, types: i32) -> String {
    if !facts.is_amd() {
        return not_amd(platform, facts);
    }
    let leaf = facts.encryption();
    let eax = leaf.map_or(0, |leaf| leaf[0]);
    if eax & platform.cpuid_bit() == 0 {
        return format!("this AMD cpu has no {platform} (CPUID 0x8000001F EAX={eax:#x})");
    }
    let edx = leaf.map_or(0, |leaf| leaf[3]);
    if platform != Platform::Sev && edx <= 1 {
        return format!(
            "the firmware setup reserves no ASIDs for {platform} (CPUID 0x8000001F EDX={edx:#x}); set the SEV-ES ASID \
             limit there"
        );
    }
    let version = facts.kernel_version();
    let needed = if platform == Platform::Snp {
        (6, 11)
    } else {
        (6, 10)
    };
    let too_old = format!(
        "kernel {} has no {platform} VMs (SEV and SEV-ES need 6.10, SEV-SNP 6.11)",
        facts.kernel
    );
    // Such kernels may not know the flag either.
    if platform == Platform::Snp && version < needed {
        return too_old;
    }
    let flag = platform.flag();
    if facts
        .flags
        .as_ref()
        .is_some_and(|flags| !flags.iter().any(|f| f == flag))
    {
        return format!(
            "the cpu supports {platform} but the system does not use it (no {flag} in /proc/cpuinfo): enable memory \
             encryption (SMEE) and the SMM lock in the firmware setup"
        );
    }
    if let Some(value @ ("N" | "0")) = facts.parameters.get(flag).map(|value| &**value) {
        return format!(
            "kvm has {platform} switched off: kvm_amd parameter {flag} is {value}; load kvm_amd with {flag}=1, or see the \
             kernel log for why it turned it off"
        );
    }
    if version < needed {
        return too_old;
    }
    let cause = match platform {
        Platform::SevEs if types >> (VmType::Snp as u32) & 1 != 0 => {
            "; ciphertext hiding has given all ASIDs of this range to SEV-SNP"
        }
        _ => "",
    };
    format!(
        "kvm reports no {platform} VMs (types {types:#x}){cause}; see the kernel log (search SEV) for \"unusable\" or \
         \"disabled\""
    )
}

#[cfg(test)]
mod tests;
