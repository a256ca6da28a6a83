// SPDX-License-Identifier: MIT
//! FPU, MMX and SSE instructions to uops.

use super::convert::{End, Source, gpr};
use crate::fpu::{self, xsave};
use crate::native::{SseForm, fpu_thunk, mmx_pair_thunk, sse_thunk};
use crate::ops::{special, sse};
use crate::uop::{MEM, OpFn, Uop};
use iced_x86::{Code, CpuidFeature as F, Instruction, Mnemonic as M, OpKind, Register};

/// What an instruction needs beyond the integer core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unit {
    X87,
    Mmx,
    Sse,
    Wait,
    FxSave,
    XSave,
}

fn unit(i: &Instruction) -> Option<Unit> {
    match i.mnemonic() {
        M::Wait => return Some(Unit::Wait),
        M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64 => return Some(Unit::FxSave),
        M::Xsave | M::Xsave64 | M::Xrstor | M::Xrstor64 => return Some(Unit::XSave),
        // These need no SSE state.
        M::Sfence
        | M::Lfence
        | M::Mfence
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchnta
        | M::Clflush
        | M::Movnti
        | M::Pause
        | M::Fisttp => return None,
        _ => {}
    }
    let features = i.cpuid_features();
    if features
        .iter()
        .any(|f| matches!(f, F::FPU | F::FPU287 | F::FPU387 | F::FPU287XL_ONLY))
    {
        return Some(Unit::X87);
    }
    if features.iter().any(|f| matches!(f, F::MMX)) {
        return Some(Unit::Mmx);
    }
    if features.iter().any(|f| matches!(f, F::SSE | F::SSE2)) {
        return Some(if has_mm(i) { Unit::Mmx } else { Unit::Sse });
    }
    None
}

fn has_mm(i: &Instruction) -> bool {
    if matches!(i.code(), Code::Cvtpi2ps_xmm_mmm64 | Code::Cvtpi2pd_xmm_mmm64) {
        return true;
    }
    (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm())
}

/// A check to put before an instruction when the FPU or SSE is not simply available.
pub(crate) fn gate(i: &Instruction, at: usize, idx: u8) -> Option<Uop> {
    let mut u = special(fpu::gate, at, idx);
    u.aux = match unit(i)? {
        Unit::X87 => 0,
        Unit::Sse => 1,
        Unit::Wait => 2,
        Unit::FxSave => 3,
        Unit::Mmx => 4,
        Unit::XSave => 5,
    };
    u.len = i.len() as u8;
    Some(u)
}

fn xmm(r: Register) -> u8 {
    (r as u32).wrapping_sub(Register::XMM0 as u32) as u8 & 15
}

/// Register number whatever the kind.
fn any(r: Register) -> u8 {
    match r {
        r if r.is_xmm() => xmm(r),
        r if r.is_gpr() => gpr(r),
        _ => 0,
    }
}

/// The uop of an FPU, MMX or SSE instruction.
pub(crate) fn convert(s: &Source<'_>, m: M) -> Option<(Uop, End)> {
    let u = match unit(s.ins)? {
        Unit::Wait => s.uop(fpu::wait),
        Unit::FxSave => {
            let save = matches!(m, M::Fxsave | M::Fxsave64);
            let mut u = s.uop(if save { fpu::fxsave } else { fpu::fxrstor });
            u.aux = u8::from(matches!(m, M::Fxsave64 | M::Fxrstor64));
            u
        }
        Unit::XSave => {
            let save = matches!(m, M::Xsave | M::Xsave64);
            let mut u = s.uop(if save { xsave::xsave } else { xsave::xrstor });
            u.aux = u8::from(matches!(m, M::Xsave64 | M::Xrstor64));
            u
        }
        Unit::X87 => x87(s, m)?,
        Unit::Mmx => mmx(s, m)?,
        Unit::Sse => moves(s, m).or_else(|| packed(s, m)).or_else(|| by_thunk(s, m))?,
    };
    Some((u, End::No))
}

