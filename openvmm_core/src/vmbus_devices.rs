// SPDX-License-Identifier: MIT
//! VMBus and its devices from their configuration.
//!
//! Always true: the integration components are offered first, so that a guest's channel numbers do not
//! depend on its disks. Not here: what the devices do (`vmbus`).

use crate::pci_devices::open;
use anyhow::Context;
use block::Disk;
use chipset::machine::{Composition, World};
use guest_memory::DmaMemory;
use hyperv::HyperV;
use openvmm_defs::{DiskConfig, VmbusConfig};
use std::sync::{Arc, Mutex};
use uuid::{Uuid, uuid};
use vmbus::ic::{Component, IntegrationComponent};
use vmbus::{BusPart, ChannelDevice, StorVsp, VmBus};

/// Instance of the SCSI controller.
const SCSI: Uuid = uuid!("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");
/// Logical units of one controller.
const MOST_DISKS: usize = 64;

/// Adds the bus to `machine`.
pub(crate) fn add(
    machine: &mut Composition,
    config: &VmbusConfig,
    hyperv: Arc<HyperV>,
    world: &World,
    ram: DmaMemory,
) -> anyhow::Result<Arc<VmBus>> {
    let components = [Component::Shutdown, Component::Heartbeat, Component::TimeSync];
    let mut devices: Vec<Box<dyn ChannelDevice>> = Vec::new();
    for component in components {
        devices.push(Box::new(IntegrationComponent::new(component)));
    }
    if !config.scsi.is_empty() {
        devices.push(Box::new(StorVsp::new(SCSI, disks(&config.scsi)?)));
    }
    let time = (world.clock.clone(), &world.timers);
    let bus = VmBus::new(hyperv, ram, time, devices);
    let part = Arc::new(Mutex::new(BusPart(bus.clone())));
    machine.builder.add_device("vmbus", part);
    Ok(bus)
}

fn disks(configs: &[DiskConfig]) -> anyhow::Result<Vec<Arc<Disk>>> {
    if configs.len() > MOST_DISKS {
        anyhow::bail!(
            "{} disks on one SCSI controller; it takes {MOST_DISKS}",
            configs.len()
        );
    }
    configs
        .iter()
        .enumerate()
        .map(|(lun, config)| open(config).with_context(|| format!("scsi disk {lun}")))
        .collect()
}
