// SPDX-License-Identifier: MIT
//! The register ioctls: raw structures in, state out, with SVM's quirks (`spec/sev.md` 0 fact 9, 4.5).
//!
//! Always true: a refused structure changes nothing. Structures are taken apart at the offsets of the
//! kernel's header, not by the types of `kvm_sys`. Not here: whether a sealed VP may be asked at all.

use super::{CS, DS, ES, FS, GS, Leaf, REGS, RFLAGS, SS, Segment, TR, Vcpu};
use crate::firmware::{le, le32, put};
use libc::EINVAL;

pub(crate) const SREGS_LEN: usize = 0x138;
pub(crate) const DEBUGREGS_LEN: usize = 128;
pub(crate) const XCRS_LEN: usize = 392;
pub(crate) const XSAVE_LEN: usize = 4096;
/// Bytes of a CPUID leaf.
pub(crate) const LEAF_LEN: usize = 40;

const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
const CR0_CD: u64 = 1 << 30;
const CR0_NW: u64 = 1 << 29;
const CR4_PAE: u64 = 1 << 5;
/// VME to OSXMMEXCPT, UMIP, LA57, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE, CET.
const CR4_KNOWN: u64 = 0xF7_1FFF;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_SVME: u64 = 1 << 12;
/// SCE, LME, LMA, NXE, SVME, FFXSR, automatic IBRS.
const EFER_KNOWN: u64 = 1 | EFER_LME | EFER_LMA | 1 << 11 | EFER_SVME | 1 << 14 | 1 << 21;
/// x87, SSE, AVX.
const XCR0_KNOWN: u64 = 7;
/// And PKRU.
const XSTATE_KNOWN: u64 = XCR0_KNOWN | 1 << 9;
const MXCSR_KNOWN: u32 = 0x2_FFFF;

/// x87 and SSE after a reset.
pub(crate) fn reset_fx() -> Box<[u8; 512]> {
    let mut fx = Box::new([0; 512]);
    put::<2>(&mut fx[..], 0, 0x37F);
    put::<4>(&mut fx[..], 24, 0x1F80);
    fx
}

impl Vcpu {
    pub(crate) fn set_regs(&mut self, bytes: &[u8; REGS * 8]) {
        for (n, register) in self.regs.iter_mut().enumerate() {
            *register = le::<8>(bytes, 8 * n);
        }
        self.regs[RFLAGS] |= 2;
    }

    pub(crate) fn get_regs(&self) -> Vec<u8> {
        self.regs
            .iter()
            .flat_map(|register| register.to_le_bytes())
            .collect()
    }

    pub(crate) fn set_sregs(&mut self, bytes: &[u8; SREGS_LEN]) -> Result<(), i32> {
        let number = |at: usize| le::<8>(bytes, at);
        let (cr0, cr2, cr3, cr4, cr8, efer) = (
            number(0xE0),
            number(0xE8),
            number(0xF0),
            number(0xF8),
            number(0x100),
            number(0x108),
        );
        self.check_control(cr0, cr3, cr4, efer, bytes[24 * CS + 19] != 0)?;
        for (n, segment) in self.segments.iter_mut().enumerate() {
            *segment = decode(&bytes[24 * n..24 * n + 24]);
        }
        self.cpl = bytes[24 * SS + 16] & 3;
        self.gdt = (number(0xC0), le::<2>(bytes, 0xC8) as u16);
        self.idt = (number(0xD0), le::<2>(bytes, 0xD8) as u16);
        (self.cr0, self.cr2, self.cr3, self.cr4, self.cr8, self.efer) = (cr0, cr2, cr3, cr4, cr8, efer);
        self.apic_base = number(0x110);
        Ok(())
    }

    /// What makes SET_SREGS refuse.
    fn check_control(&self, cr0: u64, cr3: u64, cr4: u64, efer: u64, cs_long: bool) -> Result<(), i32> {
        let guest_has_svm = self.leaf(0x8000_0001).is_some_and(|leaf| leaf[5] & 4 != 0);
        let paging = cr0 & CR0_PG != 0;
        let long = efer & EFER_LME != 0 && paging;
        let bad = cr0 >> 32 != 0
            || (paging && cr0 & CR0_PE == 0)
            || (cr0 & CR0_NW != 0 && cr0 & CR0_CD == 0)
            || cr4 & !CR4_KNOWN != 0
            || efer & !EFER_KNOWN != 0
            || (efer & EFER_SVME != 0 && !guest_has_svm);
        let bad_mode = if long {
            cr4 & CR4_PAE == 0 || efer & EFER_LMA == 0 || cr3 & self.reserved_gpa_bits() != 0
        } else {
            efer & EFER_LMA != 0 || cs_long
        };
        if bad || bad_mode { Err(EINVAL) } else { Ok(()) }
    }

