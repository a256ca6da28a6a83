// SPDX-License-Identifier: MIT
//! Allocation and checked access.

use crate::dma::DmaMemory;
use crate::generations::PageGenerations;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion,
};

/// RAM as rust-vmm crates take it (`virtio-queue`): every write through it bumps page generations.
pub type GuestRam = GuestMemoryMmap<PageGenerations>;
type Region = GuestRegionMmap<PageGenerations>;

const PAGE: u64 = 4096;
/// Transparent huge pages only pay off for regions of at least this size.
const HUGE: u64 = 2 << 20;

/// What can go wrong with guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A range of the layout is empty, misaligned or wraps.
    #[error(
        "ram range at gpa {gpa:#x} with {len:#x} bytes is empty, not page aligned or wraps the address space"
    )]
    BadRange {
        /// First byte.
        gpa: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Two ranges overlap.
    #[error("ram at gpa {gpa:#x} overlaps the range before it")]
    Overlap {
        /// First byte of the later range.
        gpa: u64,
    },
    /// The host refused the mapping.
    #[error("cannot map {len:#x} bytes of guest memory for gpa {gpa:#x}: {reason}")]
    Map {
        /// First byte.
        gpa: u64,
        /// Length in bytes.
        len: u64,
        /// The host's answer.
        reason: String,
    },
    /// An access is not wholly inside RAM.
    #[error("access of {len:#x} bytes at gpa {gpa:#x} is not wholly inside ram")]
    OutOfRange {
        /// First byte.
        gpa: u64,
        /// Length in bytes.
        len: u64,
    },
}

/// One contiguous piece of RAM, for backends that map it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamRegion {
    /// First guest physical byte address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
    /// Host virtual address of the first byte. Valid as long as any clone of the [`GuestMemory`] lives.
    pub host: usize,
}

/// One page of RAM as the software CPU sees it.
#[derive(Debug, Clone, Copy)]
pub struct RamPage<'a> {
    /// Host address of the page's 4096 bytes. Shared with devices and other VPs: access it with
    /// volatile or atomic operations only.
    pub host: *mut u8,
    /// Changes whenever a device or loader wrote the page.
    pub generation: &'a AtomicU32,
}

struct Inner {
    map: GuestRam,
    regions: Vec<RamRegion>,
    /// Per region, shared with the map.
    generations: Vec<PageGenerations>,
}

/// All RAM of a partition. Clones share it.
#[derive(Clone)]
pub struct GuestMemory {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.inner.regions).finish()
    }
}

impl GuestMemory {
    /// Allocates zeroed RAM at the given `(gpa, len)` ranges, which must be page aligned and disjoint;
    /// they are sorted. Nothing is committed until it is touched.
    pub fn allocate(ranges: &[(u64, u64)]) -> Result<Self, MemoryError> {
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable();
        let mut end = 0;
        let mut parts = Vec::with_capacity(sorted.len());
        let mut regions = Vec::with_capacity(sorted.len());
        for &(gpa, len) in &sorted {
            let bad = len == 0 || gpa % PAGE != 0 || len % PAGE != 0 || gpa.checked_add(len).is_none();
            if bad || usize::try_from(len).is_err() {
                return Err(MemoryError::BadRange { gpa, len });
            }
            if gpa < end {
                return Err(MemoryError::Overlap { gpa });
            }
            end = gpa + len;
            let (region, host) = map_region(gpa, len)?;
            regions.push(RamRegion { gpa, len, host });
            parts.push(region);
        }
        let map = GuestRam::from_regions(parts).map_err(|e| MemoryError::Map {
            gpa: 0,
            len: end,
            reason: e.to_string(),
        })?;
        let generations = map.iter().map(|part| (**part).bitmap().clone()).collect();
        Ok(Self {
            inner: Arc::new(Inner {
                map,
                regions,
                generations,
            }),
        })
    }

    /// The regions in ascending order.
    pub fn regions(&self) -> &[RamRegion] {
        &self.inner.regions
    }

