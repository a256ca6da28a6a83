// SPDX-License-Identifier: MIT
//! x87 and MMX: control instructions in Rust, everything else through the native thunk; FXSAVE images.
//!
//! Always true: the guest's unmasked exceptions never reach the host; they become #MF at the guest's
//! next waiting instruction (APM2 section 8.4). What an instruction with an unmasked exception leaves is
//! what the host leaves: untouched operands, or a result with a biased exponent.

pub(crate) mod xsave;

use crate::bus::Bus;
use crate::core::{CS, Core, Flow, Fpu, RIP, Stop};
use crate::native::{self, FpuContext};
use crate::uop::{MEM, Uop};
use x86defs::{cr0, vector};

const FCW: usize = 0;
const FSW: usize = 2;
const FTW: usize = 4;
const FOP: usize = 6;
const FIP: usize = 8;
const FDP: usize = 16;
const MXCSR: usize = 24;
const ST: usize = 32;

/// [`Uop::aux`]: the memory operand is written.
pub(crate) const STORES: u8 = 1;
/// The destination is a general register.
pub(crate) const TO_GPR: u8 = 2;
/// The source is a general register.
pub(crate) const FROM_GPR: u8 = 4;
/// An MMX instruction: no x87 pointers, no x87 exceptions.
pub(crate) const MMX: u8 = 8;
/// XMM registers are operands too.
pub(crate) const XMM: u8 = 16;
/// FCOMI and the like.
pub(crate) const TO_FLAGS: u8 = 32;
/// A pending x87 exception does not matter: CVTPI2PS and CVTPI2PD from memory use no MMX register.
pub(crate) const NO_WAIT: u8 = 64;

impl Core {
    /// x87, MXCSR and XMM as a 64-bit FXSAVE image.
    pub(crate) fn fxsave_image(&self) -> [u8; 512] {
        let mut b = [0; 512];
        b[..160].copy_from_slice(&self.fpu.image);
        b[MXCSR..MXCSR + 4].copy_from_slice(&self.mxcsr.to_le_bytes());
        b[28..32].copy_from_slice(&0xFFFFu32.to_le_bytes());
        for (i, x) in self.xmm.iter().enumerate() {
            b[160 + i * 16..176 + i * 16].copy_from_slice(&x.to_le_bytes());
        }
        b
    }
    /// Loads a 64-bit FXSAVE image.
    pub(crate) fn load_fx_image(&mut self, b: &[u8; 512]) {
        self.load_fpu_part(b);
        self.mxcsr = u32::from_le_bytes([b[MXCSR], b[25], b[26], b[27]]) & 0xFFFF;
        self.load_xmm_part(b, 16);
    }
    fn load_fpu_part(&mut self, b: &[u8; 512]) {
        self.fpu.image.copy_from_slice(&b[..160]);
        self.fpu.image[5] = 0;
        // Bits above the 80 of a register are reserved.
        for i in 0..8 {
            self.fpu.image[ST + i * 16 + 10..ST + i * 16 + 16].fill(0);
        }
        self.update_summary();
    }
    fn load_xmm_part(&mut self, b: &[u8; 512], count: usize) {
        for (i, x) in self.xmm.iter_mut().enumerate().take(count) {
            let mut v = [0; 16];
            v.copy_from_slice(&b[160 + i * 16..176 + i * 16]);
            *x = u128::from_le_bytes(v);
        }
    }
    /// The error summary and busy bits follow flags and masks.
    fn update_summary(&mut self) {
        let fsw = self.fpu.word(FSW);
        let pending = fsw & !self.fpu.word(FCW) & 0x3F != 0;
        self.fpu
            .set_word(FSW, if pending { fsw | 0x8080 } else { fsw & 0x7F7F });
    }
    /// #MF if an unmasked exception is pending.
    fn check_pending(&mut self, bus: &mut dyn Bus) -> Flow {
        if self.fpu.word(FSW) & 0x80 == 0 {
            return Ok(());
        }
        if self.cr0 & cr0::NE != 0 {
            return self.trap(vector::MF);
        }
        bus.fpu_error();
        Ok(())
    }
}

/// Checks before an FPU or SSE instruction where it does not simply run: `aux` 0 x87, 1 SSE, 2 WAIT, 3
/// FXSAVE and FXRSTOR, 4 MMX, 5 XSAVE and XRSTOR.
pub(crate) fn gate(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let (em, ts) = (c.cr0 & cr0::EM != 0, c.cr0 & cr0::TS != 0);
    match u.aux {
        0 | 3 if em || ts => c.trap(vector::NM),
        1 if em || c.cr4 & x86defs::cr4::OSFXSR == 0 => c.ud(),
        4 if em => c.ud(),
        5 if c.cr4 & x86defs::cr4::OSXSAVE == 0 => c.ud(),
        5 if ts => c.trap(vector::NM),
        2 if ts && c.cr0 & cr0::MP != 0 => c.trap(vector::NM),
        1 | 4 if ts => c.trap(vector::NM),
        _ => Ok(()),
    }
}

