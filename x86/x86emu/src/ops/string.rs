// SPDX-License-Identifier: MIT
//! String instructions with REP, in bulk where the memory allows.
//!
//! Always true: registers are those of a whole number of elements whenever the instruction stops, and a
//! long repetition yields where its count is a multiple of a slice, so that interrupts are taken between
//! elements and at the same ones whatever stopped it before. Traps are taken behind each element.

use crate::bus::Bus;
use crate::core::{Core, ES, Flow, Stop, Why};
use crate::ops::alu::{Alu, Cmp};
use crate::uop::{REP, REPNE, Uop};
use x86defs::rflags;

/// A repetition yields where its count is a multiple of this.
const SLICE: u64 = 1 << 16;
/// The same with a port.
const PORT_SLICE: u64 = 1 << 12;

/// The registers of a running string instruction.
struct Loop {
    mask: u64,
    step: u64,
    repeats: bool,
    left: u64,
}

impl Loop {
    fn new(c: &Core, u: &Uop) -> Self {
        let mask = u.address_mask();
        let repeats = u.is(REP) || u.is(REPNE);
        let size = u64::from(u.size);
        let step = if c.direction() { size.wrapping_neg() } else { size };
        Self {
            mask,
            step,
            repeats,
            left: if repeats { c.gpr[1] & mask } else { 1 },
        }
    }
    fn set(&self, c: &mut Core, r: usize, v: u64) {
        c.gpr[r] = match self.mask {
            0xFFFF => c.gpr[r] & !0xFFFF | v & 0xFFFF,
            m => v & m,
        };
    }
    /// After `n` elements: the count, and SI and DI as asked.
    fn done(&mut self, c: &mut Core, n: u64, si: bool, di: bool) {
        let bytes = self.step.wrapping_mul(n);
        if si {
            self.set(c, 6, c.gpr[6].wrapping_add(bytes));
        }
        if di {
            self.set(c, 7, c.gpr[7].wrapping_add(bytes));
        }
        self.left -= n;
        if self.repeats {
            self.set(c, 1, self.left);
        }
    }
    /// Whether bulk operation is possible: upwards, and no wrap of the address size in this piece.
    fn bulk(&self, c: &Core, u: &Uop, r: usize) -> Option<u64> {
        let at = c.gpr[r] & self.mask;
        let room = (self.mask - at) / u64::from(u.size);
        let alone = c.sys & rflags::TF != 0;
        (self.repeats && !alone && self.left > 3 && self.step == u64::from(u.size))
            .then_some(room.min((self.left - 1) % SLICE + 1))
    }
}

/// Yields at the end of a slice, if there is more to do; behind each element under RFLAGS.TF or where a
/// breakpoint was hit.
fn pause(c: &mut Core, l: &Loop, slice: u64) -> Flow {
    let traps = c.sys & rflags::TF != 0 || c.watch.hits != 0;
    if l.left > 0 && (traps || l.left.is_multiple_of(slice)) {
        c.why = Why::Yield;
        return Err(Stop);
    }
    Ok(())
}

fn source(c: &mut Core, u: &Uop, l: &Loop, len: u64) -> Result<u64, Stop> {
    let at = c.gpr[6] & l.mask;
    if c.is_code64() {
        return Ok(at.wrapping_add(c.seg_base[usize::from(u.seg & 7)]));
    }
    c.segmented(usize::from(u.seg & 7), at, len, false)
}
fn target(c: &mut Core, l: &Loop, len: u64, write: bool) -> Result<u64, Stop> {
    let at = c.gpr[7] & l.mask;
    if c.is_code64() {
        return Ok(at);
    }
    c.segmented(ES, at, len, write)
}

