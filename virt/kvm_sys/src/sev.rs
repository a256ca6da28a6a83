// SPDX-License-Identifier: MIT
//! The launch commands of SEV, SEV-ES and SEV-SNP, and guest memory that is private to a guest
//! (`spec/sev.md` 1.1 to 1.6).
//!
//! Always true: every command carries the number of one open `/dev/sev`; its firmware status starts at 0,
//! because KVM does not write it back on every failure; [`KvmError::firmware`] holds what it was then.
//! Not here: the order of the commands, and what a refusal means.

use crate::error::KvmError;
use crate::handle::Handle;
use crate::request as rq;
use crate::vm::Vm;
use guest_memory::MemoryError;
use kvm_bindings as kb;
use std::io;
use std::ptr::NonNull;

/// Room for a launch measurement (48 bytes); KVM trims what is too much.
const MEASUREMENT_ROOM: usize = 256;
/// `KVM_MEM_GUEST_MEMFD`.
const GUEST_MEMFD: u32 = kb::KVM_MEM_GUEST_MEMFD;
/// `KVM_MEMORY_ATTRIBUTE_PRIVATE`.
const PRIVATE: u64 = kb::KVM_MEMORY_ATTRIBUTE_PRIVATE as u64;

/// How a page enters a SEV-SNP guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnpPageType {
    /// Contents measured.
    Normal = 1,
    /// Zeroed by the firmware.
    Zero = 3,
    /// Contents not measured.
    Unmeasured = 4,
    /// Filled by the firmware.
    Secrets = 5,
    /// A CPUID table, checked by the firmware.
    Cpuid = 6,
}

/// `struct sev_issue_cmd`.
#[repr(C, packed)]
struct IssueCommand {
    id: u32,
    data: u64,
    error: u32,
}

/// `struct sev_user_data_status`, which PLATFORM_STATUS fills: versions, state, flags, build, guests.
type PlatformStatus = [u8; 12];
const PLATFORM_STATUS: u32 = 1;
const _: () = assert!(size_of::<IssueCommand>() == 16);

/// Version of the security processor's firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirmwareVersion {
    /// Of its interface.
    pub major: u8,
    /// Of its interface.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

impl FirmwareVersion {
    /// Asks through an open `/dev/sev`.
    pub fn read(sev: &Handle) -> Result<Self, KvmError> {
        let mut status: PlatformStatus = [0; 12];
        let mut command = IssueCommand {
            id: PLATFORM_STATUS,
            data: status.as_mut_ptr() as u64,
            error: 0,
        };
        // SAFETY: the data is the structure that this command fills, and outlives the call.
        let answer = unsafe { sev.pointer(rq::SEV_ISSUE_CMD, &raw mut command) };
        answer.map_err(|e| e.with_firmware(command.error))?;
        let [major, minor, _, _, _, _, _, build, ..] = status;
        Ok(Self { major, minor, build })
    }
}

/// What ends a SEV-SNP launch.
#[derive(Debug, Clone, Copy)]
pub struct SnpFinish<'f> {
    /// ID block and ID authentication page.
    pub id_block: Option<(&'f [u8; 96], &'f [u8; 4096])>,
    /// The authentication page has an author key.
    pub author_key: bool,
    /// HOST_DATA of attestation reports.
    pub host_data: [u8; 32],
}

/// Holds all signals back on this thread while it lives: one that is pending makes KVM fail the first page
/// of a SEV-SNP update.
#[derive(Debug)]
pub struct SignalsHeld {
    before: libc::sigset_t,
}

impl SignalsHeld {
    /// From now on.
    pub fn new() -> Self {
        // SAFETY: both sets are plain memory of this frame, and all bit patterns of a set are valid.
        let before = unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            before
        };
        Self { before }
    }
}

impl Default for SignalsHeld {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        // SAFETY: the set is the one that was in force.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// A VM's commands to the firmware through one open `/dev/sev`.
#[derive(Debug, Clone, Copy)]
pub struct VmSev<'v> {
    vm: &'v Vm,
    sev: &'v Handle,
}