    /// Whether `len` bytes from `gpa` are RAM (possibly over several adjacent regions).
    pub fn is_ram(&self, gpa: u64, len: u64) -> bool {
        let Ok(len) = usize::try_from(len) else {
            return false;
        };
        self.inner.map.check_range(GuestAddress(gpa), len)
    }

    /// Reads RAM; the whole range must be RAM.
    pub fn read(&self, gpa: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        let err = MemoryError::OutOfRange {
            gpa,
            len: data.len() as u64,
        };
        self.inner
            .map
            .read_slice(data, GuestAddress(gpa))
            .map_err(|_| err)
    }

    /// All RAM, for rust-vmm crates.
    pub(crate) fn ram(&self) -> &GuestRam {
        &self.inner.map
    }

    /// Writes RAM and bumps the generations of the pages; the whole range must be RAM, else nothing is
    /// written.
    pub fn write(&self, gpa: u64, data: &[u8]) -> Result<(), MemoryError> {
        if !self.is_ram(gpa, data.len() as u64) {
            return Err(MemoryError::OutOfRange {
                gpa,
                len: data.len() as u64,
            });
        }
        let err = MemoryError::OutOfRange {
            gpa,
            len: data.len() as u64,
        };
        self.inner
            .map
            .write_slice(data, GuestAddress(gpa))
            .map_err(|_| err)
    }

    /// Returns all RAM to zero by giving the pages back to the host. Generations stay as they are
    /// (touching all of them would cost memory in proportion to RAM): a reset drops translations anyway.
    pub fn zero(&self) -> Result<(), MemoryError> {
        self.zero_except(&[])
    }

    /// Like [`GuestMemory::zero`], but the whole pages of the `(gpa, len)` ranges in `kept` stay as they are.
    pub fn zero_except(&self, kept: &[(u64, u64)]) -> Result<(), MemoryError> {
        let mut kept = kept.to_vec();
        kept.sort_unstable();
        for r in &self.inner.regions {
            let (mut from, end) = (r.gpa, r.gpa + r.len);
            for &(gpa, len) in &kept {
                let stop = gpa.checked_next_multiple_of(PAGE).unwrap_or(end).clamp(from, end);
                self.drop_pages(r, from, stop)?;
                from = (gpa.saturating_add(len) & !(PAGE - 1)).clamp(stop, end);
            }
            self.drop_pages(r, from, end)?;
        }
        Ok(())
    }

    /// Replaces the pages `from..to` of `r`, which are inside it and page aligned, by zeros.
    fn drop_pages(&self, r: &RamRegion, from: u64, to: u64) -> Result<(), MemoryError> {
        if from >= to {
            return Ok(());
        }
        let (host, len) = (r.host + (from - r.gpa) as usize, to - from);
        // SAFETY: the range is part of a private anonymous mapping that `inner` owns; MADV_DONTNEED only
        // replaces its contents by zeros. VPs are stopped by the caller's contract (reset).
        let rc = unsafe { libc::madvise(host as *mut libc::c_void, len as usize, libc::MADV_DONTNEED) };
        if rc != 0 {
            let reason = std::io::Error::last_os_error().to_string();
            return Err(MemoryError::Map {
                gpa: from,
                len,
                reason,
            });
        }
        Ok(())
    }

    /// A handle for devices.
    pub fn dma(&self) -> DmaMemory {
        DmaMemory::new(self.clone())
    }

    /// The page `gpn`, when it is RAM.
    pub fn page(&self, gpn: u64) -> Option<RamPage<'_>> {
        let gpa = gpn.checked_mul(PAGE)?;
        let i = self
            .inner
            .regions
            .partition_point(|r| r.gpa <= gpa)
            .checked_sub(1)?;
        let r = &self.inner.regions[i];
        let offset = gpa - r.gpa;
        let generation = self.inner.generations[i].page((offset / PAGE) as usize)?;
        Some(RamPage {
            host: (r.host + offset as usize) as *mut u8,
            generation,
        })
    }
}

