// SPDX-License-Identifier: MIT
//! KVM_RUN: the scripted guest's steps, and how they leave to user space (`spec/sev.md` 1.8).
//!
//! Always true: a memory fault ends KVM_RUN with EFAULT and the step is tried again; a conversion waits for
//! the host's answer in the run structure, and an answer that KVM does not know ends the next KVM_RUN with
//! EINVAL. Not here: what a step does to memory.

use crate::firmware::put;
use crate::guest_view::GuestFault;
use crate::host::Platform;
use crate::model::Finding;
use crate::physical::PAGE_LEN;
use crate::script::{GuestStep, StepResult};
use crate::user::User;
use crate::vm::Machine;
use libc::{EAGAIN, EFAULT, EINTR, EINVAL};

/// Exit reasons.
const HYPERCALL: u32 = 3;
const HLT: u32 = 5;
const FAIL_ENTRY: u32 = 9;
const SYSTEM_EVENT: u32 = 24;
const MEMORY_FAULT: u32 = 39;
/// Offsets in the run structure.
const IMMEDIATE_EXIT: u64 = 1;
const REASON: u64 = 8;
const DATA: u64 = 32;
const HYPERCALL_RET: u64 = 88;
/// Bytes from [`DATA`] that an exit may fill.
const DATA_LEN: usize = 88;

const MAP_GPA_RANGE: u64 = 12;
const SEV_TERMINATED: u64 = 6;
const WANTED_PRIVATE: u64 = 1 << 3;
/// 2 MiB, which a save area must not be aligned to.
const LARGE: u64 = 1 << 21;

/// What a step leads to.
enum Next {
    /// The next step.
    Go(StepResult),
    /// KVM_RUN ends, with 0 or an error number.
    Leave(Result<i32, i32>),
}

