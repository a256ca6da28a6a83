// SPDX-License-Identifier: MIT
//! Disks and other devices from their options.
//!
//! Always true: devices get their device numbers in a fixed order of their kinds, and within a kind in the order
//! in which they were given.

use crate::cli::{DeviceArgs, DiskArg, NetArg, NvmeArg};
use openvmm_defs::{
    DiskConfig, GfxConfig, PciConfig, PciDeviceConfig, PciDeviceKind, SerialBackend, TapConfig, UefiDevices,
    VmbusConfig,
};

/// VMBus, which takes the disks that name no other controller, and the network interfaces; a kernel without
/// UEFI has the picture of its screen in its `own_memory`.
pub(super) fn vmbus(
    args: &mut DeviceArgs,
    deterministic: bool,
    own_memory: bool,
) -> Result<VmbusConfig, String> {
    let (scsi, others) = std::mem::take(&mut args.disk)
        .into_iter()
        .partition(|disk| disk.on.is_none() && disk.root_complex.is_none());
    args.disk = others;
    let scsi: Vec<DiskArg> = scsi;
    let scsi = scsi.into_iter().map(image);
    let nics = taps(std::mem::take(&mut args.net), deterministic)?;
    if args.gfx {
        refuse_if(deterministic, "--gfx", "what is typed")?;
    }
    let vnc_port = args.vnc_port;
    Ok(VmbusConfig {
        gfx: args.gfx.then_some(GfxConfig { vnc_port, own_memory }),
        scsi: scsi.collect(),
        nics,
    })
}

/// What Microsoft's UEFI gets if that is what is in a file of `type=auto`.
pub(super) fn if_uefi(mut args: DeviceArgs, deterministic: bool) -> Result<UefiDevices, String> {
    Ok(UefiDevices {
        vmbus: vmbus(&mut args, deterministic, false)?,
        pci: pci(args, deterministic)?,
    })
}

/// Tells a kernel without UEFI of its screen on VMBus.
pub(super) fn add_video(config: &mut PciConfig) {
    config.devices.push(PciDeviceConfig {
        name: "hyperv-video".into(),
        root_complex: None,
        kind: PciDeviceKind::HypervVideo,
    });
}

/// What the options ask for.
pub(super) fn pci(args: DeviceArgs, deterministic: bool) -> Result<PciConfig, String> {
    let mut config = PciConfig {
        root_complexes: args.pcie_root_complex,
        devices: Vec::new(),
    };
    let mut add = |name: String, root_complex, kind| {
        config.devices.push(PciDeviceConfig {
            name,
            root_complex,
            kind,
        });
    };
    let (attached, alone): (Vec<_>, Vec<_>) = args.disk.into_iter().partition(|disk| disk.on.is_some());
    for (index, disk) in alone.into_iter().chain(args.virtio_blk).enumerate() {
        if let Some(name) = &disk.on {
            return Err(format!(
                "--virtio-blk {} is its own controller; write --disk to put it on {name}, or drop on={name}",
                disk.path.display()
            ));
        }
        let root_complex = disk.root_complex.clone();
        add(
            format!("virtio-blk{index}"),
            root_complex,
            PciDeviceKind::VirtioBlk(image(disk)),
        );
    }
    for (controller, namespaces) in nvme(args.nvme_pci, attached)? {
        add(
            format!("nvme-{}", controller.id),
            controller.root_complex,
            PciDeviceKind::Nvme(namespaces),
        );
    }
    let nets = args.net.into_iter().chain(args.virtio_net).collect();
    for (index, tap) in taps(nets, deterministic)?.into_iter().enumerate() {
        add(format!("virtio-net{index}"), None, PciDeviceKind::VirtioNet(tap));
    }
    if args.virtio_rng {
        add("virtio-rng".into(), None, PciDeviceKind::VirtioRng);
    }
    if let Some(vsock) = args.virtio_vsock {
        refuse_if(deterministic, "--virtio-vsock", "what the host's programs do")?;
        add("virtio-vsock".into(), None, PciDeviceKind::VirtioVsock(vsock));
    }
    if let Some(backend) = args
        .virtio_console
        .filter(|backend| *backend != SerialBackend::None)
    {
        refuse_if(deterministic, "--virtio-console", "when input arrives")?;
        add(
            "virtio-console".into(),
            None,
            PciDeviceKind::VirtioConsole(backend),
        );
    }
    Ok(config)
}

/// The tap interfaces among `nets`.
fn taps(nets: Vec<NetArg>, deterministic: bool) -> Result<Vec<TapConfig>, String> {
    let interfaces = nets.into_iter().filter_map(|net| match net {
        NetArg::None => None,
        NetArg::Tap(name) => Some(name),
    });
    interfaces
        .map(|interface| {
            refuse_if(deterministic, "--net", "what arrives on a network")?;
            let mac = mac(&interface);
            Ok(TapConfig { interface, mac })
        })
        .collect()
}

fn refuse_if(deterministic: bool, option: &str, what: &str) -> Result<(), String> {
    if deterministic {
        return Err(format!(
            "{option} cannot be combined with --deterministic, because {what} depends on more than the seed; drop one of them"
        ));
    }
    Ok(())
}

/// Controllers with the disks that name them; a disk's place among them is its namespace.
fn nvme(controllers: Vec<NvmeArg>, disks: Vec<DiskArg>) -> Result<Vec<(NvmeArg, Vec<DiskConfig>)>, String> {
    let mut made: Vec<(NvmeArg, Vec<DiskConfig>)> = Vec::new();
    for controller in controllers {
        if made.iter().any(|(other, _)| other.id == controller.id) {
            return Err(format!(
                "--nvme-pci id={} is given twice; give one of them another id",
                controller.id
            ));
        }
        made.push((controller, Vec::new()));
    }
    for disk in disks {
        let name = disk.on.clone().unwrap_or_default();
        let Some((_, namespaces)) = made.iter_mut().find(|(controller, _)| controller.id == name) else {
            return Err(format!(
                "disk {}: there is no controller {name}; add --nvme-pci id={name}, or drop on={name}",
                disk.path.display()
            ));
        };
        if disk.root_complex.is_some() {
            return Err(format!(
                "disk {}: rc= is the controller's; write --nvme-pci id={name},rc=NAME",
                disk.path.display()
            ));
        }
        namespaces.push(image(disk));
    }
    Ok(made)
}

fn image(disk: DiskArg) -> DiskConfig {
    DiskConfig {
        path: disk.path,
        read_only: disk.read_only,
        format: disk.format,
    }
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
