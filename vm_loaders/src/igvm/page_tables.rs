// SPDX-License-Identifier: MIT
//! Page-table fix-up of a moved image (`igvm-format.md` section 4, `IGVM_VHS_PAGE_TABLE_RELOCATION`).
//!
//! Always true: tables live in one region that moves by the same distance as the image; a table is
//! visited once, so loops end; new tables come from the region's spare room only. Mappings stay identity.
//! Not here: which registers move (`relocate`).

use std::collections::{BTreeMap, BTreeSet};
use x86defs::paging::{PAGE_SIZE, PTE_A, PTE_ADDR, PTE_P, PTE_PS, PTE_W};

const ENTRIES: usize = 512;

/// One page of entries.
pub(super) type Table = [u64; ENTRIES];

/// Why page tables cannot be fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PageTableError {
    #[error("the table at gpa {gpa:#x} is behind the used part of the page table region")]
    NotInUse { gpa: u64 },
    #[error("the table at gpa {gpa:#x} is referred to twice")]
    Shared { gpa: u64 },
    #[error("va {va:#x} maps pa {pa:#x}; only identity mappings can be moved")]
    NotIdentity { va: u64, pa: u64 },
    #[error(
        "the mapping of {size:#x} bytes at va {va:#x} cannot move by {delta:#x}, which is not aligned to it"
    )]
    Unaligned { va: u64, size: u64, delta: i128 },
    #[error("the mapping that moves to va {va:#x} meets another one there")]
    Conflict { va: u64 },
    #[error("va {va:#x} cannot be mapped with {levels} levels")]
    Unmappable { va: u64, levels: u32 },
    #[error("the way to va {va:#x} leads through a table outside the page table region")]
    Outside { va: u64 },
    #[error("the page table region of {len:#x} bytes has no room for another table")]
    NoRoom { len: u64 },
}

/// The tables of a region, by page number within it. Pages that the image leaves out are zero.
#[derive(Debug)]
pub(super) struct PageTables {
    gpa: u64,
    len: u64,
    /// Pages in use, then pages in use after [`Self::fix`].
    used: u64,
    tables: BTreeMap<u64, Box<Table>>,
}

/// A move: the ranges that change place, as (first, last), and by how much.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move<'m> {
    pub(super) ranges: &'m [(u64, u64)],
    pub(super) delta: i128,
}

impl Move<'_> {
    fn apply(&self, address: u64) -> Option<u64> {
        u64::try_from(i128::from(address) + self.delta).ok()
    }

    fn touches(&self, first: u64, last: u64) -> bool {
        self.ranges
            .iter()
            .any(|&(start, end)| start <= last && first <= end)
    }
}

impl PageTables {
    /// An empty region.
    pub(super) fn new(gpa: u64, len: u64, used: u64) -> Self {
        Self {
            gpa,
            len,
            used: used / PAGE_SIZE,
            tables: BTreeMap::new(),
        }
    }

    /// Sets a page from the image.
    pub(super) fn set(&mut self, page: u64, bytes: &[u8]) {
        let mut table = Box::new([0; ENTRIES]);
        for (entry, raw) in table.iter_mut().zip(bytes.chunks_exact(8)) {
            *entry = raw
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u64::from(byte));
        }
        self.tables.insert(page, table);
    }

    /// A page as bytes; `None` when it is zero because nothing was ever set.
    pub(super) fn page(&self, page: u64) -> Option<Vec<u8>> {
        let table = self.tables.get(&page)?;
        Some(table.iter().flat_map(|entry| entry.to_le_bytes()).collect())
    }

    /// Pages in use.
    pub(super) fn used_pages(&self) -> u64 {
        self.used
    }

    /// Moves pointers and leaves; `root` is the root table at the image's own addresses.
    pub(super) fn fix(&mut self, root: u64, levels: u32, moving: Move<'_>) -> Result<(), PageTableError> {
        let mut walk = Walk {
            moving,
            levels,
            leaves: BTreeMap::new(),
            visited: BTreeSet::new(),
            region: (self.gpa, self.len),
        };
        let root_page = self
            .page_of(root, self.gpa)
            .ok_or(PageTableError::Outside { va: 0 })?;
        walk.table(self, root_page, levels - 1, 0)?;
        let leaves = walk.leaves;
        for (va, (level, entry)) in leaves {
            self.place(root_page, levels, moving, (va, level, entry))?;
        }
        Ok(())
    }

    /// The page number of `gpa` in the region when that starts at `base`.
    fn page_of(&self, gpa: u64, base: u64) -> Option<u64> {
        let offset = gpa.checked_sub(base)?;
        (offset < self.len).then_some(offset / PAGE_SIZE)
    }

    /// Writes a moved leaf, making tables on the way down.
    fn place(
        &mut self,
        root_page: u64,
        levels: u32,
        moving: Move<'_>,
        (va, target, leaf): (u64, u32, u64),
    ) -> Result<(), PageTableError> {
        let base = moving.apply(self.gpa).ok_or(PageTableError::Outside { va })?;
        let mut page = root_page;
        for level in (target + 1..levels).rev() {
            let entry = self.entry(page, va, level);
            if *entry & PTE_P == 0 {
                let new = self.allocate(base)?;
                *self.entry(page, va, level) = new | PTE_P | PTE_W | PTE_A;
                page = self.used - 1;
                continue;
            }
            if is_leaf(*entry, level) {
                return Err(PageTableError::Conflict { va });
            }
            let next = *entry & PTE_ADDR;
            page = self
                .page_of(next, base)
                .filter(|&n| n < self.used)
                .ok_or(PageTableError::Outside { va })?;
        }
        let entry = self.entry(page, va, target);
        if *entry & PTE_P != 0 && *entry != leaf {
            return Err(PageTableError::Conflict { va });
        }
        *entry = leaf;
        Ok(())
    }

    fn allocate(&mut self, base: u64) -> Result<u64, PageTableError> {
        if (self.used + 1) * PAGE_SIZE > self.len {
            return Err(PageTableError::NoRoom { len: self.len });
        }
        let gpa = base + self.used * PAGE_SIZE;
        self.tables.insert(self.used, Box::new([0; ENTRIES]));
        self.used += 1;
        Ok(gpa)
    }

    fn entry(&mut self, page: u64, va: u64, level: u32) -> &mut u64 {
        let table = self.tables.entry(page).or_insert_with(|| Box::new([0; ENTRIES]));
        &mut table[(va >> (12 + 9 * level)) as usize % ENTRIES]
    }
}

