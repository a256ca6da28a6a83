// SPDX-License-Identifier: MIT
//! The function by which Linux's hyperv_fb knows that a machine without UEFI has synthetic video: the display
//! adapter of Hyper-V's generation 1 machine (vendor and device id from Linux drivers/video/fbdev/hyperv_fb.c).
//!
//! Always true: it has no registers of its own. Not here: the picture, which is negotiated over VMBus.

use crate::{ConfigSpace, Identity, PciFunction};
use chipset_device::Device;

/// The function.
pub struct VideoFunction {
    config: ConfigSpace,
}

impl Default for VideoFunction {
    fn default() -> Self {
        let config = ConfigSpace::new(Identity {
            vendor: 0x1414,
            device: 0x5353,
            revision: 0,
            // Display, VGA compatible.
            class: [3, 0, 0],
            subsystem: (0, 0),
        });
        Self { config }
    }
}

impl Device for VideoFunction {
    fn reset(&mut self) {
        self.config.reset();
    }
}

impl PciFunction for VideoFunction {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}
