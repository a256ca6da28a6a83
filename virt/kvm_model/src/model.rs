// SPDX-License-Identifier: MIT
//! The whole model: host, descriptors, VMs, security processor, memory, and what a launch left behind.
//!
//! Always true: a VM lives until the last descriptor and mapping of it and its VPs is gone, and then gives
//! back its ASID and its pages. Not here: the seam ([`crate::dispatch`]).

use crate::asids::Asids;
use crate::faults::Calls;
use crate::host::{FakeHost, Platform};
use crate::physical::{PAGE_LEN, Physical};
use crate::psp::{IdentityRecord, Psp};
use crate::vm::{Machine, Slot, Vm};
use std::collections::BTreeMap;
use std::ops::Range;

/// What a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    /// `/dev/kvm`.
    Kvm,
    /// `/dev/sev`.
    Sev,
    /// A VM.
    Vm(u32),
    /// A VP: its VM and its place in creation order.
    Vcpu(u32, usize),
    /// A guest_memfd.
    Memfd,
}

/// The model's descriptors.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    table: BTreeMap<i32, Object>,
    opened: i32,
}

/// The first descriptor: far from those of this process.
const FIRST: i32 = 0x4000_0000;

impl Objects {
    pub(crate) fn get(&self, fd: i32) -> Option<Object> {
        self.table.get(&fd).copied()
    }

    pub(crate) fn add(&mut self, object: Object) -> i32 {
        let fd = FIRST + self.opened;
        self.opened += 1;
        self.table.insert(fd, object);
        fd
    }

    pub(crate) fn remove(&mut self, fd: i32) -> Option<Object> {
        self.table.remove(&fd)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    fn refers_to(&self, vm: u32) -> bool {
        self.table
            .values()
            .any(|object| matches!(object, Object::Vm(id) | Object::Vcpu(id, _) if *id == vm))
    }
}

/// A state of a page, in the words of the reverse map table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageState {
    /// The hypervisor's: shared with the host.
    Shared,
    /// Private by attribute, never used: no page is assigned yet.
    PrivateUnassigned,
    /// Assigned, the firmware's to change.
    PreGuest,
    /// The guest's, not validated.
    GuestInvalid,
    /// The guest's and validated.
    GuestValid,
    /// Encrypted in place (SEV, SEV-ES).
    Encrypted,
}

impl std::fmt::Display for PageState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shared => "shared",
            Self::PrivateUnassigned => "private, not assigned",
            Self::PreGuest => "pre-guest",
            Self::GuestInvalid => "guest-invalid",
            Self::GuestValid => "guest-valid",
            Self::Encrypted => "encrypted",
        })
    }
}

/// Neighbouring pages in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRun {
    /// First byte.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
    /// Of all its pages.
    pub state: PageState,
}

/// A launch that was finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchRecord {
    /// Number of the VM in this model.
    pub vm: u32,
    /// The technology.
    pub platform: Platform,
    /// The policy in force.
    pub policy: u64,
    /// The launch digest that the firmware computed: 32 bytes, SEV-SNP 48.
    pub digest: Vec<u8>,
    /// SEV features of all VPs.
    pub features: u64,
    /// The host's data in attestation reports (SEV-SNP).
    pub host_data: [u8; 32],
    /// Who the guest is, if an ID block said so.
    pub identity: Option<IdentityRecord>,
    /// VPs that were sealed, or created on plain SEV.
    pub vp_count: usize,
    /// Memory when the launch ended, ascending, all slots.
    pub pages: Vec<PageRun>,
}

/// Something that a guest or a user would suffer from later, although no call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A page was converted while the guest ran, and the side that is not used any more kept its memory.
    NotDiscarded {
        /// The page.
        gpa: u64,
        /// The side that is used now.
        private: bool,
    },
    /// An encrypted page was used that is not pinned: the kernel may move it.
    Unpinned {
        /// The page.
        gpa: u64,
    },
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) host: FakeHost,
    pub(crate) objects: Objects,
    pub(crate) vms: BTreeMap<u32, Vm>,
    pub(crate) psp: Psp,
    pub(crate) physical: Physical,
    pub(crate) asids: Asids,
    pub(crate) calls: Calls,
    pub(crate) launches: Vec<LaunchRecord>,
    pub(crate) findings: Vec<Finding>,
    created: u32,
}

impl Model {
    pub(crate) fn new(host: FakeHost) -> Self {
        Self {
            psp: Psp::new(&host),
            host,
            objects: Objects::default(),
            vms: BTreeMap::new(),
            physical: Physical::default(),
            asids: Asids::default(),
            calls: Calls::default(),
            launches: Vec::new(),
            findings: Vec::new(),
            created: 0,
        }
    }

    pub(crate) fn create_vm(&mut self, vm_type: u64) -> i32 {
        self.created += 1;
        self.vms.insert(self.created, Vm::new(self.created, vm_type));
        self.objects.add(Object::Vm(self.created))
    }

