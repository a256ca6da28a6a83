// SPDX-License-Identifier: MIT
//! The q35 host bridge 8086:29C0 at 00:00.0: an identity that firmware looks for, and PCIEXBAR (Intel 3
//! Series Express Chipset data sheet section 5.1; ovmf-machine section 1.2).
//!
//! Always true: the ECAM window is where PCIEXBAR says while its enable bit is set. Memory attributes
//! (PAM) and SMRAM are not here: low memory is RAM, and there is no SMM.

use crate::config::{ConfigSpace, Identity};
use crate::{Bdf, PciFunction, PciRoot};
use chipset_device::{Device, LogBudget, Placement};

const PCIEXBAR: u16 = 0x60;
/// Base bits 35:26, length 2:1, enable 0.
const PCIEXBAR_WRITABLE: u64 = 0xF_FC00_0007;

/// The window (base and length) that a value of PCIEXBAR asks for.
fn window_of(value: u64) -> Option<(u64, u64)> {
    let len = match value >> 1 & 3 {
        0 => 256u64 << 20,
        1 => 128 << 20,
        2 => 64 << 20,
        _ => return None,
    };
    let base = value & PCIEXBAR_WRITABLE & !(len - 1);
    (value & 1 != 0 && base != 0).then_some((base, len))
}

/// The host bridge.
pub struct HostBridge {
    config: ConfigSpace,
    ecam: Box<dyn Placement>,
    log: LogBudget,
}

impl HostBridge {
    /// The bridge after power on, moving the window behind `ecam`.
    pub fn new(ecam: Box<dyn Placement>) -> Self {
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x29C0,
            class: [6, 0, 0],
            ..Identity::default()
        });
        config.set_writable(PCIEXBAR.into(), &PCIEXBAR_WRITABLE.to_le_bytes());
        Self {
            config,
            ecam,
            log: LogBudget::default(),
        }
    }

    /// Where it is.
    pub const BDF: Bdf = Bdf::new(0, 0, 0);

    /// Base and length of the ECAM window that the guest has switched on, seen from outside.
    pub fn ecam_window(root: &PciRoot) -> Option<(u64, u64)> {
        let mut value = [0; 8];
        let (low, high) = value.split_at_mut(4);
        root.config_read(Self::BDF, PCIEXBAR, low);
        root.config_read(Self::BDF, PCIEXBAR + 4, high);
        window_of(u64::from_le_bytes(value))
    }

    fn window(&self) -> Option<(u64, u64)> {
        let [low, high] = [PCIEXBAR, PCIEXBAR + 4].map(|at| u64::from(self.config.dword(at)));
        window_of(high << 32 | low)
    }

    fn place(&mut self) {
        let window = self.window();
        let said = |reason| self.log.line(|| format!("PCIEXBAR: {reason}"));
        if let Some(line) = self.ecam.place(window).err().and_then(said) {
            tracing::warn!("{line}");
        }
    }
}

impl Device for HostBridge {
    fn reset(&mut self) {
        self.log.refill();
        self.config.reset();
        self.place();
    }

    fn inspect(&self) -> String {
        let place = self
            .window()
            .map_or_else(|| "off".into(), |(base, len)| format!("{base:#x}+{len:#x}"));
        format!("{}ecam {place}\n", self.config.inspect())
    }
}

impl PciFunction for HostBridge {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, offset: u16, len: usize) {
        if offset < PCIEXBAR + 8 && usize::from(offset) + len > usize::from(PCIEXBAR) {
            self.place();
        }
    }
}
