// SPDX-License-Identifier: MIT
//! The PCI side of the OVMF machine: two functions on bus 0, the ways to configuration space, and the PM
//! block that the LPC bridge places (ovmf-machine section 1.2).
//!
//! Always true: until the guest programs PCIEXBAR and PMBASE, neither ECAM nor the PM block exists.

use super::{Composition, Pci};
use crate::bus::{BusError, PortWidth};
use crate::fw_cfg::{self, FwCfg};
use crate::pm::PmLayout;
use crate::reset::ResetControl;
use chipset_device::{MmioDevice, MsiTarget};
use pci::{Bdf, ConfigPorts, Ecam, HostBridge, IntxRouter, LpcBridge, PciFunction, PciRoot};
use std::sync::{Arc, Mutex};

/// First port of mechanism 1.
const CONFIG_PORTS: u16 = 0xCF8;
/// The largest ECAM window: 256 buses.
const ECAM_LEN: u64 = 256 << 20;

impl Composition {
    pub(super) fn add_q35(&mut self) -> Result<(), BusError> {
        let (root, intx) = (PciRoot::new(), IntxRouter::new(self.lines.clone()));
        self.pci = Some(Pci {
            root: root.clone(),
            intx: intx.clone(),
        });

        let ecam = Arc::new(Mutex::new(Ecam::new(root.clone(), 0)));
        let ecam = self.builder.add_mmio_window("ecam", ECAM_LEN, ecam);
        let host = HostBridge::new(Box::new(ecam));
        self.add_pci_function("host_bridge", HostBridge::BDF, Arc::new(Mutex::new(host)))?;

        let pm = self.new_pm(PmLayout::ICH9);
        let window = self
            .builder
            .add_port_window("pm", PmLayout::ICH9.len, PortWidth::Any, pm.clone())?;
        self.builder.add_device("pm", pm);
        let lpc = LpcBridge::new(Box::new(window), intx);
        self.add_pci_function("lpc_bridge", LpcBridge::BDF, Arc::new(Mutex::new(lpc)))?;

        let reset = Arc::new(Mutex::new(ResetControl::new(self.world.power.clone())));
        self.builder.add_device("reset_control", reset.clone());
        let ports = ConfigPorts::new(root, Some(reset));
        self.port_device(
            "pci_config",
            (CONFIG_PORTS, ConfigPorts::LEN),
            PortWidth::Any,
            ports,
        )
    }

    /// Adds fw_cfg.
    pub fn add_fw_cfg(&mut self, device: FwCfg) -> Result<(), BusError> {
        self.port_device("fw_cfg", (fw_cfg::PORT, fw_cfg::PORTS), PortWidth::Any, device)
    }

    /// Puts a function on the bus of a machine that has PCI.
    pub fn add_pci_function<F: PciFunction + 'static>(
        &mut self,
        name: &str,
        bdf: Bdf,
        function: Arc<Mutex<F>>,
    ) -> Result<(), BusError> {
        let root = self.pci.as_ref().map(|pci| pci.root.clone());
        let root = root.ok_or_else(|| BusError::Pci {
            name: name.to_owned(),
            reason: "this machine has no PCI".into(),
        })?;
        self.add_function_to(&root, name, bdf, function)
    }

    /// Gives memory BAR `index` of `function` a window on the bus, answered by `device`.
    pub fn connect_bar<F: PciFunction>(
        &mut self,
        name: &str,
        function: &Mutex<F>,
        index: u8,
        device: Arc<Mutex<dyn MmioDevice>>,
    ) -> Result<(), BusError> {
        let mut function = crate::lock(function);
        let len = function.config().bar_size(index);
        let missing = || BusError::Pci {
            name: name.to_owned(),
            reason: format!("there is no BAR {index}"),
        };
        let window = self
            .builder
            .add_mmio_window(name, len.ok_or_else(missing)?, device);
        function.config().connect_bar(index, Box::new(window));
        Ok(())
    }

    /// Where PCI functions send MSI and MSI-X messages.
    pub fn msi_target(&self) -> Arc<dyn MsiTarget> {
        self.builder.lapics().clone()
    }
}
