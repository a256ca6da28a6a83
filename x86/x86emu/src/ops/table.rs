// SPDX-License-Identifier: MIT
//! Instructions about descriptor tables and segment registers.

use crate::bus::Bus;
use crate::core::{Core, Flow, SS, Stop};
use crate::uop::{MEM, Uop};
use x86defs::{TableRegister, cr4};

impl Core {
    /// #GP(0) for SGDT and the like at CPL 3 with UMIP.
    pub(crate) fn check_umip(&mut self) -> Flow {
        if self.cr4 & cr4::UMIP != 0 && self.cpl == 3 {
            self.gp(0)
        } else {
            Ok(())
        }
    }
}

/// LGDT and LIDT (`aux` 1).
pub(crate) fn load_table(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    let wide = c.is_code64();
    let la = c.linear(u, if wide { 10 } else { 6 }, false)?;
    let limit: u16 = c.load(bus, la, u.idx)?;
    let base = c.load_n(bus, la.wrapping_add(2), if wide { 8 } else { 4 }, u.idx)?;
    if wide && (base as i64) << 16 >> 16 != base as i64 {
        return c.gp(0);
    }
    let base = if u.size == 2 && !wide {
        base & 0xFF_FFFF
    } else {
        base
    };
    let t = TableRegister { base, limit };
    if u.aux == 0 {
        c.gdtr = t;
    } else {
        c.idtr = t;
    }
    Ok(())
}
/// SGDT and SIDT (`aux` 1).
pub(crate) fn store_table(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.check_umip()?;
    let wide = c.is_code64();
    let len = if wide { 10 } else { 6 };
    let la = c.linear(u, len, true)?;
    c.cur_idx = u.idx;
    c.probe_write(bus, la, len)?;
    let t = if u.aux == 0 { c.gdtr } else { c.idtr };
    c.store(bus, la, t.limit, u.idx)?;
    c.store_n(bus, la.wrapping_add(2), if wide { 8 } else { 4 }, t.base, u.idx)
}
/// SLDT and STR (`aux` 1).
pub(crate) fn store_selector(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    if c.is_real_like() {
        return c.ud();
    }
    c.check_umip()?;
    let v = if u.aux == 0 {
        c.ldtr.selector
    } else {
        c.tr.selector
    };
    c.set_rm(u, bus, v.into())
}
/// LLDT and LTR (`aux` 1).
pub(crate) fn load_selector(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    if c.is_real_like() {
        return c.ud();
    }
    c.need_cpl0()?;
    c.cur_idx = u.idx;
    let v = c.rm(u, bus)? as u16;
    if u.aux == 0 {
        c.load_ldtr(bus, v)
    } else {
        c.load_tr(bus, v)
    }
}
/// MOV to segment register `aux`.
pub(crate) fn to_segment(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.cur_idx = u.idx;
    let v = c.rm_src(u, bus)? as u16;
    c.load_segment(bus, usize::from(u.aux % 6), v)?;
    if usize::from(u.aux) == SS {
        c.shadow_after(u);
        c.trap_shadow_at = c.shadow_at;
    }
    Ok(())
}
/// MOV from segment register `aux`; `size` is 2 for memory.
pub(crate) fn from_segment(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = c.seg[usize::from(u.aux % 6)].selector;
    c.set_rm(u, bus, v.into())
}
/// LDS, LES, LSS, LFS, LGS: segment `aux`.
pub(crate) fn load_far(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = c.linear(u, u64::from(u.size) + 2, false)?;
    let v = c.load_n(bus, la, u.size, u.idx)?;
    let selector: u16 = c.load(bus, la.wrapping_add(u.size.into()), u.idx)?;
    c.cur_idx = u.idx;
    c.load_segment(bus, usize::from(u.aux % 6), selector)?;
    c.set_reg(u.dst, u.size, v);
    Ok(())
}

fn selector(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Result<u16, Stop> {
    if c.is_real_like() {
        return c.ud();
    }
    c.cur_idx = u.idx;
    if u.is(MEM) {
        return c.load_op::<u16>(u, bus);
    }
    Ok(c.reg(u.src, 2) as u16)
}
/// LAR and LSL (`aux` 1).
pub(crate) fn inspect(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let s = selector(c, u, bus)?;
    let d = c.visible_descriptor(bus, s)?;
    let long = c.is_long();
    let value = d.and_then(|d| {
        let known = d.is_segment()
            || match d.kind() {
                2 | 9 | 0xB => true,
                1 | 3 => !long,
                0xC => u.aux == 0,
                4 | 5 => u.aux == 0 && !long,
                _ => false,
            };
        known.then(|| {
            if u.aux == 0 {
                d.raw >> 32 & 0x00FF_FF00
            } else {
                d.limit().into()
            }
        })
    });
    if let Some(v) = value {
        c.set_reg(u.dst, u.size, v);
    }
    c.flags.set_zf(value.is_some());
    Ok(())
}
/// VERR and VERW (`aux` 1).
pub(crate) fn verify(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let s = selector(c, u, bus)?;
    let d = c.visible_descriptor(bus, s)?;
    let ok = d.is_some_and(|d| {
        let writable = d.kind() & 0xA == 2;
        let readable = d.kind() & 8 == 0 || d.kind() & 2 != 0;
        d.is_segment() && if u.aux == 0 { readable } else { writable }
    });
    c.flags.set_zf(ok);
    Ok(())
}
/// ARPL.
pub(crate) fn arpl(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    if c.is_real_like() {
        return c.ud();
    }
    let rpl = c.reg(u.src, 2) & 3;
    c.modify(u, bus, |c, v| {
        let raise = v & 3 < rpl;
        c.flags.set_zf(raise);
        if raise { v & !3 | rpl } else { v }
    })
}
