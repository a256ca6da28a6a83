// SPDX-License-Identifier: MIT
//! The launch commands of SEV and SEV-ES as KVM carries them out (`spec/sev.md` 1.6).
//!
//! Always true: memory is encrypted where it lies, so the host sees noise afterwards and the guest sees what
//! was there; every command but the start goes through the descriptor that the start named.
//! Not here: guest states, which the firmware checks.

use super::Machine;
use super::commands::Command;
use crate::firmware::{le, le32, put, status};
use crate::host::Platform;
use crate::physical::PAGE_LEN;
use crate::psp::Blobs;
use crate::vcpu::save_area;
use libc::{EFAULT, EINVAL, EIO, ENOTTY};

/// The longest blob that KVM passes on.
const BLOB_LIMIT: u32 = 0x4000;
/// Length of a launch measurement.
const MEASUREMENT: u32 = 48;

impl Command {
    /// A blob of the caller's.
    fn blob(&self, at: u64, len: u32) -> Result<Vec<u8>, i32> {
        if at == 0 || len == 0 || len > BLOB_LIMIT {
            return Err(EINVAL);
        }
        let mut blob = vec![0; len as usize];
        self.user.read(at, &mut blob)?;
        Ok(blob)
    }
}

/// A range cut at page ends.
fn chunks(address: u64, len: u64) -> impl Iterator<Item = (u64, usize)> {
    let end = address + len;
    let mut at = address;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let next = end.min((at / PAGE_LEN + 1) * PAGE_LEN);
            let chunk = (at, (next - at) as usize);
            at = next;
            chunk
        })
    })
}

