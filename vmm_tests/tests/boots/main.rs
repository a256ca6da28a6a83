// SPDX-License-Identifier: MIT
//! Other people's guests on the software CPU: Debian's OVMF and Debian's Linux kernel, from the command
//! line to power off.
//!
//! Always true: a test reads top to bottom as a user's session at the guest's serial console; a test
//! whose guest is not installed says so and skips. Not here: payloads of ours (`tests/vmm`).
#![forbid(unsafe_code)]

mod clock;
mod deterministic;
mod disks;
mod efi_disk;
mod guests;
mod hyperv;
mod hyperv_console;
mod linux;
mod ovmf;
mod ovmf_linux;
mod ovmf_newer;
mod ovmf_terminal;
mod reboot;
mod transfers;
