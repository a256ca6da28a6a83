// SPDX-License-Identifier: MIT
//! The model's physical memory: pages behind guest_memfds, save areas and firmware contexts, invented
//! addresses for the caller's own pages, and the reverse map table (`spec/sev.md` 4.2, 4.4).
//!
//! Always true: no two neighbours are contiguous and no physical address equals the gpa that it backs, so
//! whoever mixes them up is found out; a page without an entry in the table is the hypervisor's (shared).
//! Contents of pages here are the guest's view: the host has none.
//! Not here: which gpa is backed by what (slots), and who may ask.

use crate::ranges::Ranges;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// As a length.
pub(crate) const PAGE_LEN: u64 = PAGE as u64;

/// What the table says of an assigned page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RmpEntry {
    /// Owner; 0 is the firmware.
    pub(crate) asid: u32,
    /// Where the owner sees it.
    pub(crate) gpa: u64,
    /// The firmware makes the next transition.
    pub(crate) immutable: bool,
    /// The guest may use it.
    pub(crate) validated: bool,
    /// It holds a VP's save area.
    pub(crate) save_area: bool,
    /// Permissions by VMPL.
    pub(crate) permissions: [u8; 4],
}

/// All permissions: read, write, execute in user and supervisor mode.
pub(crate) const ALL_PERMISSIONS: u8 = 0xF;

/// A guest_memfd.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memfd {
    /// The VM that it was made for.
    pub(crate) vm: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// Page index to physical address.
    pub(crate) pages: BTreeMap<u64, u64>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Physical {
    taken: u64,
    frames: HashMap<u64, Box<[u8; PAGE]>>,
    rmp: HashMap<u64, RmpEntry>,
    /// By descriptor.
    pub(crate) memfds: BTreeMap<i32, Memfd>,
    /// Page number in the caller's address space to physical address.
    own_pages: BTreeMap<u64, u64>,
    /// Page numbers in the caller's address space.
    encrypted: Ranges,
}

impl Physical {
    /// A new address: every third page from 1 TiB on.
    fn take(&mut self) -> u64 {
        self.taken += 1;
        (1 << 40) + self.taken * 3 * PAGE_LEN
    }

    /// A new page of zeros.
    pub(crate) fn allocate(&mut self) -> u64 {
        let address = self.take();
        self.frames.insert(address, Box::new([0; PAGE]));
        address
    }

    /// Gives a page back; its entry in the table goes with it.
    pub(crate) fn free(&mut self, address: u64) {
        self.frames.remove(&address);
        self.rmp.remove(&address);
    }

    /// The contents of a page, `None` when it was never allocated.
    pub(crate) fn frame(&mut self, address: u64) -> Option<&mut [u8; PAGE]> {
        self.frames.get_mut(&address).map(|frame| &mut **frame)
    }

    /// A copy of the contents, zeros when there is no such page.
    pub(crate) fn contents(&self, address: u64) -> Box<[u8; PAGE]> {
        self.frames
            .get(&address)
            .cloned()
            .unwrap_or_else(|| Box::new([0; PAGE]))
    }

    pub(crate) fn rmp(&self, address: u64) -> Option<RmpEntry> {
        self.rmp.get(&address).copied()
    }

    pub(crate) fn rmp_mut(&mut self, address: u64) -> Option<&mut RmpEntry> {
        self.rmp.get_mut(&address)
    }

    /// RMPUPDATE: assigns a page, or takes it back with `None`.
    pub(crate) fn assign(&mut self, address: u64, entry: Option<RmpEntry>) {
        match entry {
            Some(entry) => self.rmp.insert(address, entry),
            None => self.rmp.remove(&address),
        };
    }

    /// How many pages are not the hypervisor's.
    pub(crate) fn assigned(&self) -> usize {
        self.rmp.len()
    }

    /// The physical page behind a page of the caller's own memory.
    pub(crate) fn own_page(&mut self, host: u64) -> u64 {
        let page = host / PAGE_LEN;
        if let Some(known) = self.own_pages.get(&page) {
            return *known;
        }
        let address = self.take();
        self.own_pages.insert(page, address);
        address
    }

