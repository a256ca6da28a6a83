// SPDX-License-Identifier: MIT
//! The launch itself: a decision, carried out in the order that KVM and the firmware require
//! (`spec/sev.md` 1.5).
//!
//! Always true: whatever fails, every descriptor is closed on the way out; guest memory that was encrypted
//! in place is not touched again. Not here: any decision.

mod legacy;
mod snp;

use crate::cpuid;
use crate::decide::{Decision, Refused};
use crate::explain::{Answer, Situation, Step, explain};
use crate::host::Host;
use crate::platform::Platform;
use crate::registers;
use guest_memory::GuestMemory;
use kvm_sys::bindings::kvm_cpuid_entry2 as Leaf;
use kvm_sys::{FirmwareVersion, KvmError, SignalsHeld, Vcpu, Vm};
use launch_plan::{BoundImport, BoundPlan, PageKind};
use std::sync::Arc;

/// Everything that the steps of a launch need.
pub(crate) struct Launch<'l> {
    pub(crate) host: &'l Host,
    pub(crate) platform: Platform,
    pub(crate) bound: &'l BoundPlan<'l>,
    pub(crate) decision: &'l Decision<'l>,
    pub(crate) vp_count: u32,
    pub(crate) memory: &'l GuestMemory,
    pub(crate) host_data: [u8; 32],
    /// ASIDs of the platform, as CPUID counts them.
    pub(crate) asids: u32,
}

/// The VPs of a launched VM, which they keep, in creation order.
pub(crate) struct LaunchedVm {
    pub(crate) vcpus: Vec<Vcpu>,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
}

impl Launch<'_> {
    /// Carries it out.
    pub(crate) fn run(&self) -> Result<LaunchedVm, Refused> {
        // A pending signal would fail the first page of an update.
        let _held = SignalsHeld::new();
        match self.platform {
            Platform::Sev | Platform::SevEs => self.run_legacy(),
            Platform::Snp => self.run_snp(),
        }
    }

    /// A failed call in words.
    fn failed(&self, step: Step) -> impl Fn(KvmError) -> Refused + '_ {
        move |error| {
            let situation = Situation {
                platform: self.platform,
                policy: self.decision.policy,
                features: self.decision.starts.features,
                offer: &self.host.offer,
                asids: self.asids,
                memory: self.memory.regions().iter().map(|region| region.len).sum(),
                firmware: FirmwareVersion::read(&self.host.sev).ok(),
            };
            let answer = Answer {
                errno: error.errno().unwrap_or(0),
                firmware: error.firmware(),
            };
            Refused::Host(explain(step, answer, &situation, &error.to_string()))
        }
    }

    /// All VPs in index order, which is the order in which their save areas are measured.
    fn vcpus(&self, vm: &Arc<Vm>) -> Result<Vec<Vcpu>, Refused> {
        let supported = self
            .host
            .system
            .supported_cpuid()
            .map_err(self.failed(Step::Vp(0)))?;
        (0..self.vp_count)
            .map(|vp| self.vcpu(vm, vp, &supported).map_err(self.failed(Step::Vp(vp))))
            .collect()
    }

    fn vcpu(&self, vm: &Arc<Vm>, vp: u32, supported: &[Leaf]) -> Result<Vcpu, KvmError> {
        let mut vcpu = Vcpu::new(vm, vp)?;
        vcpu.set_cpuid(&cpuid::leaves(supported, self.platform, &self.host.offer, vp))?;
        if let Some(page) = self.decision.starts.contexts.get(&vp) {
            registers::load(&mut vcpu, page)?;
        }
        Ok(vcpu)
    }

    /// Puts the pages of `wanted` kinds in guest memory as they are.
    fn write(&self, wanted: impl Fn(PageKind) -> bool) -> Result<(), Refused> {
        self.bound
            .imports()
            .filter(|import| wanted(import.kind))
            .try_for_each(|import| self.write_pages(&import))
    }

    fn write_pages(&self, import: &BoundImport<'_>) -> Result<(), Refused> {
        let Some(data) = import.data else { return Ok(()) };
        self.memory
            .write(import.gpa, data)
            .map_err(|e| Refused::Host(format!("{}: {e}", import.origin)))
    }
}
