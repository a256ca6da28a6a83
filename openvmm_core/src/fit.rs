// SPDX-License-Identifier: MIT
//! Whether a plan's pages find memory in a layout.
//!
//! Always true: REQUIRED_MEMORY is verified and never created; pages outside RAM get memory of their own
//! only where the machine's rules allow it, and never inside an MMIO gap; every refusal names the gap
//! and, when there is one, the `-m` that fits. Not here: allocation.

use crate::layout::FOUR_GIB;
use launch_plan::{LaunchPlan, Origin, RangeSet, StepKind, size_text};
use openvmm_defs::{GpaRange, MemoryLayout};

/// What to do with imported pages where the layout has neither RAM nor MMIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutsideRam {
    /// They get RAM of their own, which no memory map lists.
    Allocate,
    /// They are an error.
    Refuse,
}

/// A plan that needs memory which is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FitError {
    #[error("{origin}: the image requires memory at {needed}, but there is none at {gap}; {}", way_out(.fits, .machine))]
    Required {
        needed: GpaRange,
        gap: GpaRange,
        fits: Option<u64>,
        machine: &'static str,
        origin: Origin,
    },
    #[error("{origin}: pages are imported at {needed}, but there is no memory at {gap}; {}", way_out(.fits, .machine))]
    Import {
        needed: GpaRange,
        gap: GpaRange,
        fits: Option<u64>,
        machine: &'static str,
        origin: Origin,
    },
    #[error("it needs memory at {needed}, but there is none at {gap}; {}", way_out(.fits, .machine))]
    Host {
        needed: GpaRange,
        gap: GpaRange,
        fits: Option<u64>,
        machine: &'static str,
    },
    #[error("{origin}: pages are imported at {needed}, inside the mmio gap {mmio} of the {machine} machine")]
    InMmio {
        needed: GpaRange,
        mmio: GpaRange,
        machine: &'static str,
        origin: Origin,
    },
    #[error(
        "{origin}: pages are imported at {needed}, beyond the {bits} physical address bits of this guest"
    )]
    BeyondAddressSpace {
        needed: GpaRange,
        bits: u8,
        origin: Origin,
    },
}

fn way_out(fits: &Option<u64>, machine: &str) -> String {
    match fits {
        Some(size) => format!(
            "-m {} fits it",
            size_text(*size)
                .replace(" KiB", "K")
                .replace(" MiB", "M")
                .replace(" GiB", "G")
        ),
        None => format!("no -m puts memory there, because it is the mmio gap of the {machine} machine"),
    }
}

/// The pages that get RAM of their own: ascending, disjoint, page aligned.
pub fn extra_ram(
    plan: &LaunchPlan<'_>,
    layout: &MemoryLayout,
    rule: OutsideRam,
) -> Result<Vec<GpaRange>, FitError> {
    let mut extra = RangeSet::default();
    for step in plan.steps() {
        let origin = step.origin;
        match &step.kind {
            StepKind::VpContext(_) => {}
            StepKind::ExpectMemory(expect) => {
                required(layout, GpaRange::new(expect.gpa, expect.len), origin)?;
            }
            StepKind::Import(import) => {
                place(
                    layout,
                    rule,
                    GpaRange::new(import.gpa, import.len),
                    origin,
                    &mut extra,
                )?;
            }
            &StepKind::ErrorRange { gpa, len } => {
                place(layout, rule, GpaRange::new(gpa, len), origin, &mut extra)?;
            }
        }
    }
    Ok(extra
        .iter()
        .map(|(first, last)| GpaRange::new(first, last - first + 1))
        .collect())
}

/// Refuses a range that the host wants to write and that is not RAM.
pub(crate) fn check_ram(layout: &MemoryLayout, needed: GpaRange) -> Result<(), FitError> {
    ram_or(layout, needed, |gap, fits| FitError::Host {
        needed,
        gap,
        fits,
        machine: layout.machine.name(),
    })
}

fn required(layout: &MemoryLayout, needed: GpaRange, origin: Origin) -> Result<(), FitError> {
    let machine = layout.machine.name();
    ram_or(layout, needed, |gap, fits| FitError::Required {
        needed,
        gap,
        fits,
        machine,
        origin,
    })
}

/// Whether all of `needed` is RAM; else the error for the first gap and the `-m` that fits.
fn ram_or(
    layout: &MemoryLayout,
    needed: GpaRange,
    error: impl FnOnce(GpaRange, Option<u64>) -> FitError,
) -> Result<(), FitError> {
    match missing(layout, needed).first() {
        None => Ok(()),
        Some(&gap) => Err(error(gap, memory_that_fits(layout, needed))),
    }
}

fn place(
    layout: &MemoryLayout,
    rule: OutsideRam,
    needed: GpaRange,
    origin: Origin,
    extra: &mut RangeSet,
) -> Result<(), FitError> {
    for gap in missing(layout, needed) {
        let machine = layout.machine.name();
        if rule == OutsideRam::Refuse {
            let fits = memory_that_fits(layout, needed);
            return Err(FitError::Import {
                needed,
                gap,
                fits,
                machine,
                origin,
            });
        }
        for mmio in [layout.low_mmio, layout.high_mmio] {
            if mmio.overlaps(&gap) {
                return Err(FitError::InMmio {
                    needed,
                    mmio,
                    machine,
                    origin,
                });
            }
        }
        if gap.end() > 1u64.checked_shl(layout.phys_bits.into()).unwrap_or(u64::MAX) {
            return Err(FitError::BeyondAddressSpace {
                needed,
                bits: layout.phys_bits,
                origin,
            });
        }
        // Imports are disjoint (a rule of plans), so every gap is new.
        extra.insert(gap.gpa, gap.end() - 1);
    }
    Ok(())
}