/// Bit 7 makes a leaf at the 2 MiB and 1 GiB levels; every entry of the last level is one.
fn is_leaf(entry: u64, level: u32) -> bool {
    level == 0 || (level <= 2 && entry & PTE_PS != 0)
}

/// The first pass: fixes pointers, takes out the leaves that have to move.
struct Walk<'m> {
    moving: Move<'m>,
    levels: u32,
    /// New address to (level, entry).
    leaves: BTreeMap<u64, (u32, u64)>,
    visited: BTreeSet<u64>,
    region: (u64, u64),
}

impl Walk<'_> {
    fn table(
        &mut self,
        tables: &mut PageTables,
        page: u64,
        level: u32,
        va: u64,
    ) -> Result<(), PageTableError> {
        let gpa = self.region.0 + page * PAGE_SIZE;
        if page >= tables.used {
            return Err(PageTableError::NotInUse { gpa });
        }
        if !self.visited.insert(page) {
            return Err(PageTableError::Shared { gpa });
        }
        let Some(mut table) = tables.tables.remove(&page) else {
            return Ok(());
        };
        for (index, entry) in table.iter_mut().enumerate() {
            if *entry & PTE_P == 0 {
                continue;
            }
            let va = va | (index as u64) << (12 + 9 * level);
            if is_leaf(*entry, level) {
                self.leaf(entry, level, va)?;
                continue;
            }
            let next = *entry & PTE_ADDR;
            // A table outside the region stays where it is and is not walked.
            let Some(next_page) = tables.page_of(next, self.region.0) else {
                continue;
            };
            let moved = self.moving.apply(next).ok_or(PageTableError::Outside { va })?;
            *entry = (*entry & !PTE_ADDR) | moved;
            self.table(tables, next_page, level - 1, va)?;
        }
        tables.tables.insert(page, table);
        Ok(())
    }

    fn leaf(&mut self, entry: &mut u64, level: u32, va: u64) -> Result<(), PageTableError> {
        let size = 1u64 << (12 + 9 * level);
        let delta = self.moving.delta;
        // Within the span of the leaf nothing has to move.
        if !self.moving.touches(va, va + (size - 1)) || delta.unsigned_abs() < u128::from(size) {
            return Ok(());
        }
        let pa = *entry & PTE_ADDR & !(size - 1);
        if pa != va {
            return Err(PageTableError::NotIdentity { va, pa });
        }
        if delta % i128::from(size) != 0 {
            return Err(PageTableError::Unaligned { va, size, delta });
        }
        let levels = self.levels;
        let new = self
            .moving
            .apply(va)
            .filter(|new| new >> (12 + 9 * levels - 1) == 0 && new & !PTE_ADDR == 0);
        let new = new.ok_or(PageTableError::Unmappable { va, levels })?;
        // Bits below the size (such as PAT of a large leaf) stay.
        let moved = (*entry & !(PTE_ADDR & !(size - 1))) | new;
        if self.leaves.insert(new, (level, moved)).is_some() {
            return Err(PageTableError::Conflict { va: new });
        }
        *entry = 0;
        Ok(())
    }
}
