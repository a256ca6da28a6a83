// SPDX-License-Identifier: MIT
//! End-to-end tests: the real `openvmm` and `igvmtool` binaries, real files, real guests.
//!
//! Always true: a test reads top to bottom as a user's session; tests of running guests are made for
//! every backend of the machine. Not here: the harness (`vmm_tests`), what guests check (`payloads`).
#![forbid(unsafe_code)]

mod bad_files;
mod build;
mod command_lines;
mod conformance;
mod console;
mod firmware_stops;
mod guide;
mod hyperv;
mod hyperv_devices;
mod hyperv_screen;
mod images;
mod interop;
mod isolation;
mod linux;
mod machine;
mod payloads_run;
mod uefi;
mod virtio;
