// SPDX-License-Identifier: MIT
//! The hypervisor interface that Microsoft's firmware and enlightened guests expect (Hypervisor Top Level
//! Functional Specification, "TLFS"): CPUID leaves, synthetic registers, hypercalls, SynIC and timers.
//!
//! Always true: time is the partition's clock in units of 100 ns; pages that the guest names (hypercall,
//! messages, events, time, VP assist) cover its RAM while they are enabled and give it back afterwards;
//! whatever a guest writes is answered by #GP, by a hypercall status or by a log line, never by a panic;
//! nothing is written outside guest RAM. The same on every backend: the hypercall page holds `out`
//! instructions, never VMCALL or VMMCALL.
//! Not here: VMBus, which is a user of messages and events; VTLs, nesting, 32-bit callers of hypercalls.
#![forbid(unsafe_code)]

pub mod cpuid;
mod hypercall;
mod overlay;
mod partition;
mod synic;
mod timer;
pub mod tlfs;

#[cfg(test)]
mod tests;

pub use hypercall::{EventPort, HYPERCALL_PORT, HYPERCALL_PORTS, MessagePort};
pub use partition::{HyperV, HyperVConfig, HyperVWorld};
pub use synic::{Hold, Message, Untaken};