fn x87(s: &Source<'_>, m: M) -> Option<Uop> {
    let size = s.ins.memory_size().size() as u8;
    let control: Option<OpFn> = match m {
        M::Fninit => Some(fpu::fninit),
        M::Fnclex => Some(fpu::fnclex),
        M::Fldcw => Some(fpu::fldcw),
        M::Fnstcw => Some(fpu::fnstcw),
        M::Fnstsw => Some(fpu::fnstsw),
        M::Fnstenv => Some(fpu::fnstenv),
        M::Fldenv => Some(fpu::fldenv),
        M::Fnsave => Some(fpu::fnsave),
        M::Frstor => Some(fpu::frstor),
        // The no-operations of later processors.
        M::Fneni | M::Fndisi | M::Fnsetpm => Some(crate::ops::mov::nop),
        _ => None,
    };
    let mut u = s.uop(control.unwrap_or(fpu::thunk));
    u.size = size;
    if control.is_some() {
        return Some(u);
    }
    if matches!(m, M::Fst | M::Fstp | M::Fist | M::Fistp | M::Fbstp) && u.is(MEM) {
        u.aux |= fpu::STORES;
    }
    if matches!(m, M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip) {
        u.aux |= fpu::TO_FLAGS;
    }
    u.imm = fpu_thunk(s.bytes, s.is64(), 1, 0, (false, false))?.to_bits();
    let opcode = s.bytes.iter().position(|b| (0xD8..=0xDF).contains(b))?;
    u.src = s.bytes[opcode] & 7;
    u.dst = *s.bytes.get(opcode + 1)?;
    Some(u)
}

fn has_imm(s: &Source<'_>) -> bool {
    (0..s.ins.op_count()).any(|n| matches!(s.kind(n), OpKind::Immediate8 | OpKind::Immediate8to32))
}

fn mmx(s: &Source<'_>, m: M) -> Option<Uop> {
    if m == M::Maskmovq {
        // Operands: memory at rDI, data, mask.
        let mut u = s.uop(fpu::maskmovq);
        u.aux = fpu::MMX;
        let mm = |n| (s.reg(n) as u32).wrapping_sub(Register::MM0 as u32) as u8;
        u.imm = mmx_pair_thunk(mm(1), mm(2))?.to_bits();
        return Some(u);
    }
    let mut u = s.uop(fpu::thunk);
    u.aux = fpu::MMX;
    u.size = s.ins.memory_size().size() as u8;
    let mut g = (false, false);
    let gpr_at = |n| s.is_reg(n) && s.reg(n).is_gpr();
    let xmm_at = |n| s.is_reg(n) && s.reg(n).is_xmm();
    if gpr_at(0) {
        u.aux |= fpu::TO_GPR;
        u.dst = gpr(s.reg(0));
        u.size = s.reg(0).size() as u8;
        // MOVD r, mm has the general register in rm; PMOVMSKB and PEXTRW have it in reg.
        let in_rm = matches!(m, M::Movd | M::Movq);
        g = (in_rm, !in_rm);
    }
    if gpr_at(1) {
        u.aux |= fpu::FROM_GPR;
        u.src = gpr(s.reg(1));
        g = (true, false);
    }
    if s.is_mem(0) {
        u.aux |= fpu::STORES;
    }
    // CVTPS2PI and the like from memory report in MXCSR too.
    let sse = !s.ins.cpuid_features().contains(&F::MMX);
    if xmm_at(0) || xmm_at(1) || sse {
        u.aux |= fpu::XMM;
    }
    if matches!(m, M::Cvtpi2ps | M::Cvtpi2pd) && u.is(MEM) {
        u.aux |= fpu::NO_WAIT;
    }
    u.imm = fpu_thunk(s.bytes, s.is64(), 2, usize::from(has_imm(s)), g)?.to_bits();
    Some(u)
}

/// A uop with XMM or general registers `dst` and `src`.
fn pair(s: &Source<'_>, run: OpFn, size: u8, aux: u8) -> Uop {
    let mut u = s.uop(run);
    if s.is_reg(0) {
        u.dst = any(s.reg(0));
    }
    if s.is_reg(1) {
        u.src = any(s.reg(1));
    }
    u.size = size;
    u.aux = aux;
    u
}

