// SPDX-License-Identifier: MIT
//! One decoded instruction to one uop: operands, and the integer instructions with hot handlers.

use super::{map, sse};
use crate::core::{FLAT, FS, PAGE, RIP, ZERO, key};
use crate::ops::alu::{Form, Kind};
use crate::ops::fuse::Shape;
use crate::ops::{self, alu, control, mov, shift, special, stack};
use crate::uop::{ASIZE_SHIFT, FLAT64, LOCK, MEM, OpFn, REP, REPNE, Uop};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

/// A decoded instruction in its block.
pub(crate) struct Source<'a> {
    pub ins: &'a Instruction,
    /// [`key`] bits.
    pub key: u32,
    /// Offset from the block's start.
    pub at: usize,
    /// Instructions before it.
    pub idx: u8,
    pub bytes: &'a [u8],
}

/// Whether an instruction ends its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    No,
    /// Yes, and RIP goes on behind it.
    Falls,
    /// Yes, and the handler sets RIP.
    Jumps,
}

/// Register number; bit 5 marks AH, CH, DH and BH.
pub(crate) fn gpr(r: Register) -> u8 {
    match r {
        Register::AH => 0x20,
        Register::CH => 0x21,
        Register::DH => 0x22,
        Register::BH => 0x23,
        r => (r.full_register() as u32).wrapping_sub(Register::RAX as u32) as u8 & 15,
    }
}

/// Segment register number.
pub(crate) fn segment(r: Register) -> u8 {
    match r {
        Register::ES => 0,
        Register::CS => 1,
        Register::SS => 2,
        Register::DS => 3,
        Register::FS => 4,
        _ => 5,
    }
}

