// SPDX-License-Identifier: MIT
//! PCIe root complexes at fixed places: ECAM and BAR windows as the memory layout has them, for machines whose
//! PCI is described by tables rather than found through a host bridge.
//!
//! Always true: functions are root complex integrated endpoints on the first bus; BARs are placed by the VMM,
//! again after each reset, unless firmware is to do it, and fit their windows either way.

use super::Composition;
use crate::bus::BusError;
use chipset_device::Device;
use openvmm_defs::RootComplexLayout;
use pci::{BarAssigner, Bdf, Ecam, PciError, PciFunction, PciRoot};
use std::sync::{Arc, Mutex};

/// One root complex, for functions to go on.
#[derive(Clone)]
pub struct RootComplex {
    name: String,
    /// Its functions.
    pub root: Arc<PciRoot>,
    layout: RootComplexLayout,
}

/// Who places the BARs behind a root complex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarsBy {
    /// The VMM, before the guest starts.
    Vmm,
    /// Firmware in the guest, which finds them without addresses.
    Firmware,
}

impl RootComplex {
    /// The next free place for a function.
    pub fn free_device(&self) -> Result<Bdf, PciError> {
        self.root.free_device(self.layout.start_bus)
    }
}

impl Composition {
    /// Adds the ECAM window of a root complex without functions.
    pub fn add_root_complex(
        &mut self,
        name: &str,
        layout: &RootComplexLayout,
    ) -> Result<RootComplex, BusError> {
        let root = PciRoot::new();
        let ecam = Ecam::new(root.clone(), layout.start_bus);
        self.mmio_device(name, layout.ecam.gpa, layout.ecam.len, ecam)?;
        Ok(RootComplex {
            name: name.to_owned(),
            root,
            layout: *layout,
        })
    }

    /// Places the BARs of a root complex's functions, now and after each reset; call it when all are there.
    /// Where firmware is to do it instead, they only have to fit.
    pub fn finish_root_complex(&mut self, complex: RootComplex, by: BarsBy) -> Result<(), BusError> {
        let (low, high) = (complex.layout.low_mmio, complex.layout.high_mmio);
        let assigner = BarAssigner::new(complex.root, low.gpa..low.end(), high.gpa..high.end());
        let fits = match by {
            BarsBy::Vmm => assigner.assign(),
            BarsBy::Firmware => assigner.check(),
        };
        fits.map_err(|error| BusError::Pci {
            name: complex.name.clone(),
            reason: error.to_string(),
        })?;
        if by == BarsBy::Firmware {
            return Ok(());
        }
        let device: Arc<Mutex<dyn Device>> = Arc::new(Mutex::new(assigner));
        self.builder.add_device(&format!("{} BARs", complex.name), device);
        Ok(())
    }

    /// Puts a function on a segment.
    pub fn add_function_to<F: PciFunction + 'static>(
        &mut self,
        root: &PciRoot,
        name: &str,
        bdf: Bdf,
        function: Arc<Mutex<F>>,
    ) -> Result<(), BusError> {
        root.add(bdf, function.clone()).map_err(|error| BusError::Pci {
            name: name.to_owned(),
            reason: error.to_string(),
        })?;
        self.builder.add_device(name, function as Arc<Mutex<dyn Device>>);
        Ok(())
    }
}
