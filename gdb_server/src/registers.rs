// SPDX-License-Identifier: MIT
//! Between register state and GDB's register file.

use gdbstub_arch::x86::reg::X86_64CoreRegs;
use x86defs::state::gpr;
use x86defs::{X86State, rflags};

/// GDB's order of the general purpose registers.
const ORDER: [usize; 16] = [
    gpr::RAX,
    gpr::RBX,
    gpr::RCX,
    gpr::RDX,
    gpr::RSI,
    gpr::RDI,
    gpr::RBP,
    gpr::RSP,
    gpr::R8,
    gpr::R9,
    gpr::R10,
    gpr::R11,
    gpr::R12,
    gpr::R13,
    gpr::R14,
    gpr::R15,
];

/// The base to add to RIP for a linear address: CS base outside 64-bit code, else 0.
fn code_base(state: &X86State) -> u64 {
    if state.is_64bit() { 0 } else { state.cs.base }
}

/// The linear address of the next instruction.
pub(crate) fn linear_rip(state: &X86State) -> u64 {
    let mask = if state.is_64bit() { u64::MAX } else { 0xFFFF_FFFF };
    state.rip.wrapping_add(code_base(state)) & mask
}

/// Fills GDB's registers.
pub(crate) fn to_gdb(state: &X86State, fx: &[u8; 512], out: &mut X86_64CoreRegs) {
    for (to, from) in out.regs.iter_mut().zip(ORDER) {
        *to = state.gpr[from];
    }
    out.rip = linear_rip(state);
    out.eflags = state.rflags as u32;
    out.segments.cs = state.cs.selector.into();
    out.segments.ss = state.ss.selector.into();
    out.segments.ds = state.ds.selector.into();
    out.segments.es = state.es.selector.into();
    out.segments.fs = state.fs.selector.into();
    out.segments.gs = state.gs.selector.into();
    let word = |at: usize| u32::from(u16::from_le_bytes([fx[at], fx[at + 1]]));
    out.fpu.fctrl = word(0);
    out.fpu.fstat = word(2);
    out.fpu.ftag = full_tag(fx);
    out.fpu.fop = word(6);
    for (i, st) in out.st.iter_mut().enumerate() {
        st.copy_from_slice(&fx[32 + 16 * i..42 + 16 * i]);
    }
    for (i, xmm) in out.xmm.iter_mut().enumerate() {
        let mut b = [0; 16];
        b.copy_from_slice(&fx[160 + 16 * i..176 + 16 * i]);
        *xmm = u128::from_le_bytes(b);
    }
    out.mxcsr = u32::from_le_bytes([fx[24], fx[25], fx[26], fx[27]]);
}

/// The x87 tag word from FXSAVE's abridged form: empty or, without looking at values, valid.
fn full_tag(fx: &[u8; 512]) -> u32 {
    (0..8)
        .map(|i| if fx[4] & (1 << i) != 0 { 0 } else { 3 << (2 * i) })
        .sum()
}

/// Takes over what GDB may change: general purpose registers, RIP and the flags. Selectors, x87 and SSE
/// registers are shown only.
pub(crate) fn from_gdb(regs: &X86_64CoreRegs, state: &mut X86State) {
    for (from, to) in regs.regs.iter().zip(ORDER) {
        state.gpr[to] = *from;
    }
    if regs.rip != linear_rip(state) {
        let mask = if state.is_64bit() { u64::MAX } else { 0xFFFF_FFFF };
        state.rip = regs.rip.wrapping_sub(code_base(state)) & mask;
    }
    state.rflags = u64::from(regs.eflags) | rflags::RESERVED_ONE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reset_vector_is_shown_linear_and_survives_a_round_trip() {
        let state = X86State::reset();
        let mut regs = X86_64CoreRegs::default();
        to_gdb(&state, &[0; 512], &mut regs);
        assert_eq!(regs.rip, 0xFFFF_FFF0);
        assert_eq!(regs.regs[3], 0x600);
        let mut back = state;
        from_gdb(&regs, &mut back);
        assert_eq!(back, state);
        regs.rip = 0xFFFF_0123;
        from_gdb(&regs, &mut back);
        assert_eq!(back.rip, 0x123);
    }
}