    /// Address bits that CR3 must not have: those above the guest's width, but for the C-bit once CPUID told
    /// the guest where it is.
    fn reserved_gpa_bits(&self) -> u64 {
        let width = self.leaf(0x8000_0008).map_or(36, |leaf| leaf[3] & 0xFF).min(52);
        let c_bit = self.leaf(0x8000_001F).map_or(0, |leaf| 1 << (leaf[4] & 0x3F));
        !((1u64 << width) - 1) & !c_bit
    }

    pub(crate) fn get_sregs(&self) -> [u8; SREGS_LEN] {
        let mut bytes = [0; SREGS_LEN];
        for (n, segment) in self.segments.iter().enumerate() {
            bytes[24 * n..24 * n + 24].copy_from_slice(&self.encode(n, segment));
        }
        for (at, (base, limit)) in [(0xC0, self.gdt), (0xD0, self.idt)] {
            put::<8>(&mut bytes, at, base);
            put::<2>(&mut bytes, at + 8, limit.into());
        }
        let numbers = [
            self.cr0,
            self.cr2,
            self.cr3,
            self.cr4,
            self.cr8,
            self.efer,
            self.apic_base,
        ];
        for (n, value) in numbers.into_iter().enumerate() {
            put::<8>(&mut bytes, 0xE0 + 8 * n, value);
        }
        bytes
    }

    /// A segment as GET_SREGS shows it: accessed and busy bits set, G from the limit, DPL of SS from CPL.
    fn encode(&self, which: usize, segment: &Segment) -> [u8; 24] {
        let bit = |n: u16| (segment.attributes >> n & 1) as u8;
        let present = bit(7);
        let mut kind = (segment.attributes & 0xF) as u8;
        let (mut dpl, mut db) = ((segment.attributes >> 5 & 3) as u8, bit(10));
        match which {
            TR => kind |= 2,
            DS | ES | FS | GS => kind |= present,
            SS => {
                dpl = self.cpl;
                db &= present;
            }
            _ => {}
        }
        let mut bytes = [0; 24];
        put::<8>(&mut bytes, 0, segment.base);
        put::<4>(&mut bytes, 8, segment.limit.into());
        put::<2>(&mut bytes, 12, segment.selector.into());
        let long_limit = u8::from(segment.limit > 0xF_FFFF);
        bytes[14..23].copy_from_slice(&[
            kind,
            present,
            dpl,
            db,
            bit(4),
            bit(9),
            long_limit,
            bit(8),
            1 - present,
        ]);
        bytes
    }

    pub(crate) fn set_debugregs(&mut self, bytes: &[u8; DEBUGREGS_LEN]) -> Result<(), i32> {
        let (dr6, dr7) = (le::<8>(bytes, 32), le::<8>(bytes, 40));
        if le::<8>(bytes, 48) != 0 || dr6 >> 32 != 0 || dr7 >> 32 != 0 {
            return Err(EINVAL);
        }
        for (n, register) in self.db.iter_mut().enumerate() {
            *register = le::<8>(bytes, 8 * n);
        }
        (self.dr6, self.dr7) = (dr6, dr7);
        Ok(())
    }

    pub(crate) fn get_debugregs(&self) -> [u8; DEBUGREGS_LEN] {
        let mut bytes = [0; DEBUGREGS_LEN];
        let [a, b, c, d] = self.db;
        for (n, value) in [a, b, c, d, self.dr6, self.dr7].into_iter().enumerate() {
            put::<8>(&mut bytes, 8 * n, value);
        }
        bytes
    }

    pub(crate) fn set_xcrs(&mut self, bytes: &[u8; XCRS_LEN]) -> Result<(), i32> {
        let count = le32(bytes, 0) as usize;
        if count > 16 || le32(bytes, 4) != 0 {
            return Err(EINVAL);
        }
        // XCR0 alone exists; KVM takes its first mention.
        let value = (0..count)
            .map(|n| 8 + 16 * n)
            .find(|at| le32(bytes, *at) == 0)
            .map(|at| le::<8>(bytes, at + 8));
        let Some(value) = value else { return Ok(()) };
        let avx_without_sse = value & 6 == 4;
        if value & 1 == 0 || value & !XCR0_KNOWN != 0 || avx_without_sse {
            return Err(EINVAL);
        }
        self.xcr0 = value;
        Ok(())
    }

    pub(crate) fn get_xcrs(&self) -> [u8; XCRS_LEN] {
        let mut bytes = [0; XCRS_LEN];
        put::<4>(&mut bytes, 0, 1);
        put::<8>(&mut bytes, 16, self.xcr0);
        bytes
    }

