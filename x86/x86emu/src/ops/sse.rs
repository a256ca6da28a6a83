// SPDX-License-Identifier: MIT
//! SSE and SSE2: moves and integer operations in Rust, arithmetic through the native thunk.
//!
//! Always true: an unmasked SIMD exception changes nothing but MXCSR's flags and raises #XF.

use crate::bus::Bus;
use crate::core::{Core, Flow, Stop};
use crate::native::{self, SseContext};
use crate::uop::{FLAT64, MEM, OpFn, Uop};
use x86defs::{cr4, vector as exception};

/// [`Uop::aux`] of moves and operations: 16-byte memory operands must be aligned.
pub(crate) const ALIGNED: u8 = 1;

fn reg(r: u8) -> usize {
    usize::from(r & 15)
}

#[inline(always)]
fn address(c: &mut Core, u: &Uop, len: u64, write: bool) -> Result<u64, Stop> {
    let la = if u.flags & FLAT64 != 0 {
        c.flat(u)
    } else {
        c.linear(u, len, write)?
    };
    if u.aux & ALIGNED != 0 && la & 15 != 0 {
        return c.gp(0);
    }
    Ok(la)
}

/// The source operand of 16 bytes.
#[inline(always)]
fn source(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Result<u128, Stop> {
    if u.flags & MEM == 0 {
        return Ok(c.xmm[reg(u.src)]);
    }
    let la = address(c, u, 16, false)?;
    c.load(bus, la, u.idx)
}

/// MOVAPS, MOVUPS, MOVDQA and so on, to a register.
pub(crate) fn load(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.xmm[reg(u.dst)] = source(c, u, bus)?;
    Ok(())
}
/// The same to memory, and the non-temporal stores.
pub(crate) fn store(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = address(c, u, 16, true)?;
    let v = c.xmm[reg(u.src)];
    c.store(bus, la, v, u.idx)
}

const LOW64: u128 = u64::MAX as u128;
const LOW32: u128 = u32::MAX as u128;

/// The low part of `size` 4 or 8 bytes of the source: memory, XMM or (`aux` 2) a general register.
fn scalar_source(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Result<u64, Stop> {
    if u.is(MEM) {
        let la = c.linear(u, u.size.into(), false)?;
        return c.load_n(bus, la, u.size, u.idx);
    }
    let v = if u.aux & 2 != 0 {
        c.gpr[reg(u.src)]
    } else {
        c.xmm[reg(u.src)] as u64
    };
    Ok(if u.size == 4 { v & 0xFFFF_FFFF } else { v })
}
/// MOVD and MOVQ to XMM, MOVSS and MOVSD from memory: the rest becomes zero.
pub(crate) fn load_scalar(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.xmm[reg(u.dst)] = scalar_source(c, u, bus)?.into();
    Ok(())
}
/// MOVSS and MOVSD between registers: the rest stays.
pub(crate) fn merge_scalar(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = scalar_source(c, u, bus)?;
    let mask = if u.size == 4 { LOW32 } else { LOW64 };
    let d = &mut c.xmm[reg(u.dst)];
    *d = *d & !mask | u128::from(v);
    Ok(())
}
/// MOVD, MOVQ, MOVSS, MOVSD, MOVLPS to memory or (`aux` 2) a general register.
pub(crate) fn store_scalar(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = c.xmm[reg(u.src)] as u64;
    if u.is(MEM) {
        let la = c.linear(u, u.size.into(), true)?;
        return c.store_n(bus, la, u.size, v, u.idx);
    }
    if u.aux & 2 != 0 {
        c.set_reg(u.dst, u.size, v);
    } else {
        c.xmm[reg(u.dst)] = v.into();
    }
    Ok(())
}
/// MOVHPS and MOVHPD to memory.
pub(crate) fn store_high(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = (c.xmm[reg(u.src)] >> 64) as u64;
    let la = c.linear(u, 8, true)?;
    c.store(bus, la, v, u.idx)
}
/// MOVHPS, MOVHPD from memory and MOVLHPS.
pub(crate) fn load_high(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = scalar_source(c, u, bus)?;
    let d = &mut c.xmm[reg(u.dst)];
    *d = *d & LOW64 | u128::from(v) << 64;
    Ok(())
}
/// MOVHLPS.
pub(crate) fn high_to_low(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = c.xmm[reg(u.src)] >> 64;
    let d = &mut c.xmm[reg(u.dst)];
    *d = *d & !LOW64 | v;
    Ok(())
}
/// PMOVMSKB.
pub(crate) fn byte_mask(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = native::byte_mask(c.xmm[reg(u.src)]);
    c.set_reg(u.dst, 4, v.into());
    Ok(())
}
/// PSHUFD.
pub(crate) fn shuffle_dwords(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = source(c, u, bus)?;
    let pick = |n: u32| (v >> ((u.imm >> (2 * n) & 3) * 32) & LOW32) << (n * 32);
    c.xmm[reg(u.dst)] = pick(0) | pick(1) | pick(2) | pick(3);
    Ok(())
}
/// PSLLDQ and (`aux` 2) PSRLDQ.
pub(crate) fn shift_bytes(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let n = (u.imm as u32 & 0xFF).min(16) * 8;
    let d = &mut c.xmm[reg(u.dst)];
    *d = if u.aux & 2 == 0 {
        d.checked_shl(n)
    } else {
        d.checked_shr(n)
    }
    .unwrap_or(0);
    Ok(())
}
/// MASKMOVDQU.
pub(crate) fn masked_store(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let (v, mask) = (c.xmm[reg(u.dst)].to_le_bytes(), c.xmm[reg(u.src)].to_le_bytes());
    store_masked(c, u, bus, &v, &mask)
}

/// Stores the bytes whose mask byte has its top bit set to rDI on, all or none.
pub(crate) fn store_masked(c: &mut Core, u: &Uop, bus: &mut dyn Bus, v: &[u8], mask: &[u8]) -> Flow {
    let at = c.gpr[7] & u.address_mask();
    let linear = |c: &mut Core, i: usize| match c.is_code64() {
        true => Ok(at.wrapping_add(i as u64).wrapping_add(c.seg_base[reg(u.seg & 7)])),
        false => c.segmented(reg(u.seg & 7), at.wrapping_add(i as u64), 1, true),
    };
    let chosen = || (0..v.len()).filter(|&i| mask[i] & 0x80 != 0);
    c.cur_idx = u.idx;
    if let Ok(first) = linear(c, 0) {
        c.check_alignment(first, v.len() as u64)?;
    }
    for i in chosen() {
        let la = linear(c, i)?;
        c.probe_write(bus, la, 1)?;
    }
    for i in chosen() {
        let la = linear(c, i)?;
        c.store(bus, la, v[i], u.idx)?;
    }
    Ok(())
}

/// LDMXCSR.
pub(crate) fn ldmxcsr(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v: u32 = c.load_op(u, bus)?;
    if v & !0xFFFF != 0 {
        return c.gp(0);
    }
    c.mxcsr = v;
    Ok(())
}
/// STMXCSR.
pub(crate) fn stmxcsr(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.store_op(u, bus, c.mxcsr)
}

impl Core {
    /// After an operation that set the SIMD exception flags `flags`: #XF if one is unmasked.
    pub(crate) fn simd_flags(&mut self, flags: u32) -> Flow {
        let flags = flags & 0x3F;
        let unmasked = flags & !(self.mxcsr >> 7);
        if unmasked == 0 {
            self.mxcsr |= flags;
            return Ok(());
        }
        // Exceptions before the operation come alone (SDM volume 1 section 11.5.2).
        self.mxcsr |= if unmasked & 7 != 0 { flags & 7 } else { flags };
        if self.cr4 & cr4::OSXMMEXCPT == 0 {
            self.ud()
        } else {
            self.trap(exception::XF)
        }
    }
}

/// [`Uop::aux`] of thunk instructions: the destination is a general register.
pub(crate) const TO_GPR: u8 = 2;
/// The source is a general register or memory that stands for one.
pub(crate) const FROM_GPR: u8 = 4;
/// COMISS and the like: status flags are the result.
pub(crate) const TO_FLAGS: u8 = 8;
/// The destination general register is 8 bytes.
pub(crate) const WIDE: u8 = 16;

/// The result may be denormal: an unmasked underflow is one even if the result is exact.
pub(crate) const TINY: u8 = 32;
/// Its lanes are doubles, not singles.
pub(crate) const DOUBLE: u8 = 64;
/// All lanes are results, not only the lowest.
pub(crate) const PACKED: u8 = 128;

const UNDERFLOW: u32 = 0x10;

/// The underflow flag that the host, where the exception is masked, does not set for exact denormal
/// results (SDM volume 1 section 4.9.1.5).
fn exact_underflow(u: &Uop, mxcsr: u32, result: u128) -> u32 {
    if u.aux & TINY == 0 || mxcsr >> 7 & UNDERFLOW != 0 {
        return 0;
    }
    let (bits, fraction) = if u.aux & DOUBLE != 0 { (64, 52) } else { (32, 23) };
    let lanes = if u.aux & PACKED != 0 { 128 / bits } else { 1 };
    let denormal = |n: u32| {
        let magnitude = result >> (n * bits) & ((1 << (bits - 1)) - 1);
        magnitude != 0 && magnitude >> fraction == 0
    };
    if (0..lanes).any(denormal) { UNDERFLOW } else { 0 }
}

/// An instruction through its thunk in `imm`; `size` is that of the memory operand.
pub(crate) fn thunk(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let mut x = SseContext {
        a: c.xmm[reg(u.dst)],
        mxcsr: c.mxcsr,
        ..Default::default()
    };
    if u.is(MEM) {
        let v = match u.size {
            16 => {
                let la = address(c, u, 16, false)?;
                c.load::<u128>(bus, la, u.idx)?
            }
            n => {
                let la = c.linear(u, n.into(), false)?;
                c.load_n(bus, la, n, u.idx)?.into()
            }
        };
        x.b = v;
        x.gpr = v as u64;
    } else if u.aux & FROM_GPR != 0 {
        x.gpr = c.gpr[reg(u.src)];
    } else {
        x.b = c.xmm[reg(u.src)];
    }
    native::run_sse(native::thunk_from_uop(u.imm), &mut x);
    c.simd_flags(x.mxcsr | exact_underflow(u, c.mxcsr, x.a))?;
    if u.aux & TO_GPR != 0 {
        c.set_reg(u.dst, if u.aux & WIDE != 0 { 8 } else { 4 }, x.gpr);
    } else if u.aux & TO_FLAGS != 0 {
        c.flags = crate::flags::Flags::from_bits(x.flags & 0x45);
    } else {
        c.xmm[reg(u.dst)] = x.a;
    }
    Ok(())
}

fn packed<F: native::Packed>(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let b = source(c, u, bus)?;
    let d = &mut c.xmm[reg(u.dst)];
    *d = F::go(*d, b);
    Ok(())
}

/// The handler of a packed integer or logic operation that needs no thunk.
pub(crate) fn packed_handler(m: iced_x86::Mnemonic) -> Option<OpFn> {
    use iced_x86::Mnemonic as M;
    use native::packed as p;
    Some(match m {
        M::Pand | M::Andps | M::Andpd => packed::<p::AndSi128>,
        M::Pandn | M::Andnps | M::Andnpd => packed::<p::AndnotSi128>,
        M::Por | M::Orps | M::Orpd => packed::<p::OrSi128>,
        M::Pxor | M::Xorps | M::Xorpd => packed::<p::XorSi128>,
        M::Pcmpeqb => packed::<p::CmpeqEpi8>,
        M::Pcmpeqw => packed::<p::CmpeqEpi16>,
        M::Pcmpeqd => packed::<p::CmpeqEpi32>,
        M::Pcmpgtb => packed::<p::CmpgtEpi8>,
        M::Pcmpgtw => packed::<p::CmpgtEpi16>,
        M::Pcmpgtd => packed::<p::CmpgtEpi32>,
        M::Paddb => packed::<p::AddEpi8>,
        M::Paddw => packed::<p::AddEpi16>,
        M::Paddd => packed::<p::AddEpi32>,
        M::Paddq => packed::<p::AddEpi64>,
        M::Psubb => packed::<p::SubEpi8>,
        M::Psubw => packed::<p::SubEpi16>,
        M::Psubd => packed::<p::SubEpi32>,
        M::Psubq => packed::<p::SubEpi64>,
        M::Pminub => packed::<p::MinEpu8>,
        M::Pmaxub => packed::<p::MaxEpu8>,
        M::Pminsw => packed::<p::MinEpi16>,
        M::Pmaxsw => packed::<p::MaxEpi16>,
        M::Punpcklbw => packed::<p::UnpackloEpi8>,
        M::Punpcklwd => packed::<p::UnpackloEpi16>,
        M::Punpckldq | M::Unpcklps => packed::<p::UnpackloEpi32>,
        M::Punpcklqdq | M::Unpcklpd => packed::<p::UnpackloEpi64>,
        M::Punpckhbw => packed::<p::UnpackhiEpi8>,
        M::Punpckhwd => packed::<p::UnpackhiEpi16>,
        M::Punpckhdq | M::Unpckhps => packed::<p::UnpackhiEpi32>,
        M::Punpckhqdq | M::Unpckhpd => packed::<p::UnpackhiEpi64>,
        M::Pmuludq => packed::<p::MulEpu32>,
        M::Pavgb => packed::<p::AvgEpu8>,
        M::Packuswb => packed::<p::PackusEpi16>,
        M::Packsswb => packed::<p::PacksEpi16>,
        M::Packssdw => packed::<p::PacksEpi32>,
        M::Pmullw => packed::<p::MulloEpi16>,
        M::Pmaddwd => packed::<p::MaddEpi16>,
        M::Psadbw => packed::<p::SadEpu8>,
        _ => return None,
    })
}
