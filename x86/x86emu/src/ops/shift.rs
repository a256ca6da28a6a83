// SPDX-License-Identifier: MIT
//! Shifts and rotates.

use crate::bus::Bus;
use crate::core::{Core, Flow};
use crate::flags::Flags;
use crate::ops::{Int, pick};
use crate::uop::{OpFn, Uop};

/// Operations in encoding order of the group.
pub(crate) const ROL: u8 = 0;
pub(crate) const ROR: u8 = 1;
pub(crate) const RCL: u8 = 2;
pub(crate) const RCR: u8 = 3;
pub(crate) const SHL: u8 = 4;
pub(crate) const SHR: u8 = 5;
pub(crate) const SAR: u8 = 7;

/// One shift of a zero-extended value; `count` is masked already and not 0.
#[inline(always)]
fn shift<T: Int, const OP: u8>(f: &mut Flags, a: u64, count: u32) -> u64 {
    match OP {
        SHL => {
            let wide = (u128::from(a) << count) as u64;
            let cf = if count <= T::BITS {
                a >> (T::BITS - count) & 1 != 0
            } else {
                false
            };
            let r = T::narrow(wide).wide();
            f.set_result(T::sext(r));
            f.aux = 0;
            f.set_cf_of(cf, (r >> (T::BITS - 1) & 1 != 0) ^ cf);
            r
        }
        SHR => {
            let cf = a >> (count - 1) & 1 != 0;
            let r = a.checked_shr(count).unwrap_or(0);
            f.set_result(T::sext(r));
            f.aux = 0;
            // OF is defined for a count of 1: the old sign.
            f.set_cf_of(cf, count == 1 && a >> (T::BITS - 1) & 1 != 0);
            r
        }
        _ => {
            let s = T::sext(a) as i64;
            let cf = s >> (count - 1).min(63) & 1 != 0;
            let r = (s >> count.min(63)) as u64;
            f.set_result(T::sext(r));
            f.aux = 0;
            f.set_cf_of(cf, false);
            r
        }
    }
}

/// One rotate; `count` is masked to 5 or 6 bits and not 0.
fn rotate<T: Int>(op: u8, f: &mut Flags, a: u64, count: u32) -> u64 {
    let bits = T::BITS;
    let top = |v: u64| v >> (bits - 1) & 1 != 0;
    let mask = u64::MAX >> (64 - bits);
    let rol = |n: u32| {
        if n == 0 {
            a
        } else {
            (a << n | a >> (bits - n)) & mask
        }
    };
    match op {
        ROL => {
            let r = rol(count % bits);
            let cf = r & 1 != 0;
            f.set_cf_of(cf, top(r) ^ cf);
            r
        }
        ROR => {
            let r = rol((bits - count % bits) % bits);
            f.set_cf_of(top(r), top(r) ^ (r >> (bits - 2) & 1 != 0));
            r
        }
        _ => {
            let n = count % (bits + 1);
            let left = if op == RCL { n } else { (bits + 1 - n) % (bits + 1) };
            let v = u128::from(a) | u128::from(f.cf()) << bits;
            let full = (1u128 << (bits + 1)) - 1;
            let r = if left == 0 {
                v
            } else {
                (v << left | v >> (bits + 1 - left)) & full
            };
            let cf = r >> bits & 1 != 0;
            let r = r as u64 & mask;
            let of = match op {
                RCL => top(r) ^ cf,
                _ => top(r) ^ (r >> (bits - 2) & 1 != 0),
            };
            f.set_cf_of(cf, of);
            r
        }
    }
}

#[inline(always)]
fn one<T: Int>(op: u8, f: &mut Flags, a: u64, count: u32) -> u64 {
    match op {
        SHL | 6 => shift::<T, SHL>(f, a, count),
        SHR => shift::<T, SHR>(f, a, count),
        SAR => shift::<T, SAR>(f, a, count),
        _ => rotate::<T>(op, f, a, count),
    }
}

