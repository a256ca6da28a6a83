// SPDX-License-Identifier: MIT
//! `/dev/kvm` itself.

use crate::error::KvmError;
use crate::handle::Handle;
use crate::request as rq;
use crate::sys::{Node, Sys};
use crate::vm::Vm;
use guest_memory::GuestMemory;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use std::io;
use std::sync::Arc;

/// The only version of the interface that ever was stable.
pub const API_VERSION: i32 = 12;

/// Types of VM (`KVM_CREATE_VM`, `spec/sev.md` section 1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmType {
    /// Not isolated.
    Default = 0,
    /// AMD SEV.
    Sev = 2,
    /// AMD SEV-ES.
    SevEs = 3,
    /// AMD SEV-SNP.
    Snp = 4,
}

/// An open `/dev/kvm`.
#[derive(Debug)]
pub struct System {
    handle: Handle,
}

impl System {
    /// Opens `/dev/kvm`.
    pub fn open(sys: Arc<dyn Sys>) -> Result<Self, KvmError> {
        Ok(Self {
            handle: Handle::open(sys, Node::Kvm)?,
        })
    }

    /// The descriptor of `/dev/kvm`.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The interface version; see [`API_VERSION`].
    pub fn api_version(&self) -> Result<i32, KvmError> {
        self.handle.value(rq::GET_API_VERSION, 0)
    }

    /// What a capability (`KVM_CAP_*`) answers; 0 when it is absent or unknown.
    pub fn check_extension(&self, capability: u32) -> Result<i32, KvmError> {
        self.handle.value(rq::CHECK_EXTENSION, capability.into())
    }

    /// The CPUID leaves that KVM can show a guest here.
    pub fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, KvmError> {
        let name = rq::GET_SUPPORTED_CPUID.name;
        let mut leaves = CpuId::new(KVM_MAX_CPUID_ENTRIES)
            .map_err(|e| KvmError::new(name, io::Error::other(format!("{e:?}"))))?;
        // SAFETY: the structure has room for as many entries as its header says.
        unsafe {
            self.handle
                .pointer(rq::GET_SUPPORTED_CPUID, leaves.as_mut_fam_struct_ptr())?
        };
        Ok(leaves.as_slice().to_vec())
    }

    /// Makes a VM over `memory`, which is not mapped yet.
    pub fn create_vm(&self, vm_type: VmType, memory: &GuestMemory) -> Result<Arc<Vm>, KvmError> {
        let run_bytes = self.handle.value(rq::GET_VCPU_MMAP_SIZE, 0)?;
        let handle = self.handle.descriptor(rq::CREATE_VM, vm_type as u64)?;
        Ok(Arc::new(Vm::new(handle, memory.clone(), run_bytes as usize)))
    }
}