/// The context of a thunk from the guest's state.
fn context(c: &Core, u: &Uop) -> FpuContext {
    let mut x = FpuContext::new();
    x.image[..160].copy_from_slice(&c.fpu.image);
    x.image[FSW..FSW + 2].copy_from_slice(&(c.fpu.word(FSW) & 0x7F00).to_le_bytes());
    x.image[MXCSR..MXCSR + 4].copy_from_slice(&c.mxcsr.to_le_bytes());
    x.flags = c.flags.bits();
    if u.aux & XMM != 0 {
        for (i, v) in c.xmm.iter().enumerate() {
            x.image[160 + i * 16..176 + i * 16].copy_from_slice(&v.to_le_bytes());
        }
    }
    x
}

/// An x87 or MMX instruction through its thunk in `imm`; `size` is that of the memory operand.
pub(crate) fn thunk(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    if u.aux & NO_WAIT == 0 {
        c.check_pending(bus)?;
    }
    let mut x = context(c, u);
    let mut la = 0;
    if u.is(MEM) {
        la = c.linear(u, u.size.into(), u.aux & STORES != 0)?;
        if u.aux & XMM != 0 && u.size == 16 && la & 15 != 0 {
            return c.gp(0);
        }
        if u.aux & STORES == 0 {
            load_bytes(c, u, bus, la, &mut x.memory)?;
        }
    } else if u.aux & FROM_GPR != 0 {
        x.gpr = c.gpr[usize::from(u.src & 15)];
    }
    native::run_fpu(native::thunk_from_uop(u.imm), &mut x);
    finish(c, u, bus, &x, la)
}

/// MASKMOVQ: the thunk stores data and mask.
pub(crate) fn maskmovq(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.check_pending(bus)?;
    let mut x = context(c, u);
    native::run_fpu(native::thunk_from_uop(u.imm), &mut x);
    let (v, mask) = x.memory[..16].split_at(8);
    crate::ops::sse::store_masked(c, u, bus, v, mask)?;
    finish(c, u, bus, &x, 0)
}

