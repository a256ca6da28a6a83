// SPDX-License-Identifier: MIT
//! Disks and other devices from their options.
//!
//! Always true: devices get their device numbers in the order in which an option's occurrences stand: `--disk`,
//! then `--virtio-blk`.

use crate::cli::{DeviceArgs, DiskArg};
use openvmm_defs::{DiskConfig, PciConfig, PciDeviceConfig, PciDeviceKind};

/// What the options ask for.
pub(super) fn pci(args: DeviceArgs) -> Result<PciConfig, String> {
    let mut config = PciConfig::default();
    let disks = args.disk.into_iter().chain(args.virtio_blk);
    for (index, disk) in disks.enumerate() {
        config.devices.push(virtio_blk(index, disk)?);
    }
    Ok(config)
}

fn virtio_blk(index: usize, disk: DiskArg) -> Result<PciDeviceConfig, String> {
    if let Some(name) = disk.on {
        return Err(format!(
            "disk {}: there is no controller {name}; drop on={name}",
            disk.path.display()
        ));
    }
    Ok(PciDeviceConfig {
        name: format!("virtio-blk{index}"),
        root_complex: None,
        kind: PciDeviceKind::VirtioBlk(DiskConfig {
            path: disk.path,
            read_only: disk.read_only,
            format: disk.format,
        }),
    })
}