    /// Remembers that a page of the caller's memory was encrypted in place by a launch.
    pub(crate) fn note_encrypted(&mut self, host: u64) {
        let page = host / PAGE_LEN;
        self.encrypted.insert(page..page + 1);
    }

    /// Which of the caller's pages were.
    pub(crate) fn encrypted_pages(&self, host: u64, pages: u64) -> Vec<Range<u64>> {
        let first = host / PAGE_LEN;
        self.encrypted.parts_in(first..first + pages)
    }

    /// Forgets the caller's pages from `host` on: they belong to a VM that is gone.
    pub(crate) fn forget(&mut self, host: u64, pages: u64) {
        let range = host / PAGE_LEN..host / PAGE_LEN + pages;
        self.encrypted.remove(range.clone());
        self.own_pages.retain(|page, _| !range.contains(page));
    }

    /// The page of a guest_memfd, made on first use; `None` when the descriptor is not one.
    pub(crate) fn memfd_page(&mut self, descriptor: i32, index: u64) -> Option<u64> {
        if let Some(known) = self.memfds.get(&descriptor)?.pages.get(&index) {
            return Some(*known);
        }
        let address = self.allocate();
        self.memfds.get_mut(&descriptor)?.pages.insert(index, address);
        Some(address)
    }

    /// The page of a guest_memfd if it was ever used.
    pub(crate) fn memfd_page_if_used(&self, descriptor: i32, index: u64) -> Option<u64> {
        self.memfds.get(&descriptor)?.pages.get(&index).copied()
    }

    /// The pages of a guest_memfd in a range that were ever used: index and physical address.
    pub(crate) fn memfd_pages(
        &self,
        descriptor: i32,
        range: Range<u64>,
    ) -> impl Iterator<Item = (u64, u64)> + '_ {
        let memfd = self.memfds.get(&descriptor);
        let pages = memfd.map(|memfd| memfd.pages.range(range));
        pages.into_iter().flatten().map(|(index, page)| (*index, *page))
    }

    /// Punches a hole: pages and their table entries are gone.
    pub(crate) fn punch(&mut self, descriptor: i32, pages: Range<u64>) {
        let Some(memfd) = self.memfds.get_mut(&descriptor) else {
            return;
        };
        let gone: Vec<u64> = memfd.pages.range(pages).map(|(index, _)| *index).collect();
        let addresses: Vec<u64> = gone
            .iter()
            .filter_map(|index| memfd.pages.remove(index))
            .collect();
        addresses.into_iter().for_each(|address| self.free(address));
    }

    /// Ends a guest_memfd.
    pub(crate) fn drop_memfd(&mut self, descriptor: i32) {
        self.punch(descriptor, 0..u64::MAX);
        self.memfds.remove(&descriptor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn physical_pages_are_never_contiguous_and_holes_return_their_entries() {
        let mut physical = Physical::default();
        physical.memfds.insert(
            9,
            Memfd {
                size: 3 * PAGE_LEN,
                ..Default::default()
            },
        );
        let pages: Vec<u64> = (0..3).map(|n| physical.memfd_page(9, n).unwrap()).collect();
        assert!(pages.windows(2).all(|two| two[0].abs_diff(two[1]) > PAGE_LEN));
        assert_eq!(physical.memfd_page(9, 1), Some(pages[1]));
        assert_eq!(physical.own_page(0x5123), physical.own_page(0x5FFF));
        let entry = RmpEntry {
            asid: 1,
            gpa: 0x1000,
            immutable: false,
            validated: true,
            save_area: false,
            permissions: [ALL_PERMISSIONS, 0, 0, 0],
        };
        physical.assign(pages[1], Some(entry));
        physical.frame(pages[1]).unwrap()[0] = 7;
        physical.punch(9, 1..2);
        assert_eq!(
            (physical.assigned(), physical.memfd_page_if_used(9, 1)),
            (0, None)
        );
        let again = physical.memfd_page(9, 1).unwrap();
        assert_eq!(physical.contents(again)[0], 0);
        physical.drop_memfd(9);
        assert_eq!(physical.memfd_page(9, 1), None);
    }
}
