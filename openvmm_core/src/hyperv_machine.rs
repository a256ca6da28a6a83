// SPDX-License-Identifier: MIT
//! What makes a machine a Hyper-V one: the hypervisor interface of its partition.
//!
//! Always true: the leaves that a partition is made with and the registers behind them come from one
//! [`HyperVConfig`]. Not here: which machines have it (`openvmm_defs::Machine`), the interface itself.

use chipset::BusError;
use chipset::machine::{Composition, World};
use guest_memory::GuestMemory;
use hyperv::{HYPERCALL_PORT, HYPERCALL_PORTS, HyperV, HyperVConfig, HyperVWorld, cpuid, tlfs};
use openvmm_defs::{Machine, MemoryLayout};
use std::sync::Arc;
use virt::Capabilities;
use x86defs::cpuid::CpuidEntry;

/// Frequency of the local APIC's timer.
const APIC_HZ: u64 = 1_000_000_000;

/// The interface's configuration, on machines that have one.
pub(crate) fn config(layout: &MemoryLayout, capabilities: Capabilities) -> Option<HyperVConfig> {
    (layout.machine == Machine::HyperV).then_some(HyperVConfig {
        vp_count: layout.vp_count,
        phys_bits: layout.phys_bits,
        tsc_hz: capabilities.tsc_hz,
        tsc_is_clock: capabilities.tsc_is_clock,
        apic_hz: APIC_HZ,
    })
}

/// The CPUID leaves that the partition needs.
pub(crate) fn leaves(config: Option<HyperVConfig>) -> Vec<CpuidEntry> {
    config.as_ref().map_or_else(Vec::new, cpuid::leaves)
}

/// Puts the interface into `machine`.
pub(crate) fn add(
    machine: &mut Composition,
    config: HyperVConfig,
    world: &World,
    memory: &GuestMemory,
) -> Result<Arc<HyperV>, BusError> {
    let hyperv = HyperV::new(
        config,
        HyperVWorld {
            clock: world.clock.clone(),
            timers: world.timers.clone(),
            interrupts: machine.builder.lapics().clone(),
            memory: memory.dma(),
            power: world.power.clone(),
        },
    );
    let range = tlfs::msr::FIRST..=tlfs::msr::LAST;
    machine.builder.add_msrs("hyperv", range, hyperv.clone())?;
    let ports = (HYPERCALL_PORT, HYPERCALL_PORTS);
    machine.builder.add_vp_ports("hypercall", ports, hyperv.clone())?;
    Ok(hyperv)
}
