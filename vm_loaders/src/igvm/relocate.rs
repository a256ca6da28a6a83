// SPDX-License-Identifier: MIT
//! Moves an image: a plan at the file's addresses becomes a plan at another base
//! (`igvm-format.md` section 4).
//!
//! Always true: everything inside the one relocatable region and the page table region moves by one
//! distance, everything else stays; nothing straddles a border; the plan says that RAM must exist for the
//! moved regions. Not here: choosing the base.

use super::file::File;
use super::page_tables::{Move, PageTableError, PageTables};
use super::problem::Refused;
use launch_plan::{
    Arch, Contents, ExpectMemory, Import, Isolation, LaunchPlan, Origin, PageKind, PageTableRegion,
    PlanBuilder, PlanError, RelocatableRegion, Step, StepKind, VbsRegisterName, VbsValue, VpContext, VpState,
};
use std::borrow::Cow;
use x86defs::paging::{PAGE_SIZE, PTE_ADDR};
use x86defs::{cr0, cr4};

/// Why an image cannot be moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum RelocateError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the image has no relocatable region; load it at its own addresses")]
    NotRelocatable,
    #[error("the image has {0} relocatable regions; only one can be moved")]
    SeveralRegions(usize),
    #[error(
        "base {base:#x} is not possible: the region of {len:#x} bytes needs a multiple of {alignment:#x} from {min:#x} and an end up to {max:#x}"
    )]
    Base {
        base: u64,
        len: u64,
        alignment: u64,
        min: u64,
        max: u64,
    },
    #[error("the image starts with paging and has no page table region that could be fixed")]
    NoPageTables,
    #[error("page tables: {0}")]
    PageTables(#[from] PageTableError),
    #[error("{origin}: gpa {gpa:#x} of {len:#x} bytes crosses the border of a region that moves")]
    Crossing { origin: Origin, gpa: u64, len: u64 },
    #[error(
        "{origin}: the page at gpa {gpa:#x} in the page table region must be one of 4 KiB with fixed contents"
    )]
    TablePage { origin: Origin, gpa: u64 },
    #[error("moving by {delta:#x} takes {what} {value:#x} out of the address space")]
    OutOfSpace {
        what: &'static str,
        value: u64,
        delta: i128,
    },
    #[error("images for {0} cannot be moved")]
    Arch(Arch),
    #[error("after the move: {0}")]
    Plan(#[from] PlanError),
}

impl<'a> File<'a> {
    /// The launch plan of a platform with its relocatable region at `base`.
    pub fn plan_at(&self, isolation: Isolation, base: u64) -> Result<LaunchPlan<'a>, RelocateError> {
        relocate(&self.plan(isolation)?, base)
    }
}

/// Moves a plan's relocatable region to `base`. The result is fixed: it is not relocatable any more.
pub fn relocate<'a>(plan: &LaunchPlan<'a>, base: u64) -> Result<LaunchPlan<'a>, RelocateError> {
    let region = match plan.relocatable[..] {
        [region] => region,
        [] => return Err(RelocateError::NotRelocatable),
        _ => return Err(RelocateError::SeveralRegions(plan.relocatable.len())),
    };
    if plan.facts.arch != Arch::X64 {
        return Err(RelocateError::Arch(plan.facts.arch));
    }
    let end = base.checked_add(region.len);
    let possible = base.is_multiple_of(region.alignment) && base >= region.min_gpa;
    if !possible || end.is_none_or(|end| end > region.max_gpa) {
        let RelocatableRegion {
            len,
            alignment,
            min_gpa: min,
            max_gpa: max,
            ..
        } = region;
        return Err(RelocateError::Base {
            base,
            len,
            alignment,
            min,
            max,
        });
    }
    let delta = i128::from(base) - i128::from(region.gpa);
    let mover = Mover {
        region,
        tables: plan.page_tables,
        delta,
    };
    let tables = mover.fixed_tables(plan)?;
    mover.rebuild(plan, tables.as_ref())
}

struct Mover {
    region: RelocatableRegion,
    tables: Option<PageTableRegion>,
    delta: i128,
}

impl Mover {
    fn moved(&self, what: &'static str, value: u64) -> Result<u64, RelocateError> {
        let moved = u64::try_from(i128::from(value) + self.delta);
        moved.map_err(|_| RelocateError::OutOfSpace {
            what,
            value,
            delta: self.delta,
        })
    }

