// SPDX-License-Identifier: MIT
//! What a VM is asked to be: plain data that the command line makes and the worker consumes.
//!
//! Always true: no behaviour, no handles to running things, no hypervisor names beyond what a user
//! typed. Illegal combinations are unrepresentable where an enum can say so; the rest is refused by
//! `openvmm_entry` before a [`Config`] exists.
//! Not here: parsing, defaults of the command line, layout decisions.
#![forbid(unsafe_code)]

mod config;
mod layout;
mod pci;
mod vmbus;

pub use config::*;
pub use layout::*;
pub use pci::*;
pub use vmbus::*;
