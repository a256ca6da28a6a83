// SPDX-License-Identifier: MIT
//! Whether KVM is there and has what this backend needs.

use crate::cpuid;
use crate::partition::KvmPartition;
use crate::probe::{self, Probe};
use crate::tsc;
use kvm_sys::bindings as kb;
use kvm_sys::{API_VERSION, KvmError, RealSys, Sys, System};
use std::sync::Arc;
use virt::{Capabilities, Hypervisor, Partition, PartitionConfig, RunError};

/// Name as typed after `--hypervisor`.
const NAME: &str = "kvm";
/// The way out that always exists.
const OTHERWISE: &str = "or use --hypervisor soft";
/// APIC ids are 8 bits without x2APIC, and 255 is the broadcast.
const XAPIC_VPS: u32 = 255;

/// Capabilities that this backend cannot do without (all are in Linux 5.10 and later).
const REQUIRED: &[(u32, &str)] = &[
    (kb::KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"),
    (kb::KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"),
    (kb::KVM_CAP_USER_NMI, "KVM_CAP_USER_NMI"),
    (kb::KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"),
    (kb::KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"),
    (kb::KVM_CAP_XSAVE, "KVM_CAP_XSAVE"),
    (kb::KVM_CAP_XCRS, "KVM_CAP_XCRS"),
    (kb::KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"),
    (kb::KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR"),
    (kb::KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"),
];

/// KVM of this host.
pub struct Kvm {
    system: Arc<System>,
    leaves: Arc<Vec<kb::kvm_cpuid_entry2>>,
    phys_bits: u8,
    max_vps: u32,
    tsc_hz: Option<u64>,
}

impl std::fmt::Debug for Kvm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Kvm {{ phys_bits {}, max_vps {}, tsc_hz {:?} }}",
            self.phys_bits, self.max_vps, self.tsc_hz
        )
    }
}

impl Kvm {
    /// Opens `/dev/kvm` and checks that it has everything.
    pub fn open() -> Result<Self, RunError> {
        Self::over(Arc::new(RealSys))
    }

    /// The same over any system, for tests of what a host may answer.
    pub fn over(sys: Arc<dyn Sys>) -> Result<Self, RunError> {
        let system = System::open(sys).map_err(|e| unavailable(why_not_opened(&e)))?;
        let version = system.api_version().map_err(host)?;
        if version != API_VERSION {
            let text = format!(
                "its interface has version {version}, not {API_VERSION}; update the kernel, {OTHERWISE}"
            );
            return Err(unavailable(text));
        }
        let missing = missing_capabilities(&system)?;
        if !missing.is_empty() {
            let text = format!(
                "this kernel's KVM lacks {}; update the kernel, {OTHERWISE}",
                missing.join(", ")
            );
            return Err(unavailable(text));
        }
        let max_vps = system.check_extension(kb::KVM_CAP_MAX_VCPUS).map_err(host)?;
        let leaves = cpuid::policy(
            &system.supported_cpuid().map_err(host)?,
            probe::host_virtualisation(),
        );
        Ok(Self {
            tsc_hz: tsc::frequency(&system).map_err(host)?,
            system: Arc::new(system),
            phys_bits: cpuid::phys_bits(&leaves),
            leaves: Arc::new(leaves),
            max_vps: u32::try_from(max_vps).unwrap_or(1).clamp(1, XAPIC_VPS),
        })
    }

    /// Measures in a few milliseconds whether guest kernel code runs on hardware.
    pub fn probe(&self) -> Result<Probe, RunError> {
        probe::probe(&self.system).map_err(host)
    }
}

impl Hypervisor for Kvm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            x2apic: false,
            deterministic: false,
            phys_bits: self.phys_bits,
            tsc_hz: self.tsc_hz,
            tsc_is_clock: false,
        }
    }

    fn new_partition(&self, config: PartitionConfig) -> Result<Box<dyn Partition>, RunError> {
        if config.vp_count == 0 || config.vp_count > self.max_vps {
            let what = format!("{} virtual processors", config.vp_count);
            return Err(RunError::Host {
                what,
                reason: format!("kvm runs 1 to {} here", self.max_vps),
            });
        }
        let partition = KvmPartition::new(&self.system, self.leaves.clone(), self.phys_bits, config);
        Ok(Box::new(partition.map_err(host)?))
    }
}

/// A host call failed.
pub(crate) fn host(error: KvmError) -> RunError {
    RunError::Host {
        what: error.call,
        reason: error.source.to_string(),
    }
}

fn unavailable(reason: String) -> RunError {
    RunError::Unavailable {
        hypervisor: NAME,
        reason,
    }
}

fn missing_capabilities(system: &System) -> Result<Vec<&'static str>, RunError> {
    let mut missing = Vec::new();
    for &(capability, name) in REQUIRED {
        if system.check_extension(capability).map_err(host)? <= 0 {
            missing.push(name);
        }
    }
    Ok(missing)
}

fn why_not_opened(error: &KvmError) -> String {
    match error.errno() {
        Some(libc::ENOENT) => format!(
            "/dev/kvm does not exist; load the module kvm_intel or kvm_amd (virtualisation must be enabled in \
             the firmware setup, or for a virtual machine in its host), {OTHERWISE}"
        ),
        Some(libc::EACCES | libc::EPERM) => format!(
            "no permission to open /dev/kvm; join the group that owns it (`ls -l /dev/kvm`, often kvm) or run \
             as root, {OTHERWISE}"
        ),
        Some(libc::ENODEV | libc::ENXIO) => {
            format!(
                "/dev/kvm is there but no driver answers ({}); load kvm_intel or kvm_amd, {OTHERWISE}",
                error.source
            )
        }
        _ => format!("cannot open /dev/kvm: {}; {OTHERWISE}", error.source),
    }
}

#[cfg(test)]
mod tests;