    /// Whether a range lies in a region that moves, given as (gpa, length); crossing its border is an error.
    fn inside(
        &self,
        (start, size): (u64, u64),
        (gpa, len): (u64, u64),
        origin: Origin,
    ) -> Result<bool, RelocateError> {
        let (last, end) = (gpa + (len - 1), start + (size - 1));
        if gpa > end || last < start {
            return Ok(false);
        }
        if gpa >= start && last <= end {
            return Ok(true);
        }
        Err(RelocateError::Crossing { origin, gpa, len })
    }

    /// The new address of a range.
    fn place(&self, gpa: u64, len: u64, origin: Origin) -> Result<u64, RelocateError> {
        let mut moves = self.inside((self.region.gpa, self.region.len), (gpa, len), origin)?;
        if let Some(tables) = self.tables {
            moves |= self.inside((tables.gpa, tables.len), (gpa, len), origin)?;
        }
        if moves { self.moved("gpa", gpa) } else { Ok(gpa) }
    }

    /// The page number of an import in the page table region.
    fn table_page(&self, import: &Import<'_>) -> Option<u64> {
        let tables = self.tables?;
        let offset = import.gpa.checked_sub(tables.gpa)?;
        (offset < tables.len).then_some(offset / PAGE_SIZE)
    }

    /// Reads the page tables from the plan and fixes them; `None` when the image has none.
    fn fixed_tables(&self, plan: &LaunchPlan<'_>) -> Result<Option<PageTables>, RelocateError> {
        let Some(region) = self.tables else {
            let paging = plan
                .vp_contexts()
                .any(|(c, _)| c.state.to_x86().is_some_and(|s| s.cr0 & cr0::PG != 0));
            return if paging {
                Err(RelocateError::NoPageTables)
            } else {
                Ok(None)
            };
        };
        let mut tables = PageTables::new(region.gpa, region.len, region.used);
        for step in plan.steps() {
            let StepKind::Import(import) = &step.kind else {
                continue;
            };
            let Some(page) = self.table_page(import) else {
                continue;
            };
            match &import.contents {
                _ if import.len != PAGE_SIZE => {
                    return Err(RelocateError::TablePage {
                        origin: step.origin,
                        gpa: import.gpa,
                    });
                }
                Contents::Zero => {}
                Contents::Bytes(bytes) => tables.set(page, bytes),
                Contents::Parameters(_) => {
                    return Err(RelocateError::TablePage {
                        origin: step.origin,
                        gpa: import.gpa,
                    });
                }
            }
        }
        let state = plan
            .vp_contexts()
            .find(|(c, _)| c.vp == region.vp)
            .and_then(|(c, _)| c.state.to_x86());
        let state = state.ok_or(RelocateError::NoPageTables)?;
        let levels = if state.cr4 & cr4::LA57 != 0 { 5 } else { 4 };
        let ranges = [
            (self.region.gpa, self.region.gpa + (self.region.len - 1)),
            (region.gpa, region.gpa + (region.len - 1)),
        ];
        if self.delta != 0 {
            self.moved("page table region", region.gpa + (region.len - 1))?;
            tables.fix(
                state.cr3 & PTE_ADDR,
                levels,
                Move {
                    ranges: &ranges,
                    delta: self.delta,
                },
            )?;
        }
        Ok(Some(tables))
    }

