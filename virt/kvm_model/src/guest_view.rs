// SPDX-License-Identifier: MIT
//! Memory as the guest's processor meets it: private and shared sides, the reverse map table, PVALIDATE and
//! RMPADJUST (`spec/sev.md` 1.8, 4.2, 4.4).
//!
//! This is what a CPU needs of the model; the scripted guest is its first user, and a software CPU that runs
//! confidential guests can take the same [`Guest`].
//! Always true: an access that the processor refuses changes nothing but what a nested page fault changes (a
//! private page that was never used becomes guest-invalid). Not here: exits to user space.

use crate::dispatch::ModelSys;
use crate::host::Platform;
use crate::model::{Finding, PageState};
use crate::physical::{ALL_PERMISSIONS, PAGE, PAGE_LEN, RmpEntry};
use crate::psp::REPORT;
use crate::vm::Machine;
use std::sync::Arc;

/// With or without the C-bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// C-bit set.
    Private,
    /// C-bit clear.
    Shared,
}

/// Why the processor refuses an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestFault {
    /// The page is on the other side: KVM leaves with a memory fault, so that the host may convert it.
    OtherSide {
        /// The page.
        gpa: u64,
        /// The guest wanted the private side.
        private: bool,
    },
    /// There is no memory.
    NotMapped {
        /// The page.
        gpa: u64,
    },
    /// The page is not validated: #VC with error code PAGE_NOT_VALIDATED.
    NotValidated {
        /// The page.
        gpa: u64,
    },
    /// The table gives this VMPL no leave, or the page to another gpa.
    Denied {
        /// The page.
        gpa: u64,
    },
}

/// An entry of the reverse map table, for a page of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RmpView {
    /// Owner.
    pub asid: u32,
    /// Where the owner sees the page.
    pub gpa: u64,
    /// The firmware makes the next transition.
    pub immutable: bool,
    /// PVALIDATE has accepted it, or the launch.
    pub validated: bool,
    /// It holds a save area.
    pub save_area: bool,
    /// Read, write, execute (user, supervisor) by VMPL.
    pub permissions: [u8; 4],
}

/// A guest of the model, as its processor sees it.
#[derive(Debug, Clone)]
pub struct Guest {
    sys: Arc<ModelSys>,
    vm: u32,
}

impl ModelSys {
    /// The VM of that number (they count from 1), if it exists.
    pub fn guest(self: &Arc<Self>, vm: u32) -> Option<Guest> {
        self.model().vms.contains_key(&vm).then(|| Guest {
            sys: self.clone(),
            vm,
        })
    }
}

impl Guest {
    pub(crate) fn sys(&self) -> &ModelSys {
        &self.sys
    }

    pub(crate) fn vm(&self) -> u32 {
        self.vm
    }

    fn with<T>(
        &self,
        gpa: u64,
        act: impl FnOnce(&mut Machine<'_>) -> Result<T, GuestFault>,
    ) -> Result<T, GuestFault> {
        match self.sys.model().machine(self.vm) {
            Some(mut machine) => act(&mut machine),
            None => Err(GuestFault::NotMapped { gpa }),
        }
    }

    /// Loads bytes.
    pub fn read(&self, gpa: u64, bytes: &mut [u8], side: Side) -> Result<(), GuestFault> {
        self.with(gpa, |machine| machine.guest_read(gpa, bytes, side))
    }

    /// Stores bytes.
    pub fn write(&self, gpa: u64, bytes: &[u8], side: Side) -> Result<(), GuestFault> {
        self.with(gpa, |machine| machine.guest_write(gpa, bytes, side))
    }

    /// PVALIDATE of a 4 KiB page: whether the state changed.
    pub fn pvalidate(&self, gpa: u64, valid: bool) -> Result<bool, GuestFault> {
        self.with(gpa, |machine| machine.pvalidate(gpa, valid))
    }

    /// RMPADJUST from VMPL 0: permissions of a lower VMPL (1 to 3), and whether the page holds a save area.
    pub fn rmpadjust(
        &self,
        gpa: u64,
        vmpl: usize,
        permissions: u8,
        save_area: bool,
    ) -> Result<(), GuestFault> {
        self.with(gpa, |machine| {
            machine.rmpadjust(gpa, vmpl, permissions, save_area)
        })
    }

    /// The table's entry of a page; `None` when it is not assigned.
    pub fn rmp(&self, gpa: u64) -> Option<RmpView> {
        let mut model = self.sys.model();
        let machine = model.machine(self.vm)?;
        let entry = machine.physical.rmp(machine.assigned_page(gpa / PAGE_LEN)?)?;
        Some(RmpView {
            asid: entry.asid,
            gpa: entry.gpa,
            immutable: entry.immutable,
            validated: entry.validated,
            save_area: entry.save_area,
            permissions: entry.permissions,
        })
    }

    /// The state of a page.
    pub fn page_state(&self, gpa: u64) -> PageState {
        let mut model = self.sys.model();
        let machine = model.machine(self.vm);
        machine.map_or(PageState::Shared, |machine| machine.page_state(gpa / PAGE_LEN))
    }

    /// Whether KVM's attribute of a page says private.
    pub fn is_private(&self, gpa: u64) -> bool {
        let model = self.sys.model();
        model
            .vms
            .get(&self.vm)
            .is_some_and(|vm| vm.private.contains(gpa / PAGE_LEN))
    }

    /// The attestation report that the firmware gives this guest (SEV-SNP, after its launch) for `data` and a VMPL.
    pub fn attestation_report(&self, data: &[u8; 64], vmpl: u32) -> Option<Box<[u8; REPORT]>> {
        let model = self.sys.model();
        let context = model.vms.get(&self.vm)?.sev.as_ref()?.context?;
        model.psp.report(context, data, vmpl)
    }

    /// The save area of a sealed VP (by creation order) as its processor loads it.
    pub fn save_area(&self, vp: usize) -> Option<Box<[u8; PAGE]>> {
        let mut model = self.sys.model();
        let machine = model.machine(self.vm)?;
        let page = machine.vm.vcpus.get(vp)?.save_area?;
        let mut bytes = machine.physical.contents(page);
        if machine.vm.platform() == Some(Platform::SevEs) {
            let sev = machine.vm.sev.as_ref()?;
            machine.psp.guests.get(&sev.handle)?.decrypt(page, &mut bytes[..]);
        }
        Some(bytes)
    }
}

/// A range of guest memory cut at page ends: gpa and length.
fn chunks(gpa: u64, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = gpa.checked_add(done as u64)?;
        let part = (len - done).min(PAGE - (at % PAGE_LEN) as usize);
        done += part;
        (part > 0).then_some((at, part))
    })
}

