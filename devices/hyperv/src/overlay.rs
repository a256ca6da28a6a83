// SPDX-License-Identifier: MIT
//! A page of the hypervisor that covers a page of the guest's RAM (TLFS "Guest physical address space,
//! overlay pages").
//!
//! Always true: what was below comes back when the page is moved or switched off; naming the same page
//! again keeps its contents. Not here: what is in the page.

use guest_memory::DmaMemory;

const PAGE: usize = 4096;

/// Where the page is, and what it covers.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    at: Option<(u64, Box<[u8; PAGE]>)>,
}

/// The page is not RAM.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotRam;

impl Overlay {
    /// First byte of the page while it is enabled.
    pub(crate) fn gpa(&self) -> Option<u64> {
        self.at.as_ref().map(|(gpa, _)| *gpa)
    }

    /// Puts the page, beginning with `contents` and zero after that, at `gpa`, or takes it away. On an error
    /// nothing changes.
    pub(crate) fn place(
        &mut self,
        memory: &DmaMemory,
        gpa: Option<u64>,
        contents: &[u8],
    ) -> Result<(), NotRam> {
        if self.gpa() == gpa {
            return Ok(());
        }
        if let Some(gpa) = gpa
            && !memory.is_ram(gpa, PAGE as u64)
        {
            return Err(NotRam);
        }
        if let Some((old, below)) = self.at.take() {
            memory.write(old, &below[..]).map_err(|_| NotRam)?;
        }
        let Some(gpa) = gpa else { return Ok(()) };
        let mut below = Box::new([0; PAGE]);
        memory.read(gpa, &mut below[..]).map_err(|_| NotRam)?;
        let mut page = [0; PAGE];
        for (byte, value) in page.iter_mut().zip(contents) {
            *byte = *value;
        }
        memory.write(gpa, &page).map_err(|_| NotRam)?;
        self.at = Some((gpa, below));
        Ok(())
    }

    /// Forgets the page without giving anything back: RAM starts anew too.
    pub(crate) fn forget(&mut self) {
        self.at = None;
    }
}
