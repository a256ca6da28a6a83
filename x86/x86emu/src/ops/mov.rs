// SPDX-License-Identifier: MIT
//! Moves, extensions, LEA, CMOV, SETcc, conversions within a register.

use crate::bus::Bus;
use crate::core::{Core, Flow};
use crate::ops::alu::Form;
use crate::ops::{Addr, Flat, Int, Seg, by_cond, pick};
use crate::uop::{MEM, OpFn, Uop};

fn rr<T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = T::get(c, u.src);
    T::put(c, u.dst, v);
    Ok(())
}
fn ri<T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    T::put(c, u.dst, u.imm);
    Ok(())
}
fn load<T: Int, A: Addr>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = A::at(c, u, T::SIZE, false)?;
    let v: T = c.load(bus, la, u.idx)?;
    T::put(c, u.dst, v.wide());
    Ok(())
}
fn store<T: Int, A: Addr>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = A::at(c, u, T::SIZE, true)?;
    let v = T::narrow(T::get(c, u.src));
    c.store(bus, la, v, u.idx)
}
fn store_imm<T: Int, A: Addr>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = A::at(c, u, T::SIZE, true)?;
    c.store(bus, la, T::narrow(u.imm), u.idx)
}

/// MOV of general registers.
pub(crate) fn handler(form: Form, size: u8, flat: bool) -> OpFn {
    match form {
        Form::RegReg => pick!(rr, size),
        Form::RegImm => pick!(ri, size),
        Form::RegMem => pick!(load, size, flat),
        Form::MemReg => pick!(store, size, flat),
        Form::MemImm | Form::Locked => pick!(store_imm, size, flat),
    }
}

/// MOV between the accumulator and a 64-bit absolute address in `imm`; `aux` says store.
pub(crate) fn absolute(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = u.imm.wrapping_add(c.seg_base[usize::from(u.seg & 7)]);
    if u.aux != 0 {
        let v = c.reg(0, u.size);
        return c.store_n(bus, la, u.size, v, u.idx);
    }
    let v = c.load_n(bus, la, u.size, u.idx)?;
    c.set_reg(0, u.size, v);
    Ok(())
}

fn zx_reg<S: Int, D: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = S::get(c, u.src);
    D::put(c, u.dst, v);
    Ok(())
}
fn sx_reg<S: Int, D: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = S::sext(S::get(c, u.src));
    D::put(c, u.dst, v);
    Ok(())
}
fn zx_mem<S: Int, D: Int, A: Addr>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = A::at(c, u, S::SIZE, false)?;
    let v: S = c.load(bus, la, u.idx)?;
    D::put(c, u.dst, v.wide());
    Ok(())
}
fn sx_mem<S: Int, D: Int, A: Addr>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = A::at(c, u, S::SIZE, false)?;
    let v: S = c.load(bus, la, u.idx)?;
    D::put(c, u.dst, S::sext(v.wide()));
    Ok(())
}

macro_rules! extend {
    ($f:ident, $from:expr, $to:expr $(, $a:ty)?) => {
        match ($from, $to) {
            (1, 2) => $f::<u8, u16 $(, $a)?> as OpFn,
            (1, 4) => $f::<u8, u32 $(, $a)?>,
            (1, _) => $f::<u8, u64 $(, $a)?>,
            (2, 2) => $f::<u16, u16 $(, $a)?>,
            (2, 4) => $f::<u16, u32 $(, $a)?>,
            (2, _) => $f::<u16, u64 $(, $a)?>,
            (_, 2) => $f::<u32, u16 $(, $a)?>,
            (_, 4) => $f::<u32, u32 $(, $a)?>,
            (_, _) => $f::<u32, u64 $(, $a)?>,
        }
    };
}

/// MOVZX, MOVSX, MOVSXD from `from` to `to` bytes; `flat` is `None` for a register source.
pub(crate) fn extension(signed: bool, from: u8, to: u8, flat: Option<bool>) -> OpFn {
    match (signed, flat) {
        (false, None) => extend!(zx_reg, from, to),
        (true, None) => extend!(sx_reg, from, to),
        (false, Some(true)) => extend!(zx_mem, from, to, Flat),
        (true, Some(true)) => extend!(sx_mem, from, to, Flat),
        (false, Some(false)) => extend!(zx_mem, from, to, Seg),
        (true, Some(false)) => extend!(sx_mem, from, to, Seg),
    }
}