impl Source<'_> {
    pub(crate) fn is64(&self) -> bool {
        self.key & key::CODE == 2
    }
    /// Operand size of stack and branch instructions without other operands: `wide` in 64-bit mode.
    fn default_size(&self) -> u8 {
        let prefix = self.has_prefix(0x66);
        match (self.key & key::CODE, prefix) {
            (0, false) | (1, true) => 2,
            (0, true) | (1, false) => 4,
            (_, true) => 2,
            (_, false) => 8,
        }
    }
    /// Whether a legacy prefix byte is there.
    pub(crate) fn has_prefix(&self, p: u8) -> bool {
        let legacy = |b: &&u8| matches!(**b, 0x26 | 0x2E | 0x36 | 0x3E | 0x64..=0x67 | 0xF0 | 0xF2 | 0xF3);
        self.bytes.iter().take_while(legacy).any(|&b| b == p)
    }
    pub(crate) fn kind(&self, n: u32) -> OpKind {
        if n < self.ins.op_count() {
            self.ins.op_kind(n)
        } else {
            OpKind::Register
        }
    }
    pub(crate) fn is_reg(&self, n: u32) -> bool {
        n < self.ins.op_count() && self.kind(n) == OpKind::Register
    }
    pub(crate) fn is_mem(&self, n: u32) -> bool {
        n < self.ins.op_count() && self.kind(n) == OpKind::Memory
    }
    pub(crate) fn reg(&self, n: u32) -> Register {
        self.ins.op_register(n)
    }
    pub(crate) fn imm(&self, n: u32) -> u64 {
        self.ins.try_immediate(n).unwrap_or(0)
    }
    /// Bytes of operand `n`.
    pub(crate) fn size(&self, n: u32) -> u8 {
        if self.is_reg(n) {
            return self.reg(n).size() as u8;
        }
        self.ins.memory_size().size() as u8
    }
    fn any_mem(&self) -> bool {
        (0..self.ins.op_count()).any(|n| self.is_mem(n))
    }

    /// A uop with length, prefixes and the address of the memory operand.
    pub(crate) fn uop(&self, run: OpFn) -> Uop {
        let mut u = special(run, self.at, self.idx);
        u.len = self.ins.len() as u8;
        if self.ins.has_lock_prefix() {
            u.flags |= LOCK;
        }
        if self.ins.has_rep_prefix() {
            u.flags |= REP;
        }
        if self.ins.has_repne_prefix() {
            u.flags |= REPNE;
        }
        if self.any_mem() {
            self.address(&mut u);
        } else {
            let asize = match (self.key & key::CODE, self.has_prefix(0x67)) {
                (0, false) | (1, true) => 0,
                (0, true) | (1, false) | (2, true) => 1,
                _ => 2,
            };
            u.flags |= asize << ASIZE_SHIFT;
            let s = self.ins.memory_segment();
            u.seg = self.segment_of(s);
        }
        u
    }

    fn segment_of(&self, r: Register) -> u8 {
        let s = if r == Register::None { 3 } else { segment(r) };
        if self.is64() && usize::from(s) < FS {
            FLAT as u8
        } else {
            s
        }
    }

    fn address(&self, u: &mut Uop) {
        let i = self.ins;
        let (base, index) = (i.memory_base(), i.memory_index());
        let sized = if base != Register::None { base } else { index };
        let asize = match (sized, i.memory_displ_size()) {
            (Register::None, 2) => 0,
            (Register::None, 4) => 1,
            (Register::None, _) => 2,
            (Register::RIP, _) => 2,
            (Register::EIP, _) => 1,
            (r, _) => (r.size() as u8).trailing_zeros() as u8 - 1,
        };
        u.flags |= MEM | asize << ASIZE_SHIFT;
        if self.is64() && asize == 2 {
            u.flags |= FLAT64;
        }
        u.seg = self.segment_of(i.memory_segment());
        u.disp = i.memory_displacement64() as i32;
        u.index = ZERO as u8;
        if matches!(base, Register::RIP | Register::EIP) {
            u.base = RIP as u8;
            // Relative to the block's start, because decoding starts at address 0.
            let d = i.memory_displacement64() as i64;
            let d = if asize == 1 { i64::from(d as i32) } else { d };
            if i32::try_from(d).is_err() {
                u.index = PAGE as u8;
                u.disp = (d - 4096) as i32;
            }
            return;
        }
        u.base = if base == Register::None {
            ZERO as u8
        } else {
            gpr(base)
        };
        if index != Register::None {
            u.index = gpr(index);
            u.seg |= (i.memory_index_scale().trailing_zeros() as u8) << 4;
        }
    }

    /// A uop whose first operand is register or memory `dst` and whose second, if a register, is `src`.
    pub(crate) fn rm_uop(&self, run: OpFn) -> Uop {
        let mut u = self.uop(run);
        u.size = self.size(0);
        for n in 0..self.ins.op_count() {
            match self.kind(n) {
                OpKind::Register if n == 0 => u.dst = gpr(self.reg(0)),
                OpKind::Register if n == 1 => u.src = gpr(self.reg(1)),
                OpKind::Register | OpKind::Memory => {}
                _ => u.imm = self.imm(n),
            }
        }
        u
    }

    fn form(&self) -> Form {
        match (self.is_mem(0), self.is_mem(1), self.is_reg(1)) {
            (true, _, _) if self.ins.has_lock_prefix() => Form::Locked,
            (true, _, true) => Form::MemReg,
            (true, _, false) => Form::MemImm,
            (false, true, _) => Form::RegMem,
            (false, false, true) => Form::RegReg,
            (false, false, false) => Form::RegImm,
        }
    }

    /// A near branch's target from the block's start.
    pub(crate) fn branch(&self, run: OpFn, size: u8) -> Uop {
        let mut u = self.uop(run);
        u.size = size;
        u.imm = self.ins.near_branch_target();
        if size != 8 {
            // Targets are truncated to the operand size; the sum with RIP is masked anyway.
            u.imm = match size {
                2 => u.imm as i16 as i64 as u64,
                _ => u.imm as i32 as i64 as u64,
            };
        }
        u
    }

    /// Operand size of a near branch: 64-bit mode ignores the prefix.
    pub(crate) fn branch_size(&self) -> u8 {
        if self.is64() { 8 } else { self.default_size() }
    }
}

/// What a fused pair needs to know of its first instruction.
pub(crate) fn shape(s: &Source<'_>) -> Option<Shape> {
    let kind = alu_kind(s.ins.mnemonic())?;
    (s.key & key::CODE != 0).then(|| Shape { kind, form: s.form() })
}

/// The condition of a conditional jump.
pub(crate) fn jump_condition(s: &Source<'_>) -> Option<u8> {
    s.ins.is_jcc_short_or_near().then(|| cc_number(s))
}

/// Encoding number by iced's condition order.
fn cc_number(s: &Source<'_>) -> u8 {
    use iced_x86::ConditionCode as C;
    match s.ins.condition_code() {
        C::o => 0,
        C::no => 1,
        C::b => 2,
        C::ae => 3,
        C::e => 4,
        C::ne => 5,
        C::be => 6,
        C::a => 7,
        C::s => 8,
        C::ns => 9,
        C::p => 10,
        C::np => 11,
        C::l => 12,
        C::ge => 13,
        C::le => 14,
        _ => 15,
    }
}

