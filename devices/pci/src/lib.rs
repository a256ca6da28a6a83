// SPDX-License-Identifier: MIT
//! PCI: configuration space, functions, BARs, MSI-X, the two ways to reach configuration space, and the
//! two functions that make a machine q35-shaped.
//!
//! Always true: an absent function reads all ones; a guest's configuration writes change only bits that
//! the function made writable; a BAR is on the bus exactly while its decode bit is set and its address is
//! free. Functions live on one segment; bridges and hot plug are not here.
//! Not here: address decoding (the chipset's bus, behind [`chipset_device::Placement`]), virtio.
#![forbid(unsafe_code)]

mod assign;
mod bar;
mod config;
mod host_bridge;
mod intx;
mod lpc;
mod msix;
mod root;
mod video;

pub use assign::{BarAssigner, NoRoom};
pub use bar::{Bar, BarKind};
pub use config::{ConfigSpace, Identity};
pub use host_bridge::HostBridge;
pub use intx::IntxRouter;
pub use lpc::LpcBridge;
pub use msix::{Msix, MsixRegion};
pub use root::{ConfigPorts, Ecam, PciError, PciRoot};
pub use video::VideoFunction;

use chipset_device::Device;
use chipset_device::lock;

/// Bus, device and function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(u16);

impl Bdf {
    /// A function's address; `device` is 0 to 31 and `function` 0 to 7, higher bits are dropped.
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | ((device & 31) << 3 | function & 7) as u16)
    }

    /// From the routing id of ECAM and mechanism 1: bus 15:8, device 7:3, function 2:0.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Device number.
    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 31
    }
}

impl std::fmt::Display for Bdf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.0 >> 8, self.device(), self.0 & 7)
    }
}

/// One PCI function.
pub trait PciFunction: Device {
    /// Its configuration space.
    fn config(&mut self) -> &mut ConfigSpace;

    /// Something in `offset..offset + len` was written; for registers that do more than hold a value.
    fn config_written(&mut self, _offset: u16, _len: usize) {}

    /// A configuration read of 1, 2 or 4 bytes inside one doubleword.
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    /// A configuration write of 1, 2 or 4 bytes inside one doubleword.
    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.config().write(offset, data);
        self.config_written(offset, data.len());
    }
}

#[cfg(test)]
mod testing;