/// Where an access ends up.
enum Place {
    /// A page that only the guest sees, and the offset in it.
    Own(u64, usize),
    /// The caller's memory, as it is.
    Plain(u64),
    /// The caller's memory, encrypted.
    Encrypted(u64),
}

impl Machine<'_> {
    pub(crate) fn guest_read(&mut self, gpa: u64, bytes: &mut [u8], side: Side) -> Result<(), GuestFault> {
        let mut done = 0;
        for (at, len) in chunks(gpa, bytes.len()) {
            let part = &mut bytes[done..done + len];
            let lost = GuestFault::NotMapped { gpa: at };
            match self.place(at, side)? {
                Place::Own(page, offset) => {
                    part.copy_from_slice(&self.physical.contents(page)[offset..offset + len]);
                }
                Place::Plain(host) => self.user(at)?.read(host, part).map_err(|_| lost)?,
                Place::Encrypted(host) => {
                    let (blocks, skip) = self.read_blocks(at, host, len).ok_or(lost)?;
                    part.copy_from_slice(&blocks[skip..skip + len]);
                }
            }
            done += len;
        }
        Ok(())
    }

    pub(crate) fn guest_write(&mut self, gpa: u64, bytes: &[u8], side: Side) -> Result<(), GuestFault> {
        let mut done = 0;
        for (at, len) in chunks(gpa, bytes.len()) {
            let part = &bytes[done..done + len];
            let lost = GuestFault::NotMapped { gpa: at };
            match self.place(at, side)? {
                Place::Own(page, offset) => {
                    self.physical.frame(page).ok_or(lost)?[offset..offset + len].copy_from_slice(part);
                }
                Place::Plain(host) => self.user(at)?.write(host, part).map_err(|_| lost)?,
                Place::Encrypted(host) => {
                    let (mut blocks, skip) = self.read_blocks(at, host, len).ok_or(lost)?;
                    blocks[skip..skip + len].copy_from_slice(part);
                    let first = host - skip as u64;
                    let physical = self.physical.own_page(first) + first % PAGE_LEN;
                    let handle = self.vm.sev.as_ref().map_or(0, |sev| sev.handle);
                    self.psp
                        .guests
                        .get(&handle)
                        .ok_or(lost)?
                        .encrypt(physical, &mut blocks);
                    self.user(at)?.write(first, &blocks).map_err(|_| lost)?;
                }
            }
            done += len;
        }
        Ok(())
    }

    /// The whole blocks around a range of a page, decrypted, and where the range begins in them.
    fn read_blocks(&mut self, gpa: u64, host: u64, len: usize) -> Option<(Vec<u8>, usize)> {
        let skip = (host % 16) as usize;
        let first = host - skip as u64;
        let mut blocks = vec![0; (skip + len).next_multiple_of(16)];
        self.user(gpa).ok()?.read(first, &mut blocks).ok()?;
        let physical = self.physical.own_page(first) + first % PAGE_LEN;
        let handle = self.vm.sev.as_ref()?.handle;
        self.psp.guests.get(&handle)?.decrypt(physical, &mut blocks);
        Some((blocks, skip))
    }

    /// The leave that the owner of the slot gave.
    fn user(&self, gpa: u64) -> Result<crate::user::User, GuestFault> {
        let slot = self
            .vm
            .slot(gpa / PAGE_LEN)
            .ok_or(GuestFault::NotMapped { gpa })?;
        Ok(slot.user)
    }

    fn place(&mut self, gpa: u64, side: Side) -> Result<Place, GuestFault> {
        let gpn = gpa / PAGE_LEN;
        let slot = self.vm.slot(gpn).ok_or(GuestFault::NotMapped { gpa })?;
        let (host, has_memfd) = (slot.host_page(gpn) + gpa % PAGE_LEN, slot.memfd.is_some());
        let private = side == Side::Private;
        match self.vm.platform() {
            Some(Platform::Snp) if self.vm.private.contains(gpn) != private || (private && !has_memfd) => {
                Err(GuestFault::OtherSide { gpa, private })
            }
            Some(Platform::Snp) if private => self.own_place(gpa),
            Some(Platform::Sev | Platform::SevEs) if private => {
                self.check_pinned(gpa, host);
                Ok(Place::Encrypted(host))
            }
            _ => Ok(Place::Plain(host)),
        }
    }

    /// A private page of SEV-SNP, faulted in if it was never used.
    fn own_place(&mut self, gpa: u64) -> Result<Place, GuestFault> {
        let page = self.fault_in(gpa)?;
        let entry = self.physical.rmp(page).ok_or(GuestFault::Denied { gpa })?;
        if entry.gpa != gpa & !(PAGE_LEN - 1) || entry.immutable || entry.permissions[0] != ALL_PERMISSIONS {
            return Err(GuestFault::Denied { gpa });
        }
        if !entry.validated {
            return Err(GuestFault::NotValidated { gpa });
        }
        Ok(Place::Own(page, (gpa % PAGE_LEN) as usize))
    }

    /// The physical page of a private gpa; one that was never used is assigned and guest-invalid then.
    fn fault_in(&mut self, gpa: u64) -> Result<u64, GuestFault> {
        let asid = self.vm.sev.as_ref().map_or(0, |sev| sev.asid);
        let page = self
            .private_page(gpa / PAGE_LEN)
            .ok_or(GuestFault::NotMapped { gpa })?;
        if self.physical.rmp(page).is_none() {
            let entry = RmpEntry {
                asid,
                gpa: gpa & !(PAGE_LEN - 1),
                immutable: false,
                validated: false,
                save_area: false,
                permissions: [ALL_PERMISSIONS, 0, 0, 0],
            };
            self.physical.assign(page, Some(entry));
        }
        Ok(page)
    }

    fn check_pinned(&mut self, gpa: u64, host: u64) {
        let pinned = self
            .vm
            .pinned
            .iter()
            .any(|(at, len)| host >= *at && host - at < *len);
        let finding = Finding::Unpinned {
            gpa: gpa & !(PAGE_LEN - 1),
        };
        if !pinned && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// The physical page of a private page that was used.
    fn assigned_page(&self, gpn: u64) -> Option<u64> {
        let slot = self.vm.slot(gpn)?;
        let (descriptor, first) = slot.memfd?;
        self.physical
            .memfd_page_if_used(descriptor, first + gpn - slot.gpn)
    }

    pub(crate) fn pvalidate(&mut self, gpa: u64, valid: bool) -> Result<bool, GuestFault> {
        if !self.vm.private.contains(gpa / PAGE_LEN) {
            return Err(GuestFault::OtherSide { gpa, private: true });
        }
        let page = self.fault_in(gpa)?;
        let entry = self.physical.rmp_mut(page).ok_or(GuestFault::Denied { gpa })?;
        if entry.immutable || entry.gpa != gpa {
            return Err(GuestFault::Denied { gpa });
        }
        let changed = entry.validated != valid;
        entry.validated = valid;
        Ok(changed)
    }

    pub(crate) fn rmpadjust(
        &mut self,
        gpa: u64,
        vmpl: usize,
        permissions: u8,
        save_area: bool,
    ) -> Result<(), GuestFault> {
        let Place::Own(page, 0) = self.place(gpa, Side::Private)? else {
            return Err(GuestFault::Denied { gpa });
        };
        let entry = self.physical.rmp_mut(page).filter(|_| (1..4).contains(&vmpl));
        let entry = entry.ok_or(GuestFault::Denied { gpa })?;
        entry.permissions[vmpl] = permissions & ALL_PERMISSIONS;
        entry.save_area = save_area;
        Ok(())
    }

    /// The physical page of a save area that the guest made.
    pub(crate) fn guest_save_area(&mut self, gpa: u64) -> Result<u64, GuestFault> {
        match self.place(gpa, Side::Private)? {
            Place::Own(page, 0) if self.physical.rmp(page).is_some_and(|entry| entry.save_area) => Ok(page),
            _ => Err(GuestFault::Denied { gpa }),
        }
    }
}