/// MOVS.
pub(crate) fn movs(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let size = u64::from(u.size);
    let mut l = Loop::new(c, u);
    while l.left > 0 {
        if let (Some(a), Some(b)) = (l.bulk(c, u, 6), l.bulk(c, u, 7)) {
            c.cur_idx = u.idx;
            let page = 4096 / size;
            let n = a.min(b).min(page) * size;
            if let (Ok(from), Ok(to)) = (source(c, u, &l, n), target(c, &l, n, true)) {
                let done = c.bulk_copy(bus, to, from, n, size)? / size;
                if done > 0 {
                    l.done(c, done, true, true);
                    pause(c, &l, SLICE)?;
                    continue;
                }
            }
        }
        let from = source(c, u, &l, size)?;
        let to = target(c, &l, size, true)?;
        let v = c.load_n(bus, from, u.size, u.idx)?;
        c.store_n(bus, to, u.size, v, u.idx)?;
        l.done(c, 1, true, true);
        pause(c, &l, SLICE)?;
    }
    Ok(())
}

/// STOS.
pub(crate) fn stos(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let size = u64::from(u.size);
    let mut l = Loop::new(c, u);
    let v = c.reg(0, u.size);
    while l.left > 0 {
        if let Some(n) = l.bulk(c, u, 7) {
            c.cur_idx = u.idx;
            let n = n.min(4096 / size) * size;
            if let Ok(to) = target(c, &l, n, true) {
                let done = c.bulk_fill(bus, to, v, n, size)? / size;
                if done > 0 {
                    l.done(c, done, false, true);
                    pause(c, &l, SLICE)?;
                    continue;
                }
            }
        }
        let to = target(c, &l, size, true)?;
        c.store_n(bus, to, u.size, v, u.idx)?;
        l.done(c, 1, false, true);
        pause(c, &l, SLICE)?;
    }
    Ok(())
}

/// LODS.
pub(crate) fn lods(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let mut l = Loop::new(c, u);
    while l.left > 0 {
        let from = source(c, u, &l, u.size.into())?;
        let v = c.load_n(bus, from, u.size, u.idx)?;
        c.set_reg(0, u.size, v);
        l.done(c, 1, true, false);
        pause(c, &l, SLICE)?;
    }
    Ok(())
}

fn compare(c: &mut Core, size: u8, a: u64, b: u64) {
    match size {
        1 => Cmp::go::<u8>(&mut c.flags, a, b),
        2 => Cmp::go::<u16>(&mut c.flags, a, b),
        4 => Cmp::go::<u32>(&mut c.flags, a, b),
        _ => Cmp::go::<u64>(&mut c.flags, a, b),
    };
}

/// SCAS and CMPS (`aux` 1).
pub(crate) fn scan(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let mut l = Loop::new(c, u);
    while l.left > 0 {
        let a = if u.aux != 0 {
            let from = source(c, u, &l, u.size.into())?;
            c.load_n(bus, from, u.size, u.idx)?
        } else {
            c.reg(0, u.size)
        };
        let to = target(c, &l, u.size.into(), false)?;
        let b = c.load_n(bus, to, u.size, u.idx)?;
        compare(c, u.size, a, b);
        l.done(c, 1, u.aux != 0, true);
        if l.repeats && c.flags.zf() == u.is(REPNE) {
            return Ok(());
        }
        pause(c, &l, SLICE)?;
    }
    Ok(())
}

/// INS.
pub(crate) fn ins(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.cur_idx = u.idx;
    let port = c.gpr[2] as u16;
    c.check_port(bus, port, u.size)?;
    let mut l = Loop::new(c, u);
    while l.left > 0 {
        let to = target(c, &l, u.size.into(), true)?;
        // The device sees the access only if the store will succeed.
        c.probe_write(bus, to, u.size.into())?;
        let v = c.port_read(bus, port, u.size);
        c.store_n(bus, to, u.size, v.into(), u.idx)?;
        l.done(c, 1, false, true);
        pause(c, &l, PORT_SLICE)?;
    }
    Ok(())
}

/// OUTS.
pub(crate) fn outs(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.cur_idx = u.idx;
    let port = c.gpr[2] as u16;
    c.check_port(bus, port, u.size)?;
    let mut l = Loop::new(c, u);
    while l.left > 0 {
        let from = source(c, u, &l, u.size.into())?;
        let v = c.load_n(bus, from, u.size, u.idx)?;
        c.port_write(bus, port, u.size, v as u32);
        l.done(c, 1, true, false);
        pause(c, &l, PORT_SLICE)?;
    }
    Ok(())
}
