// SPDX-License-Identifier: MIT
//! A VM.

use crate::error::KvmError;
use crate::handle::Handle;
use crate::request as rq;
use guest_memory::GuestMemory;
use kvm_bindings as kb;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Numbers of model-specific registers whose accesses go to user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsrRange {
    /// First number.
    pub first: u32,
    /// How many; at most 0x3000 (the kernel's bitmap limit).
    pub count: u32,
}

/// A VM and the guest memory that is mapped into it.
///
/// Always true: the memory lives at least as long as the VM.
#[derive(Debug)]
pub struct Vm {
    handle: Handle,
    memory: GuestMemory,
    run_bytes: usize,
    /// Descriptors that must stay open as long as the VM exists.
    kept: Mutex<Vec<Handle>>,
}

impl Vm {
    pub(crate) fn new(handle: Handle, memory: GuestMemory, run_bytes: usize) -> Self {
        Self {
            handle,
            memory,
            run_bytes,
            kept: Mutex::default(),
        }
    }

    /// The VM's descriptor.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The memory behind its slots.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Bytes of each VP's run structure.
    pub(crate) fn run_bytes(&self) -> usize {
        self.run_bytes
    }

    /// The descriptors that the VM keeps: guest_memfds in the order of the memory's regions.
    pub(crate) fn kept(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a descriptor open as long as the VM exists.
    pub(crate) fn keep(&self, descriptor: Handle) {
        self.kept().push(descriptor);
    }

    /// Maps all guest memory, one slot per region. Comes first: with VPs and interrupt controllers
    /// present every slot costs an RCU grace period.
    pub fn map_memory(&self) -> Result<(), KvmError> {
        for (slot, region) in (0u32..).zip(self.memory.regions()) {
            let mut argument = kb::kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.gpa,
                memory_size: region.len,
                userspace_addr: region.host as u64,
            };
            // SAFETY: the host range is a mapping that `self.memory` keeps for as long as this VM exists
            // (VPs hold the VM), and that nobody refers to by reference.
            unsafe { self.handle.pointer(rq::SET_USER_MEMORY_REGION, &raw mut argument) }.map_err(|e| {
                e.about(format_args!(
                    "slot {slot}, gpa {:#x}, {:#x} bytes",
                    region.gpa, region.len
                ))
            })?;
        }
        Ok(())
    }

    /// Turns a capability on.
    pub fn enable_cap(&self, capability: u32, argument: u64) -> Result<(), KvmError> {
        let cap = kb::kvm_enable_cap {
            cap: capability,
            args: [argument, 0, 0, 0],
            ..Default::default()
        };
        self.handle
            .set(rq::ENABLE_CAP, &cap)
            .map_err(|e| e.about(format_args!("capability {capability}")))
    }

    /// Gives VMX the three pages for its task state segment and, below them, the page for its identity
    /// map that processors without unrestricted guest mode need.
    pub fn set_vmx_pages(&self, gpa: u64) -> Result<(), KvmError> {
        self.handle.set(rq::SET_IDENTITY_MAP_ADDR, &gpa)?;
        self.handle.value(rq::SET_TSS_ADDR, gpa + 0x1000).map(drop)
    }

    /// Sends accesses to the registers of `ranges` (at most 16) to user space; the others stay with KVM.
    pub fn filter_msrs(&self, ranges: &[MsrRange]) -> Result<(), KvmError> {
        let mut filter = kb::kvm_msr_filter {
            flags: kb::KVM_MSR_FILTER_DEFAULT_ALLOW,
            ..Default::default()
        };
        // A zero bit denies; one bitmap serves all ranges.
        let longest = ranges.iter().map(|r| r.count).max().unwrap_or(0);
        let mut bitmap = vec![0u8; longest.div_ceil(8) as usize];
        for (slot, range) in filter.ranges.iter_mut().zip(ranges) {
            slot.flags = kb::KVM_MSR_FILTER_READ | kb::KVM_MSR_FILTER_WRITE;
            slot.base = range.first;
            slot.nmsrs = range.count;
            slot.bitmap = bitmap.as_mut_ptr();
        }
        // SAFETY: every bitmap has at least `nmsrs` bits and outlives the call.
        unsafe { self.handle.pointer(rq::X86_SET_MSR_FILTER, &raw mut filter) }.map(drop)
    }
}
