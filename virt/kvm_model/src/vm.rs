// SPDX-License-Identifier: MIT
//! A VM as KVM keeps it: slots, attributes, VPs, what SEV made of it.
//!
//! Always true: every check of KVM's comes before the firmware is asked, in KVM's order, and a refused
//! request changes nothing unless the kernel's own would. Not here: reading requests off the seam
//! ([`crate::dispatch`]).

pub(crate) mod commands;
mod legacy;
mod memory;
mod snp;
mod vp;

use crate::asids::Asids;
use crate::host::{FakeHost, Platform};
use crate::model::{Finding, LaunchRecord, Objects};
use crate::physical::Physical;
use crate::psp::Psp;
use crate::ranges::Ranges;
use crate::user::User;
use crate::vcpu::Vcpu;
use std::collections::BTreeMap;

/// A range of guest memory.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// First page number and pages.
    pub(crate) gpn: u64,
    pub(crate) pages: u64,
    /// The shared side.
    pub(crate) host: u64,
    /// The private side: descriptor and first page.
    pub(crate) memfd: Option<(i32, u64)>,
    pub(crate) user: User,
}

impl Slot {
    pub(crate) fn contains(&self, gpn: u64) -> bool {
        gpn >= self.gpn && gpn - self.gpn < self.pages
    }

    /// Where page `gpn` of the shared side lies in the caller's memory.
    pub(crate) fn host_page(&self, gpn: u64) -> u64 {
        self.host + (gpn - self.gpn) * 4096
    }
}

/// What INIT2 or its predecessors made.
#[derive(Debug, Clone)]
pub(crate) struct Sev {
    pub(crate) platform: Platform,
    pub(crate) asid: u32,
    /// Of all save areas, with SNP_ACTIVE.
    pub(crate) features: u64,
    /// By INIT or ES_INIT.
    pub(crate) legacy: bool,
    /// The `/dev/sev` that the start named. KVM begins with number 0.
    pub(crate) stored_fd: i32,
    /// The firmware's handle (SEV, SEV-ES); 0 before the start.
    pub(crate) handle: u32,
    /// The context's page (SEV-SNP).
    pub(crate) context: Option<u64>,
}

/// A VM.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) id: u32,
    pub(crate) vm_type: u64,
    pub(crate) sev: Option<Sev>,
    pub(crate) slots: BTreeMap<u32, Slot>,
    /// Page numbers with the attribute.
    pub(crate) private: Ranges,
    /// Addresses and lengths.
    pub(crate) pinned: Vec<(u64, u64)>,
    pub(crate) vcpus: Vec<Vcpu>,
    /// A VP is being created by another thread.
    pub(crate) creating_vp: bool,
    /// Hypercalls that leave to user space.
    pub(crate) hypercalls: u64,
    /// The launch has ended and the guest may run.
    pub(crate) runs: bool,
    /// Converted while running, with the other side not given up yet: page numbers and the new side.
    pub(crate) undiscarded: BTreeMap<u64, bool>,
}

impl Vm {
    pub(crate) fn new(id: u32, vm_type: u64) -> Self {
        Self {
            id,
            vm_type,
            sev: None,
            slots: BTreeMap::new(),
            private: Ranges::default(),
            pinned: Vec::new(),
            vcpus: Vec::new(),
            creating_vp: false,
            hypercalls: 0,
            runs: false,
            undiscarded: BTreeMap::new(),
        }
    }

    pub(crate) fn slot(&self, gpn: u64) -> Option<&Slot> {
        self.slots.values().find(|slot| slot.contains(gpn))
    }

    /// The shared side of pages that lie wholly in a range of the caller's memory was given up.
    pub(crate) fn note_discard(&mut self, start: u64, len: u64) {
        let slots = &self.slots;
        self.undiscarded.retain(|gpn, private| {
            let slot = slots.values().find(|slot| slot.contains(*gpn));
            let at = slot.map_or(0, |slot| slot.host_page(*gpn));
            !*private || at < start || at - start >= len
        });
    }

    /// The private side of pages of a guest_memfd was given up.
    pub(crate) fn note_punch(&mut self, descriptor: i32, pages: std::ops::Range<u64>) {
        let slots = &self.slots;
        self.undiscarded.retain(|gpn, private| {
            let slot = slots.values().find(|slot| slot.contains(*gpn));
            let index = slot.and_then(|slot| {
                let (of, first) = slot.memfd?;
                (of == descriptor).then(|| first + gpn - slot.gpn)
            });
            *private || !index.is_some_and(|index| pages.contains(&index))
        });
    }

    pub(crate) fn platform(&self) -> Option<Platform> {
        self.sev.as_ref().map(|sev| sev.platform)
    }

    /// The VM is of a type for encrypted guests but not initialised.
    pub(crate) fn needs_init(&self) -> bool {
        self.sev.is_none() && Platform::of_vm_type(self.vm_type).is_some()
    }

    /// Register ioctls end when the state is sealed, for the types that INIT2 serves.
    pub(crate) fn hides_state(&self) -> bool {
        matches!(
            Platform::of_vm_type(self.vm_type),
            Some(Platform::SevEs | Platform::Snp)
        )
    }
}

/// A VM with everything around it, for one request.
pub(crate) struct Machine<'m> {
    pub(crate) vm: &'m mut Vm,
    pub(crate) host: &'m FakeHost,
    pub(crate) objects: &'m Objects,
    pub(crate) psp: &'m mut Psp,
    pub(crate) physical: &'m mut Physical,
    pub(crate) asids: &'m mut Asids,
    pub(crate) launches: &'m mut Vec<LaunchRecord>,
    pub(crate) findings: &'m mut Vec<Finding>,
}
