// SPDX-License-Identifier: MIT
//! Page walks (APM2 chapter 5): legacy 2-level, PAE 3-level and long-mode 4-level, with accessed and
//! dirty bits, NX, WP, SMEP and SMAP.
//!
//! Always true: a failed walk stops with #PF and its error code, or #GP/#SS for a non-canonical
//! address, and changes nothing but accessed bits. Not here: caching, five-level paging (not advertised).

use crate::bus::Bus;
use crate::core::{Core, Stop};
use crate::mem::{ALIGNED, Access};
use x86defs::paging::{PTE_A, PTE_D, PTE_NX, PTE_P, PTE_PS, PTE_U, PTE_W};
use x86defs::{cr0, cr4, efer, vector};

const ERROR_P: u32 = 1;
const ERROR_W: u32 = 2;
const ERROR_U: u32 = 4;
const ERROR_RSVD: u32 = 8;
const ERROR_I: u32 = 16;

/// Whether bits 63 to 47 of an address are equal.
pub(crate) fn is_canonical(la: u64) -> bool {
    (la as i64) << 16 >> 16 == la as i64
}

/// Address bits below a large page's size that must be zero: from bit 13 on, as bit 12 is PAT; with 4-byte
/// entries the higher ones extend the address, but for bit 21 (APM2 section 5.3.4, 5.2.2).
fn reserved_address(shift: u32, wide: bool) -> u64 {
    if wide { (1 << shift) - 0x2000 } else { 1 << 21 }
}

/// One level of a walk: index shift of the linear address, and whether a leaf may be here.
struct Level {
    shift: u32,
    leaf: bool,
}

impl Core {
    /// Translates a linear address in the current regime.
    pub(crate) fn walk(&mut self, bus: &mut dyn Bus, la: u64, access: Access) -> Result<u64, Stop> {
        if self.cr0 & cr0::PG == 0 {
            return Ok(la & 0xFFFF_FFFF);
        }
        if self.is_long() && !is_canonical(la) {
            self.fault_la = la;
            return self.gp(0);
        }
        loop {
            match self.walk_once(bus, la, access) {
                Ok(Some(gpa)) => return Ok(gpa),
                Ok(None) => {}
                Err(code) => {
                    self.fault_la = la;
                    return self.fault(vector::PF, code | self.access_code(access));
                }
            }
        }
    }

    /// Whether the current regime has the rights of user mode.
    fn is_user(&self) -> bool {
        matches!(self.regime, 1 | ALIGNED)
    }

    fn access_code(&self, access: Access) -> u32 {
        let user = if self.is_user() { ERROR_U } else { 0 };
        let nx = self.efer & efer::NXE != 0 && self.cr4 & cr4::PAE != 0;
        user | match access {
            Access::Read => 0,
            Access::Write => ERROR_W,
            Access::Exec if nx || self.cr4 & cr4::SMEP != 0 => ERROR_I,
            Access::Exec => 0,
        }
    }

    /// One attempt; `Ok(None)` when an entry changed under the walk.
    fn walk_once(&mut self, bus: &mut dyn Bus, la: u64, access: Access) -> Result<Option<u64>, u32> {
        const L4: [Level; 4] = [
            Level {
                shift: 39,
                leaf: false,
            },
            Level {
                shift: 30,
                leaf: true,
            },
            Level {
                shift: 21,
                leaf: true,
            },
            Level {
                shift: 12,
                leaf: true,
            },
        ];
        const L3: [Level; 3] = [
            Level {
                shift: 30,
                leaf: false,
            },
            Level {
                shift: 21,
                leaf: true,
            },
            Level {
                shift: 12,
                leaf: true,
            },
        ];
        const L2: [Level; 2] = [
            Level {
                shift: 22,
                leaf: true,
            },
            Level {
                shift: 12,
                leaf: true,
            },
        ];
        if self.is_long() {
            self.walk_levels(bus, la, access, &L4, self.cr3 & self.phys_mask & !0xFFF)
        } else if self.cr4 & cr4::PAE != 0 {
            self.walk_levels(bus, la, access, &L3, self.cr3 & 0xFFFF_FFE0)
        } else {
            self.walk_levels(bus, la, access, &L2, self.cr3 & 0xFFFF_F000)
        }
    }

