// SPDX-License-Identifier: MIT
//! The intermediate form: one handler with decoded operands per instruction.
//!
//! Always true: a `Uop` depends only on instruction bytes and on [`crate::core::key`], never on a
//! linear address: addresses relative to RIP are relative to the block's start. This is what a
//! translator to machine code would take as input. Not here: decoding.

use crate::bus::Bus;
use crate::core::{Core, FLAT, Flow, SS, Stop};
use crate::mem::Word;
use x86defs::vector;

/// Executes one uop.
pub(crate) type OpFn = fn(&mut Core, &Uop, &mut dyn Bus) -> Flow;

/// [`Uop::flags`]: the operand that may be memory is.
pub(crate) const MEM: u8 = 1;
/// [`Uop::flags`]: 64-bit address without bounds.
pub(crate) const FLAT64: u8 = 2;
/// [`Uop::flags`]: LOCK prefix.
pub(crate) const LOCK: u8 = 4;
/// [`Uop::flags`]: REP/REPE prefix.
pub(crate) const REP: u8 = 8;
/// [`Uop::flags`]: REPNE prefix.
pub(crate) const REPNE: u8 = 16;
/// [`Uop::flags`]: shift of the address size (0 = 16, 1 = 32, 2 = 64 bits).
pub(crate) const ASIZE_SHIFT: u8 = 6;

/// One decoded instruction (or two fused ones).
#[derive(Clone, Copy)]
pub(crate) struct Uop {
    pub run: OpFn,
    /// Immediate, sign- or zero-extended as the instruction wants; branch target from the block's start.
    pub imm: u64,
    pub disp: i32,
    /// General purpose or pseudo register of the address.
    pub base: u8,
    pub index: u8,
    /// Segment register or [`crate::core::FLAT`] in bits 0 to 2, log2 of the index scale in bits 4 and 5.
    pub seg: u8,
    /// Destination register; for 8-bit operands bit 5 says "bits 8 to 15".
    pub dst: u8,
    /// Source register, same form.
    pub src: u8,
    /// Operand size in bytes.
    pub size: u8,
    /// Handler-specific: condition, sub-operation.
    pub aux: u8,
    /// Offset of the instruction from the block's start.
    pub at: u16,
    /// Instruction length.
    pub len: u8,
    /// Instructions of the block before this one.
    pub idx: u8,
    /// See the constants.
    pub flags: u8,
}

impl Uop {
    /// Offset of the next instruction from the block's start.
    #[inline(always)]
    pub(crate) fn next(&self) -> u64 {
        u64::from(self.at) + u64::from(self.len)
    }
    /// Whether the memory operand is in the stack segment. In 64-bit mode, where segments but FS and GS are
    /// all the same, RSP or RBP as base make it so.
    pub(crate) fn is_stack_operand(&self) -> bool {
        const RSP: u8 = 4;
        const RBP: u8 = 5;
        let by_base = matches!(self.base & 31, RSP | RBP);
        match usize::from(self.seg & 7) {
            SS => self.is(MEM),
            FLAT => self.is(MEM) && by_base,
            _ => false,
        }
    }
    pub(crate) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
    /// Mask of the address size.
    #[inline(always)]
    pub(crate) fn address_mask(&self) -> u64 {
        [0xFFFF, 0xFFFF_FFFF, u64::MAX, u64::MAX][usize::from(self.flags >> ASIZE_SHIFT)]
    }
}

impl Core {
    /// Effective address without bounds or mask.
    #[inline(always)]
    pub(crate) fn offset(&self, u: &Uop) -> u64 {
        self.gpr[usize::from(u.base & 31)]
            .wrapping_add(self.gpr[usize::from(u.index & 31)] << (u.seg >> 4 & 3))
            .wrapping_add(u.disp as i64 as u64)
    }

    /// Linear address of the memory operand in 64-bit mode with 64-bit addresses.
    #[inline(always)]
    pub(crate) fn flat(&self, u: &Uop) -> u64 {
        self.offset(u).wrapping_add(self.seg_base[usize::from(u.seg & 7)])
    }

    /// Linear address of the memory operand, checked for `len` bytes.
    #[inline(always)]
    pub(crate) fn linear(&mut self, u: &Uop, len: u64, write: bool) -> Result<u64, Stop> {
        if u.flags & FLAT64 != 0 {
            return Ok(self.flat(u));
        }
        self.segmented(
            usize::from(u.seg & 7),
            self.offset(u) & u.address_mask(),
            len,
            write,
        )
    }

    /// Linear address of `offset` in a segment, checked for `len` bytes.
    #[inline]
    pub(crate) fn segmented(&mut self, seg: usize, offset: u64, len: u64, write: bool) -> Result<u64, Stop> {
        if !self.bounds[seg & 7].allow(offset, len, write) {
            return self.fault(if seg == SS { vector::SS } else { vector::GP }, 0);
        }
        Ok(self.seg_base[seg & 7].wrapping_add(offset) & self.lin_mask)
    }

    /// Loads the memory operand.
    pub(crate) fn load_op<T: Word>(&mut self, u: &Uop, bus: &mut dyn Bus) -> Result<T, Stop> {
        let la = self.linear(u, T::SIZE, false)?;
        self.load(bus, la, u.idx)
    }
    /// Stores the memory operand.
    pub(crate) fn store_op<T: Word>(&mut self, u: &Uop, bus: &mut dyn Bus, v: T) -> Flow {
        let la = self.linear(u, T::SIZE, true)?;
        self.store(bus, la, v, u.idx)
    }

