// SPDX-License-Identifier: MIT
//! The plan of a `linux` image: resources `linux_kernel` and, if asked for, `linux_initrd`.
//!
//! Always true: the machine that the image describes to the kernel is [`layout`]'s, whatever machine it
//! runs on later: a host with less RAM refuses it, more RAM stays unused. The command line is the
//! manifest's unless the host has one. Not here: other machines (boot the kernel directly for those).

use super::resources::Resources;
use crate::manifest::LinuxImage;
use launch_plan::LaunchPlan;
use openvmm_defs::{GpaRange, Machine, MemoryLayout};
use vm_loaders::linux::{self, LinuxInputs};
use x86defs::paging::PAGE_SIZE;

/// Where images put firmware; nothing of the machine is there.
const FIRMWARE_WINDOW: u64 = 0xFF00_0000;
/// Physical address bits, as the direct boot of a dry run assumes them.
const PHYS_BITS: u8 = 46;

/// The machine that the image describes: its RAM and processors on the Linux machine.
pub(super) fn layout(image: &LinuxImage) -> MemoryLayout {
    let low_end = Machine::Linux.low_ram_limit();
    let bytes = image.memory_page_count * PAGE_SIZE;
    let mut ram = vec![GpaRange::new(0, bytes.min(low_end))];
    if bytes > low_end {
        ram.push(GpaRange::new(1 << 32, bytes - low_end));
    }
    MemoryLayout {
        machine: Machine::Linux,
        ram,
        low_mmio: GpaRange::new(low_end, FIRMWARE_WINDOW - low_end),
        high_mmio: GpaRange::default(),
        tpm: None,
        root_complexes: Vec::new(),
        phys_bits: PHYS_BITS,
        vp_count: image.processor_count,
    }
}

/// Builds the plan; the error names the resource.
pub(super) fn plan<'r>(image: &'r LinuxImage, resources: &'r Resources) -> Result<LaunchPlan<'r>, String> {
    let initrd = if image.use_initrd {
        Some(resources.get("linux_initrd")?)
    } else {
        None
    };
    let inputs = LinuxInputs {
        kernel: resources.get("linux_kernel")?,
        initrd,
        cmdline: &image.command_line,
        layout: &layout(image),
        replaceable_cmdline: true,
    };
    linux::plan(&inputs).map_err(|error| format!("resource linux_kernel: {error}"))
}
