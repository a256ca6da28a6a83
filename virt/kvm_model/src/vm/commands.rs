// SPDX-License-Identifier: MIT
//! MEMORY_ENCRYPT_OP: the layer in front of all commands, and the three ways to initialise
//! (`spec/sev.md` 1.4, 1.6).
//!
//! Always true: the error field is written back only when a command was dispatched, as in the kernel.
//! Not here: the launch commands.

use super::{Machine, Sev};
use crate::faults::Fault;
use crate::firmware::{le, le32, status};
use crate::host::Platform;
use crate::model::Object;
use crate::physical::Physical;
use crate::psp::Psp;
use crate::requests::command as id;
use crate::user::User;
use libc::{EBADF, EBUSY, EINVAL, EIO, ENOTTY, EPERM};

/// Bytes of `struct kvm_sev_cmd`, and where its error lies.
pub(crate) const COMMAND_LEN: usize = 24;
pub(crate) const ERROR_AT: u64 = 16;
const SNP_ACTIVE: u64 = 1;

/// A command on its way.
pub(crate) struct Command {
    pub(crate) id: u32,
    pub(crate) data: u64,
    /// What the caller finds in the structure afterwards.
    pub(crate) error: u32,
    pub(crate) sev_fd: i32,
    pub(crate) user: User,
    /// Pages after which an update is interrupted.
    pub(crate) interrupted_after: Option<u64>,
    /// The firmware was asked.
    pub(crate) reached_firmware: bool,
}

impl Command {
    /// The command's structure.
    pub(crate) fn structure<const N: usize>(&self) -> Result<[u8; N], i32> {
        self.user.array(self.data)
    }

    /// Replaces it.
    pub(crate) fn answer(&self, structure: &[u8]) -> Result<(), i32> {
        self.user.write(self.data, structure)
    }
}

impl Machine<'_> {
    /// The whole request. Also answers the firmware's status, when it was asked.
    pub(crate) fn memory_encrypt_op(
        &mut self,
        at: u64,
        user: User,
        fault: Option<Fault>,
    ) -> (Result<i32, i32>, Option<u32>) {
        if !self.host.is_on("sev") {
            return (Err(ENOTTY), None);
        }
        if at == 0 {
            return (Ok(0), None);
        }
        let raw = match user.array::<COMMAND_LEN>(at) {
            Ok(raw) => raw,
            Err(errno) => return (Err(errno), None),
        };
        let mut command = Command {
            id: le32(&raw, 0),
            data: le::<8>(&raw, 8),
            error: le32(&raw, 16),
            sev_fd: le32(&raw, 20) as i32,
            user,
            interrupted_after: None,
            reached_firmware: false,
        };
        if let Some(Fault::Partial(pages)) = fault {
            command.interrupted_after = Some(pages);
        }
        if self.vm.platform() == Some(Platform::Snp) && command.id < id::SNP_LAUNCH_START {
            return (Err(EPERM), None);
        }
        let Some(result) = self.dispatch(&mut command) else {
            return (Err(EINVAL), None);
        };
        let firmware = command.reached_firmware.then_some(command.error);
        let written = user.write(at + ERROR_AT, &command.error.to_le_bytes());
        (result.and(written).map(|()| 0), firmware)
    }

    /// `None` for an id that KVM does not dispatch.
    fn dispatch(&mut self, command: &mut Command) -> Option<Result<(), i32>> {
        let has_vm_types = self.host.kernel_version() >= (6, 10);
        let has_snp = self.host.kernel_version() >= (6, 11);
        Some(match command.id {
            id::INIT => self.init_legacy(command, Platform::Sev),
            id::ES_INIT => self.init_legacy(command, Platform::SevEs),
            id::INIT2 if has_vm_types => self.init2(command),
            id::LAUNCH_START => self.launch_start(command),
            id::LAUNCH_UPDATE_DATA => self.launch_update_data(command),
            id::LAUNCH_UPDATE_VMSA => self.launch_update_vmsa(command),
            id::LAUNCH_MEASURE => self.launch_measure(command),
            id::LAUNCH_SECRET => self.launch_secret(command),
            id::LAUNCH_FINISH => self.launch_finish(command),
            id::GUEST_STATUS => self.guest_status(command),
            id::DBG_DECRYPT => self.debug_copy(command, false),
            id::DBG_ENCRYPT => self.debug_copy(command, true),
            id::SNP_LAUNCH_START if has_snp => self.snp_start(command),
            id::SNP_LAUNCH_UPDATE if has_snp => self.snp_update(command),
            id::SNP_LAUNCH_FINISH if has_snp => self.snp_finish(command),
            other if id::is_without_model(other) => self.without_model(command),
            _ => return None,
        })
    }

    /// Migration and the firmware's own report: the model's firmware does not have them.
    fn without_model(&mut self, command: &mut Command) -> Result<(), i32> {
        let fd = self.sev()?.stored_fd;
        self.issue(fd, command, |_, _| Err(status::UNSUPPORTED))
    }

    /// What INIT made; ENOTTY before it.
    pub(super) fn sev(&self) -> Result<&Sev, i32> {
        self.vm.sev.as_ref().ok_or(ENOTTY)
    }

    /// Asks the firmware through a descriptor.
    pub(super) fn issue<T>(
        &mut self,
        fd: i32,
        command: &mut Command,
        act: impl FnOnce(&mut Psp, &mut Physical) -> Result<T, u32>,
    ) -> Result<T, i32> {
        if self.objects.get(fd) != Some(Object::Sev) {
            return Err(EBADF);
        }
        if self.psp.dead {
            return Err(EBUSY);
        }
        let answer = act(self.psp, self.physical);
        command.reached_firmware = true;
        command.error = answer.as_ref().err().copied().unwrap_or(0);
        answer.map_err(|_| EIO)
    }

    fn init_legacy(&mut self, _: &mut Command, platform: Platform) -> Result<(), i32> {
        let (first, last) = self.host.asids(platform);
        if first > last {
            return Err(ENOTTY);
        }
        if self.vm.vm_type != 0 {
            return Err(EINVAL);
        }
        self.init(platform, 0, true)
    }

    fn init2(&mut self, command: &mut Command) -> Result<(), i32> {
        let platform = Platform::of_vm_type(self.vm.vm_type).ok_or(EINVAL)?;
        let init = command.structure::<48>()?;
        let (features, flags, ghcb) = (le::<8>(&init, 0), le32(&init, 8), le::<2>(&init, 12));
        let bad_ghcb = match platform {
            Platform::Sev => ghcb != 0,
            Platform::SevEs => ghcb > 2,
            Platform::Snp => !matches!(ghcb, 0 | 2),
        };
        if !self.vm.vcpus.is_empty()
            || flags != 0
            || features & !self.host.features_of(platform) != 0
            || bad_ghcb
        {
            return Err(EINVAL);
        }
        self.init(platform, features, false)
    }

    fn init(&mut self, platform: Platform, features: u64, legacy: bool) -> Result<(), i32> {
        if !self.vm.vcpus.is_empty() || self.vm.sev.is_some() {
            return Err(EINVAL);
        }
        let asid = self.asids.take(self.host, platform)?;
        if self.psp.dead {
            self.asids.give_back(asid);
            return Err(EBUSY);
        }
        let active = if platform == Platform::Snp { SNP_ACTIVE } else { 0 };
        self.vm.sev = Some(Sev {
            platform,
            asid,
            features: features | active,
            legacy,
            stored_fd: 0,
            handle: 0,
            context: None,
        });
        Ok(())
    }
}
