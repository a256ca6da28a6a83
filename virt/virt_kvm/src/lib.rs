// SPDX-License-Identifier: MIT
//! KVM as a backend for guests that are not isolated.
//!
//! Always true: interrupt controllers are ours (no in-kernel irqchip), so a VP takes its vectors through
//! [`virt::VpBus`] and KVM only injects them; a VP in HLT or wait-for-SIPI is parked outside `KVM_RUN`;
//! x2APIC, VMX and SVM are hidden; an instruction that KVM cannot emulate is stepped by `x86emu`; every
//! KVM call goes through `kvm_sys`.
//! Untested for lack of such a machine: everything that only real VMX or SVM shows - `FAIL_ENTRY`, the
//! VMX pages below 4 GiB, guests with real AVX, a triple fault's registers (on SVM KVM resets the VP
//! before it reports one). The tests run on software-nested KVM, see [`Probe`]: firmware completes there too, OVMF
//! reaches its shell after nine minutes of CPU time; paging outside long mode does not exist there.
//! Not here: devices, instructions, isolated guests (`virt_sev`).

mod cpuid;
mod debug;
mod fallback;
mod host;
mod msr;
mod partition;
mod probe;
mod registers;
mod runner;
mod tsc;

pub use host::Kvm;
pub use probe::Probe;