impl VmSev<'_> {
    /// A command with its structure.
    ///
    /// # Safety
    /// Addresses in `data` must be valid for what the command does with them.
    unsafe fn command<T>(&self, id: u32, name: &'static str, data: &mut T) -> Result<(), KvmError> {
        let mut command = kb::kvm_sev_cmd {
            id,
            data: std::ptr::from_mut(data) as u64,
            sev_fd: self.sev.fd().0 as u32,
            ..Default::default()
        };
        // SAFETY: `data` is the command's structure and outlives the call; the caller vouches for what it
        // points to.
        let answer = unsafe { self.vm.handle().pointer(rq::MEMORY_ENCRYPT_OP, &raw mut command) };
        answer.map(drop).map_err(|mut error| {
            error.call = name.into();
            error.with_firmware(command.error)
        })
    }

    /// A command without a structure.
    fn plain(&self, id: u32, name: &'static str) -> Result<(), KvmError> {
        // SAFETY: such a command does not look at its data.
        unsafe { self.command(id, name, &mut 0u64) }
    }

    /// Turns encryption on, with SEV features for all save areas (Linux 6.10). Comes before any VP.
    pub fn init2(&self, features: u64) -> Result<(), KvmError> {
        let mut init = kb::kvm_sev_init {
            vmsa_features: features,
            ..Default::default()
        };
        // SAFETY: the structure holds no addresses.
        unsafe { self.command(kb::sev_cmd_id_KVM_SEV_INIT2, "KVM_SEV_INIT2", &mut init) }
    }

    /// Turns encryption on for a VM of the default type, of the registers as well with `encrypted_state`.
    pub fn init_legacy(&self, encrypted_state: bool) -> Result<(), KvmError> {
        if encrypted_state {
            self.plain(kb::sev_cmd_id_KVM_SEV_ES_INIT, "KVM_SEV_ES_INIT")
        } else {
            self.plain(kb::sev_cmd_id_KVM_SEV_INIT, "KVM_SEV_INIT")
        }
    }

    /// Starts a SEV or SEV-ES launch without a session.
    pub fn launch_start(&self, policy: u32) -> Result<(), KvmError> {
        let mut start = kb::kvm_sev_launch_start {
            policy,
            ..Default::default()
        };
        // SAFETY: the addresses of certificate and session are null, with length 0: there is none.
        unsafe {
            self.command(
                kb::sev_cmd_id_KVM_SEV_LAUNCH_START,
                "KVM_SEV_LAUNCH_START",
                &mut start,
            )
        }
    }

    /// Encrypts and measures `len` bytes of guest memory in place. They must not be touched afterwards.
    pub fn launch_update_data(&self, gpa: u64, len: u64) -> Result<(), KvmError> {
        let name = "KVM_SEV_LAUNCH_UPDATE_DATA";
        for (host, part) in self.vm.host_ranges(name, gpa, len)? {
            let part_len = u32::try_from(part).map_err(|e| KvmError::new(name, io::Error::other(e)))?;
            let mut update = kb::kvm_sev_launch_update_data {
                uaddr: host,
                len: part_len,
                ..Default::default()
            };
            // SAFETY: the range is guest memory, which the VM keeps and nobody refers to by reference.
            unsafe { self.command(kb::sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_DATA, name, &mut update)? };
        }
        Ok(())
    }

    /// Seals and measures the save areas of all VPs in creation order (SEV-ES).
    pub fn launch_update_vmsa(&self) -> Result<(), KvmError> {
        self.plain(
            kb::sev_cmd_id_KVM_SEV_LAUNCH_UPDATE_VMSA,
            "KVM_SEV_LAUNCH_UPDATE_VMSA",
        )
    }

    /// Ends measuring; the firmware's measurement, 32 bytes of HMAC and 16 of nonce.
    pub fn launch_measure(&self) -> Result<Vec<u8>, KvmError> {
        let mut measurement = vec![0u8; MEASUREMENT_ROOM];
        let mut measure = kb::kvm_sev_launch_measure {
            uaddr: measurement.as_mut_ptr() as u64,
            len: MEASUREMENT_ROOM as u32,
            ..Default::default()
        };
        // SAFETY: the address has as many bytes as the length says, and outlives the call.
        unsafe {
            self.command(
                kb::sev_cmd_id_KVM_SEV_LAUNCH_MEASURE,
                "KVM_SEV_LAUNCH_MEASURE",
                &mut measure,
            )?;
        }
        measurement.truncate(measure.len as usize);
        Ok(measurement)
    }

    /// Ends a SEV or SEV-ES launch.
    pub fn launch_finish(&self) -> Result<(), KvmError> {
        self.plain(kb::sev_cmd_id_KVM_SEV_LAUNCH_FINISH, "KVM_SEV_LAUNCH_FINISH")
    }

    /// Starts a SEV-SNP launch.
    pub fn snp_launch_start(&self, policy: u64) -> Result<(), KvmError> {
        let mut start = kb::kvm_sev_snp_launch_start {
            policy,
            ..Default::default()
        };
        // SAFETY: the structure holds no addresses.
        unsafe {
            self.command(
                kb::sev_cmd_id_KVM_SEV_SNP_LAUNCH_START,
                "KVM_SEV_SNP_LAUNCH_START",
                &mut start,
            )
        }
    }

    /// Adds `pages`, which begin at a page boundary, at `gpa`, once: answers how many bytes were taken, which may be fewer. A CPUID page
    /// that the firmware refuses is corrected in place.
    pub fn snp_launch_update(
        &self,
        gpa: u64,
        kind: SnpPageType,
        pages: &mut [u8],
    ) -> Result<usize, KvmError> {
        let mut update = kb::kvm_sev_snp_launch_update {
            gfn_start: gpa / 4096,
            uaddr: pages.as_mut_ptr() as u64,
            len: pages.len() as u64,
            type_: kind as u8,
            ..Default::default()
        };
        // SAFETY: the address has as many bytes as the length says, exclusively, and outlives the call.
        unsafe {
            self.command(
                kb::sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE,
                "KVM_SEV_SNP_LAUNCH_UPDATE",
                &mut update,
            )?;
        }
        Ok(pages.len().saturating_sub(update.len as usize))
    }

    /// Measures the save areas of all VPs in creation order and ends a SEV-SNP launch.
    pub fn snp_launch_finish(&self, finish: &SnpFinish<'_>) -> Result<(), KvmError> {
        let mut argument = kb::kvm_sev_snp_launch_finish {
            auth_key_en: finish.author_key.into(),
            host_data: finish.host_data,
            ..Default::default()
        };
        if let Some((block, auth)) = finish.id_block {
            argument.id_block_en = 1;
            argument.id_block_uaddr = block.as_ptr() as u64;
            argument.id_auth_uaddr = auth.as_ptr() as u64;
        }
        // SAFETY: the addresses are null, or of arrays of the sizes that KVM reads, which outlive the call.
        unsafe {
            self.command(
                kb::sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH,
                "KVM_SEV_SNP_LAUNCH_FINISH",
                &mut argument,
            )
        }
    }
}