    /// Register `r` as `size` bytes, zero-extended.
    #[inline(always)]
    pub(crate) fn reg(&self, r: u8, size: u8) -> u64 {
        let v = self.gpr[usize::from(r & 15)];
        match size {
            1 => v >> (r >> 5 << 3) & 0xFF,
            2 => v & 0xFFFF,
            4 => v & 0xFFFF_FFFF,
            _ => v,
        }
    }
    /// Writes `size` bytes of register `r`; 4 bytes zero the upper half.
    #[inline(always)]
    pub(crate) fn set_reg(&mut self, r: u8, size: u8, v: u64) {
        let g = &mut self.gpr[usize::from(r & 15)];
        *g = match size {
            1 => {
                let s = r >> 5 << 3;
                *g & !(0xFF << s) | (v & 0xFF) << s
            }
            2 => *g & !0xFFFF | v & 0xFFFF,
            4 => v & 0xFFFF_FFFF,
            _ => v,
        };
    }

    /// Loads `size` bytes (1, 2, 4 or 8), zero-extended.
    pub(crate) fn load_n(&mut self, bus: &mut dyn Bus, la: u64, size: u8, idx: u8) -> Result<u64, Stop> {
        Ok(match size {
            1 => self.load::<u8>(bus, la, idx)?.into(),
            2 => self.load::<u16>(bus, la, idx)?.into(),
            4 => self.load::<u32>(bus, la, idx)?.into(),
            _ => self.load::<u64>(bus, la, idx)?,
        })
    }
    /// Like [`Self::load_n`], for what will be stored again.
    pub(crate) fn load_rmw_n(&mut self, bus: &mut dyn Bus, la: u64, size: u8, idx: u8) -> Result<u64, Stop> {
        Ok(match size {
            1 => self.load_rmw::<u8>(bus, la, idx)?.into(),
            2 => self.load_rmw::<u16>(bus, la, idx)?.into(),
            4 => self.load_rmw::<u32>(bus, la, idx)?.into(),
            _ => self.load_rmw::<u64>(bus, la, idx)?,
        })
    }
    /// Stores `size` bytes (1, 2, 4 or 8).
    pub(crate) fn store_n(&mut self, bus: &mut dyn Bus, la: u64, size: u8, v: u64, idx: u8) -> Flow {
        match size {
            1 => self.store(bus, la, v as u8, idx),
            2 => self.store(bus, la, v as u16, idx),
            4 => self.store(bus, la, v as u32, idx),
            _ => self.store(bus, la, v, idx),
        }
    }
    /// Compare and exchange of `size` bytes (1, 2, 4 or 8).
    pub(crate) fn exchange_n(
        &mut self,
        bus: &mut dyn Bus,
        la: u64,
        size: u8,
        old: u64,
        new: u64,
    ) -> Result<bool, Stop> {
        match size {
            1 => self.exchange(bus, la, old as u8, new as u8),
            2 => self.exchange(bus, la, old as u16, new as u16),
            4 => self.exchange(bus, la, old as u32, new as u32),
            _ => self.exchange(bus, la, old, new),
        }
    }

    /// The register-or-memory operand whose register form is `dst`.
    pub(crate) fn rm(&mut self, u: &Uop, bus: &mut dyn Bus) -> Result<u64, Stop> {
        if u.is(MEM) {
            let la = self.linear(u, u.size.into(), false)?;
            return self.load_n(bus, la, u.size, u.idx);
        }
        Ok(self.reg(u.dst, u.size))
    }
    /// The register-or-memory operand whose register form is `src`.
    pub(crate) fn rm_src(&mut self, u: &Uop, bus: &mut dyn Bus) -> Result<u64, Stop> {
        if u.is(MEM) {
            let la = self.linear(u, u.size.into(), false)?;
            return self.load_n(bus, la, u.size, u.idx);
        }
        Ok(self.reg(u.src, u.size))
    }
    /// Writes the register-or-memory operand whose register form is `dst`.
    pub(crate) fn set_rm(&mut self, u: &Uop, bus: &mut dyn Bus, v: u64) -> Flow {
        if u.is(MEM) {
            let la = self.linear(u, u.size.into(), true)?;
            return self.store_n(bus, la, u.size, v, u.idx);
        }
        self.set_reg(u.dst, u.size, v);
        Ok(())
    }
    /// Read-modify-write of the register-or-memory operand; `f` may run several times (LOCK).
    #[inline]
    pub(crate) fn modify(&mut self, u: &Uop, bus: &mut dyn Bus, f: impl Fn(&mut Core, u64) -> u64) -> Flow {
        if !u.is(MEM) {
            let v = self.reg(u.dst, u.size);
            let v = f(self, v);
            self.set_reg(u.dst, u.size, v);
            return Ok(());
        }
        let la = self.linear(u, u.size.into(), true)?;
        let flags = self.flags;
        loop {
            let old = self.load_rmw_n(bus, la, u.size, u.idx)?;
            let new = f(self, old);
            if u.is(LOCK) {
                match self.exchange_n(bus, la, u.size, old, new) {
                    Ok(true) => return Ok(()),
                    Ok(false) => self.flags = flags,
                    Err(stop) => {
                        self.flags = flags;
                        return Err(stop);
                    }
                }
            } else {
                // `load_rmw` has checked that this succeeds.
                return self.store_n(bus, la, u.size, new, u.idx);
            }
        }
    }
}
