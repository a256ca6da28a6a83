// SPDX-License-Identifier: MIT
//! A TPM from its configuration.
//!
//! Always true: swtpm is there before the guest runs, or there is no guest. Not here: what the device does (`tpm`).

use anyhow::Context;
use chipset::PortWidth;
use chipset::machine::Composition;
use guest_memory::DmaMemory;
use std::path::Path;
use tpm::{Crb, Swtpm};

/// Adds a TPM that swtpm works behind to `machine`.
pub(crate) fn add(machine: &mut Composition, socket: &Path, memory: DmaMemory) -> anyhow::Result<()> {
    let swtpm = Swtpm::connect(socket).context("--tpm")?;
    let (registers, ports) = Crb::start(swtpm, memory).context("cannot start the tpm's thread")?;
    machine.mmio_device("tpm", tpm::MMIO, tpm::LEN, registers)?;
    machine.port_device("tpm_ports", tpm::PORTS, PortWidth::Any, ports)?;
    Ok(())
}
