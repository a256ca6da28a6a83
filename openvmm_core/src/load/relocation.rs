// SPDX-License-Identifier: MIT
//! Where a relocatable image goes.

use super::Notes;
use anyhow::{Context, bail};
use launch_plan::{LaunchPlan, RelocatableRegion, size_text};
use openvmm_defs::{MemoryLayout, Vtl2Base};
use vm_loaders::igvm::relocate;
use x86defs::paging::LARGE_PAGE_SIZE;

/// Moves the plan's relocatable region.
pub(super) fn apply<'f>(
    plan: &LaunchPlan<'f>,
    to: Vtl2Base,
    layout: &MemoryLayout,
    notes: &mut Notes,
) -> anyhow::Result<LaunchPlan<'f>> {
    let base = match to {
        Vtl2Base::File => bail!("a plan at file addresses is not moved"),
        Vtl2Base::Vtl2Allocate(_) => bail!("vtl2 (OpenHCL) is not available on this hypervisor"),
        Vtl2Base::Absolute(base) => base,
        Vtl2Base::MemoryLayout(size) => {
            let region = plan
                .relocatable
                .first()
                .context("the file has no relocatable region; drop the option")?;
            let base = fit(region, size, layout)?;
            notes.add(format!(
                "relocatable region of {} placed at gpa {base:#x}",
                size_text(region.len)
            ));
            base
        }
    };
    Ok(relocate(plan, base)?)
}

/// The highest base in RAM that the region allows.
fn fit(region: &RelocatableRegion, size: Option<u64>, layout: &MemoryLayout) -> anyhow::Result<u64> {
    let len = size.unwrap_or(region.len);
    if len < region.len || !len.is_multiple_of(LARGE_PAGE_SIZE) && size.is_some() {
        bail!(
            "a size of {} does not do: the region has {}, and the size must be a multiple of 2 MiB",
            size_text(len),
            size_text(region.len)
        );
    }
    let align = region.alignment.max(1);
    let candidates = layout.ram.iter().rev().filter_map(|ram| {
        let end = ram.end().min(region.max_gpa);
        let base = end.checked_sub(len)? / align * align;
        (base >= ram.gpa.max(region.min_gpa)).then_some(base)
    });
    candidates.into_iter().next().with_context(|| {
        format!(
            "no ram fits the relocatable region: {} aligned to {align:#x} between gpa {:#x} and {:#x}",
            size_text(len),
            region.min_gpa,
            region.max_gpa
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{HostLimits, resolve};
    use crate::testing::config;
    use openvmm_defs::{Config, Machine};

    fn region(len: u64, min_gpa: u64, max_gpa: u64) -> RelocatableRegion {
        let alignment = LARGE_PAGE_SIZE;
        RelocatableRegion {
            vp: 0,
            vtl: 0,
            is_vtl2: false,
            apply_pc: true,
            apply_gdtr: true,
            alignment,
            gpa: 0x10_0000,
            len,
            min_gpa,
            max_gpa,
        }
    }

    #[test]
    fn the_highest_base_that_everything_allows_is_chosen() {
        let c = Config {
            memory: 5 << 30,
            ..config()
        };
        let layout = resolve(&c, Machine::Plain, HostLimits::ASSUMED).unwrap();
        let top = layout.ram[1].end();
        assert_eq!(
            fit(&region(0x30_0000, 0, u64::MAX), None, &layout).unwrap(),
            top - 0x40_0000
        );
        assert_eq!(
            fit(&region(0x30_0000, 0, 1 << 32), None, &layout).unwrap(),
            0xC000_0000 - 0x40_0000
        );
        assert_eq!(
            fit(&region(0x30_0000, 0, 0x100_0000), Some(0x80_0000), &layout).unwrap(),
            0x80_0000
        );
        for (r, size, message) in [
            (
                region(0x30_0000, 0xC000_0000, 1 << 32),
                None,
                "no ram fits the relocatable region: 3 MiB aligned to 0x200000 between gpa 0xc0000000 and 0x100000000",
            ),
            (
                region(0x30_0000, 0, 1 << 32),
                Some(0x20_0000),
                "a size of 2 MiB does not do: the region has 3 MiB, and the size must be a multiple of 2 MiB",
            ),
        ] {
            assert_eq!(fit(&r, size, &layout).unwrap_err().to_string(), message);
        }
    }
}
