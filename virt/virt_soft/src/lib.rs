// SPDX-License-Identifier: MIT
//! The software CPU as a backend: `x86emu` with a scheduler around it.
//!
//! Always true: it needs nothing from the host but memory, so it is there on every machine; all VPs run
//! on one thread in turn, so LOCK semantics are exact and a deterministic partition is reproducible: the
//! clock is then a function of retired instructions, and HLT skips to the next deadline.
//! Not here: instructions, devices. `unsafe` is only in `ram`, which hands pages of guest RAM to the
//! engine.

mod guest_time;
mod ram;
mod runner;
mod spin;
mod trace;
mod world;

use chipset_device::VpBus;
use guest_memory::GuestMemory;
use runner::SoftRunner;
use std::sync::Arc;
use virt::{
    Capabilities, Hypervisor, LaunchTarget, Partition, PartitionConfig, PlainLaunch, RunError, Runner,
    VpSignals,
};

/// Guest physical address width that the engine shows: 512 GiB, and cheap page tables for firmware that
/// maps all of it.
const PHYS_BITS: u8 = 39;
// From 48 on Microsoft's firmware needs 1 GiB pages (msvm-machine section 2).
const _: () = assert!(PHYS_BITS < 48);

/// The software CPU.
#[derive(Debug, Default, Clone, Copy)]
pub struct Soft;

impl Hypervisor for Soft {
    fn name(&self) -> &'static str {
        "soft"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            x2apic: true,
            deterministic: true,
            phys_bits: PHYS_BITS,
            tsc_hz: Some(1_000_000_000),
            tsc_is_clock: true,
        }
    }

    fn new_partition(&self, config: PartitionConfig) -> Result<Box<dyn Partition>, RunError> {
        let signals = Arc::new(VpSignals::new(config.vp_count));
        let launch = PlainLaunch::new(config.memory.clone(), config.vp_count);
        Ok(Box::new(SoftPartition {
            config,
            signals,
            launch,
        }))
    }
}

struct SoftPartition {
    config: PartitionConfig,
    signals: Arc<VpSignals>,
    launch: PlainLaunch,
}

impl Partition for SoftPartition {
    fn signals(&self) -> Arc<VpSignals> {
        self.signals.clone()
    }

    fn launch_target(&mut self) -> Box<dyn LaunchTarget + '_> {
        self.launch.restart();
        Box::new(self.launch.clone())
    }

    fn runners(&mut self, bus: Arc<dyn VpBus>) -> Result<Vec<Box<dyn Runner>>, RunError> {
        let runner = SoftRunner::new(
            &self.config,
            self.signals.clone(),
            self.launch.clone(),
            bus,
            PHYS_BITS,
        );
        Ok(vec![Box::new(runner)])
    }
}

/// CPUID leaves of VP `vp`: the engine's own, topology, then what the partition replaces or adds.
fn cpuid(config: &PartitionConfig, vp: u32) -> Vec<x86defs::cpuid::CpuidEntry> {
    let mut leaves = x86emu::cpuid::baseline(PHYS_BITS);
    for leaf in &mut leaves {
        if leaf.leaf == 1 {
            // Initial APIC id in bits 31:24, logical processors of the package in 23:16.
            leaf.ebx = (leaf.ebx & 0xFFFF) | (vp & 0xFF) << 24 | config.vp_count.min(255) << 16;
            leaf.ecx |= 1 << 21;
            if config.vp_count > 1 {
                leaf.edx |= 1 << 28;
            }
        }
    }
    guest_time::describe(&mut leaves, &config.cpuid);
    for extra in &config.cpuid {
        leaves.retain(|l| !(l.leaf == extra.leaf && (l.subleaf == extra.subleaf || l.subleaf.is_none())));
        leaves.push(*extra);
    }
    leaves
}

/// Keeps guest memory alive for as long as pages of it are with the engine.
struct Ram(GuestMemory);
