// SPDX-License-Identifier: MIT
//! The devices of one VM, put together from its configuration.
//!
//! Always true: devices exist before any VP runs and live as long as the partition; serial input flows
//! only after [`Machine::connect_serial`]. Not here: which devices a machine has (`chipset::machine`).

use crate::dispatch::Devices;
use crate::firmware_watch::FirmwareWatch;
use crate::fw_cfg;
use crate::hyperv_machine;
use crate::layout::FOUR_GIB;
use crate::load::Files;
use crate::pci_devices;
use crate::serial::{InputSink, SerialBridge, SerialEnds};
use crate::tpm_device;
use crate::uefi_devices::{self, UefiDevices};
use crate::variables;
use crate::vmbus_devices::{self, Vmbus};
use chipset::Chipset;
use chipset::battery::{self, Charge};
use chipset::machine::{self, MachineConfig, World};
use chipset::pm::PowerManagement;
use chipset::rtc::CmosMemory;
use chipset::uart::{SerialIo, Uart};
use chipset_device::lock;
use guest_memory::GuestMemory;
use hyperv::{HyperV, Untaken};
use openvmm_defs::{Config, MemoryLayout, UefiSettings};
use std::sync::{Arc, Mutex};
use virt::Capabilities;
use vm_loaders::ovmf::VariableStore;

/// A connector that waits for its port's input sink, and the sink.
pub(crate) type Pending = (Box<dyn FnOnce(InputSink) + Send>, InputSink);

/// The finished devices.
pub(crate) struct Machine {
    /// What VPs talk to.
    pub(crate) chipset: Arc<Chipset>,
    vmbus: Option<Vmbus>,
    hyperv: Option<Arc<HyperV>>,
    uefi: Option<UefiDevices>,
    pm: Option<Arc<Mutex<PowerManagement>>>,
    pending_input: Vec<Pending>,
}

/// What the devices of a VM are made from.
pub(crate) struct MachineSource<'v> {
    pub(crate) config: &'v Config,
    pub(crate) layout: &'v MemoryLayout,
    /// What is booted; fw_cfg hands parts of it over.
    pub(crate) files: &'v Files,
    /// Settings of Microsoft's UEFI, where it is what boots.
    pub(crate) uefi: Option<&'v UefiSettings>,
    /// Where a file keeps the firmware's variables.
    pub(crate) variables: Option<&'v VariableStore>,
    /// RAM, for devices that reach it on their own.
    pub(crate) memory: GuestMemory,
    /// The outer ends of its serial ports and consoles.
    pub(crate) serial: SerialEnds,
}

/// Builds the devices of `source` for a partition that is reached through `world`.
pub(crate) fn build(
    source: MachineSource<'_>,
    capabilities: Capabilities,
    world: World,
) -> anyhow::Result<Machine> {
    let MachineSource {
        config,
        layout,
        files,
        uefi,
        variables,
        memory,
        serial,
    } = source;
    let mut bridges = [const { None }; 4];
    let mut connectors = [const { None }; 4];
    for (i, end) in serial.com.into_iter().enumerate() {
        let Some(end) = end else { continue };
        bridges[i] = Some(SerialBridge::new(end.output));
        connectors[i] = Some(end.connect_input);
    }
    let mut composition = machine::compose(MachineConfig {
        machine: layout.machine,
        vp_count: layout.vp_count,
        phys_bits: layout.phys_bits,
        x2apic: capabilities.x2apic,
        tsc_hz: None,
        memory: cmos_memory(layout),
        serial: bridges
            .each_ref()
            .map(|b| b.clone().map(|b| b as Arc<dyn SerialIo>)),
        test_exit: config.test_exit,
        world: world.clone(),
    })?;
    let (mut vmbus, mut hyperv) = (None, None);
    if let Some(interface) = hyperv_machine::config(layout, capabilities) {
        let interface = hyperv_machine::add(&mut composition, interface, &world, &memory)?;
        hyperv = Some(interface.clone());
        let bus = |config| vmbus_devices::add(&mut composition, config, interface, &world, memory.dma());
        vmbus = config.vmbus.as_ref().map(bus).transpose()?;
    }
    let uefi = uefi
        .map(|settings| uefi_devices::add(&mut composition, config, settings, &world, memory.dma()))
        .transpose()?;
    if let Some(socket) = &config.tpm {
        tpm_device::add(&mut composition, socket, memory.dma())?;
    }
    let pci_devices::Added {
        boot_order,
        console_input,
    } = pci_devices::add(&mut composition, config, layout, &memory.dma(), serial.virtio)?;
    if layout.machine == openvmm_defs::Machine::Ovmf
        && let Some(pci) = &composition.pci
    {
        let inputs = fw_cfg::Inputs {
            config,
            layout,
            files,
            memory: memory.dma(),
            pci: pci.root.clone(),
            boot_order,
        };
        composition.add_fw_cfg(fw_cfg::build(inputs)?)?;
    }
    if let (Some(path), Some(store)) = (&config.vars, variables) {
        let flash = variables::open(path, store)?;
        composition.mmio_device("flash", store.gpa, flash.len(), flash)?;
    }
    let uarts = composition.serial.clone();
    let mut pending_input: Vec<Pending> = console_input.into_iter().collect();
    for ((bridge, connector), uart) in bridges.iter().zip(connectors).zip(uarts) {
        if let (Some(bridge), Some(connector), Some(uart)) = (bridge, connector, uart) {
            pending_input.push((connector, bridge.sink(move || ring(&uart))));
        }
    }
    let pm = composition.pm.clone();
    Ok(Machine {
        vmbus,
        hyperv,
        uefi,
        pm,
        chipset: Arc::new(composition.build()),
        pending_input,
    })
}

