// SPDX-License-Identifier: MIT
//! The structure that KVM and a VP's thread share (`struct kvm_run` and the data behind it).
//!
//! Always true: the fields belong to the VP's thread while it is outside `KVM_RUN`, except
//! `immediate_exit`, which any thread may set and which is only accessed atomically.

use crate::error::KvmError;
use crate::handle::Handle;
use crate::sys::Sys;
use kvm_bindings::kvm_run;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// One VP's run structure.
pub(crate) struct RunPage {
    sys: Arc<dyn Sys>,
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is not tied to a thread. The VP's owner alone uses its fields (through `&mut Vcpu`),
// other threads only the atomic one.
unsafe impl Send for RunPage {}
// SAFETY: as above; `&RunPage` gives other threads no access but the atomic one.
unsafe impl Sync for RunPage {}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and the last user of it.
        unsafe { self.sys.unmap(self.at, self.len) };
    }
}

impl RunPage {
    pub(crate) fn new(vcpu: &Handle, len: usize) -> Result<Self, KvmError> {
        let name = "mmap of kvm_run";
        if len < size_of::<kvm_run>() {
            let short = format!("KVM_GET_VCPU_MMAP_SIZE says {len} bytes");
            return Err(KvmError::new(name, io::Error::other(short)));
        }
        let sys = vcpu.sys().clone();
        let at = sys.map(vcpu.fd(), len).map_err(|e| KvmError::new(name, e))?;
        Ok(Self { sys, at, len })
    }

    /// The structure. Only the VP's owner, outside `KVM_RUN`, may read and write through it.
    pub(crate) fn fields(&self) -> *mut kvm_run {
        self.at.as_ptr().cast()
    }

    /// `len` bytes at `offset`, when they lie inside the mapping.
    pub(crate) fn data(&self, offset: u64, len: usize) -> Option<NonNull<u8>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(len)?;
        // SAFETY: both ends were just checked to lie inside the mapping.
        (end <= self.len).then(|| unsafe { self.at.add(start) })
    }

    /// Makes the next (or the running) `KVM_RUN` return at once, or takes that back.
    pub(crate) fn set_immediate_exit(&self, on: bool) {
        // SAFETY: the byte lies inside the mapping, which `self` keeps, and is only accessed atomically.
        let flag = unsafe { AtomicU8::from_ptr(&raw mut (*self.fields()).immediate_exit) };
        flag.store(on.into(), Ordering::SeqCst);
    }
}
