// SPDX-License-Identifier: MIT
//! SNP_LAUNCH_START, UPDATE and FINISH as KVM carries them out (`spec/sev.md` 1.6, 4.4).
//!
//! Always true: an update takes whole pages one by one and reports how far it came; a page that the
//! firmware refuses is the hypervisor's again. Not here: the digest, which only the firmware knows.

use super::Machine;
use super::commands::Command;
use crate::firmware::{le, put, status};
use crate::host::Platform;
use crate::physical::{PAGE, PAGE_LEN, RmpEntry};
use crate::psp::{Finish, IdBlobs, page_type};
use crate::vcpu::save_area;
use libc::{EBUSY, EEXIST, EFAULT, EINVAL, EIO, ENOTTY};

/// Bit 17 of a policy must be one.
const MUST_BE_ONE: u64 = 1 << 17;
/// Where KVM puts every save area: all ones, page aligned, cut at bit 47.
pub(crate) const SAVE_AREA_GPA: u64 = 0xFFFF_FFFF_F000;
/// DR7 that a sealed VP may have.
const DR7_RESET: u64 = 0x400;

/// Where an update takes its pages from and puts them.
struct Pages {
    gpn: u64,
    source: u64,
    kind: u8,
    count: u64,
}

impl Machine<'_> {
    fn is_snp(&self) -> bool {
        self.vm.platform() == Some(Platform::Snp)
    }

    pub(super) fn snp_start(&mut self, command: &mut Command) -> Result<(), i32> {
        if !self.is_snp() {
            return Err(ENOTTY);
        }
        let start = command.structure::<64>()?;
        let (policy, flags) = (le::<8>(&start, 0), le::<2>(&start, 24));
        let sev = self.sev()?;
        if sev.context.is_some()
            || flags != 0
            || policy & !self.host.policy_bits != 0
            || policy & MUST_BE_ONE == 0
        {
            return Err(EINVAL);
        }
        let (asid, fd) = (sev.asid, command.sev_fd);
        // Whatever keeps the context from being made, KVM says ENOTTY.
        let context = self
            .issue(fd, command, |psp, physical| Ok(psp.create_context(physical)))
            .map_err(|_| ENOTTY)?;
        let started = self.issue(fd, command, |psp, _| {
            psp.snp_start(context, policy)?;
            psp.snp_activate(context, asid)
        });
        if let Err(errno) = started {
            self.psp.decommission(self.physical, context);
            return Err(errno);
        }
        if let Some(sev) = &mut self.vm.sev {
            (sev.context, sev.stored_fd) = (Some(context), fd);
        }
        Ok(())
    }

    pub(super) fn snp_update(&mut self, command: &mut Command) -> Result<(), i32> {
        let context = self
            .vm
            .sev
            .as_ref()
            .filter(|_| self.is_snp())
            .and_then(|sev| sev.context);
        let context = context.ok_or(EINVAL)?;
        if self.host.assumptions.update_after_finish_is_einval && self.vm.runs {
            return Err(EINVAL);
        }
        let mut update = command.structure::<64>()?;
        let [gpn, uaddr, len] = [0, 8, 16].map(|at| le::<8>(&update, at));
        let (kind, flags) = (update[24], le::<2>(&update, 26));
        let known = matches!(
            kind,
            page_type::NORMAL
                | page_type::ZERO
                | page_type::UNMEASURED
                | page_type::SECRETS
                | page_type::CPUID
        );
        let source = if kind == page_type::ZERO { 0 } else { uaddr };
        if len == 0 || len % PAGE_LEN != 0 || flags != 0 || !known || source % PAGE_LEN != 0 {
            return Err(EINVAL);
        }
        let slot = self
            .vm
            .slot(gpn)
            .filter(|slot| slot.memfd.is_some())
            .ok_or(EINVAL)?;
        let count = (len / PAGE_LEN).min(slot.gpn + slot.pages - gpn);
        let pages = Pages {
            gpn,
            source,
            kind,
            count,
        };
        command.error = 0;
        let done = self.populate(command, context, &pages);
        if done == 0 {
            return Err(EIO);
        }
        put::<8>(&mut update, 0, gpn + done);
        put::<8>(&mut update, 16, len - done * PAGE_LEN);
        if kind != page_type::ZERO {
            put::<8>(&mut update, 8, uaddr.wrapping_add(done * PAGE_LEN));
        }
        command.answer(&update)
    }

    /// How many pages were taken; the first that is not ends it.
    fn populate(&mut self, command: &mut Command, context: u64, pages: &Pages) -> u64 {
        let mut done = 0;
        while done < pages.count {
            let interrupted = command.interrupted_after == Some(done);
            if interrupted || self.populate_page(command, context, pages, done).is_err() {
                break;
            }
            done += 1;
        }
        done
    }

    fn populate_page(
        &mut self,
        command: &mut Command,
        context: u64,
        pages: &Pages,
        n: u64,
    ) -> Result<(), i32> {
        let gpn = pages.gpn + n;
        if !self.vm.private.contains(gpn) {
            return Err(EINVAL);
        }
        let page = self.private_page(gpn).ok_or(EFAULT)?;
        if self.physical.rmp(page).is_some() {
            return Err(EEXIST);
        }
        let source = pages.source.wrapping_add(n * PAGE_LEN);
        if pages.kind != page_type::ZERO {
            if pages.source == 0 {
                return Err(EINVAL);
            }
            let bytes = command.user.array::<PAGE>(source)?;
            self.physical.frame(page).ok_or(EFAULT)?.copy_from_slice(&bytes);
        }
        let gpa = gpn * PAGE_LEN;
        let (kind, fd) = (pages.kind, command.sev_fd);
        let result = self.assign_and_update(command, fd, (context, page, gpa), kind);
        if result.is_err() {
            let corrected = self.physical.contents(page);
            if let Some(frame) = self.physical.frame(page) {
                frame.fill(0);
            }
            if kind == page_type::CPUID && command.error == status::INVALID_PARAM {
                command.user.write(source, &corrected[..])?;
            }
        }
        result
    }

    /// The page behind the private side of a page number.
    pub(crate) fn private_page(&mut self, gpn: u64) -> Option<u64> {
        let slot = self.vm.slot(gpn)?;
        let (descriptor, first) = slot.memfd?;
        let index = first + (gpn - slot.gpn);
        self.physical.memfd_page(descriptor, index)
    }

    /// RMPUPDATE to pre-guest and SNP_LAUNCH_UPDATE; a refused page is reclaimed.
    fn assign_and_update(
        &mut self,
        command: &mut Command,
        fd: i32,
        (context, page, gpa): (u64, u64, u64),
        kind: u8,
    ) -> Result<(), i32> {
        let entry = RmpEntry {
            asid: self.sev()?.asid,
            gpa,
            immutable: true,
            validated: false,
            save_area: false,
            permissions: [0; 4],
        };
        self.physical.assign(page, Some(entry));
        let result = self.issue(fd, command, |psp, physical| {
            psp.snp_update(context, physical, page, kind)
        });
        if result.is_err() {
            self.physical.assign(page, None);
        }
        result
    }

    pub(super) fn snp_finish(&mut self, command: &mut Command) -> Result<(), i32> {
        if !self.is_snp() {
            return Err(ENOTTY);
        }
        let context = self.sev()?.context.ok_or(EINVAL)?;
        let argument = command.structure::<88>()?;
        if le::<2>(&argument, 54) != 0 {
            return Err(EINVAL);
        }
        self.seal_for_snp(command, context)?;
        let mut host_data = [0; 32];
        host_data.copy_from_slice(&argument[19..51]);
        let finish = Finish {
            id: self.id_block(command, &argument)?,
            author_key: argument[17] != 0,
            host_data,
        };
        let fd = self.sev()?.stored_fd;
        self.issue(fd, command, |psp, _| psp.snp_finish(context, &finish))?;
        self.vm.runs = true;
        self.record_launch();
        Ok(())
    }

    /// ID block and authentication page, which KVM reads only now.
    fn id_block(&self, command: &Command, argument: &[u8]) -> Result<Option<IdBlobs>, i32> {
        if argument[16] == 0 {
            return Ok(None);
        }
        let (block, auth) = (le::<8>(argument, 0), le::<8>(argument, 8));
        if block == 0 || auth == 0 {
            return Err(EINVAL);
        }
        Ok(Some((
            Box::new(command.user.array(block)?),
            Box::new(command.user.array(auth)?),
        )))
    }

    /// What keeps a VP from being sealed.
    pub(super) fn check_seal(&self) -> Result<(), i32> {
        if self.vm.creating_vp {
            return Err(EBUSY);
        }
        let refused = |vcpu: &crate::vcpu::Vcpu| vcpu.sealed || vcpu.debugged || vcpu.dr7 & !DR7_RESET != 0;
        if self.vm.vcpus.iter().any(refused) {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Builds, assigns and measures the save areas of all VPs in creation order.
    fn seal_for_snp(&mut self, command: &mut Command, context: u64) -> Result<(), i32> {
        self.check_seal()?;
        let (features, fd) = (self.sev()?.features, command.sev_fd);
        for n in 0..self.vm.vcpus.len() {
            let built = save_area::build(&self.vm.vcpus[n], features, true);
            let page = self.physical.allocate();
            self.physical
                .frame(page)
                .ok_or(EFAULT)?
                .copy_from_slice(&built[..]);
            if let Err(errno) =
                self.assign_and_update(command, fd, (context, page, SAVE_AREA_GPA), page_type::SAVE_AREA)
            {
                self.physical.free(page);
                return Err(errno);
            }
            self.vm.vcpus[n].save_area = Some(page);
            self.vm.vcpus[n].sealed = true;
        }
        Ok(())
    }
}
