// SPDX-License-Identifier: MIT
//! Slots, the private attribute, guest_memfds and pinned ranges (`spec/sev.md` 1.6, 1.8).
//!
//! Always true: the attribute is per page and independent of slots. Not here: contents.

use super::{Machine, Slot};
use crate::firmware::{le, le32};
use crate::host::Platform;
use crate::model::Object;
use crate::physical::{Memfd, PAGE_LEN};
use crate::user::User;
use libc::{EBADF, EEXIST, EINVAL, ENOMEM, ENOTTY};

const LOG_DIRTY: u32 = 1;
const READONLY: u32 = 2;
const GUEST_MEMFD: u32 = 4;
const PRIVATE: u64 = 1 << 3;
const MOST_SLOTS: u32 = 32764;

fn is_aligned(values: &[u64]) -> bool {
    values.iter().all(|value| value.is_multiple_of(PAGE_LEN))
}

impl Machine<'_> {
    fn has_private_memory(&self) -> bool {
        self.vm.vm_type == u64::from(Platform::Snp.vm_type())
    }

    /// SET_USER_MEMORY_REGION (32 bytes) and SET_USER_MEMORY_REGION2 (160 bytes).
    pub(crate) fn set_region(&mut self, region: &[u8], user: User) -> Result<(), i32> {
        let (number, flags) = (le32(region, 0), le32(region, 4));
        let [gpa, size, host] = [8, 16, 24].map(|at| le::<8>(region, at));
        let with_memfd = region.len() > 32 && flags & GUEST_MEMFD != 0;
        let mut valid = LOG_DIRTY | READONLY;
        if region.len() > 32 && self.has_private_memory() {
            valid |= GUEST_MEMFD;
        }
        if flags & !valid != 0
            || (with_memfd && flags & (LOG_DIRTY | READONLY) != 0)
            || !is_aligned(&[gpa, size, host])
            || number & 0xFFFF >= MOST_SLOTS
            || gpa.checked_add(size).is_none()
            || host.checked_add(size).is_none()
        {
            return Err(EINVAL);
        }
        let before = self.vm.slots.get(&number).cloned();
        if size == 0 {
            return self.vm.slots.remove(&number).map(drop).ok_or(EINVAL);
        }
        let (gpn, pages) = (gpa / PAGE_LEN, size / PAGE_LEN);
        if let Some(before) = &before
            && (before.memfd.is_some() || with_memfd || before.pages != pages || before.host != host)
        {
            return Err(EINVAL);
        }
        let overlaps = |slot: &Slot| gpn < slot.gpn + slot.pages && slot.gpn < gpn + pages;
        if self
            .vm
            .slots
            .iter()
            .any(|(other, slot)| *other != number && overlaps(slot))
        {
            return Err(EEXIST);
        }
        let memfd = if with_memfd {
            Some(self.bind(region, pages)?)
        } else {
            None
        };
        let slot = Slot {
            gpn,
            pages,
            host,
            memfd,
            user,
        };
        self.vm.slots.insert(number, slot);
        Ok(())
    }

    /// The part of a guest_memfd that a slot names.
    fn bind(&self, region: &[u8], pages: u64) -> Result<(i32, u64), i32> {
        let (offset, descriptor) = (le::<8>(region, 32), le32(region, 40) as i32);
        let object = self.objects.get(descriptor).ok_or(EBADF)?;
        let memfd = self.physical.memfds.get(&descriptor);
        let (Object::Memfd, Some(memfd)) = (object, memfd) else {
            return Err(EINVAL);
        };
        let end = offset.checked_add(pages * PAGE_LEN).ok_or(EINVAL)?;
        if memfd.vm != self.vm.id || !is_aligned(&[offset]) || end > memfd.size {
            return Err(EINVAL);
        }
        let first = offset / PAGE_LEN;
        let bound = self.vm.slots.values().any(|slot| {
            slot.memfd.is_some_and(|(other, start)| {
                other == descriptor && first < start + slot.pages && start < first + pages
            })
        });
        if bound {
            Err(EEXIST)
        } else {
            Ok((descriptor, first))
        }
    }

    /// SET_MEMORY_ATTRIBUTES.
    pub(crate) fn set_attributes(&mut self, request: &[u8; 32]) -> Result<(), i32> {
        let [address, size, attributes, flags] = [0, 8, 16, 24].map(|at| le::<8>(request, at));
        if !self.host.has_memory_attributes() {
            return Err(ENOTTY);
        }
        let supported = if self.has_private_memory() { PRIVATE } else { 0 };
        let end = address.checked_add(size).ok_or(EINVAL)?;
        if flags != 0 || attributes & !supported != 0 || size == 0 || !is_aligned(&[address, size]) {
            return Err(EINVAL);
        }
        let (range, private) = (address / PAGE_LEN..end / PAGE_LEN, attributes & PRIVATE != 0);
        if self.vm.runs {
            self.note_conversion(range.clone(), private);
        }
        if private {
            self.vm.private.insert(range);
        } else {
            self.vm.private.remove(range);
        }
        Ok(())
    }

    /// Remembers which pages change side while the guest runs: the other side must be given up.
    fn note_conversion(&mut self, range: std::ops::Range<u64>, private: bool) {
        for slot in self.vm.slots.values() {
            let (from, to) = (range.start.max(slot.gpn), range.end.min(slot.gpn + slot.pages));
            for gpn in from..to.max(from) {
                if self.vm.private.contains(gpn) == private {
                    continue;
                }
                let used = slot.memfd.is_none_or(|(descriptor, first)| {
                    private
                        || self
                            .physical
                            .memfd_page_if_used(descriptor, first + gpn - slot.gpn)
                            .is_some()
                });
                if used {
                    self.vm.undiscarded.insert(gpn, private);
                }
            }
        }
    }

    /// CREATE_GUEST_MEMFD: checks the request and answers the size.
    pub(crate) fn check_memfd(&self, request: &[u8; 64]) -> Result<Memfd, i32> {
        let (size, flags) = (le::<8>(request, 0), le::<8>(request, 8));
        if flags != 0 || size == 0 || !is_aligned(&[size]) || size >> 63 != 0 {
            return Err(EINVAL);
        }
        Ok(Memfd {
            vm: self.vm.id,
            size,
            ..Default::default()
        })
    }

    /// Whether a range may be pinned: usable memory, within the limit.
    pub(super) fn check_pin(&self, address: u64, len: u64, user: User) -> Result<(), i32> {
        if len == 0 || address.checked_add(len).is_none() {
            return Err(EINVAL);
        }
        let pinned: u64 = self.vm.pinned.iter().map(|(_, len)| len).sum();
        let over = self
            .host
            .pin_limit
            .is_some_and(|limit| pinned.saturating_add(len) > limit);
        if over || !user.is_usable(address, len) {
            return Err(ENOMEM);
        }
        Ok(())
    }

    /// MEMORY_ENCRYPT_REG_REGION.
    pub(crate) fn register_range(&mut self, request: &[u8; 16], user: User) -> Result<(), i32> {
        let (address, len) = (le::<8>(request, 0), le::<8>(request, 8));
        if self.vm.sev.is_none() {
            return Err(ENOTTY);
        }
        self.check_pin(address, len, user)?;
        self.vm.pinned.push((address, len));
        Ok(())
    }

    /// MEMORY_ENCRYPT_UNREG_REGION.
    pub(crate) fn unregister_range(&mut self, request: &[u8; 16]) -> Result<(), i32> {
        let range = (le::<8>(request, 0), le::<8>(request, 8));
        if self.vm.sev.is_none() {
            return Err(ENOTTY);
        }
        let at = self
            .vm
            .pinned
            .iter()
            .position(|pinned| *pinned == range)
            .ok_or(EINVAL)?;
        self.vm.pinned.swap_remove(at);
        Ok(())
    }
}
