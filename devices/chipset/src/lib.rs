// SPDX-License-Identifier: MIT
//! The devices that every PC-like machine has, the bus that finds them, and the machines made of them.
//!
//! Always true: no hypervisor is named here, and only fw_cfg touches guest memory; a VP reaches everything through
//! [`Chipset`]'s [`chipset_device::VpBus`]; guest accesses never panic. Locks are taken in the order
//! device, interrupt router, IO-APIC or 8259, local APIC, timer queue, and none is held while a power
//! request or a wake is acted on.
//! Not here: what PCI functions are (crate `pci`), virtio, Hyper-V and UEFI devices.
#![forbid(unsafe_code)]

pub mod battery;
mod bus;
pub mod flash;
pub mod fw_cfg;
pub mod ioapic;
pub mod lapic;
pub mod machine;
pub mod pic;
pub mod pit;
pub mod pm;
pub mod reset;
pub mod routing;
pub mod rtc;
#[cfg(test)]
mod testing;
pub mod uart;

pub use bus::{BusError, Chipset, ChipsetBuilder, MmioWindow, PortWidth, PortWindow};

use chipset_device::lock;
