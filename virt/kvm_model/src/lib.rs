// SPDX-License-Identifier: MIT
//! A model of KVM and AMD's security processor under the [`kvm_sys::Sys`] seam.
//!
//! The backends' own bytes run against it: real request numbers, real structures, real addresses of this
//! process. It enforces the rules of KVM's source and of the firmware's interface, keeps the reverse map
//! table, has a guest's view of memory beside the host's, and computes the launch digest from the bytes
//! that it is handed.
//!
//! Always true: no prediction of ours is used (`launch_digest` is a test's judge, never a dependency);
//! errors are those of the kernel or the firmware. What only AMD's documents or hardware could settle is an
//! [`Assumptions`] of the host, and proves nothing about hardware.
//! Not here: a processor. VPs run scripts ([`GuestStep`]) through the interface that a CPU would use
//! ([`Guest`]).

mod asids;
mod cpuid_table;
mod dispatch;
mod faults;
mod firmware;
mod guest_view;
mod host;
mod model;
mod physical;
mod psp;
mod ranges;
mod requests;
mod run;
mod script;
mod user;
mod vcpu;
mod vm;

pub use dispatch::ModelSys;
pub use faults::{Call, Fault};
pub use guest_view::{Guest, GuestFault, RmpView, Side};
pub use host::{Assumptions, FakeHost, Platform, SevNode};
pub use model::{Finding, LaunchRecord, PageRun, PageState};
pub use psp::{IdentityRecord, ModelSession, SecretPacket};
pub use script::{GuestStep, StepResult};