fn alu_kind(m: M) -> Option<Kind> {
    Some(match m {
        M::Add => Kind::Add,
        M::Or => Kind::Or,
        M::Adc => Kind::Adc,
        M::Sbb => Kind::Sbb,
        M::And => Kind::And,
        M::Sub => Kind::Sub,
        M::Xor => Kind::Xor,
        M::Cmp => Kind::Cmp,
        M::Test => Kind::Test,
        M::Inc => Kind::Inc,
        M::Dec => Kind::Dec,
        M::Neg => Kind::Neg,
        M::Not => Kind::Not,
        _ => return None,
    })
}

fn shift_kind(m: M) -> Option<u8> {
    Some(match m {
        M::Rol => shift::ROL,
        M::Ror => shift::ROR,
        M::Rcl => shift::RCL,
        M::Rcr => shift::RCR,
        M::Shl | M::Sal => shift::SHL,
        M::Shr => shift::SHR,
        M::Sar => shift::SAR,
        _ => return None,
    })
}

/// The uop of an instruction.
pub(crate) fn convert(s: &Source<'_>) -> (Uop, End) {
    let m = s.ins.mnemonic();
    if let Some(kind) = alu_kind(m) {
        return (alu_uop(s, kind), End::No);
    }
    if let Some(op) = shift_kind(m) {
        return (shift_uop(s, op), End::No);
    }
    if let Some(done) = moves(s, m) {
        return (done, End::No);
    }
    if let Some(done) = branches(s, m) {
        return (done, End::Jumps);
    }
    if let Some(done) = map::convert(s, m) {
        return done;
    }
    if let Some(done) = sse::convert(s, m) {
        return done;
    }
    (ops::undefined(s.bytes, s.at, s.idx.into()), End::Jumps)
}

fn alu_uop(s: &Source<'_>, kind: Kind) -> Uop {
    let form = s.form();
    let mut u = s.rm_uop(mov::nop);
    let swapped = kind == Kind::Test && form == Form::RegMem;
    if form == Form::RegMem && !swapped {
        u.size = s.size(0);
    }
    u.run = alu::handler(kind, form, u.size, u.is(FLAT64));
    u.aux = u8::from(form == Form::Locked && !s.is_reg(1));
    u
}

fn shift_uop(s: &Source<'_>, op: u8) -> Uop {
    let mut u = s.rm_uop(shift::memory);
    u.aux = op;
    u.src = u8::from(s.is_reg(1));
    if s.is_mem(0) {
        return u;
    }
    if s.is_reg(1) {
        u.run = shift::by_cl(u.size);
        return u;
    }
    u.imm &= if u.size == 8 { 63 } else { 31 };
    u.run = if u.imm == 0 {
        shift::memory
    } else {
        shift::by_imm(op, u.size)
    };
    u
}

fn moves(s: &Source<'_>, m: M) -> Option<Uop> {
    Some(match m {
        M::Mov => return mov_uop(s),
        M::Movzx | M::Movsx | M::Movsxd => {
            let mut u = s.rm_uop(mov::nop);
            let from = s.size(1);
            let flat = s.is_mem(1).then(|| u.is(FLAT64));
            u.run = mov::extension(m != M::Movzx, from, u.size, flat);
            u
        }
        M::Lea => {
            let mut u = s.rm_uop(mov::nop);
            u.run = mov::lea(u.size, u.size == 8 && u.is(FLAT64));
            // No segment.
            u
        }
        M::Push if s.is_reg(0) && s.reg(0).is_segment_register() => {
            let mut u = s.uop(stack::push_seg);
            u.aux = segment(s.reg(0));
            u.size = map::stack_size(s);
            u
        }
        M::Pop if s.is_reg(0) && s.reg(0).is_segment_register() => return None,
        M::Push if s.is_reg(0) || s.is_mem(0) => {
            let mut u = s.rm_uop(stack::push_rm);
            if s.is64() && u.size == 8 && s.is_reg(0) {
                u.run = stack::push64;
            }
            u
        }
        M::Push => {
            let mut u = s.rm_uop(stack::push_imm);
            u.size = map::stack_size(s);
            u
        }
        M::Pop => {
            let mut u = s.rm_uop(stack::pop_rm);
            if s.is64() && u.size == 8 && s.is_reg(0) {
                u.run = stack::pop64;
            }
            u
        }
        _ if s.ins.is_jcc_short_or_near() => return None,
        _ => return conditional(s, m),
    })
}