/// The parts of `needed` that are not RAM, ascending.
fn missing(layout: &MemoryLayout, needed: GpaRange) -> Vec<GpaRange> {
    let mut gaps = Vec::new();
    let mut from = needed.gpa;
    for ram in &layout.ram {
        if ram.end() <= from || ram.gpa >= needed.end() {
            continue;
        }
        if ram.gpa > from {
            gaps.push(GpaRange::new(from, ram.gpa - from));
        }
        from = ram.end();
    }
    if from < needed.end() {
        gaps.push(GpaRange::new(from, needed.end() - from));
    }
    gaps
}

/// The least `-m`, in whole MiB, whose RAM contains `needed`; `None` when that touches the gap below 4 GiB.
fn memory_that_fits(layout: &MemoryLayout, needed: GpaRange) -> Option<u64> {
    let limit = layout.machine.low_ram_limit();
    let least = if needed.end() <= limit {
        needed.end()
    } else if needed.gpa >= FOUR_GIB {
        limit.checked_add(needed.end() - FOUR_GIB)?
    } else {
        return None;
    };
    least.checked_next_multiple_of(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{HostLimits, resolve};
    use crate::testing::config;
    use launch_plan::{
        Arch, Contents, ExpectMemory, Import, Isolation, PageKind, PlanBuilder, PlatformFacts,
    };
    use openvmm_defs::{Config, Machine};

    const HERE: Origin = Origin::Header {
        index: 4,
        offset: 0x90,
    };

    fn layout(memory: u64, machine: Machine) -> MemoryLayout {
        resolve(&Config { memory, ..config() }, machine, HostLimits::ASSUMED).unwrap()
    }

    fn importing(gpa: u64, len: u64) -> LaunchPlan<'static> {
        let mut b = PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64));
        let import = Import {
            gpa,
            len,
            large: false,
            kind: PageKind::Measured,
            contents: Contents::Zero,
        };
        b.import(import, HERE).unwrap();
        b.finish()
    }

    fn expecting(gpa: u64, len: u64) -> LaunchPlan<'static> {
        let mut b = PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64));
        b.expect_memory(
            ExpectMemory {
                gpa,
                len,
                vtl2_protectable: false,
            },
            HERE,
        )
        .unwrap();
        b.finish()
    }

    #[test]
    fn pages_in_ram_need_nothing() {
        let l = layout(64 << 20, Machine::Plain);
        assert_eq!(
            extra_ram(&importing(0, 64 << 20), &l, OutsideRam::Refuse),
            Ok(vec![])
        );
        assert_eq!(
            extra_ram(&expecting(0x1000, 0x1000), &l, OutsideRam::Refuse),
            Ok(vec![])
        );
    }

    #[test]
    fn pages_outside_ram_get_their_own_where_that_is_allowed() {
        let l = layout(64 << 20, Machine::Plain);
        let top = GpaRange::new(0xFFFF_F000, 0x1000);
        assert_eq!(
            extra_ram(&importing(top.gpa, top.len), &l, OutsideRam::Allocate),
            Ok(vec![top])
        );
        let half = GpaRange::new(64 << 20, 0x1000);
        assert_eq!(
            extra_ram(&importing(half.gpa - 0x1000, 0x2000), &l, OutsideRam::Allocate),
            Ok(vec![half])
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_gap_and_the_size_that_fits() {
        let l = layout(64 << 20, Machine::HyperV);
        for (plan, rule, message) in [
            (
                importing(0x4000000, 0x2000),
                OutsideRam::Refuse,
                "header 4 at file offset 0x90: pages are imported at 0x4000000..0x4002000, but there is no memory at \
                 0x4000000..0x4002000; -m 65M fits it",
            ),
            (
                expecting(0x3FFF000, 0x1000_1000),
                OutsideRam::Allocate,
                "header 4 at file offset 0x90: the image requires memory at 0x3fff000..0x14000000, but there is none at \
                 0x4000000..0x14000000; -m 320M fits it",
            ),
            (
                expecting(0x1_0000_0000, 0x1000),
                OutsideRam::Allocate,
                "header 4 at file offset 0x90: the image requires memory at 0x100000000..0x100001000, but there is none \
                 at 0x100000000..0x100001000; -m 3969M fits it",
            ),
            (
                expecting(0xF800_0000, 0x1000),
                OutsideRam::Allocate,
                "header 4 at file offset 0x90: the image requires memory at 0xf8000000..0xf8001000, but there is none at \
                 0xf8000000..0xf8001000; no -m puts memory there, because it is the mmio gap of the hyper-v generation \
                 2 machine",
            ),
            (
                importing(0xFFFF_F000, 0x1000),
                OutsideRam::Allocate,
                "header 4 at file offset 0x90: pages are imported at 0xfffff000..0x100000000, inside the mmio gap \
                 0xf8000000..0x100000000 of the hyper-v generation 2 machine",
            ),
            (
                importing(1 << 46, 0x1000),
                OutsideRam::Allocate,
                "header 4 at file offset 0x90: pages are imported at 0x400000000000..0x400000001000, beyond the 46 \
                 physical address bits of this guest",
            ),
        ] {
            assert_eq!(extra_ram(&plan, &l, rule).unwrap_err().to_string(), message);
        }
    }
}