impl Vm {
    /// The VM's commands to the firmware behind `sev`, an open `/dev/sev`, which must stay open until the
    /// launch has ended.
    pub fn sev<'v>(&'v self, sev: &'v Handle) -> VmSev<'v> {
        VmSev { vm: self, sev }
    }

    /// Whether KVM knows SEV at all: what kernels before 6.10 can be asked.
    pub fn sev_is_enabled(&self) -> bool {
        let nothing = std::ptr::null_mut::<kb::kvm_sev_cmd>();
        // SAFETY: a null command is KVM's probe; it reads nothing.
        unsafe { self.handle().pointer(rq::MEMORY_ENCRYPT_OP, nothing) }.is_ok()
    }

    /// Pins all guest memory, which may be encrypted from then on (SEV, SEV-ES).
    pub fn register_encrypted_memory(&self) -> Result<(), KvmError> {
        for region in self.memory().regions() {
            let range = kb::kvm_enc_region {
                addr: region.host as u64,
                size: region.len,
            };
            self.handle()
                .set(rq::MEMORY_ENCRYPT_REG_REGION, &range)
                .map_err(|e| e.about(format_args!("gpa {:#x}, {:#x} bytes", region.gpa, region.len)))?;
        }
        Ok(())
    }

    /// Maps all guest memory with a private side of its own (SEV-SNP); the mapping of
    /// [`guest_memory::GuestMemory`] is the shared side.
    pub fn map_private_memory(&self) -> Result<(), KvmError> {
        for (slot, region) in (0u32..).zip(self.memory().regions()) {
            let about = |e: KvmError| {
                e.about(format_args!(
                    "slot {slot}, gpa {:#x}, {:#x} bytes",
                    region.gpa, region.len
                ))
            };
            let private = self.create_guest_memfd(region.len).map_err(about)?;
            let mut argument = kb::kvm_userspace_memory_region2 {
                slot,
                flags: GUEST_MEMFD,
                guest_phys_addr: region.gpa,
                memory_size: region.len,
                userspace_addr: region.host as u64,
                guest_memfd: private.fd().0 as u32,
                ..Default::default()
            };
            // SAFETY: the host range is a mapping that the VM keeps and nobody refers to by reference.
            unsafe {
                self.handle()
                    .pointer(rq::SET_USER_MEMORY_REGION2, &raw mut argument)
            }
            .map_err(about)?;
            self.keep(private);
        }
        Ok(())
    }

