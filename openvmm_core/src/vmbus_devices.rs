// SPDX-License-Identifier: MIT
//! VMBus and its devices from their configuration.
//!
//! Always true: the integration components are offered first, so that a guest's channel numbers do not
//! depend on its disks and adapters; the threads of devices end with the machine. Not here: what the devices
//! do (`vmbus`).

use crate::display::{Display, Presser};
use crate::pci_devices::open;
use anyhow::Context;
use block::Disk;
use chipset::machine::{Composition, World};
use chipset_device::Device;
use guest_memory::DmaMemory;
use hyperv::HyperV;
use io_thread::{Bell, Job, Progress, Watch, Worker};
use openvmm_defs::{Config, DiskConfig, GpaRange, MemoryLayout, TapConfig, VmbusConfig};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use tap::Tap;
use uuid::{Uuid, uuid};
use vmbus::ic::{Component, IntegrationComponent};
use vmbus::keyboard::{Keyboard, Keys};
use vmbus::video::{self, Screen, Video};
use vmbus::{Appetite, BusPart, ChannelDevice, NetVsp, StorVsp, VmBus};

/// Instance of the SCSI controller.
const SCSI: Uuid = uuid!("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");
/// Instance of the first network adapter; others count from it.
const NETWORK: Uuid = uuid!("f8615163-df3e-46c5-913f-000000000000");
/// Logical units of one controller.
const MOST_DISKS: usize = 64;

/// The bus, and what else the worker talks to.
pub(crate) struct Vmbus {
    /// The bus.
    pub(crate) bus: Arc<VmBus>,
    /// The guest's keyboard.
    pub(crate) presser: Option<Presser>,
}

/// Where firmware puts the picture of the guest's screen: memory at the beginning of the gap below 4 GiB
/// (msvm-machine section 7).
pub(crate) fn frame_buffer(config: &Config, layout: &MemoryLayout) -> Option<GpaRange> {
    let gfx = config.vmbus.as_ref().and_then(|vmbus| vmbus.gfx);
    gfx.filter(|gfx| !gfx.own_memory)
        .map(|_| GpaRange::new(layout.low_mmio.gpa, u64::from(video::MEGABYTES) << 20))
}

/// Adds the bus to `machine`.
pub(crate) fn add(
    machine: &mut Composition,
    config: &VmbusConfig,
    hyperv: Arc<HyperV>,
    world: &World,
    ram: DmaMemory,
) -> anyhow::Result<Vmbus> {
    let components = [
        Component::Shutdown,
        Component::Heartbeat,
        Component::TimeSync,
        Component::Kvp,
    ];
    let mut devices: Vec<Box<dyn ChannelDevice>> = Vec::new();
    for component in components {
        devices.push(Box::new(IntegrationComponent::new(component)));
    }
    if !config.scsi.is_empty() {
        devices.push(Box::new(StorVsp::new(SCSI, disks(&config.scsi)?)));
    }
    let mut nics = Vec::new();
    for (number, tap) in config.nics.iter().enumerate() {
        let (device, nic) = nic(number, devices.len(), tap)?;
        devices.push(Box::new(device));
        nics.push(nic);
    }
    let (screen, keys, channel) = (Screen::default(), Keys::default(), devices.len());
    if let Some(gfx) = &config.gfx {
        let megabytes = if gfx.own_memory {
            video::OWN_MEGABYTES
        } else {
            video::MEGABYTES
        };
        devices.push(Box::new(Keyboard::new(keys.clone())));
        devices.push(Box::new(Video::new(screen.clone(), megabytes)));
    }
    let time = (world.clock.clone(), &world.timers);
    let bus = VmBus::new(hyperv, ram.clone(), time, devices);
    let threads = nics.into_iter().map(|nic| nic.spawn(&bus));
    let part = Arc::new(Mutex::new(Bus {
        threads: threads.collect::<Result<_, _>>()?,
        part: BusPart(bus.clone()),
    }));
    machine.builder.add_device("vmbus", part);
    let presser = config.gfx.is_some().then(|| Presser {
        keys,
        bus: bus.clone(),
        channel,
    });
    if let Some((gfx, presser)) = config.gfx.as_ref().zip(presser.clone()) {
        let display = Display::start(gfx, screen, presser, ram)?;
        machine.builder.add_device("vnc", Arc::new(Mutex::new(display)));
    }
    Ok(Vmbus { bus, presser })
}

/// The bus and the threads that wait for its devices' files.
struct Bus {
    threads: Vec<Worker>,
    part: BusPart,
}

impl Device for Bus {
    fn reset(&mut self) {
        self.part.reset();
    }

    fn inspect(&self) -> String {
        format!("{}threads {}\n", self.part.inspect(), self.threads.len())
    }
}

/// What waits for an adapter's frames.
struct Nic {
    name: String,
    channel: usize,
    fd: Arc<OwnedFd>,
    appetite: Arc<Appetite>,
    bell: Arc<Bell>,
}

fn nic(number: usize, channel: usize, config: &TapConfig) -> anyhow::Result<(NetVsp, Nic)> {
    let tap = Tap::open(&config.interface)?;
    let (fd, bell) = (tap.fd(), Bell::new()?);
    let instance = Uuid::from_u128(NETWORK.as_u128() + number as u128);
    let rung = bell.clone();
    let device = NetVsp::new(instance, tap, config.mac, Box::new(move || rung.ring()))
        .with_context(|| format!("tap {}", config.interface))?;
    let nic = Nic {
        name: format!("netvsp{number}"),
        channel,
        fd,
        appetite: device.appetite(),
        bell,
    };
    Ok((device, nic))
}

impl Nic {
    fn spawn(self, bus: &Arc<VmBus>) -> anyhow::Result<Worker> {
        let (name, bell, bus) = (self.name.clone(), self.bell.clone(), bus.clone());
        let job = Arc::new(Frames { nic: self, bus });
        Worker::spawn(&name, bell, job).context("cannot start a network thread")
    }
}

/// Brings frames while the guest can take some.
struct Frames {
    nic: Nic,
    bus: Arc<VmBus>,
}

impl Job for Frames {
    fn work(&self) -> Progress {
        self.bus.poll(self.nic.channel);
        Progress::Idle
    }

    fn watches(&self) -> Vec<Watch> {
        let wanted = self.nic.appetite.is_hungry().then(|| Watch {
            fd: self.nic.fd.clone(),
            readable: true,
            writable: false,
        });
        wanted.into_iter().collect()
    }
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
