// SPDX-License-Identifier: MIT
//! Ioctls of VPs: creation and registers (`spec/sev.md` 1.6, 4.5).
//!
//! Always true: once a VP of type SEV-ES or SEV-SNP is sealed its registers can be neither read nor written.
//! Not here: KVM_RUN.

use super::Machine;
use crate::firmware::{le, le32, put};
use crate::requests as rq;
use crate::user::User;
use crate::vcpu::Vcpu;
use crate::vcpu::registers::LEAF_LEN;
use libc::{E2BIG, EEXIST, EINVAL, ENOTTY};

const MOST_VPS: u64 = 1024;
const MOST_LEAVES: u32 = 256;
const MOST_MSRS: u32 = 256;

impl Machine<'_> {
    /// CREATE_VCPU: the new VP's place in creation order.
    pub(crate) fn create_vcpu(&mut self, id: u64) -> Result<usize, i32> {
        if id >= MOST_VPS {
            return Err(EINVAL);
        }
        if self.vm.vcpus.iter().any(|vcpu| u64::from(vcpu.id) == id) {
            return Err(EEXIST);
        }
        self.vm.vcpus.push(Vcpu::new(id as u32));
        Ok(self.vm.vcpus.len() - 1)
    }

    /// A request of VP `n` with a structure.
    pub(crate) fn vcpu_request(&mut self, n: usize, number: u32, at: u64, user: User) -> Result<i32, i32> {
        let hidden = self.vm.hides_state();
        let vcpu = self.vm.vcpus.get_mut(n).ok_or(EINVAL)?;
        let open = || {
            if hidden && vcpu.sealed {
                Err(EINVAL)
            } else {
                Ok(())
            }
        };
        match number {
            rq::SET_CPUID2 => set_cpuid(vcpu, at, user)?,
            rq::SET_GUEST_DEBUG => vcpu.debugged = user.u32(at)? & 1 != 0,
            rq::GET_REGS => open().and_then(|()| user.write(at, &vcpu.get_regs()))?,
            rq::SET_REGS => open()
                .and_then(|()| user.array(at))
                .map(|regs| vcpu.set_regs(&regs))?,
            rq::GET_SREGS => open().and_then(|()| user.write(at, &vcpu.get_sregs()))?,
            rq::SET_SREGS => open()
                .and_then(|()| user.array(at))
                .and_then(|sregs| vcpu.set_sregs(&sregs))?,
            rq::GET_DEBUGREGS => open().and_then(|()| user.write(at, &vcpu.get_debugregs()))?,
            rq::SET_DEBUGREGS => open()
                .and_then(|()| user.array(at))
                .and_then(|regs| vcpu.set_debugregs(&regs))?,
            rq::GET_XCRS => open().and_then(|()| user.write(at, &vcpu.get_xcrs()))?,
            rq::SET_XCRS => open()
                .and_then(|()| user.array(at))
                .and_then(|xcrs| vcpu.set_xcrs(&xcrs))?,
            rq::GET_XSAVE => open().and_then(|()| user.write(at, &vcpu.get_xsave()[..]))?,
            rq::SET_XSAVE => open()
                .and_then(|()| user.array(at))
                .and_then(|image| vcpu.set_xsave(&image))?,
            rq::GET_MSRS => return open().and_then(|()| get_msrs(vcpu, at, user)),
            rq::SET_MSRS => return open().and_then(|()| set_msrs(vcpu, at, user)),
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}

fn set_cpuid(vcpu: &mut Vcpu, at: u64, user: User) -> Result<(), i32> {
    let count = user.u32(at)?;
    if count > MOST_LEAVES {
        return Err(E2BIG);
    }
    let mut entries = vec![0; count as usize * LEAF_LEN];
    user.read(at + 8, &mut entries)?;
    vcpu.set_cpuid(&entries);
    Ok(())
}

/// Number u32, reserved u32, value u64 each, behind a header of 8 bytes.
fn msr_entries(at: u64, user: User) -> Result<Vec<u8>, i32> {
    let count = user.u32(at)?;
    if count > MOST_MSRS {
        return Err(E2BIG);
    }
    let mut entries = vec![0; count as usize * 16];
    user.read(at + 8, &mut entries)?;
    Ok(entries)
}

fn set_msrs(vcpu: &mut Vcpu, at: u64, user: User) -> Result<i32, i32> {
    let entries = msr_entries(at, user)?;
    let taken = entries
        .chunks_exact(16)
        .take_while(|entry| vcpu.set_msr(le32(entry, 0), le::<8>(entry, 8)))
        .count();
    Ok(taken as i32)
}

fn get_msrs(vcpu: &Vcpu, at: u64, user: User) -> Result<i32, i32> {
    let mut entries = msr_entries(at, user)?;
    let mut told = 0;
    for entry in entries.chunks_exact_mut(16) {
        let Some(value) = vcpu.get_msr(le32(entry, 0)) else {
            break;
        };
        put::<8>(entry, 8, value);
        told += 1;
    }
    user.write(at + 8, &entries)?;
    Ok(told)
}
