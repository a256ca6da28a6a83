// SPDX-License-Identifier: MIT
//! Microsoft's UEFI firmware (`MSVM.fd`): the direct launch plan, the configuration blob and the
//! processor state that the firmware expects (uefi-launch sections 3 and 5).
//!
//! Always true: one blob builder and one plan serve `--uefi`, `--igvm type=uefi` and
//! `igvmtool build`. Nothing here touches guest memory or asks the host for anything: entropy and the
//! BIOS GUID are inputs. Not here: the devices that the firmware talks to.

pub mod config;
mod firmware;
mod isolated;
mod layout;
mod load;
mod mtrr;
mod parameters;

pub use firmware::{FirmwareError, find_sec_entry};
pub use isolated::{BoundaryError, SnpOptions, plan_snp, plan_tdx};
pub use layout::{aarch64, x64};
pub use load::{ConfigType, UefiError, identity_map_4gib, plan};
pub use mtrr::{host_registers, variable_mtrrs};

#[cfg(test)]
pub(crate) use firmware::tests as tests_support;
use launch_plan::HandOver;

/// The configuration blob at its fixed place, as `bind` takes it (uefi-launch 3.1).
pub fn hand_over(blob: Vec<u8>) -> HandOver<'static> {
    HandOver {
        what: "config blob",
        gpa: x64::CONFIG_BLOB_GPA,
        blob: blob.into(),
    }
}
