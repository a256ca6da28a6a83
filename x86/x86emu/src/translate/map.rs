// SPDX-License-Identifier: MIT
//! The rest of the integer and system instructions, by mnemonic.

use super::convert::{End, Source, segment};
use crate::fpu::xsave;
use crate::ops::{bcd, bit, control, exchange, mov, muldiv, shift, stack, string, system, table};
use crate::uop::{OpFn, Uop};
use iced_x86::{Code, Mnemonic as M, Register};

/// Size of a uop without explicit operands from the code size and prefixes.
fn plain(s: &Source<'_>, run: OpFn, size: u8, aux: u8) -> Uop {
    let mut u = s.uop(run);
    u.size = size;
    u.aux = aux;
    u
}

fn with_aux(mut u: Uop, aux: u8) -> Uop {
    u.aux = aux;
    u
}

/// The uop of an integer or system instruction that has no hot handler.
pub(crate) fn convert(s: &Source<'_>, m: M) -> Option<(Uop, End)> {
    let no = |u: Uop| Some((u, End::No));
    if let Some(u) = arithmetic(s, m)
        .or_else(|| strings(s, m))
        .or_else(|| simple(s, m))
    {
        return no(u);
    }
    stacks(s, m)
        .or_else(|| ports(s, m))
        .or_else(|| segments(s, m))
        .or_else(|| transfers(s, m))
        .or_else(|| systems(s, m))
}

fn arithmetic(s: &Source<'_>, m: M) -> Option<Uop> {
    let bit_op = |op: u8| {
        let imm = !s.is_reg(1);
        with_aux(s.rm_uop(bit::test), op | if imm { bit::IMMEDIATE } else { 0 })
    };
    Some(match m {
        M::Mul if s.is_reg(0) && s.size(0) == 8 => s.rm_uop(muldiv::mul64),
        M::Mul => s.rm_uop(muldiv::mul),
        M::Div => s.rm_uop(muldiv::div),
        M::Idiv => s.rm_uop(muldiv::idiv),
        M::Imul => match s.ins.op_count() {
            1 => s.rm_uop(muldiv::imul1),
            2 if s.is_reg(1) && s.size(0) == 8 => s.rm_uop(muldiv::imul_rr::<u64>),
            2 if s.is_reg(1) && s.size(0) == 4 => s.rm_uop(muldiv::imul_rr::<u32>),
            2 => s.rm_uop(muldiv::imul),
            _ => with_aux(s.rm_uop(muldiv::imul), 1),
        },
        M::Bt => bit_op(0),
        M::Bts => bit_op(1),
        M::Btr => bit_op(2),
        M::Btc => bit_op(3),
        // Without BMI, F3 BSF is BSF (TZCNT) and F3 BSR is BSR (LZCNT).
        M::Bsf | M::Tzcnt => with_aux(s.rm_uop(bit::scan), 0),
        M::Bsr | M::Lzcnt => with_aux(s.rm_uop(bit::scan), 1),
        M::Bswap => s.rm_uop(mov::bswap),
        M::Shld | M::Shrd => {
            let cl = s.is_reg(2);
            with_aux(
                s.rm_uop(shift::double),
                u8::from(m == M::Shrd) | u8::from(cl) << 1,
            )
        }
        M::Xchg => {
            let mut u = s.rm_uop(exchange::xchg);
            if s.is_mem(1) {
                u.src = u.dst;
            }
            u
        }
        M::Xadd => s.rm_uop(exchange::xadd),
        M::Cmpxchg => s.rm_uop(exchange::cmpxchg),
        M::Cmpxchg8b => plain(s, exchange::cmpxchg_pair, 4, 0),
        M::Cmpxchg16b => plain(s, exchange::cmpxchg_pair, 8, 0),
        M::Daa => plain(s, bcd::da, 1, 0),
        M::Das => plain(s, bcd::da, 1, 1),
        M::Aaa => plain(s, bcd::aa, 1, 0),
        M::Aas => plain(s, bcd::aa, 1, 1),
        M::Aam => s.rm_uop(bcd::aam),
        M::Aad => s.rm_uop(bcd::aad),
        M::Movnti => s.rm_uop(mov::handler(crate::ops::alu::Form::MemReg, s.size(1), false)),
        _ => return None,
    })
}

