// SPDX-License-Identifier: MIT
//! PCI devices from their configuration: root complexes, disks and the rest, wired to the machine.
//!
//! Always true: a device's place is decided by the order of the configuration alone. With deterministic time,
//! devices do their work on the VP that asks for it, so that it is finished at that instruction.
//! Not here: what the devices do (`virtio`), where windows are (`layout`).

use crate::entropy::EntropySource;
use crate::machine::Pending;
use crate::serial::{SerialBridge, SerialEnd};
use anyhow::Context;
use block::{Disk, DiskOptions};
use chipset::machine::{BarsBy, Composition, RootComplex};
use chipset_device::MmioDevice;
use guest_memory::DmaMemory;
use nvme::NvmePci;
use openvmm_defs::{Config, DiskConfig, DiskFormat, MemoryLayout, PciDeviceConfig, PciDeviceKind};
use pci::{Bdf, PciFunction, PciRoot, VideoFunction};
use std::sync::{Arc, Mutex};
use tap::Tap;
use virtio::{Blk, Console, Net, Rng, VirtioDevice, VirtioPci, Vsock};

/// A bus that devices go on.
enum Bus {
    /// The machine's own.
    Machine(chipset::machine::Pci),
    /// Root complexes by name.
    Complexes(Vec<(String, RootComplex)>),
}

/// What the machine needs to know of the devices that were added.
#[derive(Default)]
pub(crate) struct Added {
    /// OpenFirmware paths of those that firmware can boot from, in order.
    pub(crate) boot_order: Vec<String>,
    /// The console's input.
    pub(crate) console_input: Option<Pending>,
}

/// Adds the devices of `config` to the machine; `console` is where its virtio console leads.
pub(crate) fn add(
    composition: &mut Composition,
    config: &Config,
    layout: &MemoryLayout,
    ram: &DmaMemory,
    console: Option<SerialEnd>,
) -> anyhow::Result<Added> {
    let bus = match &composition.pci {
        Some(pci) => Bus::Machine(pci.clone()),
        None => Bus::Complexes(root_complexes(composition, config, layout)?),
    };
    let mut adder = Adder {
        composition,
        bus,
        ram,
        deterministic: config.deterministic,
        console,
        added: Added::default(),
    };
    for device in &config.pci.devices {
        let bdf = adder.add(device).with_context(|| device.name.clone())?;
        adder.added.boot_order.extend(boot_path(device, bdf));
    }
    if let Bus::Complexes(complexes) = adder.bus {
        let by = if config.firmware_places_bars() {
            BarsBy::Firmware
        } else {
            BarsBy::Vmm
        };
        for (_, complex) in complexes {
            adder.composition.finish_root_complex(complex, by)?;
        }
    }
    Ok(adder.added)
}

/// The path by which OVMF knows a device that it can boot from.
fn boot_path(device: &PciDeviceConfig, bdf: Bdf) -> Option<String> {
    match device.kind {
        PciDeviceKind::VirtioBlk(_) => Some(format!("/pci@i0cf8/scsi@{:x}/disk@0,0", bdf.device())),
        PciDeviceKind::Nvme(_) => Some(format!("/pci@i0cf8/pci1b36,10@{:x}/namespace@1,0", bdf.device())),
        PciDeviceKind::HypervVideo
        | PciDeviceKind::VirtioNet(_)
        | PciDeviceKind::VirtioRng
        | PciDeviceKind::VirtioVsock(_)
        | PciDeviceKind::VirtioConsole(_) => None,
    }
}

fn root_complexes(
    composition: &mut Composition,
    config: &Config,
    layout: &MemoryLayout,
) -> anyhow::Result<Vec<(String, RootComplex)>> {
    let names = config
        .pci
        .root_complexes
        .iter()
        .map(|complex| complex.name.clone());
    let names = names.chain(["rc0".to_owned()]);
    layout
        .root_complexes
        .iter()
        .zip(names)
        .map(|(complex, name)| {
            let added = composition.add_root_complex(&name, complex)?;
            Ok((name, added))
        })
        .collect()
}

/// Where a device goes.
struct Place {
    root: Arc<PciRoot>,
    bdf: Bdf,
    line: chipset_device::InterruptLine,
}

impl Bus {
    fn place(&self, root_complex: Option<&str>) -> anyhow::Result<Place> {
        match self {
            Self::Machine(_) if root_complex.is_some() => {
                anyhow::bail!("this machine has no root complexes to name; drop rc=")
            }
            Self::Machine(pci) => {
                let bdf = pci.root.free_device(0)?;
                Ok(Place {
                    root: pci.root.clone(),
                    bdf,
                    line: pci.intx.pin(bdf.device(), 0),
                })
            }
            Self::Complexes(complexes) => {
                let found = match root_complex {
                    None => complexes.first(),
                    Some(name) => complexes.iter().find(|(n, _)| n == name),
                };
                let (_, complex) =
                    found.context("there is no such root complex; add --pcie-root-complex NAME")?;
                Ok(Place {
                    root: complex.root.clone(),
                    bdf: complex.free_device()?,
                    // No interrupt routing is described for root complexes: message-signalled only.
                    line: chipset_device::InterruptLine::unconnected(),
                })
            }
        }
    }
}

