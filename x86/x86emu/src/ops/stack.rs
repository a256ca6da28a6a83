// SPDX-License-Identifier: MIT
//! PUSH, POP, ENTER, LEAVE and the stack helpers.

use crate::bus::Bus;
use crate::core::{Core, Flow, SS, Stop, Why, key};
use crate::uop::{MEM, Uop};
use crate::walk::is_canonical;
use x86defs::{rflags, vector};

impl Core {
    /// Mask of the stack pointer.
    pub(crate) fn stack_mask(&self) -> u64 {
        match () {
            () if self.is_code64() => u64::MAX,
            () if self.key & key::STACK32 != 0 => 0xFFFF_FFFF,
            () => 0xFFFF,
        }
    }
    /// Linear address of a stack offset.
    pub(crate) fn stack_linear(&mut self, sp: u64, len: u64, write: bool) -> Result<u64, Stop> {
        if self.is_code64() {
            return Ok(sp);
        }
        self.segmented(SS, sp, len, write)
    }
    /// Sets the stack pointer by its size.
    pub(crate) fn set_stack(&mut self, sp: u64) {
        let mask = self.stack_mask();
        self.gpr[4] = if mask == 0xFFFF {
            self.gpr[4] & !0xFFFF | sp & 0xFFFF
        } else {
            sp & mask
        };
    }
    /// What an access of the stack that failed means: an address that is not canonical is #SS.
    #[cold]
    pub(crate) fn stack_failed(&mut self, stop: Stop) -> Stop {
        if let Why::Fault(fault) = &mut self.why
            && fault.vector == vector::GP
            && !is_canonical(self.fault_la)
        {
            fault.vector = vector::SS;
        }
        stop
    }
    /// Pushes `size` bytes.
    #[inline]
    pub(crate) fn push(&mut self, bus: &mut dyn Bus, size: u8, v: u64, idx: u8) -> Flow {
        let sp = self.gpr[4].wrapping_sub(size.into()) & self.stack_mask();
        let la = self.stack_linear(sp, size.into(), true)?;
        self.store_n(bus, la, size, v, idx)
            .map_err(|stop| self.stack_failed(stop))?;
        self.set_stack(sp);
        Ok(())
    }
    /// Reads `size` bytes at an offset from the stack pointer.
    pub(crate) fn peek(&mut self, bus: &mut dyn Bus, at: u64, size: u8, idx: u8) -> Result<u64, Stop> {
        let sp = self.gpr[4].wrapping_add(at) & self.stack_mask();
        let la = self.stack_linear(sp, size.into(), false)?;
        self.load_n(bus, la, size, idx)
            .map_err(|stop| self.stack_failed(stop))
    }
    /// Drops bytes from the stack.
    pub(crate) fn drop_stack(&mut self, bytes: u64) {
        self.set_stack(self.gpr[4].wrapping_add(bytes));
    }
}

/// PUSH r64 in 64-bit mode.
pub(crate) fn push64(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let sp = c.gpr[4].wrapping_sub(8);
    let v = c.gpr[usize::from(u.dst & 15)];
    c.store(bus, sp, v, u.idx).map_err(|stop| c.stack_failed(stop))?;
    c.gpr[4] = sp;
    Ok(())
}
/// POP r64 in 64-bit mode.
pub(crate) fn pop64(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let sp = c.gpr[4];
    let v: u64 = c.load(bus, sp, u.idx).map_err(|stop| c.stack_failed(stop))?;
    c.gpr[4] = sp.wrapping_add(8);
    c.gpr[usize::from(u.dst & 15)] = v;
    Ok(())
}
/// PUSH r/m.
pub(crate) fn push_rm(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = c.rm(u, bus)?;
    c.push(bus, u.size, v, u.idx)
}
/// PUSH imm.
pub(crate) fn push_imm(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.push(bus, u.size, u.imm, u.idx)
}
/// PUSH of segment register `aux`.
pub(crate) fn push_seg(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = c.seg[usize::from(u.aux % 6)].selector;
    c.push(bus, u.size, v.into(), u.idx)
}
/// POP r/m; the address of a memory destination is computed with the new stack pointer.
pub(crate) fn pop_rm(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = c.peek(bus, 0, u.size, u.idx)?;
    let old = c.gpr[4];
    c.drop_stack(u.size.into());
    if u.is(MEM) {
        let done = c.set_rm(u, bus, v);
        if done.is_err() {
            c.gpr[4] = old;
        }
        return done;
    }
    c.set_reg(u.dst, u.size, v);
    Ok(())
}
/// POP of segment register `aux`.
pub(crate) fn pop_seg(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.cur_idx = u.idx;
    let v = c.peek(bus, 0, 2, u.idx)?;
    // The mask may change with SS: the old stack is popped.
    let (mask, old) = (c.stack_mask(), c.gpr[4]);
    c.load_segment(bus, usize::from(u.aux % 6), v as u16)?;
    let sp = old.wrapping_add(u.size.into()) & mask;
    c.gpr[4] = if mask == 0xFFFF { old & !0xFFFF | sp } else { sp };
    if usize::from(u.aux) == SS {
        c.shadow_after(u);
        c.trap_shadow_at = c.shadow_at;
    }
    Ok(())
}
/// PUSHF.
pub(crate) fn pushf(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    if c.is_v86() && c.iopl() < 3 {
        return c.gp(0);
    }
    let v = c.rflags() & !(rflags::VM | rflags::RF);
    c.push(bus, u.size, v, u.idx)
}
/// POPF.
pub(crate) fn popf(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    if c.is_v86() && c.iopl() < 3 {
        return c.gp(0);
    }
    let v = c.peek(bus, 0, u.size, u.idx)?;
    c.drop_stack(u.size.into());
    c.write_flags(v, u.size);
    Ok(())
}

