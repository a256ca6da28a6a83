// SPDX-License-Identifier: MIT
//! XSAVE, XRSTOR, XGETBV, XSETBV for the x87 and SSE states (SDM volume 1 chapter 13), standard format.
//!
//! Always true: a save or restore that faults has changed nothing; XSTATE_BV says 1 for every state that
//! was saved, which the manual allows for a state in its initial configuration too. Not here: the compacted
//! format, XSAVEOPT and further states (not advertised).

use super::{FDP, FIP, MXCSR, ST, store_bytes};
use crate::bus::Bus;
use crate::core::{Core, Flow, Fpu, Stop};
use crate::uop::Uop;
use x86defs::cr4;

/// State components of XCR0 and XSTATE_BV.
const X87: u64 = 1;
const SSE: u64 = 2;
const KNOWN: u64 = X87 | SSE;
/// Legacy region and header.
const LEGACY: usize = 512;
const LEN: usize = LEGACY + 64;
const XMM: usize = 160;

/// The area's address, and the states that the instruction is about.
fn operands(c: &mut Core, u: &Uop, write: bool) -> Result<(u64, u64), Stop> {
    if c.cr4 & cr4::OSXSAVE == 0 {
        return c.ud();
    }
    if c.msrs.xcr0 & !KNOWN != 0 {
        // Another processor's state with more than there is here: nothing of it may be lost.
        tracing::warn!(
            xcr0 = format_args!("{:#x}", c.msrs.xcr0),
            "xsave area with states that are not implemented: #UD"
        );
        return c.ud();
    }
    let la = c.linear(u, LEN as u64, write)?;
    if la & 63 != 0 {
        return c.gp(0);
    }
    let asked = c.gpr[2] << 32 | c.gpr[0] & 0xFFFF_FFFF;
    Ok((la, asked & c.msrs.xcr0))
}

/// XMM registers that the code size shows.
fn xmm_count(c: &Core) -> usize {
    if c.is_code64() { 16 } else { 8 }
}

/// XSAVE and (`aux` 1) XSAVE64.
pub(crate) fn xsave(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let (la, states) = operands(c, u, true)?;
    c.cur_idx = u.idx;
    c.probe_write(bus, la, LEN as u64)?;
    let header = la.wrapping_add(LEGACY as u64);
    let old: u64 = c.load(bus, header, u.idx)?;
    let mut b = c.fxsave_image();
    if u.aux == 0 {
        b[FIP + 6..FIP + 8].fill(0);
        b[FDP + 6..FDP + 8].fill(0);
    }
    let xmm_end = XMM + xmm_count(c) * 16;
    let parts = [
        (X87, 0..MXCSR),
        (SSE, MXCSR..ST),
        (X87, ST..XMM),
        (SSE, XMM..xmm_end),
    ];
    for (state, range) in parts {
        if states & state != 0 {
            store_bytes(c, bus, la.wrapping_add(range.start as u64), u.idx, &b[range])?;
        }
    }
    c.store(bus, header, old & !states | states, u.idx)
}

/// XRSTOR and (`aux` 1) XRSTOR64.
pub(crate) fn xrstor(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let (la, states) = operands(c, u, false)?;
    let mut area = [0; LEN];
    for (i, part) in area.chunks_exact_mut(8).enumerate() {
        let v: u64 = c.load(bus, la.wrapping_add(i as u64 * 8), u.idx)?;
        part.copy_from_slice(&v.to_le_bytes());
    }
    let (legacy, header) = area.split_at(LEGACY);
    let mut b = [0; LEGACY];
    b.copy_from_slice(legacy);
    let mut present = [0; 8];
    present.copy_from_slice(&header[..8]);
    let present = u64::from_le_bytes(present);
    let mxcsr = u32::from_le_bytes([b[MXCSR], b[MXCSR + 1], b[MXCSR + 2], b[MXCSR + 3]]);
    let reserved = header[8..24].iter().any(|&byte| byte != 0);
    let bad_mxcsr = states & SSE != 0 && mxcsr & !0xFFFF != 0;
    if present & !c.msrs.xcr0 != 0 || reserved || bad_mxcsr {
        return c.gp(0);
    }
    if states & X87 != 0 {
        if present & X87 != 0 {
            c.load_fpu_part(&b);
        } else {
            c.fpu = Fpu::reset();
        }
    }
    if states & SSE != 0 {
        // MXCSR comes from memory whatever XSTATE_BV says.
        c.mxcsr = mxcsr;
        if present & SSE == 0 {
            b[XMM..].fill(0);
        }
        c.load_xmm_part(&b, xmm_count(c));
    }
    Ok(())
}

/// XGETBV.
pub(crate) fn xgetbv(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    if c.cr4 & cr4::OSXSAVE == 0 {
        return c.ud();
    }
    if c.gpr[1] as u32 != 0 {
        return c.gp(0);
    }
    let v = c.msrs.xcr0;
    c.gpr[0] = v & 0xFFFF_FFFF;
    c.gpr[2] = v >> 32;
    Ok(())
}

/// XSETBV.
pub(crate) fn xsetbv(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    if c.cr4 & cr4::OSXSAVE == 0 {
        return c.ud();
    }
    c.need_cpl0()?;
    let v = c.gpr[2] << 32 | c.gpr[0] & 0xFFFF_FFFF;
    if c.gpr[1] as u32 != 0 || v & X87 == 0 || v & !KNOWN != 0 {
        return c.gp(0);
    }
    c.msrs.xcr0 = v;
    Ok(())
}
