// SPDX-License-Identifier: MIT
//! Where RAM and MMIO gaps are, from the configuration.
//!
//! Always true: RAM starts at 0, is split around the machine's gap below 4 GiB and continues at 4 GiB;
//! everything fits the guest's physical address width. Not here: whether a guest image fits the RAM
//! ([`crate::fit`]), what the devices in the gaps are.

mod pcie;

use launch_plan::size_text;
use openvmm_defs::{Config, GpaRange, Machine, MemoryLayout};

/// First byte above 32-bit addresses.
pub(crate) const FOUR_GIB: u64 = 1 << 32;
/// Least RAM: what real mode code can address.
const LEAST_RAM: u64 = 1 << 20;
/// Top of the MMIO gap on machines whose firmware lives just below 4 GiB (the last 16 MiB).
const FIRMWARE_WINDOW: u64 = 0xFF00_0000;
/// xAPIC ids are 8 bits and 255 is the broadcast (SDM volume 3, section 11.4.6).
const XAPIC_VPS: u32 = 255;

/// A configuration that no machine can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum LayoutError {
    #[error("-m {}: a guest needs at least {}", size_text(*.0), size_text(LEAST_RAM))]
    TooSmall(u64),
    #[error("-m {0:#x} bytes is not a multiple of 4 KiB")]
    NotPages(u64),
    #[error(
        "-m {}: ram would end at gpa {end:#x}, beyond the {bits} physical address bits of this guest; at most -m {} fits",
        size_text(*.size),
        size_text(*.most)
    )]
    TooLarge {
        size: u64,
        end: u64,
        bits: u8,
        most: u64,
    },
    #[error("-p 0: a guest needs at least one processor")]
    NoProcessor,
    #[error(
        "-p {count}: without x2apic, which this hypervisor does not offer, a guest has at most {XAPIC_VPS} processors"
    )]
    TooManyProcessors { count: u32 },
    #[error(
        "--pcie-root-complex: the ovmf machine has a PCI bus of its own, which its firmware looks for; drop the option, \
         and devices go there"
    )]
    RootComplexOnOvmf,
    #[error(
        "the mmio gap of vmbus above ram would end at gpa {end:#x}, beyond the {bits} physical address bits of this guest; \
         give less -m, or --no-vmbus"
    )]
    NoHighGap { end: u64, bits: u8 },
    #[error("--pcie-root-complex {name}: {what}")]
    RootComplex { name: String, what: String },
}

/// What the hypervisor contributes to the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostLimits {
    /// Guest physical address width in bits.
    pub phys_bits: u8,
    /// APIC ids above 254 work.
    pub x2apic: bool,
}

impl HostLimits {
    /// The limits that a plan is shown for when there is no hypervisor to ask (`--dry-run`).
    pub const ASSUMED: Self = Self {
        phys_bits: 46,
        x2apic: false,
    };
}

impl From<virt::Capabilities> for HostLimits {
    fn from(c: virt::Capabilities) -> Self {
        Self {
            phys_bits: c.phys_bits,
            x2apic: c.x2apic,
        }
    }
}

/// Decides the layout of `config` on `machine`.
pub fn resolve(config: &Config, machine: Machine, limits: HostLimits) -> Result<MemoryLayout, LayoutError> {
    let size = config.memory;
    if size < LEAST_RAM {
        return Err(LayoutError::TooSmall(size));
    }
    if !size.is_multiple_of(4096) {
        return Err(LayoutError::NotPages(size));
    }
    let count = config.processors;
    if count == 0 {
        return Err(LayoutError::NoProcessor);
    }
    if count > XAPIC_VPS && !limits.x2apic {
        return Err(LayoutError::TooManyProcessors { count });
    }
    let pcie = pcie::Wanted::of(&config.pci, machine)?;
    let limit = machine.low_ram_limit().min(pcie.low_start(machine));
    let ram = split_ram(size, limit, limits.phys_bits)?;
    let above_ram = ram.last().map_or(0, GpaRange::end).max(FOUR_GIB);
    let high_mmio = if config.vmbus.is_some() {
        high_mmio(above_ram, limits.phys_bits)?
    } else {
        GpaRange::default()
    };
    let root_complexes = pcie.place(machine, above_ram.max(high_mmio.end()), limits.phys_bits)?;
    Ok(MemoryLayout {
        machine,
        ram,
        low_mmio: low_mmio(machine),
        high_mmio,
        tpm: config.tpm.as_ref().map(|_| GpaRange::new(tpm::MMIO, tpm::LEN)),
        root_complexes,
        phys_bits: limits.phys_bits,
        vp_count: count,
    })
}

fn split_ram(size: u64, limit: u64, bits: u8) -> Result<Vec<GpaRange>, LayoutError> {
    let low = size.min(limit);
    let high = size - low;
    let space = 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
    let end = if high == 0 {
        low
    } else {
        FOUR_GIB.saturating_add(high)
    };
    if end > space {
        let most = if space > FOUR_GIB {
            limit + (space - FOUR_GIB)
        } else {
            space.min(limit)
        };
        return Err(LayoutError::TooLarge {
            size,
            end,
            bits,
            most,
        });
    }
    let mut ram = vec![GpaRange::new(0, low)];
    if high != 0 {
        ram.push(GpaRange::new(FOUR_GIB, high));
    }
    Ok(ram)
}

/// The gap below 4 GiB. Microsoft's firmware is told of all of it (uefi-launch 3.7); on the other
/// machines the last 16 MiB are where images put firmware, so no device is there.
fn low_mmio(machine: Machine) -> GpaRange {
    let start = machine.low_ram_limit();
    let end = match machine {
        Machine::HyperV => FOUR_GIB,
        Machine::Plain | Machine::Linux | Machine::Ovmf => FIRMWARE_WINDOW,
    };
    GpaRange::new(start, end - start)
}

/// The gap from `above_ram` on, where VMBus devices may have memory (uefi-launch 5.5).
fn high_mmio(above_ram: u64, bits: u8) -> Result<GpaRange, LayoutError> {
    const LEN: u64 = 512 << 20;
    const ALIGN: u64 = 2 << 20;
    let gap = GpaRange::new(above_ram.next_multiple_of(ALIGN), LEN);
    let space = 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
    if gap.end() > space {
        return Err(LayoutError::NoHighGap { end: gap.end(), bits });
    }
    Ok(gap)
}

#[cfg(test)]
mod tests;
