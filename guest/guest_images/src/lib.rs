// SPDX-License-Identifier: MIT
//! Images that other people's guests boot from: initial RAM file systems, EFI system partitions, unified
//! kernel images, made of Debian's kernel and BusyBox; keys of secure boot and what is signed with them.
//!
//! Always true: the same inputs give the same bytes; nothing is fetched here, and what is missing is an
//! error that names its Debian package. Not here: payloads of ours (`payloads`), IGVM files (`igvmtool`).
#![forbid(unsafe_code)]

mod cpio;
pub mod debian;
mod esp;
pub mod secure_boot;
mod uki;

pub use cpio::Archive;
pub use esp::esp_disk;
pub use uki::unified_kernel;