fn strings(s: &Source<'_>, m: M) -> Option<Uop> {
    let (run, size, aux): (OpFn, u8, u8) = match m {
        M::Movsb => (string::movs, 1, 0),
        M::Movsw => (string::movs, 2, 0),
        M::Movsd if s.ins.code() == Code::Movsd_m32_m32 => (string::movs, 4, 0),
        M::Movsq => (string::movs, 8, 0),
        M::Stosb => (string::stos, 1, 0),
        M::Stosw => (string::stos, 2, 0),
        M::Stosd => (string::stos, 4, 0),
        M::Stosq => (string::stos, 8, 0),
        M::Lodsb => (string::lods, 1, 0),
        M::Lodsw => (string::lods, 2, 0),
        M::Lodsd => (string::lods, 4, 0),
        M::Lodsq => (string::lods, 8, 0),
        M::Scasb => (string::scan, 1, 0),
        M::Scasw => (string::scan, 2, 0),
        M::Scasd => (string::scan, 4, 0),
        M::Scasq => (string::scan, 8, 0),
        M::Cmpsb => (string::scan, 1, 1),
        M::Cmpsw => (string::scan, 2, 1),
        M::Cmpsd if s.ins.code() == Code::Cmpsd_m32_m32 => (string::scan, 4, 1),
        M::Cmpsq => (string::scan, 8, 1),
        M::Insb => (string::ins, 1, 0),
        M::Insw => (string::ins, 2, 0),
        M::Insd => (string::ins, 4, 0),
        M::Outsb => (string::outs, 1, 0),
        M::Outsw => (string::outs, 2, 0),
        M::Outsd => (string::outs, 4, 0),
        _ => return None,
    };
    Some(plain(s, run, size, aux))
}

fn simple(s: &Source<'_>, m: M) -> Option<Uop> {
    Some(match m {
        M::Nop
        | M::Pause
        | M::Endbr32
        | M::Endbr64
        | M::Lfence
        | M::Mfence
        | M::Sfence
        | M::Clflush
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchnta
        | M::Prefetchw
        | M::Prefetch
        | M::Reservednop => s.uop(mov::nop),
        M::Cbw => plain(s, mov::cbw, 2, 0),
        M::Cwde => plain(s, mov::cbw, 4, 0),
        M::Cdqe => plain(s, mov::cbw, 8, 0),
        M::Cwd => plain(s, mov::cwd, 2, 0),
        M::Cdq => plain(s, mov::cwd, 4, 0),
        M::Cqo => plain(s, mov::cwd, 8, 0),
        M::Lahf => s.uop(mov::lahf),
        M::Sahf => s.uop(mov::sahf),
        M::Clc => plain(s, mov::carry, 0, 0),
        M::Stc => plain(s, mov::carry, 0, 1),
        M::Cmc => plain(s, mov::carry, 0, 2),
        M::Cld => plain(s, control::set_df, 0, 0),
        M::Std => plain(s, control::set_df, 0, 1),
        M::Cli => plain(s, control::set_if, 0, 0),
        M::Salc => s.uop(mov::salc),
        M::Xlatb => {
            let mut u = s.uop(mov::xlat);
            u.size = 1;
            u
        }
        M::Sgdt => plain(s, table::store_table, 0, 0),
        M::Sidt => plain(s, table::store_table, 0, 1),
        M::Cpuid => s.uop(system::cpuid),
        M::Rdtsc => plain(s, system::rdtsc, 0, 0),
        M::Rdtscp => plain(s, system::rdtsc, 0, 1),
        M::Rdpmc => s.uop(system::rdpmc),
        M::Rdmsr => s.uop(system::rdmsr),
        M::Swapgs => s.uop(system::swapgs),
        M::Invd | M::Wbinvd => s.uop(system::wbinvd),
        M::Rdfsbase => with_aux(s.rm_uop(system::fs_gs_base), 0),
        M::Rdgsbase => with_aux(s.rm_uop(system::fs_gs_base), 1),
        M::Wrfsbase => with_aux(s.rm_uop(system::fs_gs_base), 2),
        M::Wrgsbase => with_aux(s.rm_uop(system::fs_gs_base), 3),
        M::Sldt => with_aux(s.rm_uop(table::store_selector), 0),
        M::Str => with_aux(s.rm_uop(table::store_selector), 1),
        M::Lar | M::Lsl => {
            let mut u = with_aux(s.rm_uop(table::inspect), u8::from(m == M::Lsl));
            u.size = s.size(0);
            u
        }
        M::Verr | M::Verw => {
            let mut u = with_aux(s.rm_uop(table::verify), u8::from(m == M::Verw));
            u.src = u.dst;
            u
        }
        M::Arpl => s.rm_uop(table::arpl),
        M::Smsw => {
            let mut u = s.rm_uop(system::smsw);
            if s.is_mem(0) {
                u.size = 2;
            }
            u
        }
        M::Bound => s.rm_uop(stack::bound),
        _ => return None,
    })
}