impl Core {
    /// RFLAGS as POPF writes them: IOPL, IF, VM, RF, VIF and VIP by privilege.
    pub(crate) fn write_flags(&mut self, v: u64, size: u8) {
        let mut mask = 0x24_4FD5u64 & !(rflags::IF | rflags::IOPL) | rflags::TF | rflags::DF | rflags::NT;
        if self.cpl <= self.iopl() || !self.is_protected() {
            mask |= rflags::IF;
        }
        if self.cpl == 0 {
            mask |= rflags::IOPL;
        }
        if size == 2 {
            mask &= 0xFFFF;
        }
        let old = self.rflags();
        self.set_rflags(old & !mask & !rflags::RF | v & mask);
    }
}

/// PUSHA.
pub(crate) fn pusha(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let size = u64::from(u.size);
    let sp = c.gpr[4].wrapping_sub(8 * size) & c.stack_mask();
    // All or nothing: the block's bounds and pages first.
    for n in [0, 7] {
        let la = c.stack_linear(sp.wrapping_add(n * size) & c.stack_mask(), size, true)?;
        c.cur_idx = u.idx;
        c.probe_write(bus, la, size)?;
    }
    for n in 0..8u64 {
        let at = sp.wrapping_add((7 - n) * size) & c.stack_mask();
        let la = c.stack_linear(at, size, true)?;
        let v = c.gpr[n as usize];
        c.store_n(bus, la, u.size, v, u.idx)?;
    }
    c.set_stack(sp);
    Ok(())
}
/// POPA.
pub(crate) fn popa(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let mut v = [0; 8];
    for (n, v) in v.iter_mut().enumerate() {
        *v = c.peek(bus, (7 - n as u64) * u64::from(u.size), u.size, u.idx)?;
    }
    for (n, v) in v.into_iter().enumerate().filter(|&(n, _)| n != 4) {
        c.set_reg(n as u8, u.size, v);
    }
    c.drop_stack(8 * u64::from(u.size));
    Ok(())
}
/// LEAVE.
pub(crate) fn leave(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let sp = c.gpr[5] & c.stack_mask();
    let la = c.stack_linear(sp, u.size.into(), false)?;
    let v = c.load_n(bus, la, u.size, u.idx)?;
    c.set_stack(sp.wrapping_add(u.size.into()));
    c.set_reg(5, u.size, v);
    Ok(())
}
/// ENTER: `imm` bytes, nesting `aux`.
pub(crate) fn enter(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let (mask, size) = (c.stack_mask(), u64::from(u.size));
    let level = u64::from(u.aux & 31);
    let mut sp = c.gpr[4].wrapping_sub(size) & mask;
    let frame = sp;
    let la = c.stack_linear(sp, size, true)?;
    let bp = c.gpr[5];
    c.store_n(bus, la, u.size, bp, u.idx)?;
    for n in 1..=level {
        let v = if n == level {
            frame
        } else {
            let from = bp.wrapping_sub(n * size) & mask;
            let la = c.stack_linear(from, size, false)?;
            c.load_n(bus, la, u.size, u.idx)?
        };
        sp = sp.wrapping_sub(size) & mask;
        let la = c.stack_linear(sp, size, true)?;
        c.store_n(bus, la, u.size, v, u.idx)?;
    }
    sp = sp.wrapping_sub(u.imm) & mask;
    // The new top must be writable (SDM volume 2, ENTER).
    let la = c.stack_linear(sp, size, true)?;
    c.cur_idx = u.idx;
    c.probe_write(bus, la, size)?;
    c.set_reg(5, u.size, frame);
    c.set_stack(sp);
    Ok(())
}
/// BOUND.
pub(crate) fn bound(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = c.linear(u, u64::from(u.size) * 2, false)?;
    let low = c.load_n(bus, la, u.size, u.idx)?;
    let high = c.load_n(bus, la.wrapping_add(u.size.into()), u.size, u.idx)?;
    let v = c.reg(u.dst, u.size);
    let sext = |v: u64| {
        if u.size == 2 {
            v as i16 as i64
        } else {
            v as i32 as i64
        }
    };
    if sext(v) < sext(low) || sext(v) > sext(high) {
        return c.trap(vector::BR);
    }
    Ok(())
}