    /// A VM with what is around it.
    pub(crate) fn machine(&mut self, id: u32) -> Option<Machine<'_>> {
        Some(Machine {
            vm: self.vms.get_mut(&id)?,
            host: &self.host,
            objects: &self.objects,
            psp: &mut self.psp,
            physical: &mut self.physical,
            asids: &mut self.asids,
            launches: &mut self.launches,
            findings: &mut self.findings,
        })
    }

    /// Ends a VM when nothing refers to it any more.
    pub(crate) fn end_if_unused(&mut self, id: u32) {
        let Some(vm) = self.vms.get(&id) else { return };
        if self.objects.refers_to(id) || vm.vcpus.iter().any(|vcpu| vcpu.run.is_some()) {
            return;
        }
        let Some(vm) = self.vms.remove(&id) else { return };
        for page in vm.vcpus.iter().filter_map(|vcpu| vcpu.save_area) {
            self.physical.free(page);
        }
        for slot in vm.slots.values() {
            self.physical.forget(slot.host, slot.pages);
        }
        let Some(sev) = vm.sev else { return };
        self.psp.guests.remove(&sev.handle);
        if let Some(context) = sev.context {
            self.psp.decommission(&mut self.physical, context);
        }
        self.asids.give_back(sev.asid);
    }

    pub(crate) fn live_mappings(&self) -> usize {
        let vcpus = self.vms.values().flat_map(|vm| &vm.vcpus);
        vcpus.filter(|vcpu| vcpu.run.is_some()).count()
    }
}

impl Machine<'_> {
    /// Adds what the firmware holds now to the list of launches.
    pub(crate) fn record_launch(&mut self) {
        let Some(sev) = &self.vm.sev else { return };
        let mut record = LaunchRecord {
            vm: self.vm.id,
            platform: sev.platform,
            policy: 0,
            digest: Vec::new(),
            features: sev.features,
            host_data: [0; 32],
            identity: None,
            vp_count: self.vm.vcpus.len(),
            pages: self.page_runs(),
        };
        if let Some(context) = sev.context.and_then(|context| self.psp.contexts.get(&context)) {
            record.policy = context.policy;
            record.digest = context.digest.to_vec();
            record.host_data = context.host_data;
            record.identity = context.identity.clone();
        } else if let Some(guest) = self.psp.guests.get(&sev.handle) {
            record.policy = guest.policy.into();
            record.digest = guest.digest().to_vec();
        }
        self.launches.push(record);
    }

    /// The state of all pages of all slots.
    pub(crate) fn page_runs(&self) -> Vec<PageRun> {
        let mut slots: Vec<_> = self.vm.slots.values().collect();
        slots.sort_by_key(|slot| slot.gpn);
        let mut runs = Runs::default();
        for slot in slots {
            let mut at = slot.gpn;
            for (part, state) in self.states(slot) {
                runs.push(at..part.start, PageState::Shared);
                at = part.end;
                runs.push(part, state);
            }
            runs.push(at..slot.gpn + slot.pages, PageState::Shared);
        }
        runs.0
    }

    /// The pages of a slot that are not the hypervisor's, ascending.
    fn states(&self, slot: &Slot) -> Vec<(Range<u64>, PageState)> {
        let Some((descriptor, first)) = slot.memfd else {
            let own = self.physical.encrypted_pages(slot.host, slot.pages).into_iter();
            let base = slot.host / PAGE_LEN;
            let to_gpn = |page: u64| slot.gpn + (page - base);
            return own
                .map(|part| (to_gpn(part.start)..to_gpn(part.end), PageState::Encrypted))
                .collect();
        };
        let to_index = |gpn: u64| first + (gpn - slot.gpn);
        let mut states = Vec::new();
        for part in self.vm.private.parts_in(slot.gpn..slot.gpn + slot.pages) {
            let mut at = part.start;
            for (index, page) in self
                .physical
                .memfd_pages(descriptor, to_index(part.start)..to_index(part.end))
            {
                let gpn = slot.gpn + (index - first);
                states.push((at..gpn, PageState::PrivateUnassigned));
                states.push((gpn..gpn + 1, self.state_of(page)));
                at = gpn + 1;
            }
            states.push((at..part.end, PageState::PrivateUnassigned));
        }
        states
    }

    /// The state of a page behind the private side.
    fn state_of(&self, page: u64) -> PageState {
        match self.physical.rmp(page) {
            None => PageState::PrivateUnassigned,
            Some(entry) if entry.immutable => PageState::PreGuest,
            Some(entry) if entry.validated => PageState::GuestValid,
            Some(_) => PageState::GuestInvalid,
        }
    }

    /// The state of a page of guest memory.
    pub(crate) fn page_state(&self, gpn: u64) -> PageState {
        let slot = self.vm.slot(gpn);
        let states = slot.map_or_else(Vec::new, |slot| {
            let one = Slot {
                gpn,
                pages: 1,
                host: slot.host_page(gpn),
                memfd: slot
                    .memfd
                    .map(|(descriptor, first)| (descriptor, first + (gpn - slot.gpn))),
                user: slot.user,
            };
            self.states(&one)
        });
        let state = states.into_iter().find(|(part, _)| !part.is_empty());
        state.map_or(PageState::Shared, |(_, state)| state)
    }
}

/// Runs of pages, joined where the state goes on.
#[derive(Default)]
struct Runs(Vec<PageRun>);

impl Runs {
    fn push(&mut self, pages: Range<u64>, state: PageState) {
        if pages.is_empty() {
            return;
        }
        let (gpa, len) = (pages.start * PAGE_LEN, (pages.end - pages.start) * PAGE_LEN);
        match self.0.last_mut() {
            Some(last) if last.state == state && last.gpa + last.len == gpa => last.len += len,
            _ => self.0.push(PageRun { gpa, len, state }),
        }
    }
}