fn moves(s: &Source<'_>, m: M) -> Option<Uop> {
    let to_mem = s.is_mem(0);
    let whole = |aux| pair(s, if to_mem { sse::store } else { sse::load }, 16, aux);
    let from_gpr = s.is_reg(1) && s.reg(1).is_gpr();
    let to_gpr = s.is_reg(0) && s.reg(0).is_gpr();
    Some(match m {
        M::Movaps | M::Movapd | M::Movdqa | M::Movntps | M::Movntpd | M::Movntdq => whole(sse::ALIGNED),
        M::Movups | M::Movupd | M::Movdqu => whole(0),
        M::Movd | M::Movq => {
            let size = if m == M::Movq { 8 } else { 4 };
            if to_mem || to_gpr {
                pair(s, sse::store_scalar, size, if to_gpr { 2 } else { 0 })
            } else {
                pair(s, sse::load_scalar, size, if from_gpr { 2 } else { 0 })
            }
        }
        M::Movss | M::Movsd => {
            let size = if m == M::Movss { 4 } else { 8 };
            match (to_mem, s.is_mem(1)) {
                (true, _) => pair(s, sse::store_scalar, size, 0),
                (_, true) => pair(s, sse::load_scalar, size, 0),
                _ => pair(s, sse::merge_scalar, size, 0),
            }
        }
        M::Movlps | M::Movlpd => pair(
            s,
            if to_mem {
                sse::store_scalar
            } else {
                sse::merge_scalar
            },
            8,
            0,
        ),
        M::Movhps | M::Movhpd => pair(s, if to_mem { sse::store_high } else { sse::load_high }, 8, 0),
        M::Movlhps => pair(s, sse::load_high, 8, 0),
        M::Movhlps => pair(s, sse::high_to_low, 8, 0),
        M::Pmovmskb => pair(s, sse::byte_mask, 4, 0),
        M::Ldmxcsr => pair(s, sse::ldmxcsr, 4, 0),
        M::Stmxcsr => pair(s, sse::stmxcsr, 4, 0),
        M::Maskmovdqu => {
            // Operands: memory at rDI, data, mask.
            let mut u = s.uop(sse::masked_store);
            u.dst = any(s.reg(1));
            u.src = any(s.reg(2));
            u
        }
        _ => return None,
    })
}

fn packed(s: &Source<'_>, m: M) -> Option<Uop> {
    if let Some(run) = sse::packed_handler(m) {
        return Some(pair(s, run, 16, sse::ALIGNED));
    }
    let mut u = match m {
        M::Pshufd => pair(s, sse::shuffle_dwords, 16, sse::ALIGNED),
        M::Pslldq => pair(s, sse::shift_bytes, 16, 0),
        M::Psrldq => pair(s, sse::shift_bytes, 16, 2),
        _ => return None,
    };
    u.imm = s.imm(s.ins.op_count() - 1);
    Some(u)
}

fn by_thunk(s: &Source<'_>, m: M) -> Option<Uop> {
    let imm = has_imm(s);
    let to_gpr = s.is_reg(0) && s.reg(0).is_gpr();
    let from_gpr = (s.is_reg(1) && s.reg(1).is_gpr()) || (s.is_mem(1) && is_gpr_memory(s.ins.code()));
    let group = imm && s.ins.op_count() == 2;
    let form = SseForm {
        group,
        rm_gpr: from_gpr,
    };
    let mut u = pair(s, sse::thunk, s.ins.memory_size().size() as u8, 0);
    let aligned = u.is(MEM) && u.size == 16;
    u.aux |= if aligned { sse::ALIGNED } else { 0 };
    u.aux |= if to_gpr { sse::TO_GPR } else { 0 };
    u.aux |= if from_gpr { sse::FROM_GPR } else { 0 };
    u.aux |= if to_gpr && s.reg(0).size() == 8 {
        sse::WIDE
    } else {
        0
    };
    u.aux |= underflow(m);
    if matches!(m, M::Comiss | M::Comisd | M::Ucomiss | M::Ucomisd) {
        u.aux |= sse::TO_FLAGS;
    }
    u.imm = sse_thunk(s.bytes, s.is64(), usize::from(imm), form)?.to_bits();
    Some(u)
}

/// What [`sse::thunk`] must know of operations whose result may be tiny.
fn underflow(m: M) -> u8 {
    match m {
        M::Addss | M::Subss | M::Mulss | M::Divss | M::Cvtsd2ss => sse::TINY,
        M::Addsd | M::Subsd | M::Mulsd | M::Divsd => sse::TINY | sse::DOUBLE,
        M::Addps | M::Subps | M::Mulps | M::Divps | M::Cvtpd2ps => sse::TINY | sse::PACKED,
        M::Addpd | M::Subpd | M::Mulpd | M::Divpd => sse::TINY | sse::DOUBLE | sse::PACKED,
        _ => 0,
    }
}

/// Memory operands that stand for a general register.
fn is_gpr_memory(c: Code) -> bool {
    matches!(
        c,
        Code::Cvtsi2ss_xmm_rm32
            | Code::Cvtsi2ss_xmm_rm64
            | Code::Cvtsi2sd_xmm_rm32
            | Code::Cvtsi2sd_xmm_rm64
            | Code::Pinsrw_xmm_r32m16_imm8
            | Code::Pinsrw_xmm_r64m16_imm8
    )
}