fn lea_n<T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = c.offset(u) & u.address_mask();
    T::put(c, u.dst, v);
    Ok(())
}
fn lea64(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = c.offset(u);
    u64::put(c, u.dst, v);
    Ok(())
}
/// LEA; `wide`: 64-bit addresses to a 64-bit register.
pub(crate) fn lea(size: u8, wide: bool) -> OpFn {
    if wide { lea64 } else { pick!(lea_n, size) }
}

fn set<const CC: u8>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = u64::from(c.flags.cond(CC));
    if u.is(MEM) {
        return c.set_rm(u, bus, v);
    }
    u8::put(c, u.dst, v);
    Ok(())
}
/// SETcc.
pub(crate) fn setcc(cc: u8) -> OpFn {
    by_cond!(set, cc)
}

fn cmov<const CC: u8>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    // The source is read and a 32-bit destination is zero-extended in either case.
    let v = c.rm_src(u, bus)?;
    let old = c.reg(u.dst, u.size);
    let v = if c.flags.cond(CC) { v } else { old };
    c.set_reg(u.dst, u.size, v);
    Ok(())
}
fn cmov_rr<const CC: u8, T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let (old, new) = (T::get(c, u.dst), T::get(c, u.src));
    let v = if c.flags.cond(CC) { new } else { old };
    T::put(c, u.dst, v);
    Ok(())
}
/// CMOVcc; `size` 4 or 8 between registers has its own handlers.
pub(crate) fn cmovcc(cc: u8, size: u8, memory: bool) -> OpFn {
    match (size, memory) {
        (4, false) => by_cond!(cmov_rr, cc, u32),
        (8, false) => by_cond!(cmov_rr, cc, u64),
        _ => by_cond!(cmov, cc),
    }
}

/// CBW, CWDE, CDQE: sign-extends the lower half of the accumulator to `size`.
pub(crate) fn cbw(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = match u.size {
        2 => u8::sext(c.gpr[0]),
        4 => u16::sext(c.gpr[0]),
        _ => u32::sext(c.gpr[0]),
    };
    c.set_reg(0, u.size, v);
    Ok(())
}
/// CWD, CDQ, CQO.
pub(crate) fn cwd(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = c.reg(0, u.size) >> (u.size * 8 - 1) & 1;
    c.set_reg(2, u.size, 0u64.wrapping_sub(v));
    Ok(())
}
/// BSWAP.
pub(crate) fn bswap(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = c.gpr[usize::from(u.dst & 15)];
    let v = match u.size {
        8 => v.swap_bytes(),
        4 => u64::from((v as u32).swap_bytes()),
        // Undefined by the manual; processors write zero.
        _ => 0,
    };
    c.set_reg(u.dst, u.size, v);
    Ok(())
}
/// XLAT: AL from the table at the operand plus AL.
pub(crate) fn xlat(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let offset = c.gpr[3].wrapping_add(c.gpr[0] & 0xFF) & u.address_mask();
    let la = c.segmented(usize::from(u.seg & 7), offset, 1, false)?;
    let v: u8 = c.load(bus, la, u.idx)?;
    c.set_reg(0, 1, v.into());
    Ok(())
}
/// SALC: AL from CF.
pub(crate) fn salc(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = if c.flags.cf() { 0xFF } else { 0 };
    c.set_reg(0, 1, v);
    Ok(())
}
/// LAHF.
pub(crate) fn lahf(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = c.flags.bits() & 0xFF | 2;
    c.set_reg(0x20, 1, v);
    Ok(())
}
/// SAHF.
pub(crate) fn sahf(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = c.reg(0x20, 1) | c.flags.bits() & 0x800;
    c.flags = crate::flags::Flags::from_bits(v);
    Ok(())
}
/// CLC, STC, CMC: `aux` 0, 1, 2.
pub(crate) fn carry(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let cf = if u.aux == 2 { !c.flags.cf() } else { u.aux == 1 };
    c.flags.set_cf(cf);
    Ok(())
}
/// NOP and hints.
pub(crate) fn nop(_c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    Ok(())
}