    fn walk_levels(
        &mut self,
        bus: &mut dyn Bus,
        la: u64,
        access: Access,
        levels: &[Level],
        root: u64,
    ) -> Result<Option<u64>, u32> {
        let wide = levels.len() > 2;
        let (size, index_bits) = if wide { (8, 9) } else { (4, 10) };
        let pdpte = levels.len() == 3;
        let mut table = root;
        let mut rights = PTE_W | PTE_U;
        for (n, level) in levels.iter().enumerate() {
            let top_pae = pdpte && n == 0;
            let index = la >> level.shift & if top_pae { 3 } else { (1 << index_bits) - 1 };
            let at = table + index * size;
            let Some(page) = self.phys_page(bus, at >> 12) else {
                return Err(0);
            };
            let e = page.entry(at, wide);
            if e & PTE_P == 0 {
                return Err(0);
            }
            if self.reserved(e, wide, top_pae) {
                return Err(ERROR_P | ERROR_RSVD);
            }
            if !top_pae {
                rights = rights & (e | PTE_NX) | (rights | e) & PTE_NX;
                rights &= PTE_W | PTE_U | PTE_NX;
            }
            let last = level.shift == 12;
            let large = !last && e & PTE_PS != 0 && (wide || self.cr4 & cr4::PSE != 0);
            if large && !level.leaf {
                return Err(ERROR_P | ERROR_RSVD);
            }
            if large && e & reserved_address(level.shift, wide) != 0 {
                return Err(ERROR_P | ERROR_RSVD);
            }
            if last || large {
                let leaf = self.leaf(e, la, level.shift, wide);
                self.check(rights, access)?;
                let want = PTE_A | if access == Access::Write { PTE_D } else { 0 };
                if e & want != want && !page.set_entry_bits(at, wide, e, want) {
                    return Ok(None);
                }
                return Ok(Some(leaf));
            }
            if e & PTE_A == 0 && !top_pae && !page.set_entry_bits(at, wide, e, PTE_A) {
                return Ok(None);
            }
            table = e & if wide {
                self.phys_mask & !0xFFF
            } else {
                0xFFFF_F000
            };
        }
        Err(0)
    }

    fn leaf(&self, e: u64, la: u64, shift: u32, wide: bool) -> u64 {
        let offset = (1u64 << shift) - 1;
        if !wide && shift == 22 {
            // PSE-36: bits 13 to 20 are address bits 32 to 39.
            return (e & 0xFFC0_0000) | (e >> 13 & 0xFF) << 32 | la & offset;
        }
        let mask = if wide { self.phys_mask } else { 0xFFFF_FFFF };
        (e & mask & !offset & !0xFFF) | la & offset
    }

    fn reserved(&self, e: u64, wide: bool, top_pae: bool) -> bool {
        if !wide {
            return false;
        }
        let mut bad = 0x000F_FFFF_FFFF_F000 & !self.phys_mask;
        if self.efer & efer::NXE == 0 {
            bad |= PTE_NX;
        }
        if top_pae {
            bad |= 0xFFF0_0000_0000_01E6;
        } else if !self.is_long() {
            bad |= 0x7FF0_0000_0000_0000;
        }
        e & bad != 0
    }

    /// `rights`: AND of the W and U bits on the way, OR of the NX bits.
    fn check(&self, rights: u64, access: Access) -> Result<(), u32> {
        let user_page = rights & PTE_U != 0;
        let user = self.is_user();
        let denied = (user && !user_page)
            || match access {
                Access::Read => !user && user_page && self.regime == 2,
                Access::Write => {
                    let read_only = rights & PTE_W == 0 && (user || self.cr0 & cr0::WP != 0);
                    read_only || (!user && user_page && self.regime == 2)
                }
                Access::Exec => {
                    let smep = !user && user_page && self.cr4 & cr4::SMEP != 0;
                    smep || rights & PTE_NX != 0
                }
            };
        if denied { Err(ERROR_P) } else { Ok(()) }
    }
}