impl Machine {
    /// Lets input flow from here on.
    pub(crate) fn connect_serial(&mut self) {
        for (connector, sink) in self.pending_input.drain(..) {
            connector(sink);
        }
    }

    /// The message that the guest has not taken for longest.
    pub(crate) fn untaken(&self) -> impl Fn() -> Option<Untaken> + Send + Sync + use<> {
        let hyperv = self.hyperv.clone();
        move || hyperv.as_ref().and_then(|hyperv| hyperv.untaken())
    }

    /// Asks the guest to power off: through VMBus when it listens there, else by the power button.
    fn shutdown(&self) -> Box<dyn Fn() -> &'static str + Send> {
        let vmbus = self.vmbus.as_ref().map(|vmbus| vmbus.bus.clone());
        let pm = self.pm.clone();
        Box::new(move || match (&vmbus, &pm) {
            (Some(bus), _) if bus.request_shutdown() => "the guest was asked to power off over vmbus",
            (_, Some(pm)) => {
                lock(pm).press_power_button();
                "the power button was pressed"
            }
            (_, None) => "this machine has no power button",
        })
    }

    /// The last lines of the firmware's log; empty where there is none.
    fn firmware_log(&self) -> Box<dyn Fn() -> String + Send> {
        let bios = self.uefi.as_ref().map(|uefi| uefi.bios.clone());
        Box::new(move || {
            bios.as_ref()
                .map_or_else(String::new, |uefi| lock(uefi).last_lines())
        })
    }

    /// Says that the host's battery has changed.
    fn battery(&self) -> Box<dyn Fn(Charge) -> bool + Send> {
        let battery = self.uefi.as_ref().and_then(|uefi| uefi.battery.clone());
        let both = battery.zip(self.pm.clone());
        Box::new(move |charge| {
            let Some((battery, pm)) = &both else { return false };
            lock(battery).change(charge);
            lock(pm).raise_gpe(battery::GPE);
            true
        })
    }

    /// Types a line of text on the guest's keyboard.
    fn type_line(&self) -> Box<dyn Fn(&str) -> bool + Send> {
        let presser = self.vmbus.as_ref().and_then(|vmbus| vmbus.presser.clone());
        Box::new(move |text| {
            presser.as_ref().is_some_and(|presser| {
                presser.type_line(text);
                true
            })
        })
    }

    /// The worker's view.
    pub(crate) fn devices(&self, watch: Option<Arc<FirmwareWatch>>) -> Devices {
        let [reset, inspect, nmi] = [(); 3].map(|()| self.chipset.clone());
        Devices {
            reset: Box::new(move || reset.reset()),
            inspect: Box::new(move || inspect.inspect()),
            watch,
            nmi: Box::new(move || nmi.lapics().inject_nmi(0)),
            shutdown: self.shutdown(),
            battery: self.battery(),
            type_line: self.type_line(),
            firmware_log: self.firmware_log(),
        }
    }
}

fn ring(uart: &Mutex<Uart>) {
    lock(uart).input_ready();
}

fn cmos_memory(layout: &MemoryLayout) -> CmosMemory {
    let sum = |high: bool| {
        layout
            .ram
            .iter()
            .filter(|r| (r.gpa >= FOUR_GIB) == high)
            .map(|r| r.len)
            .sum()
    };
    CmosMemory {
        below_4g: sum(false),
        above_4g: sum(true),
    }
}
