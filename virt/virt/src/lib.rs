// SPDX-License-Identifier: MIT
//! What a hypervisor gives: partitions and runners, and the contract between a virtual processor and
//! the interrupt controllers.
//!
//! Always true: interrupt controllers are ours, in user space, reached through
//! [`chipset_device::VpBus`]; INIT, SIPI and HLT are handled by [`activity`], the same for every
//! backend; a VP in wait-for-SIPI or HLT is parked outside the backend's run call. Backends do not know
//! each other and are named only by the binary.
//! Not here: any ioctl, any instruction, any device.
#![forbid(unsafe_code)]

pub mod activity;
mod isolated;
mod launch;
mod partition;
mod signal;

pub use isolated::{IsolatingHypervisor, LaunchSummary, LaunchedRange};
pub use launch::{LaunchError, LaunchTarget, PlainLaunch};
pub use partition::{
    Capabilities, ExecutionTrace, Hypervisor, Partition, PartitionConfig, RunError, Runner,
    TracedInstruction, VpDebug, VpStop,
};
pub use signal::{VpSignals, WakeReason};

pub use chipset_device::{Clock, TimerQueue, VpBus, VpIndex};