/// Maps one anonymous private region without reserving swap, huge-page advised.
fn map_region(gpa: u64, len: u64) -> Result<(Region, usize), MemoryError> {
    let err = |reason: String| MemoryError::Map { gpa, len, reason };
    let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE;
    let region = MmapRegion::build(None, len as usize, libc::PROT_READ | libc::PROT_WRITE, flags)
        .map_err(|e| err(e.to_string()))?;
    let host = region.as_ptr() as usize;
    if len >= HUGE {
        // SAFETY: the range is the mapping just made; the advice changes no contents. A kernel without
        // transparent huge pages refuses it, which is harmless.
        let _ = unsafe { libc::madvise(host as *mut libc::c_void, len as usize, libc::MADV_HUGEPAGE) };
    }
    let region = Region::new(region, GuestAddress(gpa)).ok_or_else(|| err("address overflow".into()))?;
    debug_assert_eq!(region.len(), len);
    Ok((region, host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn memory_is_zero_and_keeps_what_is_written_until_zeroed() {
        let m = GuestMemory::allocate(&[(0, 0x4000), (0x1_0000, 0x1000)]).unwrap();
        let mut b = [1; 4];
        m.read(0x3FFC, &mut b).unwrap();
        assert_eq!(b, [0; 4]);
        m.write(0xFFE, &[1, 2, 3, 4]).unwrap();
        m.read(0xFFE, &mut b).unwrap();
        assert_eq!(b, [1, 2, 3, 4]);
        m.zero().unwrap();
        m.read(0xFFE, &mut b).unwrap();
        assert_eq!(b, [0; 4]);
    }

    #[test]
    fn kept_ranges_survive_zeroing_and_nothing_else_does() {
        let m = GuestMemory::allocate(&[(0, 0x4000), (0x1_0000, 0x2000)]).unwrap();
        let pages = [0, 0x1000, 0x2000, 0x3000, 0x1_0000, 0x1_1000];
        pages.iter().for_each(|&gpa| m.write(gpa, &[1]).unwrap());
        m.zero_except(&[(0x1_1000, u64::MAX - 0x1_1000), (0x1000, 0x1000), (0x1000, 0x800)])
            .unwrap();
        let left = pages.map(|gpa| {
            let mut b = [9];
            m.read(gpa, &mut b).unwrap();
            b[0]
        });
        assert_eq!(left, [0, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn access_across_a_hole_is_refused_and_writes_nothing() {
        let m = GuestMemory::allocate(&[(0, 0x1000), (0x2000, 0x1000)]).unwrap();
        assert!(m.write(0xFFE, &[1, 2, 3, 4]).is_err());
        let mut b = [9; 2];
        m.read(0xFFE, &mut b).unwrap();
        assert_eq!(b, [0, 0]);
        assert!(m.read(u64::MAX - 1, &mut b).is_err());
    }

    #[test]
    fn writes_bump_the_generation_of_each_page_they_touch() {
        let m = GuestMemory::allocate(&[(0, 0x3000)]).unwrap();
        let generation = |gpn| m.page(gpn).unwrap().generation.load(Ordering::Relaxed);
        m.write(0xFFF, &[1, 2]).unwrap();
        assert_eq!((generation(0), generation(1), generation(2)), (1, 1, 0));
        assert!(m.page(3).is_none());
    }

    #[test]
    fn bad_layouts_are_refused() {
        assert!(matches!(
            GuestMemory::allocate(&[(0, 0)]),
            Err(MemoryError::BadRange { .. })
        ));
        assert!(matches!(
            GuestMemory::allocate(&[(1, 0x1000)]),
            Err(MemoryError::BadRange { .. })
        ));
        assert!(matches!(
            GuestMemory::allocate(&[(0, 0x2000), (0x1000, 0x1000)]),
            Err(MemoryError::Overlap { gpa: 0x1000 })
        ));
    }
}
