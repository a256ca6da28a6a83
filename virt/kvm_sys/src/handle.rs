// SPDX-License-Identifier: MIT
//! An owned descriptor with the system that it belongs to.

use crate::error::KvmError;
use crate::request::{self as rq, Number, Request};
use crate::sys::{Fd, Node, Sys};
use kvm_bindings as kb;
use std::sync::Arc;

/// A descriptor that is closed when this is dropped.
pub struct Handle {
    sys: Arc<dyn Sys>,
    fd: Fd,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({})", self.fd.0)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.sys.close(self.fd);
    }
}

impl Handle {
    /// Opens a device node.
    pub fn open(sys: Arc<dyn Sys>, node: Node) -> Result<Self, KvmError> {
        let fd = sys.open(node).map_err(|e| KvmError::new(node.path(), e))?;
        Ok(Self { sys, fd })
    }

    /// The system that the descriptor belongs to.
    pub fn sys(&self) -> &Arc<dyn Sys> {
        &self.sys
    }

    /// The descriptor, for requests that name it in a structure.
    pub fn fd(&self) -> Fd {
        self.fd
    }

    /// A request with a number for an argument.
    pub fn value(&self, request: Number, value: u64) -> Result<i32, KvmError> {
        self.sys
            .ioctl_value(self.fd, request, value)
            .map_err(|e| KvmError::new(request.name, e))
    }

    /// A request that answers with a descriptor.
    pub fn descriptor(&self, request: Number, value: u64) -> Result<Self, KvmError> {
        let fd = Fd(self.value(request, value)?);
        Ok(Self {
            sys: self.sys.clone(),
            fd,
        })
    }

    /// A request that fills a structure.
    pub fn get<T: Default>(&self, request: Request<T>) -> Result<T, KvmError> {
        let mut value = T::default();
        self.exchange(request, &mut value)?;
        Ok(value)
    }

    /// A request that reads a structure and may write it.
    pub fn exchange<T>(&self, request: Request<T>, value: &mut T) -> Result<i32, KvmError> {
        // SAFETY: the request's type is its argument's, and such requests hold no pointers.
        unsafe { self.pointer(request.number, std::ptr::from_mut(value)) }
    }

    /// A request with a structure that answers with a descriptor.
    pub fn exchange_descriptor<T>(&self, request: Request<T>, value: &mut T) -> Result<Self, KvmError> {
        let fd = Fd(self.exchange(request, value)?);
        Ok(Self {
            sys: self.sys.clone(),
            fd,
        })
    }

    /// A request that only reads a structure.
    pub fn set<T: Clone>(&self, request: Request<T>, value: &T) -> Result<(), KvmError> {
        self.exchange(request, &mut value.clone()).map(drop)
    }

    /// A request with any structure.
    ///
    /// # Safety
    /// As [`Sys::ioctl_pointer`].
    pub unsafe fn pointer<T>(&self, request: Number, argument: *mut T) -> Result<i32, KvmError> {
        // SAFETY: the caller's promise is the same.
        let answer = unsafe { self.sys.ioctl_pointer(self.fd, request, argument.cast()) };
        answer.map_err(|e| KvmError::new(request.name, e))
    }

    /// Whether the descriptor has attribute `attr` of `group` (`struct kvm_device_attr`).
    pub fn has_attribute(&self, group: u32, attr: u64) -> bool {
        self.attribute(rq::HAS_DEVICE_ATTR, group, attr, &mut 0).is_ok()
    }

    /// Reads a 64-bit attribute.
    pub fn get_attribute(&self, group: u32, attr: u64) -> Result<u64, KvmError> {
        let mut value = 0;
        self.attribute(rq::GET_DEVICE_ATTR, group, attr, &mut value)?;
        Ok(value)
    }

    /// Writes a 64-bit attribute.
    pub fn set_attribute(&self, group: u32, attr: u64, value: u64) -> Result<(), KvmError> {
        self.attribute(rq::SET_DEVICE_ATTR, group, attr, &mut { value })
    }

    fn attribute(&self, request: Number, group: u32, attr: u64, value: &mut u64) -> Result<(), KvmError> {
        let addr = std::ptr::from_mut(value) as u64;
        let mut argument = kb::kvm_device_attr {
            flags: 0,
            group,
            attr,
            addr,
        };
        // SAFETY: the attributes of this interface are u64, and `value` is one that outlives the call.
        unsafe { self.pointer(request, &raw mut argument) }
            .map(drop)
            .map_err(|e| e.about(format_args!("group {group}, attribute {attr}")))
    }
}