    fn create_guest_memfd(&self, len: u64) -> Result<Handle, KvmError> {
        let mut argument = kb::kvm_create_guest_memfd {
            size: len,
            ..Default::default()
        };
        self.handle()
            .exchange_descriptor(rq::CREATE_GUEST_MEMFD, &mut argument)
    }

    /// Says whether the guest sees the private or the shared side of `len` bytes from `gpa`.
    pub fn set_private(&self, gpa: u64, len: u64, private: bool) -> Result<(), KvmError> {
        let attributes = kb::kvm_memory_attributes {
            address: gpa,
            size: len,
            attributes: if private { PRIVATE } else { 0 },
            flags: 0,
        };
        self.handle()
            .set(rq::SET_MEMORY_ATTRIBUTES, &attributes)
            .map_err(|e| e.about(format_args!("gpa {gpa:#x}, {len:#x} bytes")))
    }

    /// Moves `len` bytes from `gpa` to the private or the shared side and gives up what the other side held, as a
    /// guest's request to convert its memory demands (`spec/sev.md` 1.8).
    pub fn convert(&self, gpa: u64, len: u64, private: bool) -> Result<(), KvmError> {
        let name = "conversion of guest memory";
        let at = |error| KvmError::new(name, error).about(format_args!("gpa {gpa:#x}, {len:#x} bytes"));
        let parts = self.host_ranges(name, gpa, len)?;
        self.set_private(gpa, len, private)?;
        if private {
            return parts
                .into_iter()
                .try_for_each(|(host, len)| self.discard(host, len))
                .map_err(at);
        }
        let end = gpa + len;
        let kept = self.kept();
        for (memfd, region) in kept.iter().zip(self.memory().regions()) {
            let (from, to) = (gpa.max(region.gpa), end.min(region.gpa + region.len));
            if from < to {
                let hole = from - region.gpa;
                memfd.sys().punch(memfd.fd(), hole, to - from).map_err(at)?;
            }
        }
        Ok(())
    }

    /// Gives up the contents of a range of guest memory's own mapping.
    fn discard(&self, host: u64, len: u64) -> io::Result<()> {
        let start =
            NonNull::new(host as *mut u8).ok_or_else(|| io::Error::other("guest memory at address 0"))?;
        // SAFETY: the range is part of guest memory, which is private and anonymous, which the VM keeps and nobody
        // refers to by reference; the guest asked for its contents to go.
        unsafe { self.handle().sys().discard(start, len as usize) }
    }

    /// Host addresses and lengths of `len` bytes from `gpa`, which may span adjacent regions.
    fn host_ranges(&self, name: &str, gpa: u64, len: u64) -> Result<Vec<(u64, u64)>, KvmError> {
        let memory = self.memory();
        if !memory.is_ram(gpa, len) {
            let error = io::Error::other(MemoryError::OutOfRange { gpa, len });
            return Err(KvmError::new(name, error));
        }
        let end = gpa + len;
        let parts = memory.regions().iter().filter_map(|region| {
            let from = gpa.max(region.gpa);
            let to = end.min(region.gpa + region.len);
            (from < to).then(|| (region.host as u64 + (from - region.gpa), to - from))
        });
        Ok(parts.collect())
    }
}

#[cfg(test)]
mod layout_tests;
