// SPDX-License-Identifier: MIT
//! Every KVM call of the tree: the `Sys` seam, typed wrappers over it, and run and exit decoding.
//!
//! Always true: backends reach KVM only through [`Sys`], with the real request numbers and structure
//! layouts, so a model under the seam exercises the same bytes as the kernel does. The wrappers are safe
//! to call: structures without pointers travel by [`Request`] types that fix their size, memory is mapped
//! from [`guest_memory::GuestMemory`], which a VM keeps alive for as long as any of its VPs exists.
//! Not here: policy (CPUID, MSR lists, interrupt delivery), which belongs to the backends.

mod error;
mod exit;
mod handle;
mod kick;
mod real;
mod request;
mod run_page;
mod sev;
mod sys;
mod system;
mod vcpu;
mod vm;

pub use error::KvmError;
pub use exit::{ConvertReply, Converted, Exit, MsrReply};
pub use handle::Handle;
pub use kick::{EnteredThread, Kicker};
pub use real::RealSys;
pub use request::{Number, Request};
pub use sev::{FirmwareVersion, SignalsHeld, SnpFinish, SnpPageType, VmSev};
pub use sys::{Fd, Node, Sys};
pub use system::{API_VERSION, System, VmType};
pub use vcpu::{Fpu, Vcpu, host_tsc};
pub use vm::{MsrRange, Vm};

pub use kvm_bindings as bindings;
