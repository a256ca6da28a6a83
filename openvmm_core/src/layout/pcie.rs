// SPDX-License-Identifier: MIT
//! Where PCIe root complexes are: ECAM and a BAR window below 4 GiB, a BAR window above RAM (uefi-launch 3.6).
//!
//! Always true: everything below 4 GiB is above the highest RAM there and clear of the interrupt controllers;
//! windows of different complexes never overlap; ECAM is below 4 GiB, because Linux without SMBIOS ignores others.
//! Not here: the ovmf machine, whose firmware places its own bus.

use super::LayoutError;
use openvmm_defs::{GpaRange, Machine, PciConfig, RootComplexConfig, RootComplexLayout};

const BUS: u64 = 1 << 20;
/// Alignment of windows below and above 4 GiB (uefi-launch 5.4).
const LOW_ALIGN: u64 = 2 << 20;
const HIGH_ALIGN: u64 = 1 << 30;
/// Where the IO-APIC's page and, behind it, the local APICs' and firmware are.
const INTERRUPT_CONTROLLERS: u64 = 0xFEC0_0000;
/// The most that may be taken below the Hyper-V machine's gap; more would leave too little low RAM.
const MOST_BELOW_GAP: u64 = 0x7000_0000;

/// How much root complexes may take below 4 GiB. Where the kernel is told of a fixed uncached hole, no more than that.
fn most_low(machine: Machine) -> u64 {
    match machine {
        Machine::HyperV => MOST_BELOW_GAP,
        Machine::Plain | Machine::Linux | Machine::Ovmf => INTERRUPT_CONTROLLERS - machine.low_ram_limit(),
    }
}

/// The root complexes that a machine is to have.
pub(super) struct Wanted(Vec<RootComplexConfig>);

impl Wanted {
    /// Those of `config`, or an implicit one for its devices.
    pub(super) fn of(config: &PciConfig, machine: Machine) -> Result<Self, LayoutError> {
        if machine == Machine::Ovmf {
            return if config.root_complexes.is_empty() {
                Ok(Self(Vec::new()))
            } else {
                Err(LayoutError::RootComplexOnOvmf)
            };
        }
        let mut wanted = config.root_complexes.clone();
        if wanted.is_empty() && !config.devices.is_empty() {
            wanted.push(RootComplexConfig::implicit());
        }
        let wanted = Self(wanted);
        wanted.check(machine)?;
        Ok(wanted)
    }

    fn check(&self, machine: Machine) -> Result<(), LayoutError> {
        for (i, complex) in self.0.iter().enumerate() {
            let fail = |what: String| {
                Err(LayoutError::RootComplex {
                    name: complex.name.clone(),
                    what,
                })
            };
            if complex.start_bus > complex.end_bus {
                return fail("start_bus is behind end_bus".into());
            }
            for other in &self.0[..i] {
                if other.name == complex.name {
                    return fail("the name is given twice".into());
                }
                let apart = other.end_bus < complex.start_bus || complex.end_bus < other.start_bus;
                if other.segment == complex.segment && !apart {
                    return fail(format!(
                        "its buses overlap those of {}; give one of them another segment= or start_bus= and end_bus=",
                        other.name
                    ));
                }
            }
        }
        let most = most_low(machine);
        if self.low_bytes() > most {
            return Err(LayoutError::RootComplex {
                name: self.0.last().map(|c| c.name.clone()).unwrap_or_default(),
                what: format!(
                    "configuration space and low_mmio of all root complexes take {:#x} bytes below 4 GiB, and {most:#x} is \
                     the most; give less low_mmio= or a smaller end_bus=",
                    self.low_bytes()
                ),
            });
        }
        Ok(())
    }

    /// Bytes below 4 GiB, holes included.
    fn low_bytes(&self) -> u64 {
        let ecam: u64 = self.ecams().map(|(_, len)| len).sum();
        self.0
            .iter()
            .fold(ecam, |sum, complex| sum.saturating_add(low_len(complex.low_mmio)))
    }

    /// Configuration windows, one for each segment, from bus 0 on, so that entries of a segment share a base.
    fn ecams(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        let first = |i: &usize| self.0[..*i].iter().all(|c| c.segment != self.0[*i].segment);
        (0..self.0.len()).filter(first).map(|i| {
            let segment = self.0[i].segment;
            let last = self
                .0
                .iter()
                .filter(|c| c.segment == segment)
                .map(|c| c.end_bus)
                .max();
            let len = (u64::from(last.unwrap_or(0)) + 1) * BUS;
            (segment, len.next_multiple_of(LOW_ALIGN))
        })
    }

    /// The first byte below 4 GiB that is taken; RAM ends there or earlier.
    pub(super) fn low_start(&self, machine: Machine) -> u64 {
        if self.0.is_empty() {
            return machine.low_ram_limit();
        }
        // The Hyper-V machine's gap is VMBus's; on the others nothing else is in it.
        let end = match machine {
            Machine::HyperV => machine.low_ram_limit(),
            Machine::Plain | Machine::Linux | Machine::Ovmf => INTERRUPT_CONTROLLERS,
        };
        (end - self.low_bytes()) & !(LOW_ALIGN - 1)
    }

    /// Everything at its place: low parts from [`Wanted::low_start`] on, up to which RAM may lie; high parts from
    /// the gpa `high` on, from where nothing else is.
    pub(super) fn place(
        &self,
        machine: Machine,
        mut high: u64,
        phys_bits: u8,
    ) -> Result<Vec<RootComplexLayout>, LayoutError> {
        let mut low = self.low_start(machine);
        let mut take_low = |len: u64| {
            let gpa = low;
            low += len;
            GpaRange::new(gpa, len)
        };
        let ecams: Vec<_> = self
            .ecams()
            .map(|(segment, len)| (segment, take_low(len).gpa))
            .collect();
        let space = 1u64.checked_shl(phys_bits.into()).unwrap_or(u64::MAX);
        let mut placed = Vec::with_capacity(self.0.len());
        for (uid, complex) in (0..).zip(&self.0) {
            let base = ecams
                .iter()
                .find(|(segment, _)| *segment == complex.segment)
                .map_or(0, |e| e.1);
            let start = u64::from(complex.start_bus);
            let buses = u64::from(complex.end_bus) - start + 1;
            let low_mmio = take_low(low_len(complex.low_mmio));
            let first = high.checked_next_multiple_of(HIGH_ALIGN);
            let end = first.and_then(|first| first.checked_add(complex.high_mmio));
            let (Some(first), Some(end)) = (first, end.filter(|end| *end <= space)) else {
                return Err(LayoutError::RootComplex {
                    name: complex.name.clone(),
                    what: format!(
                        "high_mmio of {:#x} bytes above ram does not fit the {phys_bits} physical address bits of this \
                         guest; give less",
                        complex.high_mmio
                    ),
                });
            };
            high = end;
            placed.push(RootComplexLayout {
                segment: complex.segment,
                start_bus: complex.start_bus,
                end_bus: complex.end_bus,
                uid,
                ecam: GpaRange::new(base + start * BUS, buses * BUS),
                low_mmio,
                high_mmio: GpaRange::new(first, complex.high_mmio),
            });
        }
        Ok(placed)
    }
}

fn low_len(len: u64) -> u64 {
    len.checked_next_multiple_of(LOW_ALIGN).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