fn mov_uop(s: &Source<'_>) -> Option<Uop> {
    let special = |n| s.is_reg(n) && !s.reg(n).is_gpr();
    if special(0) || special(1) {
        return None;
    }
    let mut u = s.rm_uop(mov::nop);
    if s.any_mem()
        && s.ins.memory_displ_size() == 8
        && s.ins.memory_base() == Register::None
        && s.ins.memory_index() == Register::None
    {
        let d = s.ins.memory_displacement64();
        if i64::from(d as i32) as u64 != d {
            u.run = mov::absolute;
            u.imm = d;
            u.aux = u8::from(s.is_mem(0));
            return Some(u);
        }
    }
    u.run = mov::handler(s.form(), u.size, u.is(FLAT64));
    Some(u)
}

fn conditional(s: &Source<'_>, m: M) -> Option<Uop> {
    use iced_x86::ConditionCode;
    if s.ins.condition_code() == ConditionCode::None {
        return None;
    }
    match m {
        M::Seto
        | M::Setno
        | M::Setb
        | M::Setae
        | M::Sete
        | M::Setne
        | M::Setbe
        | M::Seta
        | M::Sets
        | M::Setns
        | M::Setp
        | M::Setnp
        | M::Setl
        | M::Setge
        | M::Setle
        | M::Setg => Some(s.rm_uop(mov::setcc(cc_number(s)))),
        M::Cmovo
        | M::Cmovno
        | M::Cmovb
        | M::Cmovae
        | M::Cmove
        | M::Cmovne
        | M::Cmovbe
        | M::Cmova
        | M::Cmovs
        | M::Cmovns
        | M::Cmovp
        | M::Cmovnp
        | M::Cmovl
        | M::Cmovge
        | M::Cmovle
        | M::Cmovg => Some(s.rm_uop(mov::cmovcc(cc_number(s), s.size(0), s.is_mem(1)))),
        _ => None,
    }
}

fn branches(s: &Source<'_>, m: M) -> Option<Uop> {
    if s.ins.is_jcc_short_or_near() {
        let size = s.branch_size();
        return Some(s.branch(control::jcc(cc_number(s), size), size));
    }
    let near = s.ins.op_count() > 0
        && matches!(
            s.kind(0),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        );
    let size = s.branch_size();
    Some(match m {
        M::Jmp if near => s.branch(control::jmp, size),
        M::Call if near => s.branch(if size == 8 { control::call64 } else { control::call }, size),
        M::Ret => {
            let mut u = s.rm_uop(if size == 8 { control::ret64 } else { control::ret });
            u.size = size;
            u
        }
        M::Jmp | M::Call if s.is_reg(0) || s.ins.memory_size().size() == usize::from(size) && !is_far(s) => s
            .rm_uop(if m == M::Jmp {
                control::jmp_rm
            } else {
                control::call_rm
            }),
        M::Jmp | M::Call => far_uop(s, m),
        M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz | M::Jrcxz => {
            let mut u = s.branch(control::loops, size);
            u.aux = match m {
                M::Loopne => 0,
                M::Loope => 1,
                M::Loop => 2,
                _ => 3,
            };
            u
        }
        _ => return None,
    })
}

fn is_far(s: &Source<'_>) -> bool {
    use iced_x86::Code as C;
    matches!(
        s.ins.code(),
        C::Jmp_m1616 | C::Jmp_m1632 | C::Jmp_m1664 | C::Call_m1616 | C::Call_m1632 | C::Call_m1664
    )
}

fn far_uop(s: &Source<'_>, m: M) -> Uop {
    use iced_x86::Code as C;
    let mut u = s.uop(if m == M::Jmp {
        control::jmp_far
    } else {
        control::call_far
    });
    u.size = match s.ins.code() {
        C::Jmp_m1616 | C::Call_m1616 | C::Jmp_ptr1616 | C::Call_ptr1616 => 2,
        C::Jmp_m1632 | C::Call_m1632 | C::Jmp_ptr1632 | C::Call_ptr1632 => 4,
        _ => 8,
    };
    if !u.is(MEM) {
        u.disp = s.ins.far_branch_selector().into();
        u.imm = if u.size == 2 {
            s.ins.far_branch16().into()
        } else {
            s.ins.far_branch32().into()
        };
    }
    u
}
