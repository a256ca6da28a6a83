// SPDX-License-Identifier: MIT
//! Disks and other devices from their options.
//!
//! Always true: devices get their device numbers in a fixed order of their kinds, and within a kind in the order
//! in which they were given.

use crate::cli::{DeviceArgs, DiskArg, NetArg};
use openvmm_defs::{DiskConfig, PciConfig, PciDeviceConfig, PciDeviceKind, TapConfig, VmbusConfig};

/// VMBus, which takes the disks that name no other controller.
pub(super) fn vmbus(args: &mut DeviceArgs) -> Result<VmbusConfig, String> {
    let scsi = std::mem::take(&mut args.disk).into_iter().map(image);
    Ok(VmbusConfig {
        scsi: scsi.collect::<Result<_, _>>()?,
    })
}

/// What the options ask for.
pub(super) fn pci(args: DeviceArgs, deterministic: bool) -> Result<PciConfig, String> {
    let mut config = PciConfig::default();
    let mut add = |name: String, kind| {
        config.devices.push(PciDeviceConfig {
            name,
            root_complex: None,
            kind,
        });
    };
    for (index, disk) in args.disk.into_iter().chain(args.virtio_blk).enumerate() {
        add(
            format!("virtio-blk{index}"),
            PciDeviceKind::VirtioBlk(image(disk)?),
        );
    }
    let taps = args
        .net
        .into_iter()
        .chain(args.virtio_net)
        .filter_map(|net| match net {
            NetArg::None => None,
            NetArg::Tap(name) => Some(name),
        });
    for (index, interface) in taps.enumerate() {
        refuse_if(deterministic, "--net", "what arrives on a network")?;
        let mac = mac(&interface);
        let kind = PciDeviceKind::VirtioNet(TapConfig { interface, mac });
        add(format!("virtio-net{index}"), kind);
    }
    if args.virtio_rng {
        add("virtio-rng".into(), PciDeviceKind::VirtioRng);
    }
    if let Some(vsock) = args.virtio_vsock {
        refuse_if(deterministic, "--virtio-vsock", "what the host's programs do")?;
        add("virtio-vsock".into(), PciDeviceKind::VirtioVsock(vsock));
    }
    Ok(config)
}

fn refuse_if(deterministic: bool, option: &str, what: &str) -> Result<(), String> {
    if deterministic {
        return Err(format!(
            "{option} cannot be combined with --deterministic, because {what} depends on more than the seed; drop one of them"
        ));
    }
    Ok(())
}

fn image(disk: DiskArg) -> Result<DiskConfig, String> {
    if let Some(name) = disk.on {
        return Err(format!(
            "disk {}: there is no controller {name}; drop on={name}",
            disk.path.display()
        ));
    }
    Ok(DiskConfig {
        path: disk.path,
        read_only: disk.read_only,
        format: disk.format,
    })
}

/// A locally administered address that belongs to the interface's name, so that it stays over runs (FNV-1a).
fn mac(interface: &str) -> [u8; 6] {
    let hash = interface.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    });
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    [0x02, a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_local_unicast_and_differ() {
        let macs = ["tap0", "tap1", "vm"].map(mac);
        assert!(macs.iter().all(|mac| mac[0] & 3 == 2));
        assert!(macs[0] != macs[1] && macs[1] != macs[2]);
    }
}
