// SPDX-License-Identifier: MIT
//! Two-operand arithmetic and logic, and INC, DEC, NEG, NOT.

use crate::bus::Bus;
use crate::core::{Core, Flow};
use crate::flags::Flags;
use crate::ops::{Addr, Int, pick};
use crate::uop::{OpFn, Uop};

/// An operation on two zero-extended operands.
pub(crate) trait Alu {
    /// Whether the destination is written.
    const WRITES: bool;
    /// Result (upper bits are garbage) and flags.
    fn go<T: Int>(f: &mut Flags, a: u64, b: u64) -> u64;
}

#[inline(always)]
fn carries<T: Int>(f: &mut Flags, carry: u64, aux: u64, r: u64) -> u64 {
    f.set_result(T::sext(r));
    f.carry = carry << (64 - T::BITS);
    f.aux = aux;
    r
}

#[inline(always)]
fn logic<T: Int>(f: &mut Flags, r: u64) -> u64 {
    f.set_result(T::sext(r));
    f.carry = 0;
    f.aux = 0;
    r
}

#[inline(always)]
fn add<T: Int>(f: &mut Flags, a: u64, b: u64, c: u64) -> u64 {
    let r = a.wrapping_add(b).wrapping_add(c);
    carries::<T>(f, a & b | (a | b) & !r, a ^ b ^ r, r)
}

#[inline(always)]
fn sub<T: Int>(f: &mut Flags, a: u64, b: u64, c: u64) -> u64 {
    let r = a.wrapping_sub(b).wrapping_sub(c);
    carries::<T>(f, !a & b | (!a | b) & r, a ^ b ^ r, r)
}

macro_rules! alu {
    ($name:ident, $writes:expr, |$f:ident, $a:ident, $b:ident| $e:expr) => {
        pub(crate) struct $name;
        impl Alu for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn go<T: Int>($f: &mut Flags, $a: u64, $b: u64) -> u64 {
                $e
            }
        }
    };
}
alu!(Add, true, |f, a, b| add::<T>(f, a, b, 0));
alu!(Adc, true, |f, a, b| {
    let c = u64::from(f.cf());
    add::<T>(f, a, b, c)
});
alu!(Sub, true, |f, a, b| sub::<T>(f, a, b, 0));
alu!(Sbb, true, |f, a, b| {
    let c = u64::from(f.cf());
    sub::<T>(f, a, b, c)
});
alu!(Cmp, false, |f, a, b| sub::<T>(f, a, b, 0));
alu!(And, true, |f, a, b| logic::<T>(f, a & b));
alu!(Or, true, |f, a, b| logic::<T>(f, a | b));
alu!(Xor, true, |f, a, b| logic::<T>(f, a ^ b));
alu!(Test, false, |f, a, b| logic::<T>(f, a & b));
alu!(Inc, true, |f, a, _b| {
    let cf = f.cf();
    let r = add::<T>(f, a, 1, 0);
    f.set_cf(cf);
    r
});
alu!(Dec, true, |f, a, _b| {
    let cf = f.cf();
    let r = sub::<T>(f, a, 1, 0);
    f.set_cf(cf);
    r
});
alu!(Neg, true, |f, a, _b| sub::<T>(f, 0, a, 0));
alu!(Not, true, |_f, a, _b| !a);

fn rr<O: Alu, T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let (a, b) = (T::get(c, u.dst), T::get(c, u.src));
    let r = O::go::<T>(&mut c.flags, a, b);
    if O::WRITES {
        T::put(c, u.dst, r);
    }
    Ok(())
}

fn ri<O: Alu, T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let a = T::get(c, u.dst);
    let r = O::go::<T>(&mut c.flags, a, T::narrow(u.imm).wide());
    if O::WRITES {
        T::put(c, u.dst, r);
    }
    Ok(())
}

/// Register and memory, to register.
fn rm<O: Alu, T: Int, A: Addr>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = A::at(c, u, T::SIZE, false)?;
    let b: T = c.load(bus, la, u.idx)?;
    let a = T::get(c, u.dst);
    let r = O::go::<T>(&mut c.flags, a, b.wide());
    if O::WRITES {
        T::put(c, u.dst, r);
    }
    Ok(())
}

#[inline(always)]
fn memory<O: Alu, T: Int, A: Addr>(c: &mut Core, u: &Uop, bus: &mut dyn Bus, b: u64) -> Flow {
    let la = A::at(c, u, T::SIZE, O::WRITES)?;
    if !O::WRITES {
        let a: T = c.load(bus, la, u.idx)?;
        O::go::<T>(&mut c.flags, a.wide(), b);
        return Ok(());
    }
    let a: T = c.load_rmw(bus, la, u.idx)?;
    let r = O::go::<T>(&mut c.flags, a.wide(), b);
    c.store(bus, la, T::narrow(r), u.idx)
}

/// Memory and register, to memory.
fn mr<O: Alu, T: Int, A: Addr>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let b = T::get(c, u.src);
    memory::<O, T, A>(c, u, bus, b)
}

/// Memory and immediate, to memory.
fn mi<O: Alu, T: Int, A: Addr>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    memory::<O, T, A>(c, u, bus, T::narrow(u.imm).wide())
}

/// With LOCK: memory and register or immediate, to memory.
fn locked<O: Alu, T: Int>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let b = if u.aux != 0 {
        T::narrow(u.imm).wide()
    } else {
        T::get(c, u.src)
    };
    c.modify(u, bus, |c, a| O::go::<T>(&mut c.flags, a, b))
}

/// Operand form of a two-operand instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    RegReg,
    RegImm,
    RegMem,
    MemReg,
    MemImm,
    /// LOCK with a memory destination.
    Locked,
}

fn pick_form<O: Alu>(form: Form, size: u8, flat: bool) -> OpFn {
    match form {
        Form::RegReg => pick!(rr::<O>, size),
        Form::RegImm => pick!(ri::<O>, size),
        Form::RegMem => pick!(rm::<O>, size, flat),
        Form::MemReg => pick!(mr::<O>, size, flat),
        Form::MemImm => pick!(mi::<O>, size, flat),
        Form::Locked => pick!(locked::<O>, size),
    }
}

/// Operations by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
    Inc,
    Dec,
    Neg,
    Not,
}

/// The handler for an operation and form.
pub(crate) fn handler(kind: Kind, form: Form, size: u8, flat: bool) -> OpFn {
    match kind {
        Kind::Add => pick_form::<Add>(form, size, flat),
        Kind::Or => pick_form::<Or>(form, size, flat),
        Kind::Adc => pick_form::<Adc>(form, size, flat),
        Kind::Sbb => pick_form::<Sbb>(form, size, flat),
        Kind::And => pick_form::<And>(form, size, flat),
        Kind::Sub => pick_form::<Sub>(form, size, flat),
        Kind::Xor => pick_form::<Xor>(form, size, flat),
        Kind::Cmp => pick_form::<Cmp>(form, size, flat),
        Kind::Test => pick_form::<Test>(form, size, flat),
        Kind::Inc => pick_form::<Inc>(form, size, flat),
        Kind::Dec => pick_form::<Dec>(form, size, flat),
        Kind::Neg => pick_form::<Neg>(form, size, flat),
        Kind::Not => pick_form::<Not>(form, size, flat),
    }
}
