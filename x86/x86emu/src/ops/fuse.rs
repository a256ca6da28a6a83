// SPDX-License-Identifier: MIT
//! Pairs that run as one uop: an operation that sets flags and the conditional jump behind it.
//!
//! Always true: the pair does what its two instructions do one after the other; only the first can
//! stop. 64-bit and 32-bit code only. Not here: when a pair may be fused (never in single-instruction blocks).

use crate::bus::Bus;
use crate::core::{Core, Flow, RIP};
use crate::ops::alu::{Add, Alu, And, Cmp, Dec, Form, Kind, Sub, Test};
use crate::ops::{Int, by_cond};
use crate::uop::{FLAT64, LOCK, OpFn, Uop};

/// What the translator knows of an instruction that may be the first of a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub kind: Kind,
    pub form: Form,
}

#[inline(always)]
fn jump<const CC: u8>(c: &mut Core, u: &Uop, target: u64) {
    let to = if c.flags.cond(CC) { target } else { u.next() };
    // In 32-bit code RIP wraps at 4 GiB, like linear addresses.
    c.gpr[RIP] = c.gpr[RIP].wrapping_add(to) & c.lin_mask;
}

fn rr<const CC: u8, O: Alu, T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let (a, b) = (T::get(c, u.dst), T::get(c, u.src));
    let r = O::go::<T>(&mut c.flags, a, b);
    if O::WRITES {
        T::put(c, u.dst, r);
    }
    jump::<CC>(c, u, u.imm);
    Ok(())
}

/// The immediate is in `disp`.
fn ri<const CC: u8, O: Alu, T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let a = T::get(c, u.dst);
    let r = O::go::<T>(&mut c.flags, a, T::narrow(u.disp as i64 as u64).wide());
    if O::WRITES {
        T::put(c, u.dst, r);
    }
    jump::<CC>(c, u, u.imm);
    Ok(())
}

fn rm<const CC: u8, O: Alu, T: Int>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = c.flat(u);
    let b: T = c.load(bus, la, u.idx)?;
    let a = T::get(c, u.dst);
    O::go::<T>(&mut c.flags, a, b.wide());
    jump::<CC>(c, u, u.imm);
    Ok(())
}

fn mr<const CC: u8, O: Alu, T: Int>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = c.flat(u);
    let a: T = c.load(bus, la, u.idx)?;
    let b = T::get(c, u.src);
    O::go::<T>(&mut c.flags, a.wide(), b);
    jump::<CC>(c, u, u.imm);
    Ok(())
}

/// Target and immediate share `imm`.
fn mi<const CC: u8, O: Alu, T: Int>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = c.flat(u);
    let a: T = c.load(bus, la, u.idx)?;
    let b = (u.imm as i64 >> 32) as u64;
    O::go::<T>(&mut c.flags, a.wide(), T::narrow(b).wide());
    jump::<CC>(c, u, u.imm as i32 as i64 as u64);
    Ok(())
}

fn compare<O: Alu, T: Int>(form: Form, cc: u8) -> Option<OpFn> {
    Some(match form {
        Form::RegReg => by_cond!(rr, cc, O, T),
        Form::RegImm => by_cond!(ri, cc, O, T),
        Form::RegMem => by_cond!(rm, cc, O, T),
        Form::MemReg => by_cond!(mr, cc, O, T),
        Form::MemImm => by_cond!(mi, cc, O, T),
        Form::Locked => return None,
    })
}

fn compute<O: Alu, T: Int>(form: Form, cc: u8) -> Option<OpFn> {
    Some(match form {
        Form::RegReg => by_cond!(rr, cc, O, T),
        Form::RegImm => by_cond!(ri, cc, O, T),
        _ => return None,
    })
}

fn handler(s: Shape, size: u8, cc: u8) -> Option<OpFn> {
    match (s.kind, size) {
        (Kind::Cmp, 1) => compare::<Cmp, u8>(s.form, cc),
        (Kind::Cmp, 4) => compare::<Cmp, u32>(s.form, cc),
        (Kind::Cmp, 8) => compare::<Cmp, u64>(s.form, cc),
        (Kind::Test, 1) => compare::<Test, u8>(s.form, cc),
        (Kind::Test, 4) => compare::<Test, u32>(s.form, cc),
        (Kind::Test, 8) => compare::<Test, u64>(s.form, cc),
        (Kind::Dec, 4) => compute::<Dec, u32>(s.form, cc),
        (Kind::Dec, 8) => compute::<Dec, u64>(s.form, cc),
        (Kind::Sub, 4) => compute::<Sub, u32>(s.form, cc),
        (Kind::Sub, 8) => compute::<Sub, u64>(s.form, cc),
        (Kind::Add, 4) => compute::<Add, u32>(s.form, cc),
        (Kind::Add, 8) => compute::<Add, u64>(s.form, cc),
        (Kind::And, 4) => compute::<And, u32>(s.form, cc),
        (Kind::And, 8) => compute::<And, u64>(s.form, cc),
        _ => None,
    }
}

/// The fused form of an operation and the jump on condition `cc` behind it, if there is one.
pub(crate) fn fuse(first: &Uop, shape: Shape, jump: &Uop, cc: u8) -> Option<Uop> {
    let memory = matches!(shape.form, Form::RegMem | Form::MemReg | Form::MemImm);
    if jump.size < 4 || first.is(LOCK) || memory && !first.is(FLAT64) {
        return None;
    }
    let mut u = *first;
    u.run = handler(shape, first.size, cc)?;
    u.len += jump.len;
    u.imm = jump.imm;
    let value = i32::try_from(first.imm as i64).ok();
    match shape.form {
        // INC and DEC have no immediate.
        Form::RegImm => u.disp = value?,
        Form::MemImm => u.imm = u64::from(jump.imm as u32) | (value? as u64) << 32,
        _ => {}
    }
    Some(u)
}
