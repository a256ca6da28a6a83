// SPDX-License-Identifier: MIT
//! PCI devices and root complexes as a user asks for them.

use crate::SerialBackend;
use std::path::PathBuf;

/// Everything on PCI that the machine does not have by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PciConfig {
    /// Root complexes (`--pcie-root-complex`). When there are none and the machine has no PCI of its own, devices go
    /// on an implicit one.
    pub root_complexes: Vec<RootComplexConfig>,
    /// Devices in the order of their device numbers.
    pub devices: Vec<PciDeviceConfig>,
}

impl PciConfig {
    /// Where the virtio console leads, if there is one.
    pub fn console(&self) -> Option<&SerialBackend> {
        self.devices.iter().find_map(|device| match &device.kind {
            PciDeviceKind::VirtioConsole(backend) => Some(backend),
            _ => None,
        })
    }
}

/// A root complex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootComplexConfig {
    /// What devices name it by.
    pub name: String,
    /// PCI segment.
    pub segment: u16,
    /// First bus.
    pub start_bus: u8,
    /// Last bus.
    pub end_bus: u8,
    /// Bytes of the BAR window below 4 GiB.
    pub low_mmio: u64,
    /// Bytes of the BAR window above RAM.
    pub high_mmio: u64,
}

impl RootComplexConfig {
    /// The default size of the window below 4 GiB.
    pub const LOW_MMIO: u64 = 64 << 20;
    /// The default size of the window above RAM.
    pub const HIGH_MMIO: u64 = 1 << 30;

    /// What devices go on when nobody asked for a root complex: one bus.
    pub fn implicit() -> Self {
        Self {
            name: "rc0".into(),
            segment: 0,
            start_bus: 0,
            end_bus: 0,
            low_mmio: Self::LOW_MMIO,
            high_mmio: Self::HIGH_MMIO,
        }
    }
}

/// One PCI device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciDeviceConfig {
    /// Name in messages and `inspect`.
    pub name: String,
    /// The root complex it is on; `None` is the first, or the machine's own bus.
    pub root_complex: Option<String>,
    /// What it is.
    pub kind: PciDeviceKind,
}

/// What a PCI device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PciDeviceKind {
    /// virtio-blk.
    VirtioBlk(DiskConfig),
    /// An NVMe controller with its namespaces 1, 2, ...
    Nvme(Vec<DiskConfig>),
    /// virtio-net on a tap interface.
    VirtioNet(TapConfig),
    /// What tells a guest without UEFI that it has Hyper-V's synthetic video.
    HypervVideo,
    /// virtio-rng.
    VirtioRng,
    /// virtio-vsock.
    VirtioVsock(VsockConfig),
    /// virtio-console; at most one.
    VirtioConsole(SerialBackend),
}

/// A tap interface and the guest's address on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapConfig {
    /// The interface.
    pub interface: String,
    /// The guest's Ethernet address.
    pub mac: [u8; 6],
}

/// A socket device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's context id, 3 or more.
    pub guest_cid: u32,
    /// Where programs of the host connect; the sockets of ports that the guest calls are beside it.
    pub path: PathBuf,
}

/// A disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// The image.
    pub path: PathBuf,
    /// The guest cannot write.
    pub read_only: bool,
    /// How the bytes are arranged; `None` goes by the file's name.
    pub format: Option<DiskFormat>,
}

/// How the bytes of a disk image are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The file is the disk.
    Raw,
    /// QEMU's format.
    Qcow2,
}