    fn rebuild<'a>(
        &self,
        plan: &LaunchPlan<'a>,
        tables: Option<&PageTables>,
    ) -> Result<LaunchPlan<'a>, RelocateError> {
        let mut builder = PlanBuilder::new(plan.facts.clone());
        builder.plan_mut().endorsements = plan.endorsements.clone();
        builder.plan_mut().source = plan.source;
        builder.reserve(plan.steps().len());
        let root = self.root(plan);
        for step in plan.steps() {
            self.step(&mut builder, step, tables, root)?;
        }
        let moved_region = Origin::Host("relocated region");
        self.expect(&mut builder, self.region.gpa, self.region.len, moved_region)?;
        if let (Some(region), Some(tables)) = (self.tables, tables) {
            let origin = Origin::Host("relocated page tables");
            for page in region.used / PAGE_SIZE..tables.used_pages() {
                let gpa = self.moved("page table region", region.gpa + page * PAGE_SIZE)?;
                let contents = tables
                    .page(page)
                    .map_or(Contents::Zero, |bytes| Contents::Bytes(Cow::Owned(bytes)));
                let import = Import {
                    gpa,
                    len: PAGE_SIZE,
                    large: false,
                    kind: PageKind::Measured,
                    contents,
                };
                builder.import(import, origin)?;
            }
            self.expect(&mut builder, region.gpa, region.len, origin)?;
        }
        Ok(builder.finish())
    }

    fn expect(
        &self,
        builder: &mut PlanBuilder<'_>,
        gpa: u64,
        len: u64,
        origin: Origin,
    ) -> Result<(), RelocateError> {
        let gpa = self.moved("region", gpa)?;
        let vtl2_protectable = self.region.is_vtl2;
        Ok(builder.expect_memory(
            ExpectMemory {
                gpa,
                len,
                vtl2_protectable,
            },
            origin,
        )?)
    }

    /// CR3 of the VP that the page table region names: contexts with this root are fixed.
    fn root(&self, plan: &LaunchPlan<'_>) -> Option<u64> {
        let vp = self.tables?.vp;
        let (context, _) = plan.vp_contexts().find(|(c, _)| c.vp == vp)?;
        Some(context.state.to_x86()?.cr3 & PTE_ADDR)
    }

    fn step<'a>(
        &self,
        builder: &mut PlanBuilder<'a>,
        step: &Step<'a>,
        tables: Option<&PageTables>,
        root: Option<u64>,
    ) -> Result<(), RelocateError> {
        let origin = step.origin;
        match &step.kind {
            StepKind::Import(import) => {
                let mut moved = import.clone();
                moved.gpa = self.place(import.gpa, import.len, origin)?;
                if let (Some(tables), Some(page)) = (tables, self.table_page(import)) {
                    let bytes = tables.page(page);
                    moved.contents = bytes.map_or(Contents::Zero, |bytes| Contents::Bytes(Cow::Owned(bytes)));
                }
                builder.import(moved, origin)?;
            }
            StepKind::ErrorRange { gpa, len } => {
                builder.error_range(self.place(*gpa, *len, origin)?, *len, origin)?;
            }
            StepKind::ExpectMemory(expect) => {
                // A range that holds the whole region and more is about other memory, and stays.
                let starts_inside =
                    (self.region.gpa..self.region.gpa + self.region.len).contains(&expect.gpa);
                let gpa = if starts_inside {
                    self.place(expect.gpa, expect.len, origin)?
                } else {
                    expect.gpa
                };
                builder.expect_memory(ExpectMemory { gpa, ..*expect }, origin)?;
            }
            StepKind::VpContext(context) => builder.vp_context(self.context(context, root)?, origin)?,
        }
        Ok(())
    }

    fn context<'a>(
        &self,
        context: &VpContext<'a>,
        root: Option<u64>,
    ) -> Result<VpContext<'a>, RelocateError> {
        let mut moved = context.clone();
        let named = context.vp == self.region.vp;
        let shares_root = |vtl: u8, cr3: u64| {
            self.tables.is_some_and(|tables| tables.vtl == vtl) && root == Some(cr3 & PTE_ADDR)
        };
        match &mut moved.state {
            VpState::Native(native) => {
                if named && self.region.vtl == 0 && self.region.apply_pc {
                    native.rip = self.moved("rip", native.rip)?;
                }
                if named && self.region.vtl == 0 && self.region.apply_gdtr {
                    native.gdtr.base = self.moved("gdtr base", native.gdtr.base)?;
                }
                if native.cr0 & cr0::PG != 0 && shares_root(0, native.cr3) {
                    native.cr3 = self.moved("cr3", native.cr3)?;
                }
            }
            VpState::Vbs(registers) => {
                for register in registers {
                    let of_region = named && register.vtl == self.region.vtl;
                    match (register.name, &mut register.value) {
                        (VbsRegisterName::Rip, VbsValue::U64(rip)) if of_region && self.region.apply_pc => {
                            *rip = self.moved("rip", *rip)?;
                        }
                        (VbsRegisterName::Gdtr, VbsValue::Table(gdtr))
                            if of_region && self.region.apply_gdtr =>
                        {
                            gdtr.base = self.moved("gdtr base", gdtr.base)?;
                        }
                        (VbsRegisterName::Cr3, VbsValue::U64(cr3)) if shares_root(register.vtl, *cr3) => {
                            *cr3 = self.moved("cr3", *cr3)?;
                        }
                        _ => {}
                    }
                }
            }
            VpState::Vmsa(_) | VpState::Cca(_) | VpState::Aarch64Vbs(_) => {}
        }
        Ok(moved)
    }
}