/// Adds devices one by one.
struct Adder<'m> {
    composition: &'m mut Composition,
    bus: Bus,
    ram: &'m DmaMemory,
    deterministic: Option<u64>,
    /// Where the console leads, until it is made.
    console: Option<SerialEnd>,
    added: Added,
}

impl Adder<'_> {
    fn add(&mut self, device: &PciDeviceConfig) -> anyhow::Result<Bdf> {
        let place = self.bus.place(device.root_complex.as_deref())?;
        if device.kind == PciDeviceKind::HypervVideo {
            let function = Arc::new(Mutex::new(VideoFunction::default()));
            self.composition
                .add_function_to(&place.root, &device.name, place.bdf, function)?;
            return Ok(place.bdf);
        }
        let threads = self.deterministic.is_none();
        let msi = self.composition.msi_target();
        if let PciDeviceKind::Nvme(disks) = &device.kind {
            let disks = disks.iter().map(open).collect::<anyhow::Result<_>>()?;
            let wiring = nvme::Wiring {
                ram: self.ram.clone(),
                msi,
                line: place.line.clone(),
                threads,
            };
            let function = NvmePci::new(&device.name, disks, wiring)?;
            let bar = function.bar();
            place.attach(self.composition, &device.name, function, bar)?;
        } else {
            let wiring = virtio::Wiring {
                ram: self.ram.clone(),
                msi,
                line: place.line.clone(),
                threads,
            };
            let function = self.virtio_function(device, wiring)?;
            let bar = function.bar();
            place.attach(self.composition, &device.name, function, bar)?;
        }
        tracing::info!("{} is PCI function {}", device.name, place.bdf);
        Ok(place.bdf)
    }

    fn virtio_function(
        &mut self,
        device: &PciDeviceConfig,
        wiring: virtio::Wiring,
    ) -> anyhow::Result<VirtioPci> {
        let made: Box<dyn VirtioDevice> = match &device.kind {
            PciDeviceKind::VirtioBlk(disk) => Box::new(Blk::new(open(disk)?)),
            PciDeviceKind::VirtioNet(net) => Box::new(Net::new(Tap::open(&net.interface)?, net.mac)),
            PciDeviceKind::VirtioRng => Box::new(rng(self.deterministic)),
            PciDeviceKind::VirtioVsock(vsock) => Box::new(
                Vsock::listen(vsock.guest_cid.into(), &vsock.path)
                    .with_context(|| vsock.path.display().to_string())?,
            ),
            PciDeviceKind::VirtioConsole(_) => {
                let end = self.console.take().context("a second console")?;
                let bridge = SerialBridge::new(end.output);
                let function = VirtioPci::new(&device.name, Box::new(Console::new(bridge.clone())), wiring)?;
                let waker = function.waker();
                self.added.console_input = Some((end.connect_input, bridge.sink(move || waker.wake())));
                return Ok(function);
            }
            PciDeviceKind::Nvme(_) | PciDeviceKind::HypervVideo => {
                anyhow::bail!("{} is no virtio device", device.name)
            }
        };
        Ok(VirtioPci::new(&device.name, made, wiring)?)
    }
}

impl Place {
    /// Puts a function there, with what answers in its BAR 0.
    fn attach<F: PciFunction + 'static>(
        &self,
        composition: &mut Composition,
        name: &str,
        function: F,
        bar: Arc<Mutex<dyn MmioDevice>>,
    ) -> anyhow::Result<()> {
        let function = Arc::new(Mutex::new(function));
        composition.add_function_to(&self.root, name, self.bdf, function.clone())?;
        composition.connect_bar(name, &function, 0, bar)?;
        Ok(())
    }
}

/// Random bytes of their own: what the guest draws does not change what the host draws.
fn rng(seed: Option<u64>) -> Rng {
    const STREAM: u64 = 0x7669_7274_696F_0004;
    let mut source = EntropySource::new(seed.map(|seed| seed ^ STREAM));
    Rng::new(Box::new(move |bytes| {
        source.fill(bytes).map_err(|error| error.to_string())
    }))
}

pub(crate) fn open(disk: &DiskConfig) -> anyhow::Result<Arc<Disk>> {
    Ok(Disk::open(&DiskOptions {
        path: disk.path.clone(),
        read_only: disk.read_only,
        format: disk.format.map(|format| match format {
            DiskFormat::Raw => block::Format::Raw,
            DiskFormat::Qcow2 => block::Format::Qcow2,
        }),
    })?)
}