#[inline(always)]
fn reg_imm<T: Int>(c: &mut Core, u: &Uop, op: u8) -> Flow {
    let a = T::get(c, u.dst);
    let r = one::<T>(op, &mut c.flags, a, u.imm as u32);
    T::put(c, u.dst, r);
    Ok(())
}
fn shl_imm<T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    reg_imm::<T>(c, u, SHL)
}
fn shr_imm<T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    reg_imm::<T>(c, u, SHR)
}
fn sar_imm<T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    reg_imm::<T>(c, u, SAR)
}
fn other_imm<T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    reg_imm::<T>(c, u, u.aux)
}
fn reg_cl<T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let count = c.gpr[1] as u32 & if T::BITS == 64 { 63 } else { 31 };
    let a = T::get(c, u.dst);
    // A 32-bit destination is zero-extended even by a count of 0.
    let r = if count == 0 {
        a
    } else {
        one::<T>(u.aux, &mut c.flags, a, count)
    };
    T::put(c, u.dst, r);
    Ok(())
}

/// Register by a masked non-zero immediate.
pub(crate) fn by_imm(op: u8, size: u8) -> OpFn {
    match op {
        SHL | 6 => pick!(shl_imm, size),
        SHR => pick!(shr_imm, size),
        SAR => pick!(sar_imm, size),
        _ => pick!(other_imm, size),
    }
}
/// Register by CL.
pub(crate) fn by_cl(size: u8) -> OpFn {
    pick!(reg_cl, size)
}

fn one_n(op: u8, size: u8, f: &mut Flags, a: u64, count: u32) -> u64 {
    match size {
        1 => one::<u8>(op, f, a, count),
        2 => one::<u16>(op, f, a, count),
        4 => one::<u32>(op, f, a, count),
        _ => one::<u64>(op, f, a, count),
    }
}

/// Memory by immediate (`src` 0) or CL (`src` 1).
pub(crate) fn memory(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let raw = if u.src != 0 { c.gpr[1] } else { u.imm } as u32;
    let count = raw & if u.size == 8 { 63 } else { 31 };
    c.modify(u, bus, |c, a| {
        if count == 0 {
            a
        } else {
            one_n(u.aux, u.size, &mut c.flags, a, count)
        }
    })
}

/// SHLD and SHRD: `aux` bit 0 right, bit 1 count from CL.
pub(crate) fn double(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let raw = if u.aux & 2 != 0 { c.gpr[1] } else { u.imm } as u32;
    let count = raw & if u.size == 8 { 63 } else { 31 };
    let bits = u32::from(u.size) * 8;
    let b = c.reg(u.src, u.size);
    c.modify(u, bus, |c, a| {
        if count == 0 {
            return a;
        }
        let (r, cf) = if u.aux & 1 == 0 {
            shld(a, b, bits, count)
        } else {
            shrd(a, b, bits, count)
        };
        let mask = u64::MAX >> (64 - bits);
        let r = r & mask;
        let sext = ((r << (64 - bits)) as i64 >> (64 - bits)) as u64;
        c.flags.set_result(sext);
        c.flags.aux = 0;
        c.flags.set_cf_of(cf, (r ^ a) >> (bits - 1) & 1 != 0);
        r
    })
}

/// Result and CF. A count above the operand size (16-bit only) is undefined by the manual.
fn shld(a: u64, b: u64, bits: u32, count: u32) -> (u64, bool) {
    if count <= bits {
        let low = if count == bits {
            b
        } else {
            a << count | b >> (bits - count)
        };
        return (low, a >> (bits - count) & 1 != 0);
    }
    let n = count - bits;
    (b << n | a >> (bits - n), b >> (bits - n) & 1 != 0)
}

fn shrd(a: u64, b: u64, bits: u32, count: u32) -> (u64, bool) {
    if count <= bits {
        let r = if count == bits {
            b
        } else {
            a >> count | b << (bits - count)
        };
        return (r, a >> (count - 1) & 1 != 0);
    }
    let n = count - bits;
    (b >> n | a << (bits - n), b >> (n - 1) & 1 != 0)
}
