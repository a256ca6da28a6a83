// SPDX-License-Identifier: MIT
//! XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B: atomic where the architecture says so.

use crate::bus::Bus;
use crate::core::{Core, Flow};
use crate::ops::alu::{Add, Alu, Cmp};
use crate::uop::{LOCK, MEM, Uop};

fn flags_of<O: Alu>(c: &mut Core, size: u8, a: u64, b: u64) -> u64 {
    match size {
        1 => O::go::<u8>(&mut c.flags, a, b),
        2 => O::go::<u16>(&mut c.flags, a, b),
        4 => O::go::<u32>(&mut c.flags, a, b),
        _ => O::go::<u64>(&mut c.flags, a, b),
    }
}

/// XCHG; with memory always locked.
pub(crate) fn xchg(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let b = c.reg(u.src, u.size);
    if !u.is(MEM) {
        let a = c.reg(u.dst, u.size);
        c.set_reg(u.dst, u.size, b);
        c.set_reg(u.src, u.size, a);
        return Ok(());
    }
    let la = c.linear(u, u.size.into(), true)?;
    loop {
        let old = c.load_rmw_n(bus, la, u.size, u.idx)?;
        if c.exchange_n(bus, la, u.size, old, b)? {
            c.set_reg(u.src, u.size, old);
            return Ok(());
        }
    }
}

/// XADD.
pub(crate) fn xadd(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let b = c.reg(u.src, u.size);
    if !u.is(MEM) {
        let a = c.reg(u.dst, u.size);
        let sum = flags_of::<Add>(c, u.size, a, b);
        c.set_reg(u.src, u.size, a);
        c.set_reg(u.dst, u.size, sum);
        return Ok(());
    }
    let la = c.linear(u, u.size.into(), true)?;
    loop {
        let old = c.load_rmw_n(bus, la, u.size, u.idx)?;
        let flags = c.flags;
        let sum = flags_of::<Add>(c, u.size, old, b);
        match c.exchange_n(bus, la, u.size, old, sum) {
            Ok(true) => {
                c.set_reg(u.src, u.size, old);
                return Ok(());
            }
            Ok(false) => {}
            Err(stop) => {
                c.flags = flags;
                return Err(stop);
            }
        }
    }
}

/// CMPXCHG.
pub(crate) fn cmpxchg(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let (a, new) = (c.reg(0, u.size), c.reg(u.src, u.size));
    if !u.is(MEM) {
        let old = c.reg(u.dst, u.size);
        flags_of::<Cmp>(c, u.size, a, old);
        if a == old {
            c.set_reg(u.dst, u.size, new);
        } else {
            c.set_reg(0, u.size, old);
        }
        return Ok(());
    }
    let la = c.linear(u, u.size.into(), true)?;
    loop {
        let old = c.load_rmw_n(bus, la, u.size, u.idx)?;
        // A mismatch writes the old value back, which nobody can tell from not writing.
        if old == a && !store_if(c, u, bus, (la, old, new))? {
            continue;
        }
        flags_of::<Cmp>(c, u.size, a, old);
        if old != a {
            c.set_reg(0, u.size, old);
        }
        return Ok(());
    }
}

fn store_if(
    c: &mut Core,
    u: &Uop,
    bus: &mut dyn Bus,
    (la, old, new): (u64, u64, u64),
) -> Result<bool, crate::core::Stop> {
    if u.is(LOCK) {
        return c.exchange_n(bus, la, u.size, old, new);
    }
    c.store_n(bus, la, u.size, new, u.idx)?;
    Ok(true)
}

/// CMPXCHG8B and (`size` 8) CMPXCHG16B.
pub(crate) fn cmpxchg_pair(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    if u.size == 8 {
        let la = c.linear(u, 16, true)?;
        if la & 15 != 0 {
            return c.gp(0);
        }
        let join = |h: u64, l: u64| u128::from(h) << 64 | u128::from(l);
        let (want, new) = (join(c.gpr[2], c.gpr[0]), join(c.gpr[1], c.gpr[3]));
        loop {
            let old: u128 = c.load_rmw(bus, la, u.idx)?;
            if old == want && !c.exchange(bus, la, old, new)? {
                continue;
            }
            c.flags.set_zf(old == want);
            if old != want {
                c.gpr[0] = old as u64;
                c.gpr[2] = (old >> 64) as u64;
            }
            return Ok(());
        }
    }
    let la = c.linear(u, 8, true)?;
    let join = |h: u64, l: u64| h << 32 | l & 0xFFFF_FFFF;
    let (want, new) = (join(c.gpr[2], c.gpr[0]), join(c.gpr[1], c.gpr[3]));
    loop {
        let old: u64 = c.load_rmw(bus, la, u.idx)?;
        if old == want && !c.exchange(bus, la, old, new)? {
            continue;
        }
        c.flags.set_zf(old == want);
        if old != want {
            c.set_reg(0, 4, old & 0xFFFF_FFFF);
            c.set_reg(2, 4, old >> 32);
        }
        return Ok(());
    }
}