impl Machine<'_> {
    /// KVM_RUN of VP `n`.
    pub(crate) fn run(&mut self, n: usize, user: User) -> Result<i32, i32> {
        if self.vm.needs_init() {
            return Err(EINVAL);
        }
        let (at, _) = self.vm.vcpus.get(n).and_then(|vcpu| vcpu.run).ok_or(EINVAL)?;
        if user.array::<1>(at + IMMEDIATE_EXIT)? != [0] {
            return Err(EINTR);
        }
        if self.vm.sev.is_some() && !self.vm.runs {
            let mut data = [0; DATA_LEN];
            put::<8>(&mut data, 0, u64::MAX);
            return leave(at, user, FAIL_ENTRY, &data);
        }
        self.report_undiscarded();
        if self.vm.vcpus[n].script.waits_for_host {
            self.take_answer(n, at, user)?;
        }
        while let Some(step) = self.vm.vcpus[n].script.steps.front().cloned() {
            match self.step(n, &step, (at, user)) {
                Next::Go(result) => {
                    let script = &mut self.vm.vcpus[n].script;
                    script.steps.pop_front();
                    script.results.push(result);
                }
                Next::Leave(result) => return result,
            }
        }
        leave(at, user, HLT, &[])
    }

    /// Converted pages whose other side still has memory when the guest goes on.
    fn report_undiscarded(&mut self) {
        for (gpn, private) in std::mem::take(&mut self.vm.undiscarded) {
            let gpa = gpn * PAGE_LEN;
            self.findings.push(Finding::NotDiscarded { gpa, private });
        }
    }

    /// The host's answer to a conversion.
    fn take_answer(&mut self, n: usize, at: u64, user: User) -> Result<(), i32> {
        let answer = user.u64(at + HYPERCALL_RET)?;
        let known = [0, EINVAL as u64, EAGAIN as u64];
        if !known.contains(&answer) {
            return Err(EINVAL);
        }
        let script = &mut self.vm.vcpus[n].script;
        script.waits_for_host = false;
        script.steps.pop_front();
        script.results.push(StepResult::Answered(answer));
        Ok(())
    }

    fn step(&mut self, n: usize, step: &GuestStep, (at, user): (u64, User)) -> Next {
        match step {
            GuestStep::Validate { gpa, pages, valid } => {
                let all = (0..*pages).try_for_each(|page| {
                    self.pvalidate(gpa.wrapping_add(page * PAGE_LEN), *valid)
                        .map(drop)
                });
                accessed(all.map(|()| Vec::new()), at, user)
            }
            GuestStep::Read { gpa, len, side } => {
                let mut bytes = vec![0; *len];
                let read = self.guest_read(*gpa, &mut bytes, *side);
                accessed(read.map(|()| bytes), at, user)
            }
            GuestStep::Write { gpa, bytes, side } => {
                let written = self.guest_write(*gpa, bytes, *side);
                accessed(written.map(|()| Vec::new()), at, user)
            }
            GuestStep::CreateAp { vp, gpa, features } => self.create_ap(*vp, *gpa, *features),
            GuestStep::Convert { gpa, pages, private } => {
                self.ask_to_convert(n, (*gpa, *pages, *private), at, user)
            }
            GuestStep::Terminate { reason_set, code } => {
                let ghcb = 0x100 | u64::from(reason_set & 0xF) << 12 | u64::from(*code) << 16;
                let mut data = [0; DATA_LEN];
                put::<4>(&mut data, 0, SEV_TERMINATED);
                put::<4>(&mut data, 4, 1);
                put::<8>(&mut data, 8, ghcb);
                self.consume(n);
                Next::Leave(leave(at, user, SYSTEM_EVENT, &data))
            }
            GuestStep::Halt => {
                self.consume(n);
                Next::Leave(leave(at, user, HLT, &[]))
            }
        }
    }

    fn consume(&mut self, n: usize) {
        let script = &mut self.vm.vcpus[n].script;
        script.steps.pop_front();
        script.results.push(StepResult::Done(Vec::new()));
    }

    fn ask_to_convert(
        &mut self,
        n: usize,
        (gpa, pages, private): (u64, u64, bool),
        at: u64,
        user: User,
    ) -> Next {
        if self.vm.hypercalls >> MAP_GPA_RANGE & 1 == 0 {
            return Next::Go(StepResult::Answered(u64::MAX));
        }
        let mut data = [0; DATA_LEN];
        for (to, value) in [
            (0, MAP_GPA_RANGE),
            (8, gpa),
            (16, pages),
            (24, u64::from(private) << 4),
        ] {
            put::<8>(&mut data, to, value);
        }
        self.vm.vcpus[n].script.waits_for_host = true;
        Next::Leave(leave(at, user, HYPERCALL, &data))
    }

    /// AP creation: the save area becomes another VP's (inside KVM, without an exit).
    fn create_ap(&mut self, vp: u32, gpa: u64, features: u64) -> Next {
        let right = self.vm.platform() == Some(Platform::Snp)
            && self.vm.sev.as_ref().is_some_and(|sev| sev.features == features)
            && gpa.is_multiple_of(PAGE_LEN)
            && !gpa.is_multiple_of(LARGE)
            && self.vm.vcpus.iter().any(|vcpu| vcpu.id == vp);
        if !right {
            return Next::Go(StepResult::Answered(EINVAL as u64));
        }
        let page = match self.guest_save_area(gpa) {
            Ok(page) => page,
            Err(fault) => return Next::Go(StepResult::Fault(fault)),
        };
        for vcpu in self.vm.vcpus.iter_mut().filter(|vcpu| vcpu.id == vp) {
            vcpu.save_area = Some(page);
        }
        Next::Go(StepResult::Answered(0))
    }
}

/// An access: done, refused in the guest, or a memory fault for the host.
fn accessed(result: Result<Vec<u8>, GuestFault>, at: u64, user: User) -> Next {
    match result {
        Ok(bytes) => Next::Go(StepResult::Done(bytes)),
        Err(GuestFault::OtherSide { gpa, private }) => {
            let mut data = [0; DATA_LEN];
            let flags = if private { WANTED_PRIVATE } else { 0 };
            for (to, value) in [(0, flags), (8, gpa & !(PAGE_LEN - 1)), (16, PAGE_LEN)] {
                put::<8>(&mut data, to, value);
            }
            Next::Leave(leave(at, user, MEMORY_FAULT, &data).and(Err(EFAULT)))
        }
        Err(fault) => Next::Go(StepResult::Fault(fault)),
    }
}

fn leave(at: u64, user: User, reason: u32, data: &[u8]) -> Result<i32, i32> {
    user.write(at + REASON, &reason.to_le_bytes())?;
    if !data.is_empty() {
        user.write(at + DATA, data)?;
    }
    Ok(0)
}