    pub(crate) fn set_xsave(&mut self, bytes: &[u8; XSAVE_LEN]) -> Result<(), i32> {
        let present = le::<8>(bytes, 512);
        let mxcsr = le32(bytes, 24);
        let header_is_clear = bytes[520..576].iter().all(|byte| *byte == 0);
        if present & !XSTATE_KNOWN != 0 || !header_is_clear || mxcsr & !MXCSR_KNOWN != 0 {
            return Err(EINVAL);
        }
        let mut fx = reset_fx();
        let mut take = |range: std::ops::Range<usize>| fx[range.clone()].copy_from_slice(&bytes[range]);
        if present & 1 != 0 {
            take(0..24);
            take(32..160);
        }
        if present & 2 != 0 {
            take(24..28);
            take(160..416);
        }
        self.fx = fx;
        self.ymm.fill(0);
        if present & 4 != 0 {
            self.ymm.copy_from_slice(&bytes[576..832]);
        }
        self.pkru = if present & 1 << 9 != 0 {
            le32(bytes, 0x980)
        } else {
            0
        };
        Ok(())
    }

    pub(crate) fn get_xsave(&self) -> Box<[u8; XSAVE_LEN]> {
        let mut bytes = Box::new([0; XSAVE_LEN]);
        bytes[..512].copy_from_slice(&self.fx[..]);
        put::<4>(&mut bytes[..], 28, MXCSR_KNOWN.into());
        put::<8>(&mut bytes[..], 512, XSTATE_KNOWN);
        bytes[576..832].copy_from_slice(&self.ymm[..]);
        put::<4>(&mut bytes[..], 0x980, self.pkru.into());
        bytes
    }

    /// One register of SET_MSRS; false when KVM would stop there.
    pub(crate) fn set_msr(&mut self, number: u32, value: u64) -> bool {
        let value = match number {
            super::MSR_PAT if !is_pat(value) => return false,
            0xDA0 if value != 0 => return false,
            0x175 | 0x176 => value & 0xFFFF_FFFF,
            0xC000_0080 if value & !EFER_KNOWN != 0 || value & EFER_SVME != 0 => return false,
            0xC000_0080 => {
                self.efer = value & !EFER_LMA | self.efer & EFER_LMA;
                return true;
            }
            0x1B => {
                self.apic_base = value;
                return true;
            }
            0xC000_0100 | 0xC000_0101 => {
                let segment = if number == 0xC000_0100 { FS } else { GS };
                self.segments[segment].base = value;
                return true;
            }
            number if is_known(number) => value,
            _ => return false,
        };
        self.msrs.insert(number, value);
        true
    }

    /// One register of GET_MSRS; `None` when KVM would stop there.
    pub(crate) fn get_msr(&self, number: u32) -> Option<u64> {
        match number {
            0xC000_0080 => Some(self.efer),
            0x1B => Some(self.apic_base),
            0xC000_0100 => Some(self.segments[FS].base),
            0xC000_0101 => Some(self.segments[GS].base),
            number if is_known(number) => Some(self.msr(number)),
            _ => None,
        }
    }

    pub(crate) fn set_cpuid(&mut self, entries: &[u8]) {
        let leaf = |bytes: &[u8]| -> Leaf { std::array::from_fn(|n| le32(bytes, 4 * n)) };
        self.cpuid = entries.chunks_exact(LEAF_LEN).map(leaf).collect();
    }
}

/// Base, limit, selector, type, present, DPL, DB, S, L, G, AVL, unusable.
fn decode(bytes: &[u8]) -> Segment {
    let bit = |at: usize, to: u16| u16::from(bytes[at] & 1) << to;
    let usable = bytes[22] == 0;
    let attributes = u16::from(bytes[14] & 0xF)
        | bit(18, 4)
        | u16::from(bytes[16] & 3) << 5
        | if usable { bit(15, 7) } else { 0 }
        | bit(21, 8)
        | bit(19, 9)
        | bit(17, 10)
        | bit(20, 11);
    Segment {
        selector: le::<2>(bytes, 12) as u16,
        attributes,
        limit: le32(bytes, 8),
        base: le::<8>(bytes, 0),
    }
}

/// Memory types of a PAT: 0, 1, 4 to 7.
fn is_pat(value: u64) -> bool {
    value
        .to_le_bytes()
        .iter()
        .all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

/// Registers that KVM keeps for a guest of SVM, as far as launches touch them.
fn is_known(number: u32) -> bool {
    matches!(
        number,
        0x10 | 0x48 | 0x174..=0x176 | 0x179 | 0x1A0 | 0x200..=0x20F | 0x250 | 0x258 | 0x259 | 0x268..=0x26F | 0x277
            | 0x2FF | 0xDA0 | 0xC000_0081..=0xC000_0084 | 0xC000_0102 | 0xC000_0103
    )
}

#[cfg(test)]
mod tests;
