// SPDX-License-Identifier: MIT
//! Near and far jumps, calls, returns, loops, software interrupts.

use crate::bus::Bus;
use crate::core::{Core, Flow, RIP, Stop, Why};
use crate::ops::by_cond;
use crate::uop::{MEM, OpFn, Uop};
use x86defs::{rflags, vector};

/// Mask of RIP for an operand size.
fn ip_mask(size: u8) -> u64 {
    match size {
        2 => 0xFFFF,
        4 => 0xFFFF_FFFF,
        _ => u64::MAX,
    }
}

impl Core {
    /// Refuses a jump target that no fetch could use, so that the fault is the jump's.
    fn check_target(&mut self, rip: u64) -> Result<u64, Stop> {
        let bad = match self.is_code64() {
            true => (rip as i64) << 16 >> 16 != rip as i64,
            false => rip > u64::from(self.seg[crate::core::CS].limit),
        };
        if bad { self.gp(0) } else { Ok(rip) }
    }
    /// Interrupts wait for the instruction behind `u`.
    pub(crate) fn shadow_after(&mut self, u: &Uop) {
        self.shadow_at = self.icount + u64::from(u.idx) + 1;
        self.recheck |= self.irq_hint || self.nmi_pending;
    }
    #[inline(always)]
    fn jump(&mut self, u: &Uop, offset: u64) {
        self.gpr[RIP] = self.gpr[RIP].wrapping_add(offset) & ip_mask(u.size);
    }
}

/// JMP rel; `imm` is the target from the block's start, `size` the operand size.
pub(crate) fn jmp(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.jump(u, u.imm);
    Ok(())
}
fn jcc_n<const CC: u8>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let to = if c.flags.cond(CC) { u.imm } else { u.next() };
    c.jump(u, to);
    Ok(())
}
fn jcc64<const CC: u8>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let to = if c.flags.cond(CC) { u.imm } else { u.next() };
    c.gpr[RIP] = c.gpr[RIP].wrapping_add(to);
    Ok(())
}
/// Jcc rel.
pub(crate) fn jcc(cc: u8, size: u8) -> OpFn {
    if size == 8 {
        by_cond!(jcc64, cc)
    } else {
        by_cond!(jcc_n, cc)
    }
}
/// JMP r/m.
pub(crate) fn jmp_rm(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let to = c.rm(u, bus)?;
    c.gpr[RIP] = c.check_target(to)?;
    Ok(())
}
/// CALL rel in 64-bit mode.
pub(crate) fn call64(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let sp = c.gpr[4].wrapping_sub(8);
    let back = c.gpr[RIP].wrapping_add(u.next());
    c.store(bus, sp, back, u.idx)
        .map_err(|stop| c.stack_failed(stop))?;
    c.gpr[4] = sp;
    c.gpr[RIP] = c.gpr[RIP].wrapping_add(u.imm);
    Ok(())
}
/// CALL rel.
pub(crate) fn call(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let back = c.gpr[RIP].wrapping_add(u.next()) & ip_mask(u.size);
    c.push(bus, u.size, back, u.idx)?;
    c.jump(u, u.imm);
    Ok(())
}
/// CALL r/m.
pub(crate) fn call_rm(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let to = c.rm(u, bus)?;
    let to = c.check_target(to)?;
    let back = c.gpr[RIP].wrapping_add(u.next()) & ip_mask(u.size);
    c.push(bus, u.size, back, u.idx)?;
    c.gpr[RIP] = to;
    Ok(())
}
/// RET in 64-bit mode.
pub(crate) fn ret64(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let sp = c.gpr[4];
    let to: u64 = c.load(bus, sp, u.idx).map_err(|stop| c.stack_failed(stop))?;
    if (to as i64) << 16 >> 16 != to as i64 {
        return c.gp(0);
    }
    c.gpr[4] = sp.wrapping_add(8 + u.imm);
    c.gpr[RIP] = to;
    Ok(())
}
/// RET; `imm` more bytes to drop.
pub(crate) fn ret(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let to = c.peek(bus, 0, u.size, u.idx)?;
    let to = c.check_target(to)?;
    c.drop_stack(u64::from(u.size) + u.imm);
    c.gpr[RIP] = to;
    Ok(())
}
/// LOOPNE, LOOPE, LOOP, JrCXZ: `aux` 0 to 3.
pub(crate) fn loops(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let mask = u.address_mask();
    let mut count = c.gpr[1] & mask;
    let mut taken = count == 0;
    if u.aux != 3 {
        count = count.wrapping_sub(1) & mask;
        c.gpr[1] = if mask == 0xFFFF {
            c.gpr[1] & !mask | count
        } else {
            count
        };
        taken = count != 0 && (u.aux == 2 || c.flags.zf() == (u.aux == 1));
    }
    let to = if taken { u.imm } else { u.next() };
    c.jump(u, to);
    Ok(())
}
/// JMP far: ptr16:16/32 in `imm` and `disp`, or memory.
pub(crate) fn jmp_far(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let (selector, offset) = far_operand(c, u, bus)?;
    c.cur_idx = u.idx;
    c.far_jump(bus, selector, offset)
}
/// CALL far.
pub(crate) fn call_far(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let (selector, offset) = far_operand(c, u, bus)?;
    c.cur_idx = u.idx;
    let back = c.gpr[RIP].wrapping_add(u.next()) & ip_mask(u.size);
    c.far_call(bus, selector, offset, u.size, back)
}
fn far_operand(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Result<(u16, u64), Stop> {
    if !u.is(MEM) {
        return Ok((u.disp as u16, u.imm));
    }
    let la = c.linear(u, u64::from(u.size) + 2, false)?;
    let offset = c.load_n(bus, la, u.size, u.idx)?;
    let selector: u16 = c.load(bus, la.wrapping_add(u.size.into()), u.idx)?;
    Ok((selector, offset))
}
/// RETF.
pub(crate) fn ret_far(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.cur_idx = u.idx;
    c.far_return(bus, u.size, u.imm)
}
/// IRET.
pub(crate) fn iret(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.cur_idx = u.idx;
    c.interrupt_return(bus, u.size)
}
/// `imm` of INT1: its vector, told from INT 1's.
pub(crate) const INT1: u64 = 0x101;

/// INT n, INT3, INT1: vector in the low byte of `imm`.
pub(crate) fn int(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    if c.is_v86() && c.iopl() < 3 && u.aux == 0 {
        return c.gp(0);
    }
    c.why = Why::Interrupt(u.imm as u8);
    Err(Stop)
}
/// INTO.
pub(crate) fn into(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    if c.flags.of() {
        c.why = Why::Interrupt(vector::OF);
        return Err(Stop);
    }
    Ok(())
}
/// HLT.
pub(crate) fn hlt(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    c.why = Why::Exit(crate::bus::Exit::Hlt);
    Err(Stop)
}
/// CLI and STI: `aux` 0 and 1.
pub(crate) fn set_if(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    if c.is_protected() && c.cpl > c.iopl() {
        return c.gp(0);
    }
    if u.aux == 0 {
        c.sys &= !rflags::IF;
    } else if c.sys & rflags::IF == 0 {
        c.sys |= rflags::IF;
        c.shadow_after(u);
    }
    Ok(())
}
/// CLD and STD: `aux` 0 and 1.
pub(crate) fn set_df(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.sys = c.sys & !rflags::DF | if u.aux != 0 { rflags::DF } else { 0 };
    Ok(())
}
