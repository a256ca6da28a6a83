// SPDX-License-Identifier: MIT
//! MUL, IMUL, DIV, IDIV.

use crate::bus::Bus;
use crate::core::{Core, Flow};
use crate::ops::Int;
use crate::uop::Uop;
use x86defs::vector;

fn sext(v: u64, size: u8) -> i128 {
    match size {
        1 => i128::from(v as i8),
        2 => i128::from(v as i16),
        4 => i128::from(v as i32),
        _ => i128::from(v as i64),
    }
}

/// The upper half of the double-width accumulator goes to AH or rDX.
fn set_pair(c: &mut Core, size: u8, low: u64, high: u64) {
    if size == 1 {
        c.set_reg(0, 2, low & 0xFF | high << 8);
    } else {
        c.set_reg(0, size, low);
        c.set_reg(2, size, high);
    }
}

fn pair(c: &Core, size: u8) -> u128 {
    if size == 1 {
        return u128::from(c.reg(0, 2));
    }
    u128::from(c.reg(2, size)) << (size * 8) | u128::from(c.reg(0, size))
}

impl Core {
    /// CF = OF = the result did not fit; SF, ZF and PF, undefined by the manual, follow the low half as
    /// on recent Intel processors.
    fn product_flags(&mut self, size: u8, low: u64, overflow: bool) {
        self.flags.set_result(sext(low, size) as u64);
        self.flags.zero = 1;
        self.flags.aux = 0;
        self.flags.set_cf_of(overflow, overflow);
    }
}

/// MUL r/m.
pub(crate) fn mul(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let b = c.rm(u, bus)?;
    let r = u128::from(c.reg(0, u.size)) * u128::from(b);
    let high = (r >> (u.size * 8)) as u64;
    set_pair(c, u.size, r as u64, high);
    c.product_flags(u.size, r as u64, high != 0);
    Ok(())
}
/// IMUL r/m.
pub(crate) fn imul1(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let b = c.rm(u, bus)?;
    let r = sext(c.reg(0, u.size), u.size) * sext(b, u.size);
    set_pair(c, u.size, r as u64, (r >> (u.size * 8)) as u64);
    let fits = sext(r as u64, u.size) == r;
    c.product_flags(u.size, r as u64, !fits);
    Ok(())
}
/// IMUL r, r/m and (`aux` 1) IMUL r, r/m, imm.
pub(crate) fn imul(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let b = c.rm_src(u, bus)?;
    let a = if u.aux != 0 { u.imm } else { c.reg(u.dst, u.size) };
    let (a, b) = (sext(a, u.size) as i64, sext(b, u.size) as i64);
    let (r, over) = a.overflowing_mul(b);
    let fits = !over && sext(r as u64, u.size) == i128::from(r);
    c.set_reg(u.dst, u.size, r as u64);
    c.product_flags(u.size, r as u64, !fits);
    Ok(())
}
/// IMUL r64, r64 and IMUL r32, r32.
pub(crate) fn imul_rr<T: Int>(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let (a, b) = (T::sext(T::get(c, u.dst)) as i64, T::sext(T::get(c, u.src)) as i64);
    let (r, over) = a.overflowing_mul(b);
    T::put(c, u.dst, r as u64);
    let low = T::sext(r as u64);
    c.flags.set_result(low);
    c.flags.zero = 1;
    c.flags.aux = 0;
    let over = over || low != r as u64;
    c.flags.set_cf_of(over, over);
    Ok(())
}
/// MUL r64.
pub(crate) fn mul64(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let r = u128::from(c.gpr[0]) * u128::from(c.gpr[usize::from(u.dst & 15)]);
    let high = (r >> 64) as u64;
    c.gpr[0] = r as u64;
    c.gpr[2] = high;
    c.product_flags(8, r as u64, high != 0);
    Ok(())
}
/// DIV r/m.
pub(crate) fn div(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let d = c.rm(u, bus)?;
    if d == 0 {
        return c.trap(vector::DE);
    }
    let n = pair(c, u.size);
    let (q, r) = match (u64::try_from(n), u.size) {
        (Ok(n), _) => (u128::from(n / d), n % d),
        _ => (n / u128::from(d), (n % u128::from(d)) as u64),
    };
    if q >> (u.size * 8) != 0 {
        return c.trap(vector::DE);
    }
    set_pair(c, u.size, q as u64, r);
    Ok(())
}
/// IDIV r/m.
pub(crate) fn idiv(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let d = sext(c.rm(u, bus)?, u.size);
    let bits = u32::from(u.size) * 16;
    let n = ((pair(c, u.size) << (128 - bits)) as i128) >> (128 - bits);
    let (Some(q), Some(r)) = (n.checked_div(d), n.checked_rem(d)) else {
        return c.trap(vector::DE);
    };
    if sext(q as u64, u.size) != q {
        return c.trap(vector::DE);
    }
    set_pair(c, u.size, q as u64, r as u64);
    Ok(())
}
