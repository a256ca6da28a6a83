// SPDX-License-Identifier: MIT
//! SEV, SEV-ES and SEV-SNP as launches through KVM.
//!
//! The three platforms are written once over [`kvm_sys::Sys`], so the same code talks to the kernel and
//! to a model of KVM and the security processor. A launch is decided first and done then: [`mod@facts`]
//! and [`mod@host`] say whether the host can, `policy`, `contexts` and `endorsed` whether the plan may,
//! `pages` what is submitted in which order, and only `launch` makes calls.
//!
//! Always true: nothing is asked of the firmware that is known to fail; the order of submission is that
//! of [`launch_digest::events::submit`] for [`launch_digest::Profile::Kvm`], so the digest that
//! `igvmtool measure` prints is the one that the platform computes.
//! Not here: running the guest, and the model itself (`kvm_model`).
#![forbid(unsafe_code)]

mod contexts;
mod cpuid;
mod decide;
mod endorsed;
mod explain;
pub mod facts;
mod firmware;
pub mod host;
mod launch;
pub mod model;
mod options;
mod pages;
mod platform;
pub mod policy;
mod registers;
mod sev;

pub use options::Options;
pub use platform::Platform;
pub use sev::Sev;
