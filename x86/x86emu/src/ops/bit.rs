// SPDX-License-Identifier: MIT
//! BT, BTS, BTR, BTC, BSF, BSR.

use crate::bus::Bus;
use crate::core::{Core, Flow};
use crate::uop::{LOCK, MEM, Uop};

/// [`Uop::aux`]: operation in bits 0 and 1 (BT, BTS, BTR, BTC); this bit: immediate offset.
pub(crate) const IMMEDIATE: u8 = 4;

/// BT and its writing forms.
pub(crate) fn test(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let bits = u64::from(u.size) * 8;
    let offset = if u.aux & IMMEDIATE != 0 {
        u.imm
    } else {
        c.reg(u.src, u.size)
    };
    let bit = offset & (bits - 1);
    let op = u.aux & 3;
    let mut at = *u;
    if u.is(MEM) && u.aux & IMMEDIATE == 0 {
        // A register offset selects a word anywhere around the address.
        let signed = match u.size {
            2 => offset as i16 as i64,
            4 => offset as i32 as i64,
            _ => offset as i64,
        };
        return far_bit(
            c,
            &at,
            bus,
            (signed >> bits.trailing_zeros()) * i64::from(u.size),
            bit,
        );
    }
    if op == 0 {
        let v = c.rm(u, bus)?;
        c.flags.set_cf(v >> bit & 1 != 0);
        return Ok(());
    }
    at.imm = bit;
    c.modify(&at, bus, |c, v| apply(c, op, v, bit))
}

fn apply(c: &mut Core, op: u8, v: u64, bit: u64) -> u64 {
    c.flags.set_cf(v >> bit & 1 != 0);
    match op {
        0 => v,
        1 => v | 1 << bit,
        2 => v & !(1 << bit),
        _ => v ^ 1 << bit,
    }
}

fn far_bit(c: &mut Core, u: &Uop, bus: &mut dyn Bus, bytes: i64, bit: u64) -> Flow {
    let op = u.aux & 3;
    let offset = c.offset(u).wrapping_add(bytes as u64) & u.address_mask();
    let la = match u.is(crate::uop::FLAT64) {
        true => offset.wrapping_add(c.seg_base[usize::from(u.seg & 7)]),
        false => c.segmented(usize::from(u.seg & 7), offset, u.size.into(), op != 0)?,
    };
    if op == 0 {
        let v = c.load_n(bus, la, u.size, u.idx)?;
        c.flags.set_cf(v >> bit & 1 != 0);
        return Ok(());
    }
    loop {
        let old = c.load_rmw_n(bus, la, u.size, u.idx)?;
        let flags = c.flags;
        let new = apply(c, op, old, bit);
        if !u.is(LOCK) {
            return c.store_n(bus, la, u.size, new, u.idx);
        }
        match c.exchange_n(bus, la, u.size, old, new) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(stop) => {
                c.flags = flags;
                return Err(stop);
            }
        }
    }
}

/// BSF and BSR (`aux` 1); a zero source leaves the destination (and zero-extends nothing).
pub(crate) fn scan(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = c.rm_src(u, bus)?;
    let n = if u.aux == 0 {
        v.trailing_zeros()
    } else {
        63 - v.leading_zeros().min(63)
    };
    if v != 0 {
        c.set_reg(u.dst, u.size, n.into());
    }
    c.flags.set_zf(v == 0);
    Ok(())
}
