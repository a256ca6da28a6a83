// SPDX-License-Identifier: MIT
//! VMBus as a user asks for it.

use crate::{DiskConfig, TapConfig};

/// VMBus with its integration components, and what else is on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VmbusConfig {
    /// Disks of the SCSI controller, one for each logical unit from 0 on. Without one there is no controller.
    pub scsi: Vec<DiskConfig>,
    /// Network adapters.
    pub nics: Vec<TapConfig>,
    /// Screen and keyboard.
    pub gfx: Option<GfxConfig>,
}

/// Screen and keyboard, and where they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GfxConfig {
    /// The loopback port of the VNC server; 0 is any that is free.
    pub vnc_port: u16,
    /// The guest has no firmware that puts the picture into the gap below 4 GiB: its driver takes one block of
    /// the guest's own memory.
    pub own_memory: bool,
}
