// SPDX-License-Identifier: MIT
//! The ICH9 LPC bridge 8086:2918 at 00:1f.0: ISA bridge class, PMBASE and ACPI_CNTL, PIRQ routing, RCBA
//! (ICH9 data sheet section 13.1; ovmf-machine section 1.2).
//!
//! Always true: the PM block is on the bus at PMBASE exactly while ACPI_EN is set. RCBA is a register and
//! nothing more: no chipset configuration window is behind it, so it reads all ones.

use crate::config::{ConfigSpace, Identity};
use crate::intx::IntxRouter;
use crate::{Bdf, PciFunction, PciRoot};
use chipset_device::{Device, LogBudget, Placement};
use std::sync::Arc;

const PMBASE: u16 = 0x40;
const ACPI_CNTL: u16 = 0x44;
const ACPI_EN: u32 = 0x80;
/// Base bits 15:7 of PMBASE.
const PMBASE_ADDRESS: u32 = 0xFF80;
const PM_LEN: u64 = 0x80;
/// Route registers of PIRQA to PIRQD, and of PIRQE to PIRQH.
const PIRQ: [u16; 2] = [0x60, 0x68];
const RCBA: u16 = 0xF0;

/// First port of the PM block for values of PMBASE and ACPI_CNTL.
fn pm_base_of(base: u32, control: u32) -> Option<u16> {
    let base = (base & PMBASE_ADDRESS) as u16;
    (control & ACPI_EN != 0 && base != 0).then_some(base)
}

/// The bridge.
pub struct LpcBridge {
    config: ConfigSpace,
    pm: Box<dyn Placement>,
    intx: Arc<IntxRouter>,
    log: LogBudget,
}

impl LpcBridge {
    /// The bridge after power on, moving the ports behind `pm` and routing the wires of `intx`.
    pub fn new(pm: Box<dyn Placement>, intx: Arc<IntxRouter>) -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x2918,
            revision: 2,
            class: [6, 1, 0],
            ..Identity::default()
        });
        // Bit 0 says that the base is a port address.
        config.set(PMBASE.into(), &1u32.to_le_bytes());
        config.set_writable(PMBASE.into(), &PMBASE_ADDRESS.to_le_bytes());
        config.set_writable(ACPI_CNTL.into(), &[0x87]);
        for at in PIRQ {
            config.set(at.into(), &[0x80; 4]);
            config.set_writable(at.into(), &[0x8F; 4]);
        }
        config.set_writable(RCBA.into(), &0xFFFF_C001u32.to_le_bytes());
        Self {
            config,
            pm,
            intx,
            log: LogBudget::default(),
        }
    }

    /// Where it is.
    pub const BDF: Bdf = Bdf::new(0, 31, 0);

    /// First port of the PM block that the guest has switched on, seen from outside.
    pub fn pm_window(root: &PciRoot) -> Option<u16> {
        let dword = |at| {
            let mut bytes = [0; 4];
            root.config_read(Self::BDF, at, &mut bytes);
            u32::from_le_bytes(bytes)
        };
        pm_base_of(dword(PMBASE), dword(ACPI_CNTL))
    }

    fn pm_base(&self) -> Option<u64> {
        pm_base_of(self.config.dword(PMBASE), self.config.dword(ACPI_CNTL)).map(u64::from)
    }

    fn apply(&mut self) {
        let placed = self.pm.place(self.pm_base().map(|base| (base, PM_LEN)));
        let said = |reason| self.log.line(|| format!("PMBASE: {reason}"));
        if let Some(line) = placed.err().and_then(said) {
            tracing::warn!("{line}");
        }
        for (half, at) in PIRQ.into_iter().enumerate() {
            for (i, route) in self.config.dword(at).to_le_bytes().into_iter().enumerate() {
                self.intx.set_route(half * 4 + i, route);
            }
        }
    }
}

impl Device for LpcBridge {
    fn reset(&mut self) {
        self.log.refill();
        self.config.reset();
        self.apply();
    }

    fn inspect(&self) -> String {
        let place = self
            .pm_base()
            .map_or_else(|| "off".into(), |base| format!("{base:#x}"));
        format!(
            "{}pm_base {place}\nrcba {:#x}\n",
            self.config.inspect(),
            self.config.dword(RCBA)
        )
    }
}

impl PciFunction for LpcBridge {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, offset: u16, _len: usize) {
        if (PMBASE..PIRQ[1] + 4).contains(&offset) {
            self.apply();
        }
    }
}
