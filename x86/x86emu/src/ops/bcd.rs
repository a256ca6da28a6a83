// SPDX-License-Identifier: MIT
//! Decimal adjustments; outside 64-bit mode only.

use crate::bus::Bus;
use crate::core::{Core, Flow};
use crate::uop::Uop;
use x86defs::vector;

/// DAA and DAS (`aux` 1).
pub(crate) fn da(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let old = c.reg(0, 1) as u8;
    let (cf, af) = (c.flags.cf(), c.flags.aux & 0x10 != 0);
    let mut al = old;
    let mut carry = false;
    let low = old & 15 > 9 || af;
    if low {
        let (v, over) = if u.aux == 0 {
            old.overflowing_add(6)
        } else {
            old.overflowing_sub(6)
        };
        al = v;
        carry = cf || over;
    }
    if old > 0x99 || cf {
        al = if u.aux == 0 {
            al.wrapping_add(0x60)
        } else {
            al.wrapping_sub(0x60)
        };
        carry = true;
    }
    c.set_reg(0, 1, al.into());
    c.flags.set_result(al as i8 as u64);
    c.flags.set_cf_of(carry, false);
    c.flags.aux = if low { 0x10 } else { 0 };
    Ok(())
}

/// AAA and AAS (`aux` 1).
pub(crate) fn aa(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let adjust = c.gpr[0] & 15 > 9 || c.flags.aux & 0x10 != 0;
    let mut ax = c.reg(0, 2) as u16;
    if adjust {
        ax = if u.aux == 0 {
            ax.wrapping_add(0x106)
        } else {
            ax.wrapping_sub(0x106)
        };
    }
    ax &= 0xFF0F;
    c.set_reg(0, 2, ax.into());
    c.flags.set_result(ax as i8 as u64);
    c.flags.set_cf_of(adjust, false);
    c.flags.aux = if adjust { 0x10 } else { 0 };
    Ok(())
}

/// AAM with base `imm`.
pub(crate) fn aam(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let base = u.imm as u8;
    let al = c.reg(0, 1) as u8;
    let (Some(q), Some(r)) = (al.checked_div(base), al.checked_rem(base)) else {
        return c.trap(vector::DE);
    };
    c.set_reg(0, 2, u64::from(q) << 8 | u64::from(r));
    c.flags.set_result(r as i8 as u64);
    c.flags.set_cf_of(false, false);
    c.flags.aux = 0;
    Ok(())
}

/// AAD with base `imm`.
pub(crate) fn aad(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let (al, ah) = (c.reg(0, 1) as u8, c.reg(0x20, 1) as u8);
    let r = al.wrapping_add(ah.wrapping_mul(u.imm as u8));
    c.set_reg(0, 2, r.into());
    c.flags.set_result(r as i8 as u64);
    c.flags.set_cf_of(false, false);
    c.flags.aux = 0;
    Ok(())
}
