// SPDX-License-Identifier: MIT
//! What guest payloads and the programs that run them agree on: the report's grammar, ports, magic
//! values and the layout of `igvm_probe`.
//!
//! Always true: `no_std`, no dependencies, no unsafe code, no behaviour beyond reading and writing this
//! grammar; the same source is compiled for the host (a workspace crate) and for the guest (by the build
//! script of `payloads`). Not here: the payloads themselves, IGVM, devices.
#![no_std]
#![forbid(unsafe_code)]

pub mod control;
pub mod flat;
mod hash;
pub mod igvm_probe;
pub mod ports;
pub mod report;
pub mod screen;
pub mod uefi_image;

pub use hash::Fnv1a;
