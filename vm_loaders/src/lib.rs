// SPDX-License-Identifier: MIT
//! Loaders: bytes and a layout become a launch plan.
//!
//! Always true: loaders decide and return values; they know no hypervisor and touch no guest memory.
//! Input files are untrusted: they never cause a panic, an overflow or an allocation beyond a small
//! multiple of their header count.

pub mod acpi;
pub mod detect;
pub mod igvm;
pub mod linux;
pub mod ovmf;
pub mod params;
pub mod smbios;
pub mod uefi;
