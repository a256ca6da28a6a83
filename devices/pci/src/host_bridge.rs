// SPDX-License-Identifier: MIT
//! The q35 host bridge 8086:29C0 at 00:00.0: an identity that firmware looks for, and PCIEXBAR (Intel 3
//! Series Express Chipset data sheet section 5.1; ovmf-machine section 1.2).
//!
//! Always true: the ECAM window is where PCIEXBAR says while its enable bit is set. Memory attributes
//! (PAM) and SMRAM are not here: low memory is RAM, and there is no SMM.

use crate::PciFunction;
use crate::config::{ConfigSpace, Identity};
use chipset_device::{Device, Placement};

const PCIEXBAR: u16 = 0x60;
/// Base bits 35:26, length 2:1, enable 0.
const PCIEXBAR_WRITABLE: u64 = 0xF_FC00_0007;

/// The host bridge.
pub struct HostBridge {
    config: ConfigSpace,
    ecam: Box<dyn Placement>,
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
        Self { config, ecam }
    }

    /// Base and length of the window that PCIEXBAR asks for.
    fn window(&self) -> Option<(u64, u64)> {
        let value = u64::from(self.config.dword(PCIEXBAR + 4)) << 32 | u64::from(self.config.dword(PCIEXBAR));
        let len = match value >> 1 & 3 {
            0 => 256u64 << 20,
            1 => 128 << 20,
            2 => 64 << 20,
            _ => return None,
        };
        let base = value & PCIEXBAR_WRITABLE & !(len - 1);
        (value & 1 != 0 && base != 0).then_some((base, len))
    }

    fn place(&mut self) {
        let window = self.window();
        if let Err(reason) = self.ecam.place(window) {
            tracing::warn!("PCIEXBAR: {reason}");
        }
    }
}

impl Device for HostBridge {
    fn reset(&mut self) {
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
