// SPDX-License-Identifier: MIT
//! Guest RAM pages in the form that the engine takes.

use crate::Ram;
use guest_memory::GuestMemory;

impl Ram {
    pub(crate) fn new(memory: GuestMemory) -> Self {
        Self(memory)
    }

    /// All of it.
    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.0
    }

    /// The page `gpn` when it is RAM.
    pub(crate) fn page(&self, gpn: u64) -> Option<x86emu::RamPage> {
        let page = self.0.page(gpn)?;
        // SAFETY: the page is 4096 bytes of a page-aligned mapping, its generation lives beside it, and
        // both stay valid while `self` holds the memory; the runner drops its processors before it drops
        // this. Nobody makes references into guest RAM: devices go through volatile copies.
        Some(unsafe { x86emu::RamPage::new(page.host, page.generation, true) })
    }
}