/// Bytes of the access at `at` to an operand of `len` bytes. Environments and whole states, which are made of
/// words or doublewords, need no more alignment than those (APM2 table 8-7).
fn piece(len: usize, at: usize) -> usize {
    let largest = match len {
        14 | 94 => 2,
        28 | 108 => 4,
        _ => 8,
    };
    let fits = |&n: &usize| n <= largest && at + n <= len;
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

fn load_bytes(c: &mut Core, u: &Uop, bus: &mut dyn Bus, la: u64, out: &mut [u8; 128]) -> Flow {
    let mut at = 0;
    while at < usize::from(u.size) {
        let n = piece(usize::from(u.size), at);
        let v = c.load_n(bus, la.wrapping_add(at as u64), n as u8, u.idx)?;
        out[at..at + n].copy_from_slice(&v.to_le_bytes()[..n]);
        at += n;
    }
    Ok(())
}

fn store_bytes(c: &mut Core, bus: &mut dyn Bus, la: u64, idx: u8, bytes: &[u8]) -> Flow {
    c.cur_idx = idx;
    c.probe_write(bus, la, bytes.len() as u64)?;
    let mut at = 0;
    while at < bytes.len() {
        let n = piece(bytes.len(), at);
        let mut v = [0; 8];
        v[..n].copy_from_slice(&bytes[at..at + n]);
        c.store_n(
            bus,
            la.wrapping_add(at as u64),
            n as u8,
            u64::from_le_bytes(v),
            idx,
        )?;
        at += n;
    }
    Ok(())
}

/// Invalid operation, denormal operand, division by zero: before the operation.
const BEFORE: u16 = 7;
/// Overflow and underflow: a store does not happen, a register gets a biased result.
const RANGE: u16 = 0x18;

/// Commits what a thunk did.
fn finish(c: &mut Core, u: &Uop, bus: &mut dyn Bus, x: &FpuContext, la: u64) -> Flow {
    let (old, fcw) = (c.fpu.word(FSW), c.fpu.word(FCW));
    let new = u16::from_le_bytes([x.image[FSW], x.image[FSW + 1]]);
    let mmx = u.aux & MMX != 0;
    let unmasked = if mmx { 0 } else { new & !fcw & 0x3F };
    if u.aux & XMM != 0 {
        let mxcsr = u32::from_le_bytes([x.image[MXCSR], x.image[25], x.image[26], x.image[27]]);
        c.simd_flags(mxcsr)?;
    }
    if u.is(MEM) && u.aux & STORES != 0 {
        if unmasked & (BEFORE | RANGE) == 0 {
            store_bytes(c, bus, la, u.idx, &x.memory[..usize::from(u.size)])?;
        } else {
            // The operand is checked all the same.
            c.cur_idx = u.idx;
            c.probe_write(bus, la, u.size.into())?;
        }
    }
    let pointers: [u8; 18] = std::array::from_fn(|i| c.fpu.image[FOP + i]);
    c.fpu.image.copy_from_slice(&x.image[..160]);
    c.fpu.image[FOP..FOP + 18].copy_from_slice(&pointers);
    c.fpu.set_word(FCW, fcw);
    c.fpu.set_word(FSW, new & 0x7F00 | (old | new) & 0x7F);
    c.update_summary();
    if u.aux & XMM != 0 {
        c.load_xmm_part(&x.image, 16);
    }
    if u.aux & TO_GPR != 0 {
        c.set_reg(u.dst, if u.size == 8 { 8 } else { 4 }, x.gpr);
    }
    if u.aux & TO_FLAGS != 0 {
        c.flags = crate::flags::Flags::from_bits(x.flags);
    }
    if !mmx {
        set_pointers(c, u, la);
    }
    Ok(())
}

/// The last instruction's and operand's address.
fn set_pointers(c: &mut Core, u: &Uop, la: u64) {
    let rip = c.gpr[RIP].wrapping_add(u.at.into()) & c.lin_mask;
    c.fpu.image[FIP..FIP + 8].copy_from_slice(&rip.to_le_bytes());
    if !c.is_code64() {
        let cs = c.seg[CS].selector;
        c.fpu.set_word(FIP + 4, cs);
        c.fpu.set_word(FIP + 6, 0);
    }
    if u.is(MEM) {
        c.fpu.image[FDP..FDP + 8].copy_from_slice(&la.to_le_bytes());
    }
    c.fpu
        .set_word(FOP, u16::from(u.src) << 8 & 0x700 | u16::from(u.dst));
}

/// WAIT.
pub(crate) fn wait(c: &mut Core, _u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.check_pending(bus)
}
/// FNINIT.
pub(crate) fn fninit(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let keep: [u8; 128] = std::array::from_fn(|i| c.fpu.image[ST + i]);
    c.fpu = Fpu::reset();
    c.fpu.image[ST..].copy_from_slice(&keep);
    Ok(())
}
/// FNCLEX.
pub(crate) fn fnclex(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let v = c.fpu.word(FSW) & 0x7F00;
    c.fpu.set_word(FSW, v);
    Ok(())
}
/// FLDCW.
pub(crate) fn fldcw(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.check_pending(bus)?;
    let v: u16 = c.load_op(u, bus)?;
    c.fpu.set_word(FCW, v & 0x1F7F | 0x40);
    c.update_summary();
    Ok(())
}
/// FNSTCW.
pub(crate) fn fnstcw(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = c.fpu.word(FCW);
    c.store_op(u, bus, v)
}
/// FNSTSW to memory or AX.
pub(crate) fn fnstsw(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let v = c.fpu.word(FSW);
    if u.is(MEM) {
        return c.store_op(u, bus, v);
    }
    c.set_reg(0, 2, v.into());
    Ok(())
}

/// The full tag word from the abridged one and the registers (SDM volume 1 section 10.5.1).
fn full_tags(f: &Fpu) -> u16 {
    let top = usize::from(f.word(FSW) >> 11 & 7);
    let mut tags = 0;
    for physical in 0..8 {
        let tag = if f.image[FTW] >> physical & 1 == 0 {
            3
        } else {
            let at = ST + (physical + 8 - top) % 8 * 16;
            let exponent = f.word(at + 8) & 0x7FFF;
            let zero = f.image[at..at + 8].iter().all(|&b| b == 0);
            match (exponent, zero, f.image[at + 7] >> 7) {
                (0, true, _) => 1,
                (0 | 0x7FFF, ..) | (_, _, 0) => 2,
                _ => 0,
            }
        };
        tags |= tag << (physical * 2);
    }
    tags
}

/// The environment in the layout of the operand and code size.
fn environment(c: &Core, size: usize) -> Vec<u8> {
    let f = &c.fpu;
    let words = [
        f.word(FCW),
        f.word(FSW),
        full_tags(f),
        f.word(FIP),
        f.word(FIP + 4),
        f.word(FDP),
        f.word(FDP + 4),
    ];
    if size == 14 {
        return words.iter().flat_map(|w| w.to_le_bytes()).collect();
    }
    let mut b = Vec::new();
    for w in &words[..3] {
        b.extend((u32::from(*w) | 0xFFFF_0000).to_le_bytes());
    }
    b.extend_from_slice(&f.image[FIP..FIP + 4]);
    b.extend((u32::from(f.word(FIP + 4)) | u32::from(f.word(FOP)) << 16).to_le_bytes());
    b.extend_from_slice(&f.image[FDP..FDP + 4]);
    b.extend((u32::from(f.word(FDP + 4)) | 0xFFFF_0000).to_le_bytes());
    b
}

fn load_environment(c: &mut Core, b: &[u8]) {
    let step = b.len() / 7;
    let word = |n: usize| u16::from_le_bytes([b[n * step], b[n * step + 1]]);
    let tags = word(2);
    c.fpu.set_word(FCW, word(0) & 0x1F7F | 0x40);
    c.fpu.set_word(FSW, word(1));
    c.fpu.image[FTW] = (0..8).map(|i| u8::from(tags >> (i * 2) & 3 != 3) << i).sum();
    c.fpu.image[FIP..FIP + 16].fill(0);
    for (n, at) in [(3, FIP), (5, FDP)] {
        c.fpu.image[at..at + step].copy_from_slice(&b[n * step..n * step + step]);
        c.fpu.set_word(at + 4, word(n + 1));
    }
    c.update_summary();
}

/// FNSTENV: masks every exception afterwards.
pub(crate) fn fnstenv(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let b = environment(c, u.size.into());
    let la = c.linear(u, u.size.into(), true)?;
    store_bytes(c, bus, la, u.idx, &b)?;
    let fcw = c.fpu.word(FCW) | 0x3F;
    c.fpu.set_word(FCW, fcw);
    c.update_summary();
    Ok(())
}
/// FLDENV.
pub(crate) fn fldenv(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.check_pending(bus)?;
    let mut b = [0; 128];
    let la = c.linear(u, u.size.into(), false)?;
    load_bytes(c, u, bus, la, &mut b)?;
    load_environment(c, &b[..usize::from(u.size)]);
    Ok(())
}
/// FNSAVE: environment and registers, then FNINIT.
pub(crate) fn fnsave(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let mut b = environment(c, usize::from(u.size) - 80);
    for i in 0..8 {
        b.extend_from_slice(&c.fpu.image[ST + i * 16..ST + i * 16 + 10]);
    }
    let la = c.linear(u, u.size.into(), true)?;
    store_bytes(c, bus, la, u.idx, &b)?;
    fninit(c, u, bus)
}
/// FRSTOR.
pub(crate) fn frstor(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.check_pending(bus)?;
    let mut b = [0; 128];
    let la = c.linear(u, u.size.into(), false)?;
    load_bytes(c, u, bus, la, &mut b)?;
    let env = usize::from(u.size) - 80;
    for i in 0..8 {
        let at = ST + i * 16;
        c.fpu.image[at..at + 10].copy_from_slice(&b[env + i * 10..env + i * 10 + 10]);
    }
    load_environment(c, &b[..env]);
    Ok(())
}

/// The image's memory operand: aligned to 16.
fn image_address(c: &mut Core, u: &Uop, write: bool) -> Result<u64, Stop> {
    let la = c.linear(u, 512, write)?;
    if la & 15 != 0 {
        return c.gp(0);
    }
    Ok(la)
}
/// FXSAVE and (`aux` 1) FXSAVE64.
pub(crate) fn fxsave(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = image_address(c, u, true)?;
    let mut b = c.fxsave_image();
    if u.aux == 0 {
        b[FIP + 6..FIP + 8].fill(0);
        b[FDP + 6..FDP + 8].fill(0);
    }
    let registers = if c.is_code64() { 16 } else { 8 };
    store_bytes(c, bus, la, u.idx, &b[..160 + registers * 16])
}
/// FXRSTOR and (`aux` 1) FXRSTOR64.
pub(crate) fn fxrstor(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    let la = image_address(c, u, false)?;
    let mut b = [0; 512];
    for (i, part) in b.chunks_exact_mut(8).enumerate() {
        let v: u64 = c.load(bus, la.wrapping_add(i as u64 * 8), u.idx)?;
        part.copy_from_slice(&v.to_le_bytes());
    }
    let mxcsr = u32::from_le_bytes([b[MXCSR], b[25], b[26], b[27]]);
    if mxcsr & !0xFFFF != 0 {
        return c.gp(0);
    }
    c.load_fpu_part(&b);
    c.mxcsr = mxcsr;
    let registers = if c.is_code64() { 16 } else { 8 };
    c.load_xmm_part(&b, registers);
    Ok(())
}