impl Machine<'_> {
    /// Handle and stored descriptor; ENOTTY without SEV.
    fn guest(&self) -> Result<(u32, i32), i32> {
        self.sev().map(|sev| (sev.handle, sev.stored_fd))
    }

    pub(super) fn launch_start(&mut self, command: &mut Command) -> Result<(), i32> {
        let (asid, platform) = self.sev().map(|sev| (sev.asid, sev.platform))?;
        let mut start = command.structure::<40>()?;
        let (shared, policy) = (le32(&start, 0), le32(&start, 4));
        let certificate = (le::<8>(&start, 8), le32(&start, 16));
        let session = (le::<8>(&start, 24), le32(&start, 32));
        let mut blobs = None;
        if certificate.0 != 0 {
            let certificate = command.blob(certificate.0, certificate.1)?;
            let session = command.blob(session.0, session.1)?;
            blobs = Some(Blobs { certificate, session });
        }
        let fd = command.sev_fd;
        let handle = self.issue(fd, command, |psp, _| {
            psp.launch_start(policy, shared, blobs.as_ref())
        })?;
        let bound = self.issue(fd, command, |psp, _| {
            psp.activate(handle, asid, platform == Platform::SevEs)
        });
        if let Err(errno) = bound {
            self.psp.guests.remove(&handle);
            return Err(errno);
        }
        if let Some(sev) = &mut self.vm.sev {
            (sev.handle, sev.stored_fd) = (handle, fd);
        }
        put::<4>(&mut start, 0, handle.into());
        command.answer(&start)
    }

    pub(super) fn launch_update_data(&mut self, command: &mut Command) -> Result<(), i32> {
        let (handle, fd) = self.guest()?;
        let update = command.structure::<16>()?;
        let (address, len) = (le::<8>(&update, 0), le32(&update, 8).into());
        self.check_pin(address, len, command.user)?;
        for (at, part) in chunks(address, len) {
            let physical = self.physical.own_page(at) + at % PAGE_LEN;
            let mut bytes = vec![0; part];
            command.user.read(at, &mut bytes)?;
            self.issue(fd, command, |psp, _| {
                psp.launch_update(handle, physical, &mut bytes)
            })?;
            command.user.write(at, &bytes)?;
            self.physical.note_encrypted(at);
        }
        Ok(())
    }

    pub(super) fn launch_update_vmsa(&mut self, command: &mut Command) -> Result<(), i32> {
        let (handle, fd) = self.guest()?;
        let (features, legacy) = match self.sev()? {
            sev if sev.platform == Platform::SevEs => (sev.features, sev.legacy),
            _ => return Err(ENOTTY),
        };
        self.check_seal()?;
        for n in 0..self.vm.vcpus.len() {
            let mut built = save_area::build(&self.vm.vcpus[n], features, !legacy);
            let page = self.physical.allocate();
            let updated = self.issue(fd, command, |psp, _| {
                psp.launch_update(handle, page, &mut built[..])
            });
            if let Err(errno) = updated {
                self.physical.free(page);
                return Err(errno);
            }
            self.physical
                .frame(page)
                .ok_or(EFAULT)?
                .copy_from_slice(&built[..]);
            self.vm.vcpus[n].save_area = Some(page);
            self.vm.vcpus[n].sealed = true;
        }
        Ok(())
    }

    pub(super) fn launch_measure(&mut self, command: &mut Command) -> Result<(), i32> {
        let (handle, fd) = self.guest()?;
        let mut measure = command.structure::<16>()?;
        let (address, room) = (le::<8>(&measure, 0), le32(&measure, 8));
        if room > BLOB_LIMIT {
            return Err(EINVAL);
        }
        let answer = self.issue(fd, command, |psp, _| psp.launch_measure(handle, room));
        let asked_for_length = room == 0 && command.error == status::INVALID_LEN;
        match answer {
            Ok(measurement) => command.user.write(address, &measurement)?,
            Err(EIO) if asked_for_length => {}
            Err(errno) => return Err(errno),
        }
        put::<4>(&mut measure, 8, MEASUREMENT.into());
        command.answer(&measure)?;
        answer.map(drop)
    }

    pub(super) fn launch_secret(&mut self, command: &mut Command) -> Result<(), i32> {
        let (handle, fd) = self.guest()?;
        let secret = command.structure::<48>()?;
        let [(header, header_len), (target, len), (transport, transport_len)] =
            [0, 16, 32].map(|at| (le::<8>(&secret, at), le32(&secret, at + 8)));
        self.check_pin(target, len.into(), command.user)?;
        // KVM hands the firmware one physical range; here no two pages are contiguous.
        if chunks(target, len.into()).count() > 1 {
            return Err(EINVAL);
        }
        let transport = command.blob(transport, transport_len)?;
        let header = command.blob(header, header_len)?;
        let physical = self.physical.own_page(target) + target % PAGE_LEN;
        let written = self.issue(fd, command, |psp, _| {
            let mut plain = psp.launch_secret(handle, &header, &transport, len as usize)?;
            if !physical.is_multiple_of(16) {
                return Err(status::INVALID_ADDRESS);
            }
            let guest = psp.guests.get(&handle).ok_or(status::INVALID_GUEST)?;
            guest.encrypt(physical, &mut plain);
            Ok(plain)
        })?;
        command.user.write(target, &written)
    }

    pub(super) fn launch_finish(&mut self, command: &mut Command) -> Result<(), i32> {
        let (handle, fd) = self.guest()?;
        self.issue(fd, command, |psp, _| psp.launch_finish(handle))?;
        self.vm.runs = true;
        self.record_launch();
        Ok(())
    }

    pub(super) fn guest_status(&mut self, command: &mut Command) -> Result<(), i32> {
        let (handle, fd) = self.guest()?;
        let (policy, state) = self.issue(fd, command, |psp, _| {
            let guest = psp.guests.get(&handle).ok_or(status::INVALID_GUEST)?;
            Ok((guest.policy, guest.state as u32))
        })?;
        let mut answer = [0; 12];
        for (n, value) in [handle, policy, state].into_iter().enumerate() {
            put::<4>(&mut answer, 4 * n, value.into());
        }
        command.answer(&answer)
    }

    /// DBG_DECRYPT and DBG_ENCRYPT: one block-aligned range of a page to another.
    pub(super) fn debug_copy(&mut self, command: &mut Command, encrypts: bool) -> Result<(), i32> {
        let (handle, fd) = self.guest()?;
        let debug = command.structure::<24>()?;
        let (source, target, len) = (le::<8>(&debug, 0), le::<8>(&debug, 8), le32(&debug, 16).into());
        if len == 0 || source.checked_add(len).is_none() || target.checked_add(len).is_none() {
            return Err(EINVAL);
        }
        let guest_side = if encrypts { target } else { source };
        self.check_pin(guest_side, len, command.user)?;
        let mut done = 0;
        for (at, part) in chunks(guest_side, len) {
            let physical = self.physical.own_page(at) + at % PAGE_LEN;
            let mut bytes = vec![0; part];
            command.user.read(source + done, &mut bytes)?;
            self.issue(fd, command, |psp, _| {
                if !physical.is_multiple_of(16) || !bytes.len().is_multiple_of(16) {
                    return Err(status::INVALID_LEN);
                }
                let guest = psp.debug_guest(handle)?;
                if encrypts {
                    guest.encrypt(physical, &mut bytes);
                } else {
                    guest.decrypt(physical, &mut bytes);
                }
                Ok(())
            })?;
            command.user.write(target + done, &bytes)?;
            done += part as u64;
        }
        Ok(())
    }
}