/// Operand size of stack instructions by their code.
pub(super) fn stack_size(s: &Source<'_>) -> u8 {
    use Code as C;
    match s.ins.code() {
        C::Pushfw | C::Popfw | C::Pushaw | C::Popaw | C::Leavew | C::Enterw_imm16_imm8 => 2,
        C::Retfw | C::Retfw_imm16 | C::Iretw | C::Push_imm16 | C::Pushw_imm8 => 2,
        C::Popw_CS | C::Popw_ES | C::Popw_SS | C::Popw_DS | C::Popw_FS | C::Popw_GS => 2,
        C::Pushw_CS | C::Pushw_ES | C::Pushw_SS | C::Pushw_DS | C::Pushw_FS | C::Pushw_GS => 2,
        C::Pushfd | C::Popfd | C::Pushad | C::Popad | C::Leaved | C::Enterd_imm16_imm8 => 4,
        C::Retfd | C::Retfd_imm16 | C::Iretd | C::Pushd_imm32 | C::Pushd_imm8 => 4,
        C::Popd_ES | C::Popd_SS | C::Popd_DS | C::Popd_FS | C::Popd_GS => 4,
        C::Pushd_CS | C::Pushd_ES | C::Pushd_SS | C::Pushd_DS | C::Pushd_FS | C::Pushd_GS => 4,
        _ => 8,
    }
}

fn stacks(s: &Source<'_>, m: M) -> Option<(Uop, End)> {
    let size = stack_size(s);
    Some(match m {
        M::Pushf | M::Pushfd | M::Pushfq => (plain(s, stack::pushf, size, 0), End::No),
        M::Popf | M::Popfd | M::Popfq => (plain(s, stack::popf, size, 0), End::Falls),
        M::Pusha | M::Pushad => (plain(s, stack::pusha, size, 0), End::No),
        M::Popa | M::Popad => (plain(s, stack::popa, size, 0), End::No),
        M::Leave => (plain(s, stack::leave, size, 0), End::No),
        M::Enter => {
            let mut u = plain(s, stack::enter, size, s.ins.immediate8_2nd());
            u.imm = s.ins.immediate16().into();
            (u, End::No)
        }
        M::Pop if s.is_reg(0) => (plain(s, stack::pop_seg, size, segment(s.reg(0))), End::Falls),
        _ => return None,
    })
}

fn ports(s: &Source<'_>, m: M) -> Option<(Uop, End)> {
    let (value, port) = match m {
        M::In => (0, 1),
        M::Out => (1, 0),
        _ => return None,
    };
    let dx = s.is_reg(port);
    let run: OpFn = if m == M::In {
        system::port_in
    } else {
        system::port_out
    };
    let mut u = plain(s, run, s.size(value), u8::from(dx));
    if !dx {
        u.imm = s.imm(port);
    }
    // A write may reset or stop the machine: look up right behind it.
    Some((u, if m == M::In { End::No } else { End::Falls }))
}

fn segments(s: &Source<'_>, m: M) -> Option<(Uop, End)> {
    let load_far = |i: u8| (with_aux(s.rm_uop(table::load_far), i), End::Falls);
    Some(match m {
        M::Lds => load_far(3),
        M::Les => load_far(0),
        M::Lss => load_far(2),
        M::Lfs => load_far(4),
        M::Lgs => load_far(5),
        M::Mov if s.is_reg(0) && s.reg(0).is_segment_register() => {
            if s.reg(0) == Register::CS {
                return Some((s.uop(system::ud2), End::Jumps));
            }
            let mut u = with_aux(s.rm_uop(table::to_segment), segment(s.reg(0)));
            u.size = 2;
            (u, End::Falls)
        }
        M::Mov if s.is_reg(1) && s.reg(1).is_segment_register() => {
            let mut u = with_aux(s.rm_uop(table::from_segment), segment(s.reg(1)));
            if s.is_mem(0) {
                u.size = 2;
            }
            (u, End::No)
        }
        M::Lgdt => (plain(s, table::load_table, lgdt_size(s), 0), End::No),
        M::Lidt => (plain(s, table::load_table, lgdt_size(s), 1), End::No),
        M::Lldt | M::Ltr => {
            let mut u = with_aux(s.rm_uop(table::load_selector), u8::from(m == M::Ltr));
            u.size = 2;
            (u, End::No)
        }
        _ => return None,
    })
}

fn lgdt_size(s: &Source<'_>) -> u8 {
    match s.ins.code() {
        Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 => 2,
        _ => 4,
    }
}

fn transfers(s: &Source<'_>, m: M) -> Option<(Uop, End)> {
    let mut u = match m {
        M::Retf => plain(s, control::ret_far, stack_size(s), 0),
        M::Iret | M::Iretd | M::Iretq => plain(s, control::iret, stack_size(s), 0),
        M::Int => s.rm_uop(control::int),
        M::Int3 => plain(s, control::int, 0, 1),
        M::Int1 => plain(s, control::int, 0, 1),
        M::Into => return Some((s.uop(control::into), End::Falls)),
        M::Syscall => s.uop(system::syscall),
        M::Sysret | M::Sysretq => plain(
            s,
            system::sysret,
            if s.ins.code() == Code::Sysretq { 8 } else { 4 },
            0,
        ),
        M::Sysenter => s.uop(system::sysenter),
        M::Sysexit | M::Sysexitq => plain(
            s,
            system::sysexit,
            if s.ins.code() == Code::Sysexitq { 8 } else { 4 },
            0,
        ),
        M::Ud0 | M::Ud1 | M::Ud2 => s.uop(system::ud2),
        _ => return None,
    };
    match m {
        M::Retf if s.ins.op_count() > 0 => u.imm = s.imm(0),
        M::Int3 => u.imm = 3,
        M::Int1 => u.imm = control::INT1,
        _ => {}
    }
    Some((u, End::Jumps))
}

/// Number of a control or debug register.
fn number(r: Register) -> u8 {
    if r.is_cr() {
        (r as u32 - Register::CR0 as u32) as u8
    } else {
        (r as u32 - Register::DR0 as u32) as u8
    }
}

fn systems(s: &Source<'_>, m: M) -> Option<(Uop, End)> {
    let falls = |u: Uop| Some((u, End::Falls));
    match m {
        M::Mov if s.is_reg(0) && (s.reg(0).is_cr() || s.reg(0).is_dr()) => {
            let run: OpFn = if s.reg(0).is_cr() {
                system::write_cr
            } else {
                system::write_dr
            };
            let mut u = with_aux(s.rm_uop(run), number(s.reg(0)));
            u.size = s.size(1);
            falls(u)
        }
        M::Mov if s.is_reg(1) && (s.reg(1).is_cr() || s.reg(1).is_dr()) => {
            let run: OpFn = if s.reg(1).is_cr() {
                system::read_cr
            } else {
                system::read_dr
            };
            Some((with_aux(s.rm_uop(run), number(s.reg(1))), End::No))
        }
        M::Sti => falls(plain(s, control::set_if, 0, 1)),
        M::Hlt => falls(s.uop(control::hlt)),
        M::Wrmsr => falls(s.uop(system::wrmsr)),
        M::Clts => falls(s.uop(system::clts)),
        M::Lmsw => {
            let mut u = s.rm_uop(system::lmsw);
            u.size = 2;
            falls(u)
        }
        M::Invlpg => falls(s.uop(system::invlpg)),
        M::Xgetbv => Some((s.uop(xsave::xgetbv), End::No)),
        M::Xsetbv => falls(s.uop(xsave::xsetbv)),
        M::Clac => falls(plain(s, system::set_ac, 0, 0)),
        M::Stac => falls(plain(s, system::set_ac, 0, 1)),
        M::Vmcall | M::Vmmcall => falls(s.uop(system::hypercall)),
        _ => None,
    }
}
